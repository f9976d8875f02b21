"""Measured figures with their targets, printed as they come and kept with facts of the machine."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

# Comparison sign and limit.
Target = tuple[str, float]


class Figures:
    """The figures of one benchmark.

    Args:
        name: of the benchmark, and of its file in `benchmarks/results`.
        libraries: distributions whose versions the figures depend on.
    """

    def __init__(self, name: str, libraries: Iterable[str] = ("numpy",)) -> None:
        self._name = name
        self._libraries = list(libraries)
        self._figures: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, target: Target | None = None) -> None:
        """Print and keep a figure: "figure NAME VALUE UNIT target OP LIMIT met|short".

        The verdict is that of the value as printed, so that a reader can check it.
        """
        figure: dict[str, Any] = {"name": name, "value": value, "unit": unit, "target": None}
        shown = f"{value:.4g}"
        line = f"figure {name} {shown} {unit} target "
        if target is None:
            line += "none"
        else:
            sign, limit = target
            figure["target"] = [sign, limit]
            figure["met"] = _meets(float(shown), sign, limit)
            line += f"{sign} {limit:g} {'met' if figure['met'] else 'short'}"
        self._figures.append(figure)
        print(line, flush=True)

    def save(self) -> Path:
        """Write `benchmarks/results/<name>.json`; return its path."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self._name}.json"
        document = {
            "benchmark": self._name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_facts(),
            "libraries": {name: _version(name) for name in self._libraries},
            "figures": self._figures,
        }
        path.write_text(json.dumps(document, indent=2) + "\n")
        return path


def machine_facts() -> dict[str, Any]:
    """Return what figures depend on: processor, cores, memory, Python, operating system."""
    return {
        "cpu": _first_field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _meets(value: float, sign: str, limit: float) -> bool:
    if sign not in (">=", "<="):
        raise ValueError(f"got target sign {sign!r}, expected '>=' or '<='")
    return value >= limit if sign == ">=" else value <= limit


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _first_field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
