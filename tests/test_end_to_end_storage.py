"""Whole runs into stores of every kind: how rows are kept changes no row and no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_fixtures import make_experiment
from test_end_to_end import ALL, assert_same_rows, made, run, stored

from extractors.clip_network import PendingClips
from heads.saoa import SaoaHead
from heads.table import FeatureTable, Sample
from pipeline.errors import ConfigError
from pipeline.experiment import resolve
from pipeline.plan import plan_all
from pipeline.stages import STAGE_NAMES
from stores.formats import FORMATS
from stores.registry import open_store

BFLOAT16 = [f"stages.{name}.dtype=bfloat16" for name in STAGE_NAMES]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment in a store of the default kind."""
    folder = tmp_path_factory.mktemp("plain")
    run(folder)
    return folder


def beside(plain: Path, folder: Path) -> Path:
    """A folder for another run on the very same inputs."""
    for name in ("videos", "labels.csv", "boxes.csv"):
        (folder / name).symlink_to(plain / name)
    return folder


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_format_and_compression_change_no_row(
    plain: Path, tmp_path: Path, form: str, compression: str
) -> None:
    options = [f"store.format={form}", f"store.compression={compression}", "store.shard_mib=1"]
    folder = beside(plain, tmp_path)
    assert made(run(folder, options)) == ALL
    assert_same_rows(stored(folder), stored(plain))
    assert made(run(folder)) == {}
    with open_store(folder / "store") as store:
        assert store.format == form


def test_a_stage_may_be_kept_in_its_own_way(plain: Path, tmp_path: Path) -> None:
    options = ["store.stages.verb={compression: zstd, shard_mib: 1}", "store.shard_mib=2"]
    folder = beside(plain, tmp_path)
    store_config = make_experiment(folder, options).store
    assert [store_config.of_stage(name) for name in STAGE_NAMES] == [
        (1, "zstd"),
        *[(2, "none")] * 3,
    ]
    run(folder, options)
    assert_same_rows(stored(folder), stored(plain))
    with open_store(folder / "store") as store:
        verb, noun = (
            store.generation(info.stage, info.key)
            for name in ("verb", "noun")
            for info in store.generations()
            if info.stage == name
        )
    assert (verb.layout.compression, noun.layout.compression) == ("zstd", "none")


def test_another_format_than_the_stores_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = beside(plain, tmp_path)
    (folder / "store").mkdir()
    (folder / "store/symbio.json").write_text('{"format_version": 1, "format": "hdf5"}')
    with pytest.raises(ValueError, match=r"got a store of format 'hdf5' .*symbio store convert"):
        run(folder, ["store.format=zarr"])


def test_rows_in_bfloat16_are_those_of_float32_rounded(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    (tmp_path / "half").mkdir()
    wide, half = beside(plain, tmp_path / "wide"), beside(plain, tmp_path / "half")
    run(wide, [option.replace("bfloat16", "float32") for option in BFLOAT16])
    assert made(run(half, BFLOAT16)) == ALL
    stages = {name.split("/")[0]: rows for name, rows in stored(half).items()}
    for name, rows in stored(wide).items():
        for key, arrays in rows.items() if name[:4] in ("verb", "noun") else ():
            got = stages[name.split("/")[0]][key]["map"]
            assert got.dtype.name == "bfloat16"
            expected = torch.from_numpy(arrays["map"]).bfloat16().float().numpy()
            np.testing.assert_array_equal(got.astype(np.float32), expected)


def test_pooled_and_logits_are_stored_beside_the_map(plain: Path, tmp_path: Path) -> None:
    folder = beside(plain, tmp_path)
    options = ["stages.verb.outputs=[logits, map, pooled]", "stages.verb.network.num_classes=7"]
    report = run(folder, options)
    # what is derived from the map is derived anew: its key names another generation
    assert made(report) == ALL
    verb = next(rows for name, rows in stored(folder).items() if name.startswith("verb"))
    maps = next(rows for name, rows in stored(plain).items() if name.startswith("verb"))
    assert verb.keys() == maps.keys()
    for key, arrays in verb.items():
        assert set(arrays) >= {"map", "pooled", "logits"}
        np.testing.assert_array_equal(arrays["map"], maps[key]["map"])
        mean = arrays["map"].astype(np.float32).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(arrays["pooled"], mean, rtol=2e-3, atol=1e-3)
        assert arrays["logits"].shape == (7,)


def test_precision_of_another_device_may_be_planned_but_not_run(
    plain: Path, tmp_path: Path
) -> None:
    folder = beside(plain, tmp_path)
    options = ["stages.verb.precision=tf32"]
    plans = plan_all(resolve(make_experiment(folder, options)), None)
    assert [len(plan.todo) for plan in plans] == list(ALL.values())
    with pytest.raises(ConfigError, match=r"stages\.verb: got precision 'tf32' on cpu, expected"):
        run(folder, options)


def test_a_row_that_cannot_be_stored_fails_alone(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extractor of somebody's own may forget to look at its numbers."""
    folder = beside(plain, tmp_path)
    forward, calls = PendingClips.collect, []

    def spoil_the_third_batch(self: PendingClips) -> Any:
        arrays = forward(self)
        calls.append(1)
        if len(calls) == 3:
            arrays["map"] = arrays["map"].copy()
            arrays["map"][1, 0, 0, 0, 0] = np.inf
        return arrays

    with monkeypatch.context() as patch:
        patch.setattr(PendingClips, "collect", spoil_the_third_batch)
        report = run(folder, stages=("verb",))
    (verb,) = report.stages
    (failure,) = verb.failures
    assert verb.made == ALL["verb"] - 1
    assert failure.error_class == "RefusedRowError"
    assert failure.message.startswith(f"stage 'verb', clip {failure.clip_id!r}, output 'map': got")
    assert not report.complete
    assert made(run(folder, retry_failed=True)) == {**ALL, "verb": 1}
    assert_same_rows(stored(folder), stored(plain))


@pytest.mark.parametrize("resident_mib", [0, 64])
def test_heads_read_bfloat16(plain: Path, tmp_path: Path, resident_mib: int) -> None:
    folder = beside(plain, tmp_path)
    run(folder, BFLOAT16)
    key = resolve(make_experiment(folder, BFLOAT16)).aligned.key
    with open_store(folder / "store") as store:
        aligned = store.generation("aligned", key)
        row_keys = aligned.keys()
        samples = [Sample(row_key, (row_key,), 0, 0) for row_key in row_keys]
        table = FeatureTable(aligned, samples, outputs=SaoaHead.inputs, resident_mib=resident_mib)
        batch = table.batch([1, 0], [0, 0])
        for name in ("verb_gap", "object_features"):
            row = aligned.read([row_keys[1]])[name][0]
            assert row.dtype.name == "bfloat16"
            assert batch[name].dtype == torch.float32
            np.testing.assert_array_equal(batch[name][0].numpy(), row.astype(np.float32))
            assert batch[name].abs().max() > 0
