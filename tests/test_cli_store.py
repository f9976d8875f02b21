"""`symbio store …`: what people see, exit codes, and that the next run mends what was lost."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from cli_fixtures import symbio, table_rows, write_experiment
from experiment_fixtures import settings
from store_damage import damage_row, files_of
from store_suite import (
    SPECS,
    STAGE,
    TEN_ROWS_MIB,
    assert_rows,
    fast_folder,
    make_arrays,
    make_failure,
    make_key,
    make_rows,
)

from pipeline.config_file import load_config
from pipeline.experiment import stage_keys
from stores import ArraySpec, Row, RowInfo, open_store
from stores.registry import FORMATS

KEY = make_key(1000)


@pytest.fixture(params=sorted(FORMATS))
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the folder of a closed store: a generation of two shards and a failure."""
    with fast_folder() as folder:
        with open_store(folder / "store", "a", request.param) as store:
            made = store.generation(STAGE, KEY, SPECS, PROVENANCE, TEN_ROWS_MIB)
            made.append(make_rows(*range(12)))
            made.commit([], [make_failure(50)])
        yield folder / "store"


PROVENANCE = {
    "settings": {"stage": STAGE, "network": {"depth": 50, "blocks": [3, 4]}, "none": {}},
    "not_in_key": {"device": "cpu", "config": {"a": {"very": "long one"}}},
}


def reading(root: Path) -> Any:
    return open_store(root).generation(STAGE, KEY)


def lines(text: str) -> list[str]:
    """Lines with content, their blanks made one."""
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


# ---- info


def test_info_explains_a_store(root: Path) -> None:
    done = symbio("store", "info", root)
    assert (done.code, done.err) == (0, "")
    name = reading(root).layout.format
    assert lines(done.out)[0] == f"{root} ({name})"
    row = next(line for line in lines(done.out) if line.startswith(f"{STAGE} {KEY[:12]} 12 1 "))
    assert " none 10 rows, 790 B 20" in row
    shown = lines(done.out)
    features = f"{STAGE} {KEY[:12]} features object 3 × channel 4 float16 1 pooled; layer: fc7"
    assert features in shown
    assert f"{STAGE} {KEY[:12]} count one number int32" in shown
    assert f"{STAGE} {KEY[:12]} boxes_xyxy_px object 3 × corner 4 float32 px" in shown
    assert "depth" not in done.out


def test_info_on_a_stage_says_where_its_rows_come_from(root: Path) -> None:
    with open_store(root, "a") as store:
        store.generation("verb", KEY, {"map": ArraySpec((), (), "float32")})
    done = symbio("store", "info", root, "--stage", STAGE)
    shown = lines(done.out)
    assert f"Where the rows of {STAGE} {KEY[:12]} come from" in shown
    assert "settings.network.depth 50" in shown
    assert "settings.network.blocks [3, 4]" in shown
    assert "settings.none {}" in shown
    assert "not_in_key.config the whole experiment, see stage.json" in shown
    assert "verb" not in done.out
    assert "very" not in done.out


def test_info_on_a_stage_that_is_not_there(root: Path) -> None:
    done = symbio("store", "info", root, "--stage", "verb")
    assert done.code == 2
    assert done.err == "Error: got stage 'verb', expected one of: objects\n"


def test_info_on_what_is_left(root: Path) -> None:
    with open_store(root, "a") as store:
        verb = store.generation("verb", KEY, {"map": ArraySpec((), (), "float32")})
    (verb.path / "stage.json").write_text("{")
    done = symbio("store", "info", root)
    assert done.code == 0
    assert f"got {verb.path}/stage.json that is no description" in " ".join(lines(done.out))
    assert any(line.startswith(f"{STAGE} {KEY[:12]} 12 1 ") for line in lines(done.out))


