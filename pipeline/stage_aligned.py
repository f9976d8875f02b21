"""Stage ``aligned``: what heads train from, made from the rows of the other stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.clips import Clip
from pipeline.config_stages import AlignedConfig
from pipeline.keys import derived_row_key
from pipeline.rows import CLAMPED, DerivedRow
from pipeline.stage_clip import ClipStage
from pipeline.stage_objects import ObjectsStage
from pipeline.stage_settings import Identities, Keyed, Settings
from stores.base import ArraySpec, RowInfo

__all__ = ["MAP_OUTPUTS", "AlignedStage"]

# Whole maps, (T, H, W, C) as they are stored, for heads that train from maps: output → stage.
MAP_OUTPUTS = {"verb_map": "verb", "noun_map": "noun"}


@dataclass(frozen=True)
class AlignedStage(Keyed):
    """``aligned``: RoIAlign of maps, pooled maps and object features of one clip."""

    config: AlignedConfig
    verb: ClipStage
    noun: ClipStage
    objects: ObjectsStage
    name = "aligned"
    VERSION: ClassVar[int] = 1

    @property
    def settings(self) -> Settings:
        """Everything that decides the numbers of a row, given the rows it reads.

        ``noun_roi`` is named where it is made: rows older than this setting are still found.
        """
        return {
            "stage": self.name,
            "version": self.VERSION,
            "aligned": self.config.model_dump(mode="json", exclude=self._left_out),
            "object_rate_fps": self.objects.config.rate_fps,
            "upstream": {stage.name: stage.key for stage in self.upstream},
        }

    @property
    def upstream(self) -> tuple[ClipStage, ClipStage, ObjectsStage]:
        """The stages it reads."""
        return (self.verb, self.noun, self.objects)

    @property
    def num_frames(self) -> int:
        """M of the global window."""
        return round(self.config.global_window_seconds * self.objects.config.rate_fps)

    @property
    def num_local_frames(self) -> int:
        """M of the local window, the middle part of the global one."""
        return round(self.config.local_window_seconds * self.objects.config.rate_fps)

    def has(self, clip: Clip, identities: Identities) -> bool:
        """Whether a clip's video is there, and its official flow where a stage reads that."""
        video_id = clip.segment.video_id
        sources = {video_id, *(stage.source_id(video_id) for stage in (self.verb, self.noun))}
        return sources <= identities.keys()

    def row_key(self, clip: Clip, identities: Identities) -> str:
        """The row that a clip needs of this stage."""
        return self._row(clip, identities).key

    def rows(self, clips: Sequence[Clip], identities: Identities) -> list[DerivedRow]:
        """One row per clip whose sources are there; clips of equal content share one."""
        rows = (self._row(clip, identities) for clip in clips if self.has(clip, identities))
        return list({row.key: row for row in rows}.values())

    def output_specs(self, upstream: Mapping[str, Mapping[str, ArraySpec]]) -> dict[str, ArraySpec]:
        """Specs of the stored outputs, from those of the stages it reads."""
        specs = self.derived_specs(upstream)
        return {name: spec for name, spec in specs.items() if name not in self._left_out}

    @property
    def _left_out(self) -> set[str]:
        """Outputs, and the settings of their name, that the config does not ask for."""
        return set() if self.config.noun_roi else {"noun_roi"}

    def derived_specs(
        self, upstream: Mapping[str, Mapping[str, ArraySpec]]
    ) -> dict[str, ArraySpec]:
        """Specs of all outputs that can be made of a row's upstream rows."""
        K, C1 = upstream["objects"]["features"].shape
        channels = {name: upstream[name]["map"].shape[-1] for name in ("verb", "noun")}
        N, N_local = self.num_frames * K, self.num_local_frames * K
        dtype = self.config.dtype
        box_attributes = upstream["objects"]["boxes_xyxy_px"].attributes
        local = {"local_start": (N - N_local) // 2, "map_time": self.config.map_time}
        gaps = {
            f"{name}_gap": ArraySpec(
                (f"{name}_channel",), (C,), dtype, "", f"{name} map, mean over T, H, W"
            )
            for name, C in channels.items()
        }
        rois = {
            f"{name}_roi": ArraySpec(
                ("local_object", f"{name}_channel"),
                (N_local, C),
                dtype,
                "",
                f"{name} map RoIAligned at each local object, max over bins",
                local,
            )
            for name, C in channels.items()
        }
        return {
            **gaps,
            **rois,
            "object_features": ArraySpec(
                ("object", "object_channel"), (N, C1), dtype, "", "one feature vector per object"
            ),
            "object_mask": ArraySpec(("object",), (N,), "uint8", "", "1 = real, 0 = padding"),
            "object_boxes_xyxy_px": ArraySpec(
                ("object", "xyxy"), (N, 4), "float32", "px", "boxes", box_attributes
            ),
            "object_scores": ArraySpec(("object",), (N,), "float32", "", "confidence"),
            "frame_size_px": ArraySpec(
                ("width_height",), (2,), "int32", "px", "width and height of the native frame"
            ),
        }

    def _row(self, clip: Clip, identities: Identities) -> DerivedRow:
        upstream = {
            "verb": (self.verb.row_key(clip, identities),),
            "noun": (self.noun.row_key(clip, identities),),
            "objects": self.objects.row_keys(clip, identities),
        }
        times = {stage.name: stage.times_us(clip) for stage in self.upstream}
        all_times = np.concatenate(list(times.values()))
        info = RowInfo(
            clip_id=clip.clip_id,
            video_id=clip.segment.video_id,
            segment_id=clip.segment.segment_id,
            view=clip.view,
            first_seconds=int(all_times.min()) / 1e6,
            last_seconds=int(all_times.max()) / 1e6,
            flags=CLAMPED if all_times.min() < 0 else "",
        )
        # The times also decide which map step is nearest, but the keys of the rows settle them.
        key = derived_row_key(tuple(k for keys in upstream.values() for k in keys))
        return DerivedRow(key, info, upstream, times)
