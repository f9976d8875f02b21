"""Stage ``objects``: the top K objects of one native frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from extractors.base import FrameExtractor, GivenBoxes
from extractors.registry import FRAME_EXTRACTORS, create_frame_extractor
from pipeline.boxes import BoxTable
from pipeline.clip_table import ClipTable
from pipeline.clips import Clip, grid_times_us, window_times_us
from pipeline.config_stages import ObjectsConfig
from pipeline.keys import Ints, row_key
from pipeline.rows import VideoRow
from pipeline.stage_rows import Naming, StageRows, each_once, keys_once, name_moments
from pipeline.stage_settings import Keyed, Settings, network_settings
from stores.row_keys import packed_array

__all__ = ["ObjectsStage"]


@dataclass(frozen=True)
class ObjectsStage(Keyed):
    """``objects``: frames on the video's grid, or spread round each clip's centre."""

    config: ObjectsConfig
    window_seconds: float
    weights: Settings
    reading: Settings
    boxes: BoxTable | None
    name = "objects"
    decoded_geometry = None  # native frames
    VERSION: ClassVar[int] = 1

    @property
    def about(self) -> Settings:
        """All that `settings`, and the outputs of its network, follow from besides code."""
        return {
            "stage": self.name,
            "config": self.config.model_dump(mode="json"),
            "weights": self.weights,
            "reading": self.reading,
        }

    @property
    def settings(self) -> Settings:
        """Everything that decides the numbers of a row, given the video (and given boxes)."""
        # given_boxes says by its name that they are given.
        given = self.config.boxes is not None and self.config.detector.name != "given_boxes"
        return {
            "stage": self.name,
            "version": self.VERSION,
            "detector": network_settings(
                FRAME_EXTRACTORS,
                self.config.detector,
                "stages.objects.detector",
                self.config.precision,
            ),
            "weights": self.weights,
            "top_k": self.config.top_k,
            "reading": self.reading,
            "dtype": self.config.dtype,
            **({"boxes": "given"} if given else {}),
        }

    @property
    def checkpoints(self) -> list[Path]:
        """The files of its weights."""
        return [] if self.config.checkpoint is None else [self.config.checkpoint]

    @property
    def batch_size(self) -> int:
        """Rows per forward pass."""
        return self.config.batch_size

    @property
    def batch_nbytes(self) -> int:
        """Bytes of the frames of one batch, if they are full HD: nobody has looked yet."""
        return self.batch_size * 1920 * 1080 * 3

    def times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """(M,) times of the object frames in the widest window of a clip."""
        return self._window_us(clip.centre_us)

    def _window_us(self, centre_us: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        place = grid_times_us if self.config.times == "grid" else window_times_us
        return place(centre_us, window_seconds=self.window_seconds, rate_fps=self.config.rate_fps)

    def naming(self, table: ClipTable) -> Naming:
        """One row per frame that some clip looks at; frames of equal content share one.

        Times before the video's first frame become that frame's; the end only a reader knows.
        """
        config = self.config
        what = ("object rows", config.times, self.window_seconds, config.rate_fps, self.boxes)
        return table.once(what, lambda: self._naming(table))

    def _naming(self, table: ClipTable) -> Naming:
        times_us = np.maximum(self._window_us(table.centres_us), 0)
        if self.boxes is not None:
            return self._naming_of_boxed(table, times_us)
        return name_moments(table, table.video_ids, times_us, lambda moments: moments[:, None])

    def _naming_of_boxed(self, table: ClipTable, times_us: Ints) -> Naming:
        """Given boxes are part of the content, so they are in the key."""
        identities, contents = table.identities_of(table.video_ids)
        there = np.flatnonzero(contents[table.videos] >= 0)
        m = times_us.shape[1]
        videos, times = np.repeat(table.videos[there], m), times_us[there].ravel()
        frames, numbers = each_once(videos, times)
        keys = packed_array(
            row_key(identities[contents[video]], np.array([time]), self._extra(video_id, time))
            for video, time in zip(videos[frames].tolist(), times[frames].tolist(), strict=True)
            for video_id in (table.video_ids[video],)
        )
        firsts, keys_of_frames = keys_once(keys)
        numbers = keys_of_frames[numbers].reshape(-1, m)
        return Naming.of_those(there, len(table), keys[firsts], numbers, frames[firsts])

    def _extra(self, video_id: str, time_us: int) -> bytes:
        boxes = self._boxes_at(video_id, time_us)
        if boxes is None:
            return b""
        arrays = (boxes.boxes_xyxy_px, boxes.scores, boxes.classes)
        return b"".join(values.tobytes() for values in arrays)

    def _boxes_at(self, video_id: str, time_us: int) -> GivenBoxes | None:
        return None if self.boxes is None else self.boxes.at(video_id, time_us)

    def rows(self, table: ClipTable) -> StageRows[VideoRow]:
        """The rows that clips need."""
        naming = self.naming(table)
        needed_by = _ends_first(table, naming)

        def make(number: int, key: str) -> VideoRow:
            clip, frame = divmod(int(naming.firsts[number]), naming.numbers.shape[1])
            video_id = table.clips[clip].segment.video_id
            time_us = max(0, int(self._window_us(table.clips[clip].centre_us)[frame]))
            segment = table.clips[needed_by[number]].segment
            return VideoRow(
                key=key,
                video_id=video_id,
                segment_id="",
                view=0,
                clip_id=f"{video_id}@{time_us / 1e6:.12g}s",
                times_us=np.array([time_us], dtype=np.int64),
                needed_from_seconds=segment.start_seconds,
                needed_to_seconds=segment.stop_seconds,
                boxes=self._boxes_at(video_id, time_us),
            )

        return StageRows(naming.keys, table.videos[naming.clips], table.video_ids, make)

    def count_boxless(self, table: ClipTable) -> tuple[int, int]:
        """How many frames have no given boxes, and how many frames there are."""
        naming = self.naming(table)
        clips, frames = np.divmod(naming.firsts, naming.numbers.shape[1])
        times_us = np.maximum(self._window_us(table.centres_us), 0)[clips, frames]
        videos = table.videos[clips]
        order = np.argsort(videos, kind="stable")
        starts = np.flatnonzero(np.diff(videos[order], prepend=-1))
        empty = sum(
            self.boxes.count_without(table.video_ids[videos[frames_of[0]]], times_us[frames_of])
            for frames_of in np.split(order, starts[1:])
            if self.boxes is not None and len(frames_of)
        )
        return empty, len(videos)

    def create(self, device: str) -> FrameExtractor:
        """Build the detector.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        return create_frame_extractor(
            self.config.detector.name,
            architecture=self.config.detector.options,
            weights=self.config.checkpoint,
            seed=self.config.weights_seed,
            top_k=self.config.top_k,
            given=self.config.boxes is not None,
            dtype=self.config.dtype,
            device=device,
            precision=self.config.precision,
            compile=self.config.compile,
        )


def _ends_first(table: ClipTable, naming: Naming) -> Ints:
    """(r,) of the clips that need a frame, the one whose segment ends first."""
    stops = np.array([clip.segment.stop_seconds for clip in table.clips])
    by_stop = np.argsort(stops, kind="stable")
    rank = np.empty_like(by_stop)
    rank[by_stop] = np.arange(len(by_stop))
    first = np.full(len(naming.keys), len(rank))
    there = naming.named
    ranks = np.repeat(rank[there], naming.numbers.shape[1])
    np.minimum.at(first, naming.numbers[there].ravel(), ranks)
    found: Ints = by_stop[first]
    return found
