"""Rows made in memory against those that the stage ``aligned`` stores; what is read for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stage_fixtures import align_row, clip_table, key_of, make_clip
from stage_fixtures import keys_of as clip_keys_of
from test_pipeline_align import C1, FRAME_PX, Generations, K, make_stage, store_of

from heads.table import FeatureTable, Sample
from pipeline import aligner
from pipeline.clips import Clip
from pipeline.maps_reader import MapsReader
from pipeline.stages import AlignedStage
from stores.base import ArraySpec, FeatureReader, FeatureStore, MissingRowsError, Row, RowInfo
from stores.memory_store import MemoryStore

VERB_SHAPE, NOUN_SHAPE = (2, 4, 8, 6), (4, 3, 3, 5)
# Windows of 2 s on the half-second grid: of 6 clips with 4 frames each, 9 frames in all.
CLIPS = [make_clip(segment_id=str(i), centre_us=10_000_000 + 500_000 * i) for i in range(6)]
ALIGNED = (
    "verb_gap",
    "noun_gap",
    "verb_roi",
    "noun_roi",
    "object_features",
    "object_mask",
    "object_boxes_xyxy_px",
    "object_scores",
    "frame_size_px",
)


def random_frame(rng: np.random.Generator, dtype: str) -> dict[str, NDArray[Any]]:
    """Zero to K objects; boxes may reach out of the frame's middle."""
    count = int(rng.integers(0, K + 1))
    corners = np.sort(rng.random((K, 2, 2)), axis=1).reshape(K, 4) * np.tile(FRAME_PX, 2)
    real = np.arange(K)[:, None] < count
    return {
        "features": (rng.random((K, C1)) * real).astype(dtype),
        "boxes_xyxy_px": (corners * real).astype(np.float32),
        "scores": (rng.random(K) * real[:, 0]).astype(np.float32),
        "classes": np.zeros(K, np.int32),
        "count": np.array(count, np.int32),
        "frame_size_px": np.array(FRAME_PX, np.int32),
    }


def stored_rows(
    stage: AlignedStage, *, dtype: str = "float16", clips: Sequence[Clip] = CLIPS
) -> Generations:
    """Upstream rows of all clips, random but for the seed."""
    rng = np.random.default_rng(0)
    shapes = {"verb": np.zeros(VERB_SHAPE), "noun": np.zeros(NOUN_SHAPE)}
    generations = store_of(stage, shapes, dtype)
    for upstream in (stage.verb, stage.noun):
        for clip in clips:
            values = rng.random(shapes[upstream.name].shape).astype(dtype)
            key = key_of(upstream, clip)
            generations[upstream.name].append([Row(key, {"map": values}, RowInfo(clip.clip_id))])
    keys = dict.fromkeys(key for clip in clips for key in clip_keys_of(stage.objects, clip))
    for key in keys:
        generations["objects"].append([Row(key, random_frame(rng, dtype), RowInfo("frame"))])
    return generations


def stored_aligned(
    stage: AlignedStage, generations: Generations, clips: Sequence[Clip] = CLIPS
) -> FeatureStore:
    """What a run of the stage ``aligned`` would store."""
    specs = stage.output_specs({name: reader.specs for name, reader in generations.items()})
    aligned = MemoryStore().generation("aligned", stage.key, specs)
    aligned.append(
        [align_row(stage, row, generations, specs) for row in stage.rows(clip_table(*clips))]
    )
    return aligned


def open_maps(
    stage: AlignedStage, readers: Mapping[str, FeatureReader], clips: Sequence[Clip] = CLIPS
) -> MapsReader:
    return MapsReader(stage, clip_table(*clips), readers)


def keys_of(stage: AlignedStage, clips: Sequence[Clip] = CLIPS) -> list[str]:
    return [key_of(stage, clip) for clip in clips]


