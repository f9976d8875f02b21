"""What the coordinator tells the journal: begin, commits, failures, end, and how far it is."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pipeline.config_executor import worker_count
from pipeline.experiment import Experiment
from pipeline.journal import Journal
from pipeline.patience import Patience
from pipeline.rates import share_out
from pipeline.run_report import RunReport
from stores.base import Failure, Receipt

__all__ = ["RunLog"]


class RunLog:
    """One run in words of the journal.

    Args:
        journal: where they go.
        experiment: what is run.
        stages: names of those that were asked for.
        tell: is told what a person should know at once.

    Attributes:
        patience: with storage that is gone; waiting is told.
    """

    def __init__(
        self,
        journal: Journal,
        experiment: Experiment,
        stages: Collection[str],
        tell: Callable[[str], None],
    ) -> None:
        self.journal = journal
        self.patience = Patience(experiment.config.engine.storage_seconds, self._waiting)
        self._say = tell
        self._device = experiment.config.device
        self._workers = worker_count(experiment.config.executor)
        self._has_queued = experiment.config.executor.name == "slurm"
        self._started_at = time.monotonic()
        self._began_at: dict[str, float] = {}  # each stage by itself: aligned begins last
        self._stages: dict[str, dict[str, Any]] = {}
        journal.event(
            "run_started",
            command=shlex.join(["symbio", *sys.argv[1:]]),
            folder=os.getcwd(),
            config=experiment.config.name,
            device=self._device,
            stages=list(stages),
            executor=experiment.config.executor.model_dump(mode="json"),
        )

    def start(self, stage: str, rows: int) -> None:
        """So many rows of a stage are to be made."""
        self._stages[stage] = {
            "rows": rows,
            "stored": 0,
            "failed": 0,
            "nbytes": 0,
            "rows_per_second": 0.0,
        }
        self._began_at[stage] = time.monotonic()
        self._tell()

    def committed(
        self, stage: str, receipts: Sequence[Receipt], failures: Sequence[Failure]
    ) -> None:
        """Receipts and failures are in the manifest."""
        done = self._stages[stage]
        if receipts:
            rows = sum(len(receipt.slots) for receipt in receipts)
            nbytes = sum(receipt.nbytes for receipt in receipts)
            done["stored"] += rows
            done["nbytes"] += nbytes
            seconds = time.monotonic() - self._began_at[stage]
            done["rows_per_second"] = done["stored"] / seconds if seconds else 0.0
            self.journal.event("committed", stage=stage, rows=rows, nbytes=nbytes)
        done["failed"] += len(failures)
        self.journal.failures(stage, failures)
        self._tell()

    def finished(self, report: RunReport) -> None:
        """The run is over; ``own_seconds`` are its seconds, shared out by what each stage cost.

        They are 0 where jobs waited in a queue: nothing is to be learnt from such seconds.
        """
        videos = [s for s in report.stages if s.made and s.batch_size is not None]
        seconds = max((stage.seconds for stage in videos), default=0.0)
        own = share_out(
            0.0 if self._has_queued else seconds,
            {stage.stage: stage.timings.own_seconds for stage in videos},
        )
        self.journal.event(
            "run_finished",
            device=self._device,
            workers=self._workers,
            complete=report.complete,
            interrupted=report.interrupted,
            seconds=time.monotonic() - self._started_at,
            stages=[
                {
                    "stage": stage.stage,
                    "key": stage.key,
                    "rows": stage.made,
                    "nbytes": stage.nbytes,
                    "failed": len(stage.failures),
                    "seconds": stage.seconds,
                    "own_seconds": own.get(stage.stage, stage.seconds),
                }
                for stage in report.stages
            ],
        )

    def _waiting(self, text: str) -> None:
        self.journal.event("storage_waiting", message=text)
        self._say(text)

    def _tell(self) -> None:
        self.journal.live(stages={name: dict(done) for name, done in self._stages.items()})
