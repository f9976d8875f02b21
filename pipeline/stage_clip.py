"""Stages ``verb`` and ``noun``: the map of a 3-D CNN over a clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from extractors.base import ClipExtractor
from extractors.geometry import Geometry, square
from extractors.registry import CLIP_EXTRACTORS, create_clip_extractor
from pipeline.clip_table import ClipTable
from pipeline.clips import Clip, clip_times_us
from pipeline.config_stages import ClipStageConfig
from pipeline.rows import VideoRow
from pipeline.stage_flow import (
    check_flow,
    computed_flow_settings,
    flow_source,
    with_computed_flow,
)
from pipeline.stage_rows import Naming, StageRows, name_moments
from pipeline.stage_settings import (
    Keyed,
    Settings,
    network_settings,
    published_geometry,
)

__all__ = ["ClipStage"]


@dataclass(frozen=True)
class ClipStage(Keyed):
    """``verb`` or ``noun``.

    Args:
        name: the stage's name.
        config: its section.
        weights: what its weights are, for the key.
        reading: what decodes the videos, or the official flow, for the key.
        flow_weights: what the weights are that compute flow, for the key.
    """

    name: str
    config: ClipStageConfig
    weights: Settings
    reading: Settings
    flow_weights: Settings | None = None
    VERSION: ClassVar[int] = 1

    @property
    def about(self) -> Settings:
        """All that `settings`, and the outputs of its network, follow from besides code."""
        return {
            "stage": self.name,
            "config": self.config.model_dump(mode="json"),
            "weights": self.weights,
            "reading": self.reading,
            "flow_weights": self.flow_weights,
        }

    @property
    def settings(self) -> Settings:
        """Everything that decides the numbers of a row, given the video (or its official flow).

        Raises:
            ConfigError: network and flow do not go together, or an option is wrong.
        """
        check_flow(self.config.flow, self.config.network, self.name)
        return {
            "stage": self.name,
            "version": self.VERSION,
            "network": network_settings(
                CLIP_EXTRACTORS,
                self.config.network,
                f"stages.{self.name}.network",
                self.config.precision,
            ),
            "weights": self.weights,
            "sampling": self.config.clip.model_dump(mode="json"),
            "geometry": self.geometry.settings,
            "reading": self.reading,
            "outputs": sorted(self.config.outputs),
            "dtype": self.config.dtype,
            **({"flow": self._flow_settings} if self.config.flow else {}),
        }

    @property
    def _flow_settings(self) -> Settings:
        flow = self.config.flow
        if flow is None or not flow.computed:
            return {"method": "folders"}
        return computed_flow_settings(flow, self.flow_weights, self.geometry, self.name)

    @cached_property
    def geometry(self) -> Geometry:
        """How frames, or fields of flow, are resized and cropped; the result is a square.

        Raises:
            ConfigError: the published one is asked for and there is none.
        """
        if self.config.geometry == "square":
            return square(self.config.square_px)
        return published_geometry(
            CLIP_EXTRACTORS, self.config.network, f"stages.{self.name}.network"
        )

    @property
    def decoded_geometry(self) -> Geometry:
        """How frames are resized while they are decoded."""
        flow = self.config.flow
        return Geometry(flow.short_side_px) if flow and flow.computed else self.geometry

    @property
    def side_px(self) -> int:
        """Side of the square that the network sees."""
        return self.geometry.crop_px or self.config.square_px

    @property
    def batch_nbytes(self) -> int:
        """Bytes of the frames of one batch; those of computed flow may be as wide as 16:9."""
        flow = self.config.flow
        if flow and flow.computed:
            frame_nbytes = flow.short_side_px**2 * 3 * 16 // 9
            return self.batch_size * (self.config.clip.frames + flow.span) * frame_nbytes
        return self.batch_size * self.config.clip.frames * self.side_px**2 * 3

    @property
    def checkpoints(self) -> list[Path]:
        """The files of its weights, and of those that compute its flow."""
        sections = (self.config, self.config.flow)
        paths = [section.checkpoint for section in sections if section is not None]
        return [path for path in paths if path is not None]

    @property
    def batch_size(self) -> int:
        """Rows per forward pass."""
        return self.config.batch_size

    def times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """(frames,) times a clip looks at."""
        return clip_times_us(clip.centre_us, **self.config.clip.model_dump())

    @property
    def _sampling(self) -> dict[str, Any]:
        """What makes the times of the frames that are decoded: computed flow needs more."""
        flow, sampling = self.config.flow, self.config.clip.model_dump()
        if flow is None or not flow.computed:
            return sampling
        return {**sampling, "before": flow.span - 1, "after": 1}

    @property
    def reads_flow(self) -> bool:
        """Whether it reads official flow in place of videos."""
        flow = self.config.flow
        return flow is not None and not flow.computed

    def source_id(self, video_id: str) -> str:
        """What the stage decodes of a video: the video itself, or its official flow."""
        return flow_source(video_id) if self.reads_flow else video_id

    def naming(self, table: ClipTable) -> Naming:
        """One row per clip whose source is there; clips of equal content share one."""
        sampling = self._sampling
        return table.once(
            ("clip rows", self.reads_flow, *sorted(sampling.items())),
            lambda: name_moments(
                table,
                [self.source_id(video_id) for video_id in table.video_ids],
                table.centres_us[:, None],
                partial(clip_times_us, **sampling),
            ),
        )

    def rows(self, table: ClipTable) -> StageRows[VideoRow]:
        """The rows that clips need."""
        naming = self.naming(table)
        sources = [self.source_id(video_id) for video_id in table.video_ids]

        def make(number: int, key: str) -> VideoRow:
            return self._row(table.clips[naming.clips[number]], key)

        return StageRows(naming.keys, table.videos[naming.clips], sources, make)

    def _row(self, clip: Clip, key: str) -> VideoRow:
        segment = clip.segment
        source_id = self.source_id(segment.video_id)
        return VideoRow(
            key=key,
            video_id=segment.video_id,
            segment_id=segment.segment_id,
            view=clip.view,
            clip_id=clip.clip_id,
            times_us=clip_times_us(clip.centre_us, **self._sampling),
            needed_from_seconds=segment.start_seconds,
            needed_to_seconds=segment.stop_seconds,
            source="" if source_id == segment.video_id else source_id,
        )

    def create(self, device: str) -> ClipExtractor:
        """Build the network, and what computes its flow.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        network = create_clip_extractor(
            self.config.network.name,
            architecture=self.config.network.options,
            weights=self.config.checkpoint,
            seed=self.config.weights_seed,
            frames=self.config.clip.frames,
            size_px=self.side_px,
            dtype=self.config.dtype,
            device=device,
            precision=self.config.precision,
            outputs=self.config.outputs,
            compile=self.config.compile,
        )
        flow = self.config.flow
        if flow is None or not flow.computed:
            return network
        return with_computed_flow(network, flow, self._flow_settings, self.geometry, device)
