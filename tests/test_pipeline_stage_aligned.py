from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import (
    clip_table,
    key_of,
    keys_of,
    make_aligned_stage,
    make_clip,
    make_clip_stage,
    make_objects_stage,
)

from pipeline.config_stages import AlignedConfig
from stores.base import ArraySpec

CHANGES: dict[str, Any] = {
    "global_window_seconds": 8,
    "local_window_seconds": 2,
    "map_time": "max",
    "output_size": 3,
    "noun_roi": True,
    "dtype": "float32",
}


# A row without noun_roi is what it was before there was that setting, so its key is, too.
@pytest.mark.parametrize("noun_roi", [{}, {"noun_roi": True}])
def test_a_key_made_by_hand(noun_roi: dict[str, bool]) -> None:
    stage = make_aligned_stage(**(noun_roi or {"noun_roi": False}))
    settings = {
        "schema": 1,
        "stage": "aligned",
        "version": 1,
        "aligned": {
            "global_window_seconds": 6.0,
            "local_window_seconds": 4.0,
            "map_time": "mean",
            "output_size": 7,
            "dtype": "float16",
            **noun_roi,
        },
        "object_rate_fps": 2.0,
        "upstream": {
            "verb": make_clip_stage("verb").key,
            "noun": make_clip_stage("noun").key,
            "objects": make_objects_stage().key,
        },
    }
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert stage.key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("field", AlignedConfig.model_fields)
def test_the_key_changes_with_every_setting(field: str) -> None:
    assert make_aligned_stage(**{field: CHANGES[field]}).key != make_aligned_stage().key


def test_the_key_changes_with_the_stages_it_reads_and_only_with_their_numbers() -> None:
    plain = make_aligned_stage().key
    others = {
        make_aligned_stage(verb=make_clip_stage("verb", size_px=128)).key,
        make_aligned_stage(noun=make_clip_stage("noun", size_px=128)).key,
        make_aligned_stage(objects=make_objects_stage(top_k=4)).key,
        make_aligned_stage(objects=make_objects_stage(rate_fps=4)).key,
    }
    assert len(others | {plain}) == 5
    assert make_aligned_stage(verb=make_clip_stage("verb", batch_size=3)).key == plain
    assert make_aligned_stage(objects=make_objects_stage(batch_size=3)).key == plain


def test_a_row_names_the_rows_it_is_made_from() -> None:
    stage = make_aligned_stage(verb=make_clip_stage("verb", clip={"frames": 4}))
    clip = make_clip(view=2)
    (row,) = stage.rows(clip_table(clip))
    assert row.upstream["verb"] == (key_of(stage.verb, clip),)
    assert row.upstream["noun"] == (key_of(stage.noun, clip),)
    assert row.upstream["objects"] == keys_of(stage.objects, clip)
    assert len(row.upstream["objects"]) == 12
    names = [*row.upstream["verb"], *row.upstream["noun"], *row.upstream["objects"]]
    content = "\0".join(["symbio derived row", *names])
    assert row.key == hashlib.sha256(content.encode()).hexdigest()
    assert row.key == key_of(stage, clip)
    assert row.times_us["verb"].tolist() == [10_033_333, 10_066_667, 10_100_000, 10_133_333]
    assert row.times_us["objects"].tolist() == [7_500_000 + 500_000 * i for i in range(12)]
    assert (row.info.clip_id, row.info.view) == ("P01_01/7/2", 2)
    assert (row.info.video_id, row.info.segment_id) == ("P01_01", "7")


def test_clips_of_equal_content_share_a_row() -> None:
    stage = make_aligned_stage()
    clips = [make_clip("P01_01"), make_clip("copy", view=1), make_clip("P01_02")]
    assert len(stage.rows(clip_table(*clips))) == 2