def test_brackets_in_paths_are_not_styles(root: Path) -> None:
    odd = root.with_name("[red]store")
    root.rename(odd)
    for command in ("info", "verify", "repair"):
        done = symbio("store", command, odd)
        assert done.code == 0
        assert str(odd) in done.out
    out = odd.with_name("[red]out")
    done = symbio("store", "export", odd, out, "--stage", STAGE, "--to", "h5")
    assert done.out == f"exported 12 rows of objects {KEY[:12]} to {out}\n"


# ---- verify


def test_a_sound_store(root: Path) -> None:
    files = [path for shard in (0, 1) for path in files_of(reading(root), shard)]
    for arguments in ([], ["--deep"]):
        done = symbio("store", "verify", root, *arguments)
        assert (done.code, done.err) == (0, "")
        (row,) = table_rows(done.out, ["read", "problems"]).values()
        assert (row["rows"], row["problems"]) == ("12", "0")
    nbytes = sum(path.stat().st_size for path in files)
    assert row["read"] == (f"{nbytes / 1024:.1f} KiB" if nbytes >= 1024 else f"{nbytes} B")


def test_verify_names_the_clips(root: Path) -> None:
    damage_row(reading(root), "mask", 3)
    assert symbio("store", "verify", root).code == 0
    done = symbio("store", "verify", root, "--deep")
    assert done.code == 1
    assert "the checksum does not match; clips 'P01_3'" in done.out
    os.truncate(files_of(reading(root), 0)[0], 10)
    for arguments in ([], ["--deep"]):
        done = symbio("store", "verify", root, *arguments)
        assert done.code == 1
        named = ", ".join(f"'P01_{number}'" for number in range(10))
        assert f"objects: 10 rows are hurt: {named}" in done.out
    # In Zarr the damaged row and the file that was cut are two files.
    count = len(files_of(reading(root), 0)[:2])
    assert f"problems: {count}; `symbio store repair {root}` mends them" in done.out


@pytest.mark.parametrize("damage", ["manifest", "stage.json"])
def test_verify_without_what_it_needs(root: Path, damage: str) -> None:
    path = root / "manifest.sqlite" if damage == "manifest" else reading(root).path / damage
    path.write_bytes(b"{" * 5000)
    done = symbio("store", "verify", root)
    assert (done.code, done.err) == (1, "")
    assert str(path) in done.out
    assert "problems: 1" in done.out


@pytest.mark.parametrize("command", ["info", "verify", "repair"])
def test_a_folder_that_is_no_store(tmp_path: Path, command: str) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        done = symbio("store", command, path)
        assert done.code == 2
        assert done.err.startswith(f"Error: {path}: got no store (no symbio.json)")
    assert list(tmp_path.iterdir()) == []


# ---- repair


def test_repair_says_what_is_lost(root: Path) -> None:
    damage_row(reading(root), "mask", 3)
    files_of(reading(root), 1)[0].unlink()
    done = symbio("store", "repair", root)
    assert (done.code, done.err) == (0, "")
    (row,) = table_rows(done.out, ["lost", "clips"]).values()
    assert (row["rows"], row["lost"], row["bytes"]) == ("9", "3", f"{3 * 79} B")
    assert row["clips"] == "'P01_3', 'P01_10', 'P01_11'"
    assert "the next `symbio run` makes exactly the lost rows again" in done.out
    assert symbio("store", "verify", root, "--deep").code == 0
    assert_rows(reading(root), [0, 1, 2, 4, 5, 6, 7, 8, 9])
    done = symbio("store", "repair", root)
    assert "symbio run" not in done.out
    assert table_rows(done.out, ["lost"])[STAGE]["lost"] == "0"


@pytest.mark.parametrize("loss", ["deleted", "garbage"])
def test_repair_says_that_the_manifest_was_rebuilt(root: Path, loss: str) -> None:
    path = root / "manifest.sqlite"
    if loss == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"not a database " * 1000)
    done = symbio("store", "repair", root)
    assert (done.code, done.err) == (0, "")
    expected = (
        "it is gone, and is rebuilt" if loss == "deleted" else "this is done now, and the file kept"
    )
    assert expected in " ".join(lines(done.out))
    assert "took in 2 shards that the manifest did not know" in done.out
    assert symbio("store", "verify", root, "--deep").code == 0
    assert_rows(reading(root), list(range(12)))


