"""What an experiment's stages are called, also where little of the experiment is left."""

import shutil
from pathlib import Path

import pytest
import yaml
from experiment_fixtures import make_experiment, settings

from pipeline.config_file import parse_config
from pipeline.errors import ConfigError
from pipeline.experiment import resolve, stage_keys


def test_stage_keys_are_those_of_a_run(tmp_path: Path) -> None:
    config = make_experiment(tmp_path)
    expected = {name: stage.key for name, stage in resolve(config).stages.items()}
    assert stage_keys(config) == expected
    assert len(set(expected.values())) == 4
    shutil.rmtree(tmp_path / "videos")
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "boxes.csv").unlink()
    assert stage_keys(config) == expected


def test_weights_that_are_gone_keep_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.identity.RACY_NANOSECONDS", -(10**12))
    make_experiment(tmp_path)
    (tmp_path / "store").mkdir()
    weights = tmp_path / "verb.pth"
    weights.write_bytes(b"weights")
    document = settings(tmp_path)
    del document["stages"]["verb"]["weights_seed"]
    document["stages"]["verb"]["weights"] = str(weights)
    config = parse_config(yaml.safe_dump(document), [], source="small.yaml")
    first = stage_keys(config)
    weights.write_bytes(b"other weights")
    second = stage_keys(config)
    assert {name for name in first if first[name] != second[name]} == {"verb", "aligned"}
    weights.unlink()
    with pytest.raises(ConfigError, match=r"stages\.verb\.weights: .*No such file"):
        stage_keys(config)
    weights.write_bytes(b"weights")
    resolve(config).memo.save()
    weights.unlink()
    assert stage_keys(config) == first
