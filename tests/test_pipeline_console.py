"""What people see of a run: why rows failed, in an order they can follow."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from pipeline.console import MAX_LINES_SHOWN, print_failures, print_missing, print_run
from pipeline.experiment import MissingVideo
from pipeline.run_report import RunReport, StageReport
from pipeline.videos import Video
from stores.base import Failure


def failure(clip_id: str, message: str, *, kind: str = "ValueError") -> Failure:
    return Failure("0" * 64, clip_id, clip_id.split("/")[0], kind, message)


def lines_of(failures: dict[str, list[Failure]], *, each_row: bool = False) -> list[str]:
    out = io.StringIO()
    print_failures(Console(file=out, width=200), failures, each_row=each_row)
    return out.getvalue().splitlines()


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
        "failed: verb: video a: 1 row: ValueError: inverted",
        "failed: verb: video a: 1 row: ValueError: too [large] a box",
        "failed: verb: video b: 2 rows: TruncatedVideo: cut off",
        "failed: noun: video a: 1 row: ValueError: inverted",
    ]


def test_each_row_on_request_in_order_of_clip_id() -> None:
    assert lines_of(FAILURES, each_row=True) == [
        "failed: verb: a/3/0: ValueError: inverted",
        "failed: verb: a/9/0: ValueError: too [large] a box",
        "failed: verb: b/1/0: TruncatedVideo: cut off",
        "failed: verb: b/2/0: TruncatedVideo: cut off",
        "failed: noun: a/1/0: ValueError: inverted",
    ]


def test_numbers_in_clip_ids_go_by_their_size() -> None:
    ids = ["P01_2@0s", "P01_2@2s", "P01_2@2.5s", "P01_2@10s", "P01_10/9/0", "P01_10/a/0"]
    found = lines_of({"objects": [failure(i, "inverted") for i in sorted(ids)]}, each_row=True)
    assert [line.split(": ")[2] for line in found] == ids


def test_a_dead_long_video_is_one_line_and_reasons_are_limited() -> None:
    dead = {"verb": [failure(f"a/{i}/0", "no picture") for i in range(7200)]}
    assert lines_of(dead) == ["failed: verb: video a: 7,200 rows: ValueError: no picture"]
    assert len(lines_of(dead, each_row=True)) == 7200
    several = {"verb": [failure(f"{i:02}/0/0", "no picture") for i in range(MAX_LINES_SHOWN)]}
    assert len(lines_of(several)) == MAX_LINES_SHOWN
    several["noun"] = [failure("a/0/0", "one"), failure("a/0/0", "two")]
    lines = lines_of(several)
    assert len(lines) == MAX_LINES_SHOWN + 1
    assert lines[-1] == "… and 2 more reasons; symbio status --all lists each row"


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
    print_missing(Console(file=out, width=200), missing)
    lines = out.getvalue().splitlines()
    assert (len(lines), lines[-1]) == (21, "… and 5 more missing videos")
