import math
from dataclasses import replace
from typing import Any

import pytest

from heads.settings import TrainSettings


def test_r50_rate_is_constant() -> None:
    assert {TrainSettings().learning_rate_at(epoch) for epoch in range(1, 16)} == {1e-4}


def test_i3d_rate_falls_for_the_last_five_epochs() -> None:
    i3d = TrainSettings(learning_rate=1e-3, decay_epochs=(10,))
    rates = [i3d.learning_rate_at(epoch) for epoch in range(1, 16)]
    assert rates == pytest.approx([1e-3] * 10 + [1e-4] * 5)


def test_every_decay_counts() -> None:
    settings = TrainSettings(learning_rate=8.0, epochs=5, decay_epochs=(1, 3), decay_factor=0.5)
    assert [settings.learning_rate_at(epoch) for epoch in range(1, 6)] == [8, 4, 4, 2, 2]


def test_warm_up_is_a_line_to_the_full_rate() -> None:
    settings = TrainSettings(epochs=6, learning_rate=4.0, warmup_epochs=3, decay_epochs=(5,))
    rates = [settings.learning_rate_at(epoch) for epoch in range(1, 7)]
    assert rates == pytest.approx([1, 2, 3, 4, 4, 0.4])


def test_cosine_starts_at_the_full_rate_after_the_warm_up() -> None:
    settings = TrainSettings(epochs=4, learning_rate=2.0, schedule="cosine")
    half = math.sqrt(0.5)
    rates = [settings.learning_rate_at(epoch) for epoch in range(1, 5)]
    assert rates == pytest.approx([2, 1 + half, 1, 1 - half])
    later = replace(settings, epochs=5, warmup_epochs=1)
    assert [later.learning_rate_at(epoch) for epoch in range(1, 6)] == pytest.approx([1, *rates])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "got epochs=0, expected at least 1"),
        ({"batch_size": 0}, "got batch_size=0, expected at least 1"),
        ({"learning_rate": 0.0}, r"got learning_rate=0\.0, expected above 0"),
        ({"learning_rate": float("nan")}, "got learning_rate=nan, expected above 0"),
        ({"decay_epochs": (15,)}, r"got decay_epochs=\(15,\), expected epochs from 1 to 14"),
        ({"decay_epochs": (0,)}, r"got decay_epochs=\(0,\)"),
        ({"decay_factor": 0.0}, r"got decay_factor=0\.0"),
        ({"momentum": 1.0}, r"got momentum=1\.0, expected 0 or more, below 1"),
        ({"weight_decay": -0.1}, r"got weight_decay=-0\.1"),
        ({"seed": -1}, "got seed=-1"),
        ({"optimizer": "lamb"}, "got optimizer=lamb, expected one of sgd, adam, adamw"),
        ({"schedule": "linear"}, "got schedule=linear, expected one of step, cosine"),
        ({"schedule": "cosine", "decay_epochs": (3,)}, "only the schedule step has them"),
        ({"warmup_epochs": 15}, "got warmup_epochs=15, expected 0 to 14, less than epochs"),
        ({"nesterov": True, "momentum": 0.0}, "got nesterov=True, expected false, or the"),
        ({"nesterov": True, "optimizer": "adam"}, "expected false, or the optimizer sgd"),
        ({"betas": (0.9, 1.0)}, r"got betas=\(0.9, 1.0\), expected two numbers"),
        ({"eps": 0.0}, r"got eps=0\.0"),
        ({"gradient_clip_norm": 0.0}, r"got gradient_clip_norm=0\.0, expected above 0, or none"),
        ({"precision": "float16"}, "got precision=float16, expected one of float32, bfloat16"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**fields)
