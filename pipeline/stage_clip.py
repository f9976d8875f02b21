"""Stages ``verb`` and ``noun``: the map of a 3-D CNN over a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from extractors.base import ClipExtractor
from extractors.geometry import Geometry, square
from extractors.registry import CLIP_EXTRACTORS, create_clip_extractor
from pipeline.clips import Clip, clip_times_us
from pipeline.config_stages import ClipStageConfig
from pipeline.keys import row_key
from pipeline.rows import VideoRow
from pipeline.stage_flow import (
    check_flow,
    computed_flow_settings,
    flow_source,
    with_computed_flow,
)
from pipeline.stage_settings import (
    Identities,
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
    def batch_size(self) -> int:
        """Rows per forward pass."""
        return self.config.batch_size

    def times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """(frames,) times a clip looks at."""
        return clip_times_us(clip.centre_us, **self.config.clip.model_dump())

    def _decoded_times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """Times of the frames that are decoded: computed flow needs ``span`` more."""
        flow = self.config.flow
        if flow is None or not flow.computed:
            return self.times_us(clip)
        sampling = self.config.clip.model_dump()
        return clip_times_us(clip.centre_us, **sampling, before=flow.span - 1, after=1)

    @property
    def reads_flow(self) -> bool:
        """Whether it reads official flow in place of videos."""
        flow = self.config.flow
        return flow is not None and not flow.computed

    def source_id(self, video_id: str) -> str:
        """What the stage decodes of a video: the video itself, or its official flow."""
        return flow_source(video_id) if self.reads_flow else video_id

    def row_key(self, clip: Clip, identities: Identities) -> str:
        """The row that a clip needs of this stage."""
        source_id = self.source_id(clip.segment.video_id)
        return row_key(identities[source_id], self._decoded_times_us(clip))

    def rows(self, clips: Sequence[Clip], identities: Identities) -> list[VideoRow]:
        """One row per clip whose source is there; clips of equal content share one."""
        rows: dict[str, VideoRow] = {}
        for clip in clips:
            segment, times = clip.segment, self._decoded_times_us(clip)
            source_id = self.source_id(segment.video_id)
            if source_id not in identities:
                continue
            key = row_key(identities[source_id], times)
            rows.setdefault(
                key,
                VideoRow(
                    key=key,
                    video_id=segment.video_id,
                    segment_id=segment.segment_id,
                    view=clip.view,
                    clip_id=clip.clip_id,
                    times_us=times,
                    needed_from_seconds=segment.start_seconds,
                    needed_to_seconds=segment.stop_seconds,
                    source="" if source_id == segment.video_id else source_id,
                ),
            )
        return list(rows.values())

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
