"""Alignment of small maps and boxes, with numbers by hand.

The native frame is 80×40 px and the verb map 4×8 cells, so a cell is 10×10 px. Channel 0 of the map
rises by one per cell to the right, channel 1 by one per cell downwards; step 1 in time is 10 more.
With one bin, RoIAlign of such a slope is its value at the box's middle: x/10 - 0.5, y/10 - 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stage_fixtures import (
    align_row,
    clip_table,
    key_of,
    keys_of,
    make_aligned_stage,
    make_clip,
    make_clip_stage,
    make_objects_stage,
)

from extractors.base import object_outputs
from extractors.roi import align_objects
from pipeline.clips import Clip
from pipeline.rows import DerivedRow
from pipeline.stage_rows import readable
from pipeline.stages import AlignedStage
from stores.base import ArraySpec, FeatureStore, Row, RowInfo
from stores.memory_store import MemoryStore

K, C1 = 2, 3
FRAME_PX = (80, 40)  # width, height
MAP_DIMS = ("time", "y", "x", "channel")
# Boxes by frame of the window; frame 3 has no objects.
BOXES = (
    ((0, 0, 20, 20), (10, 10, 30, 30)),
    ((10, 0, 50, 20), (20, 20, 40, 40)),  # middles (30, 10) and (30, 30)
    ((40, 10, 80, 30),),  # middle (60, 20)
    (),
)


def slopes() -> NDArray[np.float32]:
    """(2, 4, 8, 2)"""
    y, x = np.mgrid[0:4, 0:8].astype(np.float32)
    still = np.stack([x, y], axis=-1)
    return np.stack([still, still + 10])


def noun_map() -> NDArray[np.float32]:
    return np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)


def objects_of(boxes: tuple[tuple[int, ...], ...], frame: int) -> dict[str, NDArray[Any]]:
    n = len(boxes)
    row = {
        "features": np.zeros((K, C1), np.float32),
        "boxes_xyxy_px": np.zeros((K, 4), np.float32),
        "scores": np.zeros(K, np.float32),
        "classes": np.zeros(K, np.int32),
        "count": np.array(n, np.int32),
        "frame_size_px": np.array(FRAME_PX, np.int32),
    }
    for k, box in enumerate(boxes):
        row["features"][k] = [frame, k, 1]
        row["boxes_xyxy_px"][k] = box
        row["scores"][k] = 0.75 - 0.25 * k
    return row


def make_stage(
    geometry: str = "square",
    *,
    noun_geometry: str = "square",
    noun_stride: int = 30,
    **config: Any,
) -> AlignedStage:
    """Windows of 2 s (4 frames) and 1 s (2 frames); a clip of 4 frames half a second apart."""
    clip = {"frames": 4, "stride": 30, "rate_fps": 60}
    settings = {"global_window_seconds": 2, "local_window_seconds": 1, "output_size": 1}
    return make_aligned_stage(
        verb=make_clip_stage("verb", clip=clip, geometry=geometry),
        noun=make_clip_stage("noun", clip={**clip, "stride": noun_stride}, geometry=noun_geometry),
        objects=make_objects_stage(window_seconds=2.0, top_k=K),
        **{**settings, **config},
    )


Generations = dict[str, FeatureStore]


def store_of(stage: AlignedStage, maps: Mapping[str, NDArray[Any]], dtype: str) -> Generations:
    store = MemoryStore()
    generations: Generations = {}
    for upstream in (stage.verb, stage.noun):
        values = maps[upstream.name]
        spec = ArraySpec(MAP_DIMS, values.shape, dtype)
        generations[upstream.name] = store.generation(upstream.name, upstream.key, {"map": spec})
    outputs = {
        name: ArraySpec(spec.dims, spec.shape, spec.dtype, spec.units)
        for name, spec in object_outputs(K, C1, dtype).items()
    }
    generations["objects"] = store.generation("objects", stage.objects.key, outputs)
    return generations


def fill(
    stage: AlignedStage,
    clip: Clip,
    *,
    verb: NDArray[Any] | None = None,
    noun: NDArray[Any] | None = None,
    frames: list[dict[str, NDArray[Any]]] | None = None,
    dtype: str = "float16",
) -> Generations:
    """Stored rows of one clip."""
    verb = slopes() if verb is None else verb
    noun = noun_map() if noun is None else noun
    frames = [objects_of(b, m) for m, b in enumerate(BOXES)] if frames is None else frames
    generations = store_of(stage, {"verb": verb, "noun": noun}, dtype)
    for upstream, values in ((stage.verb, verb), (stage.noun, noun)):
        key = key_of(upstream, clip)
        row = Row(key, {"map": values.astype(dtype)}, RowInfo(clip.clip_id))
        generations[upstream.name].append([row])
    keys = dict(zip(keys_of(stage.objects, clip), frames, strict=False))
    generations["objects"].append(
        [
            Row(key, {**frame, "features": frame["features"].astype(dtype)}, RowInfo("frame"))
            for key, frame in keys.items()
        ]
    )
    return generations


def align(
    stage: AlignedStage, clip: Clip, generations: Generations
) -> tuple[dict[str, NDArray[Any]], dict[str, ArraySpec]]:
    specs = stage.output_specs({name: dict(g.specs) for name, g in generations.items()})
    row = align_row(stage, stage.rows(clip_table(clip))[0], generations, specs)
    assert row.key == key_of(stage, clip)
    assert row.info.clip_id == clip.clip_id
    # Whatever comes out can be stored as the specs say, and comes back as it was.
    kept = MemoryStore().generation("aligned", stage.key, specs)
    kept.append([row])
    return {name: values[0] for name, values in kept.read([row.key]).items()}, specs


CLIP = make_clip(centre_us=10_000_000)  # object frames at 9, 9.5, 10, 10.5 s; so are the clip's


def test_pooled_maps() -> None:
    stage = make_stage()
    values, _ = align(stage, CLIP, fill(stage, CLIP))
    # Means of 0 to 7 and of 0 to 3, and half of the 10 of the second step.
    assert values["verb_gap"].tolist() == [3.5 + 5, 1.5 + 5]
    # Channel 0 is 0, 3, 6, 9.
    assert values["noun_gap"].tolist() == [4.5, 5.5, 6.5]


@pytest.mark.parametrize(
    ("map_time", "first", "second"),
    [
        ("mean", 5, 5),
        ("max", 10, 10),
        # Two steps of the map stand for 9.25 and 10.25 s; the local frames are at 9.5 and 10 s.
        ("nearest", 0, 10),
    ],
)
def test_the_verb_map_at_the_local_objects(map_time: str, first: int, second: int) -> None:
    stage = make_stage(map_time=map_time)
    values, specs = align(stage, CLIP, fill(stage, CLIP))
    expected = [
        [2.5 + first, 0.5 + first],  # frame 1, (30, 10)
        [2.5 + first, 2.5 + first],  # frame 1, (30, 30)
        [5.5 + second, 1.5 + second],  # frame 2, (60, 20)
        [0.0, 0.0],  # padding
    ]
    np.testing.assert_allclose(values["verb_roi"], expected, rtol=1e-3)
    assert specs["verb_roi"].attributes["local_start"] == 2


def test_boxes_meet_a_map_of_the_middle_of_the_frame() -> None:
    """Resized to 224×112 and cropped to 112×112: the native columns 20 to 60, 5 to a cell."""
    stage = make_stage("published")
    frames = [objects_of(boxes, m) for m, boxes in enumerate(BOXES)]
    frames[2] = objects_of(((40, 10, 80, 30), (60, 0, 80, 40)), 2)  # cut off; not seen at all
    values, _ = align(stage, CLIP, fill(stage, CLIP, frames=frames))
    expected = [
        [2.5 + 5, 0.5 + 5],  # columns 20 to 50
        [1.5 + 5, 2.5 + 5],  # columns 20 to 40
        [5.5 + 5, 1.5 + 5],  # columns 40 to 60
        [0.0, 0.0],
    ]
    np.testing.assert_allclose(values["verb_roi"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("map_time", "verb_steps", "noun_steps"),
    [
        ("mean", (5, 5), (25, 25)),
        # The local frames are at 9.5 and 10 s, the steps of the verb map at 9.25 and 10.25 s.
        # Those of the noun map, whose frames are 2 s apart, are at 7 and 11 s.
        ("nearest", (0, 10), (30, 30)),
    ],
)
def test_each_map_is_read_where_and_when_it_looked(
    map_time: str, verb_steps: tuple[int, int], noun_steps: tuple[int, int]
) -> None:
    """The noun map shows the frame's middle (see below) and four times the time; it is 20 more."""
    stage = make_stage(noun_geometry="published", noun_stride=120, map_time=map_time, noun_roi=True)
    values, specs = align(stage, CLIP, fill(stage, CLIP, noun=slopes() + 20))
    verb = [
        [2.5 + verb_steps[0], 0.5 + verb_steps[0]],
        [2.5 + verb_steps[0], 2.5 + verb_steps[0]],
        [5.5 + verb_steps[1], 1.5 + verb_steps[1]],
        [0.0, 0.0],
    ]
    noun = [
        [2.5 + noun_steps[0], 0.5 + noun_steps[0]],  # columns 20 to 50
        [1.5 + noun_steps[0], 2.5 + noun_steps[0]],  # columns 20 to 40
        [5.5 + noun_steps[1], 1.5 + noun_steps[1]],  # columns 40 to 60
        [0.0, 0.0],
    ]
    np.testing.assert_allclose(values["verb_roi"], verb, rtol=1e-3)
    np.testing.assert_allclose(values["noun_roi"], noun, rtol=1e-3)
    assert specs["noun_roi"].attributes["local_start"] == 2