@pytest.mark.parametrize(
    ("centre_us", "verb_frames", "noun_frames", "first", "last", "flags"),
    [
        # Windows of 6 s round 10.1 s; clips of 64 frames lie inside of them.
        (10_100_000, 64, 64, 7.5, 13.0, ""),
        # A clip of 480 frames reaches 240 thirtieths, 8 s, to the left, and 239 to the right.
        (10_100_000, 480, 64, 2.1, 18.066667, ""),
        (10_100_000, 64, 480, 2.1, 18.066667, ""),
        # Before the first frame: objects from -1.5 s; a long clip from -4 s.
        (1_500_000, 64, 64, -1.5, 4.0, "clamped"),
        (4_000_000, 480, 64, -4.0, 11.966667, "clamped"),
        (4_000_000, 64, 480, -4.0, 11.966667, "clamped"),
        (3_000_000, 64, 64, 0.0, 5.5, ""),
    ],
)
def test_what_people_are_told_of_a_row(
    centre_us: int, verb_frames: int, noun_frames: int, first: float, last: float, flags: str
) -> None:
    stage = make_aligned_stage(
        verb=make_clip_stage("verb", clip={"frames": verb_frames}),
        noun=make_clip_stage("noun", clip={"frames": noun_frames}),
    )
    (row,) = stage.rows(clip_table(make_clip(centre_us=centre_us)))
    assert (row.info.first_seconds, row.info.last_seconds) == (first, last)
    assert row.info.flags == flags


def upstream_specs(K: int = 5) -> dict[str, dict[str, ArraySpec]]:
    frame = {"box_frame": "native"}
    return {
        "verb": {"map": ArraySpec(("time", "y", "x", "channel"), (4, 8, 8, 2048), "float16")},
        "noun": {"map": ArraySpec(("time", "y", "x", "channel"), (8, 8, 8, 1024), "float16")},
        "objects": {
            "features": ArraySpec(("object", "channel"), (K, 256), "float16"),
            "boxes_xyxy_px": ArraySpec(("object", "xyxy"), (K, 4), "float32", "px", "", frame),
        },
    }


def test_output_specs_of_the_papers_settings() -> None:
    stage = make_aligned_stage()
    assert (stage.num_frames, stage.num_local_frames) == (12, 8)
    specs = stage.output_specs(upstream_specs())
    assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == {
        "verb_gap": ((2048,), "float16"),
        "noun_gap": ((1024,), "float16"),
        "verb_roi": ((40, 2048), "float16"),
        "object_features": ((60, 256), "float16"),
        "object_mask": ((60,), "uint8"),
        "object_boxes_xyxy_px": ((60, 4), "float32"),
        "object_scores": ((60,), "float32"),
        "frame_size_px": ((2,), "int32"),
    }
    assert specs["verb_roi"].attributes == {"local_start": 10, "map_time": "mean"}
    assert specs["object_boxes_xyxy_px"].attributes == {"box_frame": "native"}


def test_the_noun_map_at_objects_is_stored_on_request_only() -> None:
    plain, both = make_aligned_stage(), make_aligned_stage(noun_roi=True)
    upstream = upstream_specs()
    spec = both.output_specs(upstream)["noun_roi"]
    assert (spec.shape, spec.dims) == ((40, 1024), ("local_object", "noun_channel"))
    assert spec.attributes == {"local_start": 10, "map_time": "mean"}
    others = set(both.output_specs(upstream)) - {"noun_roi"}
    assert set(plain.output_specs(upstream)) == others
    assert plain.derived_specs(upstream) == both.output_specs(upstream)


def test_output_specs_of_other_settings() -> None:
    stage = make_aligned_stage(
        global_window_seconds=3, local_window_seconds=1, dtype="float32", map_time="nearest"
    )
    specs = stage.output_specs(upstream_specs(K=4))  # 6 frames of 4, 2 of them local
    assert specs["verb_roi"].shape == (8, 2048)
    assert specs["verb_roi"].dtype == "float32"
    assert specs["verb_roi"].attributes == {"local_start": 8, "map_time": "nearest"}
    assert specs["object_features"].shape == (24, 256)


def test_no_stage_key_names_a_place(tmp_path: Path) -> None:
    settings = json.dumps(make_aligned_stage().settings) + json.dumps(make_clip_stage().settings)
    assert "w.pt" not in settings
    assert "/" not in settings
