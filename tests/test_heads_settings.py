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
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**fields)
