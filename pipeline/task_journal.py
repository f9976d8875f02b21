"""What a task of a job says about its work: one file for each start, a line of JSON an event.

A line is on disk before the task goes on, and is read only if it is whole. Nobody else appends to
the file: a task that was thought dead and lives on never mixes its lines with its successor's.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.timings import Timings
from stores.base import Failure, Receipt

if TYPE_CHECKING:
    from pipeline.work import Progress

__all__ = [
    "TaskJournal",
    "failures_of",
    "journals",
    "progress_of",
    "read_events",
    "receipt_of",
    "settled_keys",
]

logger = logging.getLogger(__name__)

Event = Mapping[str, Any]


class TaskJournal:
    """The journal of one start of a task.

    Args:
        folder: of the job.
        task: number of the task.
    """

    def __init__(self, folder: Path, task: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        self.start = len(journals(folder, task))
        while True:
            try:
                path = folder / f"task_{task}.{self.start}.jsonl"
                self._descriptor = os.open(path, flags, 0o600)
                return
            except FileExistsError:
                self.start += 1

    def write(self, event: str, **fields: Any) -> None:
        """Add an event, on disk when this returns.

        Raises:
            OSError: it could not be written.
        """
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        if os.write(self._descriptor, line) < len(line):
            raise OSError("the disk took only part of a line of the journal")
        os.fsync(self._descriptor)

    def note(self, progress: Progress) -> set[tuple[str, str]]:
        """Write down what was done; return (stage, row key) of rows that are on disk or failed."""
        if progress.summary is not None:
            self.write(
                "summary", unit=progress.unit, stage=progress.stage, **asdict(progress.summary)
            )
        receipt = None if progress.receipt is None else progress.receipt.to_json()
        failures = [asdict(failure) for failure in progress.failures]
        if not (receipt or failures):
            return set()
        rows = {
            "unit": progress.unit,
            "stage": progress.stage,
            "receipt": receipt,
            "failures": failures,
        }
        self.write("rows", **rows)
        return settled_keys({"event": "rows", **rows})

    def close(self) -> None:
        """Nothing more is said."""
        os.close(self._descriptor)


def journals(folder: Path, task: int) -> list[Path]:
    """The journals of a task, by start."""
    paths = folder.glob(f"task_{task}.*.jsonl")
    return sorted(paths, key=lambda path: int(path.name.split(".")[1]))


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Whole lines of a journal from a byte on, and where they end; a torn one is left."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    return list(_parse(path, whole.splitlines())), offset + len(whole)


def receipt_of(event: Event) -> Receipt | None:
    """The receipt of an event about rows."""
    found = event.get("receipt")
    return None if found is None else Receipt.from_json(found)


def failures_of(event: Event) -> list[Failure]:
    """The failures of an event about rows."""
    return [Failure(**fields) for fields in event.get("failures", ())]


def progress_of(event: Event) -> Progress:
    """What was noted, from an event about rows or a summary."""
    from pipeline.work import Progress, UnitSummary

    if event["event"] == "summary":
        timings = Timings(**event["timings"])
        summary = UnitSummary(timings=timings, batch_size=event["batch_size"])
        return Progress(event["stage"], summary=summary)
    receipt = receipt_of(event)
    computed = 0 if receipt is None else len(receipt.slots)
    return Progress(event["stage"], computed, receipt, failures_of(event))


def settled_keys(event: Event) -> set[tuple[str, str]]:
    """(stage, row key) of what an event says is stored or failed."""
    if event["event"] != "rows":
        return set()
    receipt = receipt_of(event)
    keys = [failure.row_key for failure in failures_of(event)]
    keys += [] if receipt is None else [key for key, _ in receipt.slots.values()]
    return {(event["stage"], key) for key in keys}


def _parse(path: Path, lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = json.loads(line)
            if not isinstance(event["event"], str):
                raise TypeError("its event has no name")
            settled_keys(event)  # a receipt that cannot be read is found here, not at the commit
        except (ValueError, TypeError, KeyError) as error:
            logger.warning("%s: left out a line that is no event: %s", path, error)
        else:
            yield event
