"""Journals of tasks: read back as written, whatever a crash leaves at their ends."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.task_journal import (
    TaskJournal,
    failures_of,
    journals,
    read_events,
    receipt_of,
    settled_keys,
)
from pipeline.work import Progress
from stores.base import Failure, Receipt, RowInfo

KEY = "a" * 64
RECEIPT = Receipt("verb", "b" * 64, 7, {0: (KEY, RowInfo("clip", "video"))}, 100, {"map": 5})
FAILURE = Failure("c" * 64, "clip 2", "video", "DecodeError", "got nothing", 4)


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    journal = TaskJournal(tmp_path, 3)
    journal.write("started", host="here")
    settled = journal.note(Progress("verb", 5, RECEIPT, [FAILURE], unit=9))
    assert journal.note(Progress("verb", computed=4, unit=9)) == set()
    journal.close()
    (path,) = journals(tmp_path, 3)
    (started, rows), end = read_events(path)
    assert started == {"event": "started", "host": "here"}
    assert (rows["unit"], rows["stage"]) == (9, "verb")
    assert receipt_of(rows) == RECEIPT
    assert failures_of(rows) == [FAILURE]
    assert settled == settled_keys(rows) == {("verb", KEY), ("verb", "c" * 64)}
    assert settled_keys(started) == set()
    assert end == path.stat().st_size


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    journal = TaskJournal(tmp_path, 0)
    journal.write("started")
    assert len(read_events(journals(tmp_path, 0)[0])[0]) == 1
    journal.close()


def test_each_start_has_a_file_of_its_own_in_order(tmp_path: Path) -> None:
    for _ in range(12):
        TaskJournal(tmp_path, 1).close()
    TaskJournal(tmp_path, 11).close()
    assert [path.name for path in journals(tmp_path, 1)] == [f"task_1.{k}.jsonl" for k in range(12)]


def test_a_torn_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "task_0.0.jsonl"
    path.write_bytes(b'{"event": "started"}\n{"event": "fini')
    events, end = read_events(path)
    assert [event["event"] for event in events] == ["started"]
    assert read_events(path, end) == ([], end)
    with path.open("ab") as file:
        file.write(b'shed"}\n')
    events, end = read_events(path, end)
    assert [event["event"] for event in events] == ["finished"]
    assert end == path.stat().st_size


def test_lines_that_are_no_events_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["nonsense", "[1]", '{"event": 3}', '{"event": "rows", "stage": "verb", "receipt": {}}']
    path = tmp_path / "task_0.0.jsonl"
    path.write_text("\n".join([*lines, '{"event": "finished"}', ""]))
    with caplog.at_level(logging.WARNING):
        events, _ = read_events(path)
    assert events == [{"event": "finished"}]
    assert caplog.text.count("left out a line") == len(lines)
