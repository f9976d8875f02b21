"""Training from whole maps on small videos: no aligned row is stored, and nothing else differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import symbio, write_experiment
from safetensors.numpy import load_file
from test_end_to_end import made, run
from torch import nn

from heads.base import Batch, Head, HeadDims
from heads.registry import register_head
from heads.scores import load_scores
from stores.registry import open_store

UPSTREAM = ("verb", "noun", "objects")
MAPS = ("--set", "train.features=maps")


@pytest.fixture(scope="module")
def upstream_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with rows of three stages, none of ``aligned``."""
    folder = tmp_path_factory.mktemp("maps")
    write_experiment(folder)
    assert set(made(run(folder, stages=UPSTREAM))) == set(UPSTREAM)
    return folder


def copied(original: Path, folder: Path) -> Path:
    """An experiment to add rows to; returns its file."""
    shutil.copytree(original, folder)
    config = folder / "small.yaml"
    config.write_text(config.read_text().replace(str(original), str(folder)))
    return config


def train(folder: Path, name: str, *options: str) -> Path:
    done = symbio("train", folder / "small.yaml", "--run", folder / name, *options, "--quiet")
    assert done.code == 0, done.err
    return folder / name


def stages_in(folder: Path) -> set[str]:
    with open_store(folder / "store", mode="r") as store:
        return {generation.stage for generation in store.generations()}


def test_a_run_makes_no_aligned_rows_that_nobody_reads(upstream_only: Path, tmp_path: Path) -> None:
    config = copied(upstream_only, tmp_path / "copy")
    done = symbio("run", config, *MAPS)
    assert done.code == 0, done.err
    assert "aligned: skipped, as train.features: maps" in done.out
    assert stages_in(config.parent) == set(UPSTREAM)
    asked = symbio("run", config, *MAPS, "--stage", "aligned")
    assert asked.code == 0, asked.err
    assert "aligned: skipped" not in asked.out
    assert stages_in(config.parent) == {*UPSTREAM, "aligned"}


def test_a_head_from_maps_is_that_from_aligned_rows(upstream_only: Path, tmp_path: Path) -> None:
    config = copied(upstream_only, tmp_path / "copy")
    folder = config.parent
    from_maps = train(folder, "maps", *MAPS)
    streamed = train(folder, "streamed", *MAPS, "--set", "train.resident_mib=0")
    assert stages_in(folder) == set(UPSTREAM)
    assert symbio("evaluate", from_maps).code == 0
    assert symbio("run", config).code == 0
    from_rows = train(folder, "rows")
    expected = load_file(from_rows / "head.safetensors")
    for other in (from_maps, streamed):
        weights = load_file(other / "head.safetensors")
        assert weights.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(weights[name], values, err_msg=name)
        scores = load_scores(other / "scores.npz")
        np.testing.assert_array_equal(
            scores.verb_scores, load_scores(from_rows / "scores.npz").verb_scores
        )


