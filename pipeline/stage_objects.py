"""Stage ``objects``: the top K objects of one native frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from extractors.base import FrameExtractor
from extractors.registry import FRAME_EXTRACTORS, create_frame_extractor
from pipeline.boxes import BoxTable
from pipeline.clips import Clip, grid_times_us, window_times_us
from pipeline.config_stages import ObjectsConfig
from pipeline.keys import row_key
from pipeline.rows import VideoRow
from pipeline.stage_settings import Identities, Keyed, Settings, network_settings

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
    def batch_size(self) -> int:
        """Rows per forward pass."""
        return self.config.batch_size

    @property
    def batch_nbytes(self) -> int:
        """Bytes of the frames of one batch, if they are full HD: nobody has looked yet."""
        return self.batch_size * 1920 * 1080 * 3

    def times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """(M,) times of the object frames in the widest window of a clip."""
        place = grid_times_us if self.config.times == "grid" else window_times_us
        return place(
            clip.centre_us, window_seconds=self.window_seconds, rate_fps=self.config.rate_fps
        )

    def frame_key(self, video_id: str, time_us: int, identities: Identities) -> str:
        """The row of one frame. Given boxes are part of the content, so they are in the key."""
        extra = b""
        if self.boxes is not None:
            boxes = self.boxes.at(video_id, time_us)
            arrays = (boxes.boxes_xyxy_px, boxes.scores, boxes.classes)
            extra = b"".join(values.tobytes() for values in arrays)
        return row_key(identities[video_id], np.array([time_us], dtype=np.int64), extra)

    def row_keys(self, clip: Clip, identities: Identities) -> tuple[str, ...]:
        """The rows that a clip needs, one per frame of the window."""
        video_id = clip.segment.video_id
        return tuple(
            self.frame_key(video_id, time, identities) for time in _inside(self.times_us(clip))
        )

    def rows(self, clips: Sequence[Clip], identities: Identities) -> list[VideoRow]:
        """One row per frame that some clip looks at; frames of equal content share one."""
        frames: dict[tuple[str, int], Clip] = {}
        for clip in clips:
            for time in _inside(self.times_us(clip)):
                known = frames.setdefault((clip.segment.video_id, time), clip)
                if clip.segment.stop_seconds < known.segment.stop_seconds:
                    frames[clip.segment.video_id, time] = clip
        rows = (self._row(*frame, clip, identities) for frame, clip in frames.items())
        return list({row.key: row for row in rows}.values())

    def _row(self, video_id: str, time_us: int, clip: Clip, identities: Identities) -> VideoRow:
        return VideoRow(
            key=self.frame_key(video_id, time_us, identities),
            video_id=video_id,
            segment_id="",
            view=0,
            clip_id=f"{video_id}@{time_us / 1e6:.12g}s",
            times_us=np.array([time_us], dtype=np.int64),
            needed_from_seconds=clip.segment.start_seconds,
            needed_to_seconds=clip.segment.stop_seconds,
            boxes=None if self.boxes is None else self.boxes.at(video_id, time_us),
        )

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


def _inside(times_us: npt.NDArray[np.int64]) -> list[int]:
    """Times before the video's first frame become that frame's; the end only a reader knows."""
    return [int(time) for time in np.maximum(times_us, 0)]
