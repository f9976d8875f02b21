"""The small experiment with a network over optical flow in its stage ``verb``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from experiment_fixtures import make_experiment, settings

from pipeline.config import ExperimentConfig
from pipeline.config_file import parse_config

__all__ = ["FAST", "TVL1", "configure"]

FAST = {"nscales": 2, "warps": 1, "outer_iterations": 2, "inner_iterations": 5}
TVL1 = {"method": "tvl1", "short_side_px": 40, **FAST}


def configure(
    folder: Path,
    flow: Mapping[str, Any] | None,
    *,
    data: Mapping[str, Any] = {},
    processes: int = 0,
    **verb: Any,
) -> ExperimentConfig:
    """The small experiment with the verb network over flow."""
    make_experiment(folder)  # writes the videos
    values = settings(folder)
    values["stages"]["verb"] |= {
        "network": {"name": "i3d", "modality": "flow", "width": 4},
        "dtype": "float32",
        **verb,
    }
    if flow is not None:
        values["stages"]["verb"]["flow"] = dict(flow)
    values["data"] |= data
    values["engine"] = {"decode_processes": processes}
    return parse_config(yaml.safe_dump(values), [], source="flow.yaml")