def assert_equal(got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    assert set(got) == set(expected)
    for name, values in expected.items():
        assert got[name].dtype == values.dtype, name
        assert got[name].tobytes() == values.tobytes(), name


class Spy(FeatureReader):
    """Another reader's rows; remembers what was read."""

    def __init__(self, reader: FeatureReader) -> None:
        self.reader, self.specs = reader, reader.specs
        self.reads: list[tuple[list[str], set[str]]] = []

    def missing(self, keys: Iterable[str]) -> list[str]:
        return self.reader.missing(keys)

    def read(
        self,
        keys: Sequence[str],
        outputs: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        names = list(outputs if outputs is not None else self.specs)
        self.reads.append((list(keys), set(names)))
        return self.reader.read(keys, names, out)

    def keys(self) -> list[str]:
        return self.reader.keys()

    def __len__(self) -> int:
        return len(self.reader)


@pytest.mark.parametrize("rows_at_once", [1, 4, 32])
@pytest.mark.parametrize("map_time", ["mean", "max", "nearest"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_are_those_of_the_stage_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, dtype: str, map_time: str, rows_at_once: int
) -> None:
    monkeypatch.setattr(aligner, "ROWS_AT_ONCE", rows_at_once)
    stage = make_stage(
        noun_geometry="published",
        noun_stride=120,
        map_time=map_time,
        output_size=3,
        dtype=dtype,
        noun_roi=True,
    )
    generations = stored_rows(stage, dtype=dtype)
    aligned, maps = stored_aligned(stage, generations), open_maps(stage, generations)
    assert {name: maps.specs[name] for name in ALIGNED} == dict(aligned.specs)
    keys = [keys_of(stage)[i] for i in (4, 0, 5, 2, 1, 3)]
    expected = aligned.read(keys)
    assert set(expected) == set(ALIGNED)
    assert_equal(maps.read(keys, ALIGNED), expected)
    twice = [keys[i] for i in (2, 0, 2, 2, 3)]
    assert_equal(maps.read(twice, ALIGNED), aligned.read(twice))
    out = {
        name: np.empty((6, *aligned.specs[name].shape), aligned.specs[name].numpy_dtype)
        for name in ("verb_roi", "object_mask")
    }
    assert maps.read(keys, out=out)["verb_roi"] is out["verb_roi"]
    assert_equal(out, {name: expected[name] for name in out})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_whole_maps_come_as_they_are_stored(dtype: str) -> None:
    stage = make_stage()
    generations = stored_rows(stage, dtype=dtype)
    maps = open_maps(stage, generations)
    keys = keys_of(stage)[::-1]
    for outputs in (("verb_map", "noun_map"), ("noun_map",), ("verb_map", "verb_gap")):
        got = maps.read([*keys, keys[0]], outputs)
        for output in set(outputs) & {"verb_map", "noun_map"}:
            name = output.removesuffix("_map")
            of_stage = {"verb": stage.verb, "noun": stage.noun}[name]
            map_keys = [key_of(of_stage, clip) for clip in [*CLIPS[::-1], CLIPS[-1]]]
            expected = generations[name].read(map_keys)["map"]
            assert_equal({"map": got[output]}, {"map": expected})
    assert maps.specs["verb_map"].shape == VERB_SHAPE
    assert maps.specs["noun_map"].dtype == dtype
    assert set(maps.read(keys[:2])) == {*ALIGNED, "verb_map", "noun_map"}


def test_noun_rois_are_there_whether_the_stage_would_store_them_or_not() -> None:
    plain, asked = make_stage(), make_stage(noun_roi=True)
    expected = stored_aligned(asked, stored_rows(asked)).read(keys_of(asked), ["noun_roi"])
    assert keys_of(plain) == keys_of(asked)
    assert_equal(open_maps(plain, stored_rows(plain)).read(keys_of(plain), ["noun_roi"]), expected)


def test_settings_of_alignment_change_no_key_of_a_row() -> None:
    one, other = make_stage(map_time="mean"), make_stage(map_time="max", output_size=3)
    generations = stored_rows(one)
    keys = keys_of(one)
    assert_equal(
        open_maps(other, generations).read(keys, ["verb_roi"]),
        stored_aligned(other, generations).read(keys, ["verb_roi"]),
    )


@pytest.mark.parametrize(
    ("outputs", "read"),
    [
        (["verb_gap"], {"verb": {"map"}}),
        (["noun_map"], {"noun": {"map"}}),
        (["object_features"], {"objects": {"features"}}),
        (
            ["noun_roi", "noun_gap", "noun_map"],
            {"noun": {"map"}, "objects": {"boxes_xyxy_px", "frame_size_px"}},
        ),
    ],
)
def test_nothing_else_is_read(outputs: list[str], read: dict[str, set[str]]) -> None:
    stage = make_stage()
    spies = {name: Spy(reader) for name, reader in stored_rows(stage).items()}
    maps = open_maps(stage, spies)
    assert set(maps.read(keys_of(stage), outputs)) == set(outputs)
    found = {name: spy.reads for name, spy in spies.items() if spy.reads}
    assert {name: reads[0][1] for name, reads in found.items()} == read
    assert all(len(reads) == 1 for reads in found.values())
    if "objects" in read:
        keys = found["objects"][0][0]
        assert len(keys) == len(set(keys)) == 9  # not 6 times 4


@pytest.mark.parametrize("name", ["verb", "noun", "objects"])
def test_clips_without_upstream_rows_are_missing(name: str) -> None:
    stage = make_stage()
    generations = stored_rows(stage)
    row = stage.rows(clip_table(*CLIPS[-1:]))[0]
    generations[name].forget(row.upstream[name][-1:])
    maps = open_maps(stage, generations)
    keys = keys_of(stage)
    unknown = "0" * 64
    assert maps.missing([keys[5], unknown, *keys, unknown]) == [keys[5], unknown]
    assert maps.keys() == keys[:5]
    assert len(maps) == 5
    with pytest.raises(MissingRowsError, match=f"stage '{name}' does not hold"):
        maps.read(keys)


def test_what_cannot_be_read_is_refused() -> None:
    stage = make_stage()
    spies = {name: Spy(reader) for name, reader in stored_rows(stage).items()}
    maps = open_maps(stage, spies)
    with pytest.raises(MissingRowsError, match="1 row keys that stage 'aligned' does not hold"):
        maps.read([*keys_of(stage), "0" * 64])
    with pytest.raises(ValueError, match="got output 'map', expected one of"):
        maps.read(keys_of(stage), ["map"])
    assert not any(spy.reads for spy in spies.values())


@pytest.mark.parametrize("rows_at_once", [1, 32])
def test_what_the_dtype_cannot_hold_names_the_clip(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(aligner, "ROWS_AT_ONCE", rows_at_once)
    stage = make_stage(dtype="float16")
    generations = stored_rows(stage, dtype="float32")
    key = key_of(stage.verb, CLIPS[2])
    generations["verb"].forget([key])
    large = np.full(VERB_SHAPE, 1e6, np.float32)
    generations["verb"].append([Row(key, {"map": large}, RowInfo("large"))])
    with pytest.raises(OverflowError, match="got verb_gap of clip P01_01/2/0 with a value of"):
        open_maps(stage, generations).read(keys_of(stage), ["verb_gap"])


def test_clips_whose_videos_are_not_there_have_no_rows() -> None:
    stage = make_stage()
    clips = [CLIPS[0], make_clip("gone")]
    maps = open_maps(stage, stored_rows(stage, clips=CLIPS[:1]), clips)
    assert maps.keys() == keys_of(stage, CLIPS[:1])


def test_a_table_takes_it_for_stored_rows() -> None:
    stage = make_stage(noun_roi=True)
    generations = stored_rows(stage)
    samples = [
        Sample(str(i), tuple(keys_of(stage, CLIPS[i : i + 2])), verb=0, noun=0) for i in range(5)
    ]
    outputs = ("verb_roi", "noun_gap", "object_mask")
    aligned, maps = stored_aligned(stage, generations), open_maps(stage, generations)
    expected = FeatureTable(aligned, samples, outputs=outputs).batch([3, 0, 4], [0, 1, 1])
    for resident_mib in (0, 64):
        table = FeatureTable(maps, samples, outputs=outputs, resident_mib=resident_mib)
        assert table.resident == bool(resident_mib)
        batch = table.batch([3, 0, 4], [0, 1, 1])
        assert all(torch.equal(batch[name], expected[name]) for name in outputs)


def test_specs_say_what_maps_are() -> None:
    stage = make_stage()
    spec = open_maps(stage, stored_rows(stage)).specs["noun_map"]
    assert spec == ArraySpec(
        ("time", "y", "x", "channel"), NOUN_SHAPE, "float16", "", "noun map", spec.attributes
    )


def test_threads_end_with_the_reader() -> None:
    stage = make_stage()
    maps = open_maps(stage, stored_rows(stage))
    maps.read(keys_of(stage), ["verb_gap"])
    maps.close()
    maps.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        maps.read(keys_of(stage), ["verb_gap"])