def test_alignment_may_change_without_a_run(upstream_only: Path) -> None:
    heads = [
        load_file(
            train(
                upstream_only, name, *MAPS, "--set", f"stages.aligned.local_window_seconds={name}"
            )
            / "head.safetensors"
        )
        for name in ("1", "2")
    ]
    assert any(not np.array_equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert stages_in(upstream_only) == set(UPSTREAM)


def test_what_a_head_reads_beyond_stored_rows(upstream_only: Path, tmp_path: Path) -> None:
    config = copied(upstream_only, tmp_path / "copy")
    folder = config.parent
    local_noun = ("--set", "head.name=saoa_local_noun")
    from_maps = train(folder, "maps", *MAPS, *local_noun)
    assert symbio("run", config).code == 0
    refused = symbio("train", config, "--run", folder / "rows", *local_noun)
    assert refused.code == 2
    assert "reads noun_roi, with stages.aligned.noun_roi: false" in refused.err
    stored = ("--set", "stages.aligned.noun_roi=true")
    assert symbio("run", config, *stored).code == 0
    from_rows = train(folder, "rows", *stored, *local_noun)
    expected = load_file(from_rows / "head.safetensors")
    for name, values in load_file(from_maps / "head.safetensors").items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


class WholeMapsHead(Head):
    """Verb from the verb map's greatest values, noun from the noun map's."""

    name = "whole_maps"
    inputs = ("verb_map", "noun_map")

    def __init__(self, dims: HeadDims, *, num_verbs: int, num_nouns: int) -> None:
        super().__init__()
        self.verb = nn.Linear(dims.verb_channels, num_verbs)
        self.noun = nn.Linear(dims.noun_channels, num_nouns)

    def forward(self, batch: Batch) -> Batch:
        assert all(batch[name].ndim == 5 for name in self.inputs)  # (B, T, H, W, C)
        greatest = {name: batch[name].amax(dim=(1, 2, 3)) for name in self.inputs}
        return {"verb": self.verb(greatest["verb_map"]), "noun": self.noun(greatest["noun_map"])}


def test_a_head_may_read_whole_maps(upstream_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.registry._HEADS", {})
    register_head("whole_maps", f"{__name__}:WholeMapsHead")
    chosen = ("--set", "head.name=whole_maps")
    refused = symbio("plan", upstream_only / "small.yaml", *chosen)
    assert refused.code == 2
    assert "which reads verb_map, noun_map, with train.features: aligned; set it" in refused.err
    kept = [
        load_file(
            train(
                upstream_only, f"whole-{mib}", *MAPS, *chosen, "--set", f"train.resident_mib={mib}"
            )
            / "head.safetensors"
        )
        for mib in (0, 64)
    ]
    assert all(values.any() for values in kept[0].values())
    for name, values in kept[0].items():
        np.testing.assert_array_equal(values, kept[1][name], err_msg=name)


def test_what_is_missing_is_told_with_the_command_that_makes_it(
    upstream_only: Path, tmp_path: Path
) -> None:
    file = upstream_only / "small.yaml"
    refused = symbio("train", file, "--run", tmp_path / "a")
    assert refused.code == 2
    assert "no aligned rows under key" in refused.err
    command = "`symbio run --stage verb --stage noun --stage objects`"
    other = ("--set", "stages.noun.clip.stride=1")
    refused = symbio("train", file, "--run", tmp_path / "a", *MAPS, *other)
    assert refused.code == 2
    assert "no noun rows under key" in refused.err
    assert f"run {command} first" in refused.err
    refused = symbio("train", file, "--run", tmp_path / "a", *MAPS, "--set", "views.train=3")
    assert refused.code == 2
    assert "2 of 2 segments of split 'train' have no stored features" in refused.err
    assert f"run {command}, see" in refused.err
    refused = symbio("train", file, *MAPS, "--set", f"store.path={tmp_path / 'none'}")
    assert f"there is no store yet; run {command} first" in refused.err
    assert not (tmp_path / "a").exists()


def test_a_head_is_tested_on_more_clips_than_it_was_trained_with(
    upstream_only: Path, tmp_path: Path
) -> None:
    config = copied(upstream_only, tmp_path / "copy")
    folder = train(config.parent, "run", *MAPS)
    plain = (folder / "metrics.json").read_bytes()
    refused = symbio("evaluate", folder, "--views", "3")
    assert refused.code == 2
    assert "2 of 2 segments of split 'val' have no stored features" in refused.err
    stages = [word for stage in UPSTREAM for word in ("--stage", stage)]
    assert symbio("run", config, *stages, "--set", "views.test=3").code == 0
    done = symbio("evaluate", folder, "--views", "3")
    assert done.code == 0, done.err
    assert f"{folder}/val-3views: val, 2 segments" in done.out
    assert (folder / "metrics.json").read_bytes() == plain
    details = json.loads((folder / "val-3views" / "metrics.json").read_text())["details"]
    assert (details["split"], details["views"]) == ("val", 3)
    one, three = (load_scores(place / "scores.npz") for place in (folder, folder / "val-3views"))
    assert one.segment_ids == three.segment_ids
    assert not np.array_equal(one.verb_scores, three.verb_scores)
    np.testing.assert_allclose(three.verb_scores.sum(axis=1), 1)
    assert "evaluated on: val, val-3views" in symbio("status", folder).out
    both = config.parent / "both"
    fused = symbio("fuse", folder, folder / "val-3views", "--out", both)
    assert fused.code == 0, fused.err
    np.testing.assert_allclose(
        load_scores(both / "scores.npz").verb_scores, (one.verb_scores + three.verb_scores) / 2
    )
    # As many as the config says: the run's own place.
    assert symbio("evaluate", folder, "--views", "1").code == 0
    assert (folder / "metrics.json").read_bytes() == plain
    refused = symbio("evaluate", folder, "--views", "3", "--split", "train")
    assert "got --views for split 'train', expected another" in refused.err