@pytest.mark.parametrize("text", [None, "", "{}", '{"format_version": 1, "format": "zorr"}'])
def test_repair_restores_the_marker(root: Path, text: str | None) -> None:
    marker = root / "symbio.json"
    before = marker.read_bytes()
    marker.unlink()
    if text is not None:
        marker.write_text(text)
    assert symbio("store", "info", root).code == 2
    done = symbio("store", "repair", root)
    assert done.code == 0
    assert f"{root}: the marker of the store was lost, and was written again" in done.out
    assert marker.read_bytes() == before
    assert "marker" not in symbio("store", "repair", root).out


def test_a_store_of_a_later_version_keeps_its_marker(root: Path) -> None:
    (root / "symbio.json").write_text('{"format_version": 9, "format": "zarr"}')
    done = symbio("store", "repair", root)
    assert done.code == 2
    assert "update symbio" in done.err
    assert '"format_version": 9' in (root / "symbio.json").read_text()


def test_repair_says_what_it_cannot_mend(root: Path) -> None:
    (reading(root).path / "stage.json").write_text("{")
    (root / "manifest.sqlite").unlink()
    done = symbio("store", "repair", root)
    assert "no description of a generation" in done.out
    assert done.code == 1
    assert symbio("store", "verify", root).code == 1


