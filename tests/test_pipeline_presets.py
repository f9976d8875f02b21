"""The papers' trainings by name: what they fill in, what wins, and what the page says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from docs_pages import section, table_rows
from test_pipeline_config_file import SMALL

from pipeline.config import ExperimentConfig
from pipeline.config_file import dump_config, parse_config
from pipeline.config_training import ClipFinetuneConfig, TrainConfig
from pipeline.errors import ConfigError
from pipeline.presets import HEAD_PRESETS, STAGE_ONE_PRESETS, PresetName
from pipeline.train_settings import train_settings


def config_of(*overrides: str) -> ExperimentConfig:
    return parse_config(SMALL, overrides, source="small.yaml")


def documented(number: int) -> dict[str, dict[str, Any]]:
    """A table of presets on the page: preset → key → value."""
    text = section("docs/training.md", "Presets")
    tables = [part for part in text.split("\n\n") if part.startswith("| preset")]
    keys = [cell.strip() for cell in tables[number].splitlines()[0].strip("|").split("|")][1:]
    return {
        row[0].strip("`"): dict(zip(keys, map(json.loads, row[1:]), strict=True))
        for row in table_rows(tables[number])
    }


@pytest.mark.parametrize(
    ("presets", "model", "table", "given"),
    [
        (HEAD_PRESETS, TrainConfig, 0, {}),
        (STAGE_ONE_PRESETS, ClipFinetuneConfig, 1, {"weights": "random", "weights_seed": 0}),
    ],
)
def test_presets_are_what_the_page_says(
    presets: Mapping[str, Any], model: Any, table: int, given: dict[str, Any]
) -> None:
    assert {*presets} == {*get_args(PresetName)} == {*documented(table)}
    for name, expected in documented(table).items():
        made = model.model_validate({"preset": name, **given}).model_dump(mode="json")
        assert {key: made[key] for key in expected} == expected


def test_the_rates_of_the_papers() -> None:
    """Spec: I3D 1e-3, 1e-4 in the last 5 of 15; R-50 1e-4; R(2+1)D as R-50."""
    rates = {}
    for name in HEAD_PRESETS:
        settings = train_settings(config_of(f"train.preset={name}").train)
        rates[name] = [settings.learning_rate_at(epoch) for epoch in range(1, 16)]
    assert rates["saoa_i3d"] == pytest.approx([1e-3] * 10 + [1e-4] * 5)
    assert rates["saoa_r50"] == rates["saoa_r2plus1d"] == [1e-4] * 15


def test_given_keys_win_and_the_dump_says_what_came_out() -> None:
    config = config_of("train.preset=saoa_i3d", "train.learning_rate=0.5", "train.seed=3")
    assert config.train.learning_rate == 0.5
    assert (config.train.decay_epochs, config.train.seed) == ((10,), 3)
    again = parse_config(dump_config(config), source="dump")
    assert again == config
    other = parse_config(dump_config(config), ["train.preset=saoa_r50"], source="dump")
    assert other.train.decay_epochs == (10,)


@pytest.mark.parametrize(
    ("overrides", "decays"),
    [
        (["train.epochs=30"], (10,)),
        (["train.epochs=11"], (10,)),
        (["train.epochs=10"], ()),
        (["train.schedule=cosine"], ()),
        (["train.epochs=4", "train.decay_epochs=[2]"], (2,)),
    ],
)
def test_decays_of_a_preset_that_are_never_reached(
    overrides: list[str], decays: tuple[int, ...]
) -> None:
    config = config_of("train.preset=saoa_i3d", *overrides)
    assert config.train.decay_epochs == decays
    train_settings(config.train)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.preset=saoa", "train.preset: got 'saoa'; expected 'saoa_r50', 'saoa_i3d' or"),
        ("train.preset=[1]", r"train.preset: got \[1\]; expected"),
        ("train={preset: saoa_i3d, epochs: many}", "train.epochs: got 'many'"),
        ("train.betas=[0.9]", "train.betas"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(override)


def test_settings_that_do_not_go_together_are_named() -> None:
    config = config_of("train={nesterov: true, optimizer: adam}")
    with pytest.raises(ConfigError, match=r"^train: got nesterov=True, expected false, or the opt"):
        train_settings(config.train)
