"""The two ways to install name the same things, and the commands stay quick to start."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# Names that differ between the package indexes, and what only one side has.
CONDA_NAMES = {
    "lmdb": "python-lmdb",
    "ray": "ray-core",
    "torch": "pytorch",
    "types-PyYAML": "types-pyyaml",
}
ONLY_CONDA = {"python", "pip", "detectron2"}


def split_requirement(text: str) -> tuple[str, str]:
    """("zarr", ">=3.1,<3.2") of "zarr>=3.1,<3.2"."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)?", text.strip())
    assert match, text
    return match[1], match[2] or ""


@pytest.fixture(scope="module")
def project() -> dict[str, str]:
    """Requirement ranges of pyproject.toml, by the name conda-forge uses."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*table["dependencies"], *table["optional-dependencies"]["dev"]]
    pairs = (split_requirement(line) for line in lines)
    return {CONDA_NAMES.get(name, name): ranges for name, ranges in pairs}


@pytest.fixture(scope="module")
def conda() -> dict[str, str]:
    """Requirement ranges of environment.yml, conda's and pip's."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert "-e ." in pip
    plain = [entry for entry in entries if isinstance(entry, str)]
    lines = [*plain, *(line for line in pip if line != "-e .")]
    return dict(split_requirement(line) for line in lines)


def test_environment_and_project_name_the_same_ranges(
    project: dict[str, str], conda: dict[str, str]
) -> None:
    assert {name: r for name, r in conda.items() if name not in ONLY_CONDA} == project


def test_environment_pins_the_python_the_project_allows(conda: dict[str, str]) -> None:
    assert conda["python"] == "=3.11"
    assert "detectron2" in conda


def test_lock_pins_every_requirement_exactly(project: dict[str, str]) -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    pip_names = {conda: pip for pip, conda in CONDA_NAMES.items()}
    wanted = {pip_names.get(name, name).lower().replace("_", "-") for name in project}
    assert wanted <= pinned