def test_objects_of_the_whole_window_in_order_of_time() -> None:
    stage = make_stage()
    values, _ = align(stage, CLIP, fill(stage, CLIP))
    assert values["object_mask"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert values["object_features"].tolist() == [
        [0, 0, 1],
        [0, 1, 1],
        [1, 0, 1],
        [1, 1, 1],
        [2, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    assert values["object_scores"].tolist() == [0.75, 0.5, 0.75, 0.5, 0.75, 0, 0, 0]
    assert values["object_boxes_xyxy_px"].tolist() == [
        [0, 0, 20, 20],
        [10, 10, 30, 30],
        [10, 0, 50, 20],
        [20, 20, 40, 40],
        [40, 10, 80, 30],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert values["frame_size_px"].tolist() == [80, 40]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_are_those_of_the_specs(dtype: str) -> None:
    stage = make_stage(dtype=dtype)
    values, _ = align(stage, CLIP, fill(stage, CLIP))
    assert {name: array.dtype.name for name, array in values.items()} == {
        "verb_gap": dtype,
        "noun_gap": dtype,
        "verb_roi": dtype,
        "object_features": dtype,
        "object_mask": "uint8",
        "object_boxes_xyxy_px": "float32",
        "object_scores": "float32",
        "frame_size_px": "int32",
    }


def test_a_window_without_objects() -> None:
    stage = make_stage(map_time="nearest")
    frames = [objects_of((), m) for m in range(4)]
    values, _ = align(stage, CLIP, fill(stage, CLIP, frames=frames))
    for name in ("verb_roi", "object_features", "object_mask", "object_boxes_xyxy_px"):
        assert not values[name].any(), name
    assert values["verb_gap"].tolist() == [8.5, 6.5]


@pytest.mark.parametrize("map_time", ["mean", "max", "nearest"])
def test_only_the_local_slice_meets_the_map(map_time: str) -> None:
    stage = make_stage(map_time=map_time, output_size=7, dtype="float32")
    rng = np.random.default_rng(3)
    verb = rng.random((2, 4, 8, 6), dtype=np.float32)
    generations = fill(stage, CLIP, verb=verb, dtype="float32")
    values, _ = align(stage, CLIP, generations)
    expected = align_objects(
        torch.from_numpy(verb),
        torch.from_numpy(values["object_boxes_xyxy_px"][2:6]),
        FRAME_PX,
        time=map_time,  # type: ignore[arg-type]
        output_size=7,
        object_times_seconds=torch.tensor([9.5, 9.5, 10.0, 10.0]),
        clip_times_seconds=torch.tensor([9.0, 9.5, 10.0, 10.5]),
    )
    np.testing.assert_allclose(values["verb_roi"], expected.numpy(), rtol=1e-6)
    assert values["verb_roi"].any()


def test_late_times_are_told_apart() -> None:
    # At ten hours, float32 seconds are 4 ms apart. The steps of the map stand for the middles of
    # frames 0 and 1 and of 2 and 3; an object 1 ms nearer to the second belongs to the second.
    hours_us = 36_000_000_000
    stage = make_stage(map_time="nearest", local_window_seconds=2)
    clip = make_clip(centre_us=hours_us)
    (row,) = stage.rows(clip_table(clip))
    shifted = DerivedRow(
        row.key,
        row.info,
        row.upstream,
        {**row.times_us, "objects": np.full(4, hours_us - 249_000)},
    )
    generations = fill(stage, clip)
    specs = stage.output_specs({name: dict(g.specs) for name, g in generations.items()})
    aligned = align_row(stage, shifted, generations, specs)
    # Steps at -0.75 and +0.25 s of the centre; the middle between them is -0.25 s.
    assert aligned.arrays["verb_roi"][0].tolist() == pytest.approx([0.5 + 10, 0.5 + 10], rel=1e-3)


def test_frames_before_the_video_are_its_first_frame() -> None:
    stage = make_stage()
    clip = make_clip(centre_us=500_000)  # object frames at -0.5, 0, 0.5, 1 s
    keys = keys_of(stage.objects, clip)
    assert keys[0] == keys[1]
    frames = [
        objects_of(BOXES[0], 7),
        objects_of(BOXES[0], 7),
        *map(objects_of, BOXES[1:3], (8, 9)),
    ]
    values, _ = align(stage, clip, fill(stage, clip, frames=frames))
    assert values["object_features"][:, 0].tolist() == [7, 7, 7, 7, 8, 8, 9, 0]


@pytest.mark.parametrize(
    ("output", "change"),
    [
        ("object_features", {"feature": 70_000.0}),
        ("verb_gap", {"verb": slopes() * 20_000}),
        ("noun_gap", {"noun": noun_map() + 80_000}),
        ("object_features", {"feature": -70_000.0}),
    ],
)
def test_what_float16_cannot_hold_is_refused(output: str, change: dict[str, Any]) -> None:
    frames = [objects_of(boxes, m) for m, boxes in enumerate(BOXES)]
    frames[0]["features"][0, 0] = change.pop("feature", 0.0)
    stage = make_stage(dtype="float16")
    generations = fill(stage, CLIP, frames=frames, dtype="float32", **change)
    with pytest.raises(OverflowError, match=rf"got {output} of clip P01_01/7/0 with a value of "):
        align(stage, CLIP, generations)
    wide = make_stage(dtype="float32")
    values, _ = align(wide, CLIP, fill(wide, CLIP, frames=frames, dtype="float32", **change))
    assert np.abs(values[output]).max() > 65_504


def test_rows_whose_upstream_is_not_stored_are_left_out() -> None:
    stage = make_stage()
    clips = [CLIP, make_clip("P01_02", centre_us=10_000_000)]
    rows = stage.rows(clip_table(*clips))
    assert readable(rows, fill(stage, CLIP)).tolist() == [True, False]
    for name in ("verb", "noun", "objects"):
        generations = fill(stage, CLIP)
        generations[name].forget(rows[0].upstream[name][-1:])
        assert not readable(rows, generations).any()
