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
        reading: what decodes the videos, for the key.
    """

    name: str
    config: ClipStageConfig
    weights: Settings
    reading: Settings
    VERSION: ClassVar[int] = 1

    @property
    def settings(self) -> Settings:
        """Everything that decides the numbers of a row, given the video."""
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
        }

    @cached_property
    def geometry(self) -> Geometry:
        """How frames are resized and cropped; the result is a square.

        Raises:
            ConfigError: the published one is asked for and there is none.
        """
        if self.config.geometry == "square":
            return square(self.config.square_px)
        return published_geometry(
            CLIP_EXTRACTORS, self.config.network, f"stages.{self.name}.network"
        )

    @property
    def side_px(self) -> int:
        """Side of the square that the network sees."""
        return self.geometry.crop_px or self.config.square_px

    @property
    def batch_nbytes(self) -> int:
        """Bytes of the frames of one batch."""
        return self.batch_size * self.config.clip.frames * self.side_px**2 * 3

    @property
    def batch_size(self) -> int:
        """Rows per forward pass."""
        return self.config.batch_size

    def times_us(self, clip: Clip) -> npt.NDArray[np.int64]:
        """(frames,) times a clip looks at."""
        return clip_times_us(clip.centre_us, **self.config.clip.model_dump())

    def row_key(self, clip: Clip, identities: Identities) -> str:
        """The row that a clip needs of this stage."""
        return row_key(identities[clip.segment.video_id], self.times_us(clip))

    def rows(self, clips: Sequence[Clip], identities: Identities) -> list[VideoRow]:
        """One row per clip; clips of equal content share one."""
        rows: dict[str, VideoRow] = {}
        for clip in clips:
            segment, times = clip.segment, self.times_us(clip)
            key = row_key(identities[segment.video_id], times)
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
                ),
            )
        return list(rows.values())

    def create(self, device: str) -> ClipExtractor:
        """Build the network.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        return create_clip_extractor(
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
