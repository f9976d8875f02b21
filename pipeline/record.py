"""What came back from those who make rows, put into the store and into the report."""

from __future__ import annotations

from pipeline.run_log import RunLog
from pipeline.run_report import StageReport
from pipeline.work import Progress
from stores.base import FeatureStore

__all__ = ["record"]


def record(progress: Progress, report: StageReport, generation: FeatureStore, log: RunLog) -> None:
    """Commit what is on disk and what failed, and count it."""
    if progress.summary is not None:
        report.timings += progress.summary.timings
        sizes = (report.batch_size, progress.summary.batch_size)
        report.batch_size = min(size for size in sizes if size is not None)
    if not (progress.receipt or progress.failures):
        return
    receipts = [progress.receipt] if progress.receipt else []
    log.patience(lambda: generation.commit(receipts, progress.failures))
    report.made += sum(len(receipt.slots) for receipt in receipts)
    report.nbytes += sum(receipt.nbytes for receipt in receipts)
    report.failures += progress.failures
    log.committed(progress)
