"""What a run did: for people as tables (`console`), for programs as JSON."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pipeline.experiment import MissingVideo
from pipeline.plan import StagePlan
from pipeline.stages import AlignedStage
from pipeline.timings import Timings
from pipeline.worker_board import WorkerLine
from stores.base import Failure, FeatureStore
from stores.row_keys import packed_array

__all__ = ["Reporter", "RunReport", "StageReport", "stage_report", "write_report"]

# Of a stage, what the JSON gives in another form.
_SPELT_OUT = ("nbytes", "timings", "failures")


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins, with so many rows to make."""

    def advance(self, stage: str, rows: int) -> None:
        """So many more rows are computed, or failed."""

    def show_workers(self, workers: Sequence[WorkerLine]) -> None:
        """Who works on what has changed; none where the main process does all."""

    def say(self, text: str) -> None:
        """What a person should know now, such as which job was submitted."""


@dataclass
class StageReport:
    """What became of one stage in a run.

    ``skipped``: derived rows that wait for upstream rows that are not there, nor were to be made.
    ``left``: rows that are still to be made, by jobs on a cluster or by the next run; ``out``: of
    them, by jobs, which make no derived rows. ``retried``: rows that had failed before and were
    tried again; ``retried_made``: of them, that were made.
    ``batch_size``: of stages with a network that ran; less than wanted if memory ran out.
    """

    stage: str
    key: str
    wanted: int
    present: int
    made: int = 0
    nbytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed_before: int = 0
    retried: int = 0
    retried_made: int = 0
    skipped: int = 0
    left: int = 0
    out: int = 0
    seconds: float = 0.0
    timings: Timings = field(default_factory=Timings)
    batch_size: int | None = None
    batch_size_wanted: int = 0

    def count_retried(self, plan: StagePlan[Any], generation: FeatureStore) -> None:
        """Put down what became of rows that had failed before, once the stage is done."""
        retried = packed_array(plan.retried)
        made = int(generation.holds(retried).sum())
        failed = {failure.row_key for failure in self.failures}
        self.retried = made + sum(key in failed for key in plan.retried)
        self.retried_made = made


@dataclass
class RunReport:
    """What a run did. ``complete`` means every wanted row of the stages asked for is stored."""

    stages: list[StageReport]
    missing_videos: Sequence[MissingVideo]
    interrupted: bool

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do or to mend."""
        troubled = any(s.failures or s.failed_before or s.skipped or s.left for s in self.stages)
        return not (self.interrupted or self.missing_videos or troubled)

    @property
    def handed_over(self) -> bool:
        """Whether jobs make all that is left, but for rows made from those."""
        unmade = any(s.left != s.out for s in self.stages if s.stage != AlignedStage.name)
        troubled = unmade or any(s.failures or s.failed_before for s in self.stages)
        out = any(stage.out for stage in self.stages)
        return out and not (self.interrupted or self.missing_videos or troubled)


def stage_report(plan: StagePlan[Any]) -> StageReport:
    """A report with nothing done yet."""
    return StageReport(
        stage=plan.stage.name,
        key=plan.stage.key,
        wanted=plan.wanted,
        present=plan.present,
        failed_before=plan.failed,
        left=plan.out,
        out=plan.out,
    )


def write_report(report: RunReport, path: Path) -> None:
    """Write a report as JSON. Seconds, bytes and rows; see docs/extraction.md for the fields."""
    path.write_text(json.dumps(_as_json(report), indent=2) + "\n", encoding="utf-8")


def _as_json(report: RunReport) -> dict[str, Any]:
    return {
        "symbio": version("symbio"),
        "complete": report.complete,
        "interrupted": report.interrupted,
        **_peak_memory(),
        "missing_videos": [
            {"video_id": m.video.video_id, "reason": m.reason, m.unit: m.count}
            for m in report.missing_videos
        ],
        "stages": [_stage_as_json(stage) for stage in report.stages],
    }


def _stage_as_json(stage: StageReport) -> dict[str, Any]:
    values = {name: value for name, value in vars(stage).items() if name not in _SPELT_OUT}
    return {
        **values,
        "written_bytes": stage.nbytes,
        "timings": stage.timings.as_dict(),
        "failures": [asdict(failure) for failure in stage.failures],
    }


def _peak_memory() -> dict[str, int]:
    """The most memory this process has held, and the most that its networks held on a GPU."""
    torch = sys.modules.get("torch")  # where nothing was to do nobody has loaded it
    device = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    return {"peak_resident_bytes": _peak_resident_bytes(), "peak_device_bytes": device}


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process that started this one held, too
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
