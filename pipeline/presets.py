"""The papers' trainings by name: what `preset` fills in where a config does not say otherwise.

Guesses where the papers are silent: of a rate that falls "in the last 5 epochs", the epoch after
which it falls is kept when another number of epochs is given, and dropped when it is never reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["HEAD_PRESETS", "STAGE_ONE_PRESETS", "PresetName", "fill_preset"]

PresetName = Literal["saoa_r50", "saoa_i3d", "saoa_r2plus1d"]

_SGD = {"momentum": 0.9, "weight_decay": 1e-4, "batch_size": 32, "decay_factor": 0.1}

_HEAD = {**_SGD, "optimizer": "sgd", "schedule": "step", "epochs": 15}
_CONSTANT = {**_HEAD, "learning_rate": 1e-4, "decay_epochs": ()}
HEAD_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "saoa_r50": _CONSTANT,
    "saoa_i3d": {**_HEAD, "learning_rate": 1e-3, "decay_epochs": (10,)},
    "saoa_r2plus1d": _CONSTANT,
}
"""The second stage: heads on stored features."""

_CLIPS_224 = {
    **_SGD,
    "epochs": 35,
    "learning_rate": 0.003,
    "decay_epochs": (30,),
    "scale_range_px": (224, 288),
    "crop_px": 224,
    "test_resize_px": 256,
}
STAGE_ONE_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "saoa_r50": _CLIPS_224,
    "saoa_i3d": _CLIPS_224,
    "saoa_r2plus1d": {
        **_SGD,
        "epochs": 20,
        "learning_rate": 0.0002,
        "decay_epochs": (9, 18),
        "scale_range_px": (112, 144),
        "crop_px": 112,
        "test_resize_px": 128,
    },
}
"""The first stage: VerbNet and NounNet."""


def fill_preset(presets: Mapping[str, Mapping[str, Any]], given: Any) -> Any:
    """Settings as given, with what their preset says of the others.

    Args:
        presets: by name.
        given: a section as it was read; anything that is none, or names no preset, stays as it is.
    """
    name = given.get("preset") if isinstance(given, dict) else None
    if not isinstance(name, str) or name not in presets:
        return given
    filled = {**presets[name], **given}
    if "decay_epochs" not in given:
        reached = filled["epochs"] if isinstance(filled["epochs"], int) else 0
        steps = filled.get("schedule", "step") == "step"
        filled["decay_epochs"] = [e for e in filled["decay_epochs"] if steps and e < reached]
    return filled
