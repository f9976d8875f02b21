"""What people see of a run: why rows failed, in an order they can follow."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.console import (
    MAX_LINES_SHOWN,
    ProgressReporter,
    by_number,
    print_failures,
    print_missing,
    print_run,
)
from pipeline.experiment import MissingVideo
from pipeline.run_report import RunReport, StageReport
from pipeline.videos import Video
from pipeline.worker_board import WorkerLine
from stores.base import Failure


def failure(clip_id: str, message: str, *, kind: str = "ValueError") -> Failure:
    return Failure("0" * 64, clip_id, clip_id.split("/")[0], kind, message)


def lines_of(failures: dict[str, list[Failure]]) -> list[str]:
    out = io.StringIO()
    print_failures(Console(file=out, width=200), failures)
    return out.getvalue().splitlines()


HINT = "symbio failures CONFIG lists each row, and how to see it fail again"

# Stages in the order they run, rows in none.
FAILURES = {
    "verb": [
        failure("b/2/0", "cut off", kind="TruncatedVideo"),
        failure("a/9/0", "too [large] a box"),
        failure("b/1/0", "cut off", kind="TruncatedVideo"),
        failure("a/3/0", "inverted"),
    ],
    "noun": [failure("a/1/0", "inverted")],
}


def test_rows_that_failed_alike_are_one_line() -> None:
    assert lines_of(FAILURES) == [
        "failed: verb, noun: video a: 2 rows: bad_input: inverted",
        "failed: verb: video a: 1 row: bad_input: too [large] a box",
        "failed: verb: video b: 2 rows: truncated_video: cut off",
        HINT,
    ]


def test_frames_of_one_damage_are_one_line() -> None:
    rows = [
        replace(failure("a/1/0", f"got no frame {frame} of 90 (damage at frame 7)"), frame=frame)
        for frame in (20, 10)
    ]
    other = replace(failure("a/1/0", "got no frame 7 of 90 (damage)"), frame=7)
    assert lines_of({"verb": [*rows, other]}) == [
        "failed: verb: video a: 2 rows: bad_input: got no frame 10 of 90 (damage at frame 7)",
        "failed: verb: video a: 1 row: bad_input: got no frame 7 of 90 (damage)",
        HINT,
    ]


def test_numbers_in_clip_ids_go_by_their_size() -> None:
    ids = ["P01_2@0s", "P01_2@2s", "P01_2@2.5s", "P01_2@10s", "P01_10/9/0", "P01_10/a/0"]
    assert sorted(sorted(ids), key=by_number) == ids


def test_a_dead_long_video_is_one_line_and_reasons_are_limited() -> None:
    dead = {"verb": [failure(f"a/{i}/0", "no picture") for i in range(7200)]}
    assert lines_of(dead) == ["failed: verb: video a: 7,200 rows: bad_input: no picture", HINT]
    several = {"verb": [failure(f"{i:02}/0/0", "no picture") for i in range(MAX_LINES_SHOWN)]}
    assert len(lines_of(several)) == MAX_LINES_SHOWN + 1
    several["noun"] = [failure("20/0/0", "one")]
    assert lines_of(several)[-2:] == ["… and 1 more reason", HINT]
    several["noun"] += [failure("21/0/0", "two")]
    lines = lines_of(several)
    assert len(lines) == MAX_LINES_SHOWN + 2
    assert lines[-2:] == ["… and 2 more reasons", HINT]


def test_nothing_failed_nothing_said() -> None:
    assert lines_of({"verb": [], "noun": []}) == []


def test_a_run_ends_with_the_same_lines() -> None:
    stages = [
        StageReport(name, "0" * 64, wanted=4, present=0, failures=found)
        for name, found in FAILURES.items()
    ]
    out = io.StringIO()
    report = RunReport(stages, missing_videos=(), interrupted=False)
    print_run(Console(file=out, width=200), report, quiet=True)
    assert out.getvalue().splitlines() == lines_of(FAILURES)


def test_many_missing_videos_are_a_few_lines_and_a_number() -> None:
    video = Video("v", Path("v.mp4"), "file", None, None)
    missing = [MissingVideo(video, f"v{i}.mp4: no such file", 1200) for i in range(25)]
    out = io.StringIO()
    print_missing(Console(file=out, width=200), missing[:20])
    assert out.getvalue().splitlines()[-1] == ("missing video: v19.mp4: no such file (1,200 clips)")
    out = io.StringIO()
    one = [MissingVideo(video, "v.mp4: no such file", 1)]
    print_missing(Console(file=out, width=200), [*one, *missing[:20]])
    lines = out.getvalue().splitlines()
    assert lines[0] == "missing video: v.mp4: no such file (1 clip)"
    assert lines[-1] == "… and 1 more missing video"
    out = io.StringIO()
    print_missing(Console(file=out, width=200), missing)
    lines = out.getvalue().splitlines()
    assert (len(lines), lines[-1]) == (21, "… and 5 more missing videos")


def test_workers_stand_below_the_bars() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, no_color=True)
    with ProgressReporter(console, quiet=False) as reporter:
        reporter.start("verb", 10)
        first = WorkerLine("worker 0", 1, "here", "", 3, ("P01_01", "P01_02"), 5)
        reporter.show_workers([first, WorkerLine("worker 1", 2, "here", "")])
        reporter.advance("verb", 10)
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue()).splitlines()
    places = [line.strip() for line in lines]
    bar = max(place for place, line in enumerate(places) if line.startswith("verb"))
    assert "worker 0: P01_01, P01_02 and 3 more" in places[bar + 1]
    assert "worker 1: waiting" in places[bar + 2]


@pytest.mark.parametrize(
    ("left", "out", "said"),
    [
        (1, 0, "1 row is still to be made"),
        (1290, 0, "1,290 rows are still to be made"),
        (1290, 290, "1,290 rows are still to be made, 290 of them by jobs that go on"),
    ],
)
def test_rows_that_are_left_are_told_with_who_makes_them(left: int, out: int, said: str) -> None:
    stages = [StageReport("verb", "0" * 64, wanted=1300, present=0, left=left, out=out)]
    to = io.StringIO()
    print_run(Console(file=to, width=80), RunReport(stages, (), interrupted=False), quiet=True)
    assert to.getvalue().splitlines() == [said]