def test_the_next_run_makes_exactly_what_was_lost(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    store = tmp_path / "store"
    assert symbio("run", config).code == 0
    before = {stage: all_rows(store, stage) for stage in ("verb", "objects")}
    key = stage_keys(load_config(config))["objects"]
    made: Any = open_store(store).generation("objects", key)
    with files_of(made, 0)[0].open("r+b") as file:
        file.write(b"\1")  # into the first row
    shutil.rmtree(store / "verb")
    assert symbio("store", "verify", store, "--deep").code == 1
    done = symbio("store", "repair", store)
    assert done.code == 0
    assert table_rows(done.out, ["lost"])["objects"]["lost"] == "1"
    done = symbio("run", config)
    rows = table_rows(done.out, ["made"])
    assert {stage: row["made"] for stage, row in rows.items()} == {
        **{"verb": "6", "noun": "0", "objects": "1", "aligned": "0"}
    }
    assert symbio("store", "verify", store, "--deep").code == 0
    assert {stage: all_rows(store, stage) for stage in ("verb", "objects")} == before


def all_rows(store: Path, stage: str) -> dict[str, list[bytes]]:
    """Row key → bytes of its outputs."""
    (info,) = [info for info in open_store(store).generations() if info.stage == stage]
    made = open_store(store).generation(stage, info.key)
    arrays = made.read(made.keys())
    return {
        key: [array[place].tobytes() for array in arrays.values()]
        for place, key in enumerate(made.keys())
    }


# ---- gc


@pytest.fixture
def experiment(tmp_path: Path) -> tuple[Path, Path]:
    """A config, its labels and videos gone, and its store: all four stages, and two old keys."""
    config, store = tmp_path / "small.yaml", tmp_path / "store"
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    keys = stage_keys(load_config(config))
    old = {"verb": make_key(1), "objects": make_key(2)}
    with open_store(store, "a") as opened:
        for stage, key in (*keys.items(), *old.items()):
            made = opened.generation(stage, key, SPECS, shard_mib=TEN_ROWS_MIB)
            made.append(make_rows(*range(12)))
    return config, store


def stages_in(store: Path) -> list[tuple[str, str]]:
    return [(info.stage, info.key) for info in open_store(store).generations()]


def test_gc_lists_what_no_config_names(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    before = stages_in(store)
    done = symbio("store", "gc", store, config)
    assert (done.code, done.err) == (0, "")
    rows = table_rows(done.out, ["why"])
    assert {(stage, row["key"], row["rows"]) for stage, row in rows.items()} == {
        ("verb", make_key(1)[:12], "12"),
        ("objects", make_key(2)[:12], "12"),
    }
    assert "nothing was deleted; --delete does" in done.out
    assert stages_in(store) == before
    old = (make_key(1), make_key(2))
    nbytes = sum(i.nbytes for i in open_store(store).generations() if i.key in old)
    assert f"total {nbytes / 1024:.1f} KiB" in lines(done.out)


def test_gc_deletes_what_it_lists(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    done = symbio("store", "gc", store, config, "--delete")
    assert done.code == 0
    assert f"deleted verb {make_key(1)[:12]}: " in done.out
    assert sorted(stages_in(store)) == sorted(stage_keys(load_config(config)).items())
    assert not (store / "verb" / make_key(1)[:12]).exists()
    assert symbio("store", "verify", store, "--deep").code == 0
    done = symbio("store", "gc", store, config, "--delete")
    assert done.out == f"{store}: everything in it is needed\n"


def test_gc_keeps_what_any_config_names(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    other = config.with_name("other.yaml")
    changed = yaml.safe_load(config.read_text())
    changed["stages"]["verb"]["weights_seed"] = 9
    other.write_text(yaml.safe_dump(changed))
    new = stage_keys(load_config(other))
    assert {name for name, key in stage_keys(load_config(config)).items() if key != new[name]} == {
        "verb",
        "aligned",
    }
    with open_store(store, "a") as opened:
        opened.generation("verb", new["verb"], SPECS)
    assert symbio("store", "gc", store, config, other, "--delete").code == 0
    kept = {*stage_keys(load_config(config)).items(), ("verb", new["verb"])}
    assert set(stages_in(store)) == kept
    assert symbio("store", "gc", store, other, "--delete").code == 0
    assert set(stages_in(store)) == kept & set(new.items())


def test_gc_keeps_what_rows_of_a_sweep_file_name(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    elsewhere = "store.path=/nowhere"
    rows = [
        {"label": "one", "set": ["stages.verb.weights_seed=9"]},
        {"label": "two", "set": ["stages.verb.weights_seed=8", elsewhere]},
    ]
    table = config.with_name("table.yaml")
    table.write_text(yaml.safe_dump({"name": "t", "base": str(config), "rows": rows}))
    named, other = (
        stage_keys(load_config(config, [f"stages.verb.weights_seed={seed}"]))["verb"]
        for seed in (9, 8)
    )
    with open_store(store, "a") as opened:
        opened.generation("verb", named, SPECS)
        opened.generation("verb", other, SPECS)
    assert symbio("store", "gc", store, config, table, "--delete").code == 0
    assert ("verb", named) in stages_in(store)
    assert ("verb", other) not in stages_in(store)
    table.write_text(yaml.safe_dump({"name": "t", "base": str(config), "rows": rows[1:]}))
    done = symbio("store", "gc", store, table)
    assert (done.code, "give the configs of this store" in done.err) == (2, True)


def test_gc_counts_and_deletes_files_without_rows(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    noun, verb = (stage_keys(load_config(config))[name] for name in ("noun", "verb"))
    with open_store(store, "a") as opened:
        opened.generation("noun", noun).forget([make_key(10), make_key(11)])
        opened.generation("verb", make_key(1)).forget([make_key(10), make_key(11)])
    made: Any = open_store(store).generation("verb", verb)
    os.truncate(files_of(made, 0)[0], 9)
    (store / "manifest.sqlite.damaged").write_bytes(b"old")
    assert symbio("store", "repair", store).code == 0
    done = symbio("store", "gc", store, config)
    shown = lines(done.out)
    assert any(line.startswith(f"noun {noun[:12]} ") and "without rows" in line for line in shown)
    assert any(line.startswith(f"verb {verb[:12]} ") and "without rows" in line for line in shown)
    assert any(line.endswith("3 B manifests that were damaged") for line in shown)
    assert sum("verb" in line for line in shown) == 2  # a generation that goes goes whole
    assert symbio("store", "gc", store, config, "--delete").code == 0
    assert "is needed" in symbio("store", "gc", store, config).out
    assert not (made.path / ".quarantine").exists() or not any(
        (made.path / ".quarantine").iterdir()
    )
    assert symbio("store", "verify", store, "--deep").code == 0
    assert_rows(open_store(store).generation("verb", verb), [10, 11])


def test_gc_leaves_alone_what_somebody_reads(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    with open_store(store) as opened:
        assert_rows(opened.generation("verb", make_key(1)), [1])
        done = symbio("store", "gc", store, config, "--delete")
        assert done.code == 1
        assert "left alone: got" in done.out
        assert "which somebody reads" in " ".join(lines(done.out))
        assert ("verb", make_key(1)) in stages_in(store)
        assert ("objects", make_key(2)) not in stages_in(store)


def test_gc_refuses_configs_of_other_stores(experiment: tuple[Path, Path], tmp_path: Path) -> None:
    config, store = experiment
    other = tmp_path / "other.yaml"
    changed = yaml.safe_load(config.read_text())
    changed["store"]["path"] = str(tmp_path / "elsewhere")
    other.write_text(yaml.safe_dump(changed))
    before = stages_in(store)
    done = symbio("store", "gc", store, config, other, "--delete")
    assert done.code == 2
    assert "give the configs of this store" in done.err
    assert stages_in(store) == before


def test_gc_needs_a_config_and_a_store(experiment: tuple[Path, Path]) -> None:
    config, store = experiment
    assert "Missing argument 'CONFIG...'" in symbio("store", "gc", store).err
    shutil.rmtree(store)
    for arguments in ([], ["--delete"]):
        done = symbio("store", "gc", store, config, *arguments)
        assert (done.code, done.err.startswith(f"Error: {store}: got no store")) == (2, True)
    assert not store.exists()


# ---- convert


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_convert(root: Path, format: str) -> None:
    (root / "identities.json").write_text('{"/videos/a.mp4": {}}')
    target = root.with_name("target")
    done = symbio(
        *("store", "convert", root, target, "--format", format),
        *("--compression", "zstd", "--shard-mib", str(3.1 * TEN_ROWS_MIB / 10)),
    )
    assert (done.code, done.err) == (0, "")
    assert done.out == f"objects {KEY[:12]}: 12 rows, 12 copied now\n"
    made = reading(target)
    assert (made.layout.format, made.compression, made.rows_per_shard) == (format, "zstd", 3)
    assert_rows(made, list(range(12)))
    assert (target / "identities.json").read_text() == '{"/videos/a.mp4": {}}'
    again = symbio("store", "convert", root, target, "--format", format, "--compression", "zstd")
    assert again.out == f"objects {KEY[:12]}: 12 rows, 0 copied now\n"


def test_convert_names_what_is_damaged(root: Path) -> None:
    damage_row(reading(root), "count", 5)
    done = symbio("store", "convert", root, root.with_name("target"), "--format", "zarr")
    assert done.code == 1
    assert f"objects: 1 rows are damaged in {root}: 'P01_5'" in done.out
    assert len(reading(root.with_name("target"))) == 11


def test_convert_into_itself(root: Path) -> None:
    done = symbio("store", "convert", root, root / "new", "--format", "hdf5")
    assert done.code == 2
    assert "expected two folders, none in the other" in done.err


# ---- export


def test_export_to_npy(root: Path) -> None:
    out = root.with_name("out")
    done = symbio(
        *("store", "export", root, out, "--stage", STAGE, "--to", "npy"),
        *("--output", "count", "--output", "mask", "--clip", "P01_3", "--clip", "P01_7"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.out == f"exported 2 rows of objects {KEY[:12]} to {out}\n"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        *("about.json", "index.csv", "count/P01_3.npy", "count/P01_7.npy"),
        *("mask/P01_3.npy", "mask/P01_7.npy"),
    }
    np.testing.assert_array_equal(np.load(out / "mask/P01_7.npy"), make_arrays(7)["mask"])
    with (out / "index.csv").open(newline="") as file:
        assert [row["clip_id"] for row in csv.DictReader(file)] == ["P01_3", "P01_7"]
    assert json.loads((out / "about.json").read_text())["provenance"] == PROVENANCE


def test_export_to_h5_of_listed_rows_and_videos(root: Path) -> None:
    with open_store(root, "a") as store:
        store.generation(STAGE, KEY).append(
            [Row(make_key(90), make_arrays(90), RowInfo("x \u2028y", "P02"))]
        )
    listed = root.with_name("ids.txt")
    listed.write_bytes("P01_3\r\n\r\nx \u2028y\n".encode())
    out = root.with_name("out.h5")
    base = ("store", "export", root, out, "--stage", STAGE, "--to", "h5")
    assert symbio(*base, "--rows", listed).code == 0
    with h5py.File(out, "r") as file:
        assert set(file) == {"P01_3", "x \u2028y"}
    out.unlink()
    assert symbio(*base, "--video", "P02").code == 0
    with h5py.File(out, "r") as file:
        assert list(file) == ["x \u2028y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "verb"], "got stage 'verb' with key 'any', expected one of: objects"),
        (["--stage", STAGE, "--key", "0"], "with key '0', expected one of: objects"),
        (["--stage", STAGE, "--clip", "P01_99"], "got 1 clips that stage 'objects' holds no row"),
        (["--stage", STAGE, "--output", "flow"], "got output 'flow', expected one of"),
        (["--stage", STAGE, "--rows", "/dev/null"], "got no clip ids in /dev/null"),
        (["--stage", STAGE, "--rows", "/nowhere"], "/nowhere: No such file"),
    ],
)
def test_export_of_what_is_not_there(root: Path, arguments: list[str], message: str) -> None:
    out = root.with_name("out")
    done = symbio("store", "export", root, out, "--to", "npy", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not out.exists()


def test_export_asks_which_key(root: Path) -> None:
    other = make_key(1001)
    with open_store(root, "a") as store:
        store.generation(STAGE, other, SPECS).append(make_rows(20))
    out = root.with_name("out")
    base = ("store", "export", root, out, "--stage", STAGE, "--to", "npy")
    done = symbio(*base)
    assert done.code == 2
    assert f"got 2 keys of stage 'objects': {KEY[:12]}, {other[:12]}; choose" in done.err
    assert symbio(*base, "--key", other[:12]).out.startswith("exported 1 rows")


def test_export_refuses_to_write_into_stores_and_over_things(root: Path) -> None:
    base = ("--stage", STAGE, "--to", "npy")
    done = symbio("store", "export", root, root / "objects" / "out", *base)
    assert (done.code, "expected a place outside of it" in done.err) == (2, True)
    out = root.with_name("out")
    out.mkdir()
    (out / "mine").touch()
    done = symbio("store", "export", root, out, *base)
    assert (done.code, "which exists, expected a new name" in done.err) == (2, True)


def test_export_of_damaged_rows_leaves_nothing(root: Path) -> None:
    damage_row(reading(root), "count", 5)
    done = symbio("store", "export", root, root.with_name("o"), "--stage", STAGE, "--to", "h5")
    assert done.code == 2
    assert "clips 'P01_5' damaged" in done.err
    assert not root.with_name("o").exists()


def test_looking_at_a_store_loads_no_torch() -> None:
    code = "import pipeline.store_commands, pipeline.store_info, pipeline.store_copies, sys"
    command = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent).returncode == 0
