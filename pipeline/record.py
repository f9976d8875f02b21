"""What came back from those who make rows, put into the store and into the report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipeline.run_log import RunLog
from pipeline.run_report import Reporter, StageReport
from pipeline.work import Progress
from stores.base import FeatureStore

__all__ = ["Recorder"]

MOST_AT_ONCE = 64  # shards of one stage in a commit, each of which waits for the disk


class Recorder:
    """Commits what is on disk and what failed, and counts it.

    Receipts that come in one go are committed together.

    Args:
        reports: of the stages, by name.
        generations: of the stages, by name.
        reporter: is told of rows that are settled.
        log: is told of commits.
    """

    def __init__(
        self,
        reports: Mapping[str, StageReport],
        generations: Mapping[str, FeatureStore],
        reporter: Reporter,
        log: RunLog,
    ) -> None:
        self._reports = reports
        self._generations = generations
        self._reporter = reporter
        self._log = log
        self._waiting: dict[str, list[Progress]] = {}

    def take(self, progress: Progress | None) -> None:
        """Take a progress in; with None, and when many wait, all that wait are committed."""
        if progress is None:
            self.commit()
            return
        report = self._reports[progress.stage]
        if progress.summary is not None:
            report.timings += progress.summary.timings
            sizes = (report.batch_size, progress.summary.batch_size)
            report.batch_size = min(size for size in sizes if size is not None)
        if progress.receipt or progress.failures:
            waiting = self._waiting.setdefault(progress.stage, [])
            waiting.append(progress)
            if len(waiting) >= MOST_AT_ONCE:
                self.commit()
        self._reporter.advance(progress.stage, progress.computed + len(progress.failures))

    def commit(self) -> None:
        """Commit what waits."""
        while self._waiting:
            stage = next(iter(self._waiting))
            waiting = self._waiting.pop(stage)
            receipts = [progress.receipt for progress in waiting if progress.receipt]
            failures = [failure for progress in waiting for failure in progress.failures]
            generation, report = self._generations[stage], self._reports[stage]
            self._log.patience(partial(generation.commit, receipts, failures))
            report.made += sum(len(receipt.slots) for receipt in receipts)
            report.nbytes += sum(receipt.nbytes for receipt in receipts)
            report.failures += failures
            self._log.committed(stage, receipts, failures)
