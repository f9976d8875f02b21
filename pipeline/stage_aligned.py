"""Stage ``aligned``: what heads train from, made from the rows of the other stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.clip_table import ClipTable
from pipeline.clips import Clip
from pipeline.config_stages import AlignedConfig
from pipeline.keys import derived_row_keys
from pipeline.rows import CLAMPED, DerivedRow
from pipeline.stage_clip import ClipStage
from pipeline.stage_objects import ObjectsStage
from pipeline.stage_rows import Naming, StageRows, keys_once
from pipeline.stage_settings import Keyed, Settings
from stores.base import ArraySpec, RowInfo
from stores.row_keys import key_texts

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

    def naming(self, table: ClipTable) -> Naming:
        """One row per clip whose video is there, and its official flow where a stage reads that.

        Clips of equal content share one. The times also decide which map step is nearest, but the
        keys of the rows that it is made from settle them.
        """
        upstream = tuple(stage.naming(table) for stage in self.upstream)
        return table.once(("aligned rows", *upstream), lambda: _name(table, upstream))

    def rows(self, table: ClipTable) -> StageRows[DerivedRow]:
        """The rows that clips need."""
        named = self.naming(table)
        clips = named.clips
        upstream = {
            stage.name: (of.keys, of.numbers[clips])
            for stage in self.upstream
            for of in (stage.naming(table),)
        }

        def make(number: int, key: str) -> DerivedRow:
            names = {
                name: tuple(key_texts(keys[numbers[number]]))
                for name, (keys, numbers) in upstream.items()
            }
            return self._row(table.clips[clips[number]], key, names)

        return StageRows(named.keys, table.videos[clips], table.video_ids, make, upstream)

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

    def _row(self, clip: Clip, key: str, upstream: dict[str, tuple[str, ...]]) -> DerivedRow:
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
        return DerivedRow(key, info, upstream, times)


def _name(table: ClipTable, upstream: tuple[Naming, ...]) -> Naming:
    there = np.flatnonzero(np.all([of.named for of in upstream], axis=0))
    keys = derived_row_keys([(of.keys, of.numbers[there]) for of in upstream])
    firsts, numbers = keys_once(keys)
    return Naming.of_those(there, len(table), keys[firsts], numbers[:, None], firsts)
