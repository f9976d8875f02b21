"""Tables on a terminal of 80 columns: no figure and no heading is cut, however large."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cli_fixtures import symbio, write_experiment
from rich.console import Console, RenderableType

from pipeline.config_file import load_config
from pipeline.console import print_run
from pipeline.forecast import StageForecast
from pipeline.job_folder import Job
from pipeline.job_report import JobReport, TaskReport
from pipeline.merge_commands import job_table
from pipeline.plan_commands import Plan, plan_table
from pipeline.rates import Rate
from pipeline.run_report import RunReport, StageReport
from pipeline.status_view import StageStatus, Status, render
from pipeline.tables import table
from pipeline.timings import Timings

STAGES = ("verb", "noun", "objects", "aligned")
TIB = 2**40


def console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, soft_wrap=True)


def shown(what: RenderableType, width: int = 80) -> list[list[str]]:
    """The cells of each line of a table."""
    on = console(width)
    on.print(what)
    return cells(on)


def cells(on: Console) -> list[list[str]]:
    assert isinstance(on.file, io.StringIO)
    lines = on.file.getvalue().splitlines()
    assert max(map(len, lines)) <= on.width
    assert "…" not in on.file.getvalue()
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def test_what_can_be_spared_gives_way_first() -> None:
    columns = {"stage": "left", "key": "left", "rows": "right", "seconds": "right"}
    made = table("T", columns, [("verb", "9e57ec4cfa63", "480,000", "1.5")], spare=("key", "rows"))
    assert shown(made)[1] == ["stage", "key", "rows", "seconds"]
    assert shown(made, 37)[3] == ["verb", "9e57ec4cfa63", "480,000", "1.5"]
    assert shown(made, 36)[3] == ["verb", "480,000", "1.5"]
    assert shown(made, 20)[3] == ["verb", "1.5"]


def test_headings_and_words_are_broken_at_spaces() -> None:
    why = "these settings are of no experiment that anybody keeps here"
    made = table("T", {"of verbs": "right", "why": "left"}, [("12", why)])
    lines = shown(made, 33)
    assert lines[1:3] == [["of"], ["verbs", "why"]]
    assert lines[4][0] == "12"
    words = [line[-1] for line in lines[4:]]
    assert " ".join(words).strip() == why
    assert shown(made)[3] == ["12", why]


def test_plan() -> None:
    rate = Rate(1.0, "past run", 480_000)
    stage = StageForecast(
        "verb", "9" * 64, 480_000, 480_000, 480_000, 480_000, 0, 480_000, "", 1, 100 * TIB,
        at_most=True, shards=1, rate=rate, seconds=480_000.0,
    )  # fmt: skip
    plan = Plan(None, [replace(stage, stage=name) for name in STAGES], (), ())
    lines = shown(plan_table(plan))
    figures = ["480,000"] * 5
    names = ["wanted", "present", "failed", "out", "to do", "to write", "takes"]
    assert lines[1] == ["stage", *names]
    assert lines[3] == ["verb", *figures, "≤ 100.0 TiB", "133 h 20 min"]
    without_jobs = replace(plan, stages=[replace(stage, out=0)])
    assert shown(plan_table(without_jobs), 100)[3] == [
        "verb",
        "9" * 12,
        *figures[:4],
        "≤ 100.0 TiB",
        "133 h 20 min",
    ]


def test_status(tmp_path: Path) -> None:
    config = load_config(write_experiment(tmp_path), ())
    stage = StageStatus(
        "verb", "9" * 64, 480_000, 120_000, 120_000, 480_000, 0, 100 * TIB, 12_345.6, {}
    )
    status = Status(config, [replace(stage, stage=name) for name in STAGES], None)
    on = console(80)
    config = config.model_copy(update={"name": "x" * 30})
    on.print(render(replace(status, config=config)))
    assert isinstance(on.file, io.StringIO)
    lines = [re.split(r"\s{2,}", line.strip()) for line in on.file.getvalue().splitlines()]
    assert ["stage", "wanted", "present", "missing", "failed", "size", "rate"] in lines
    row = ["480,000", "120,000", "240,000", "120,000", "100.0 TiB", "12,345.6 rows/s"]
    assert [line for line in lines if len(line) > 4][1:] == [[name, *row] for name in STAGES]
    small = replace(stage, wanted=100, present=50, failed=0, rows=0, rate=2.5)
    on = console(80)
    on.print(render(Status(config, [small], None)))
    assert isinstance(on.file, io.StringIO)
    assert "9" * 12 in on.file.getvalue()


def test_run() -> None:
    timings = Timings(*[123_456.7] * len(Timings().as_dict()))
    stage = StageReport(
        "verb", "9" * 64, 480_000, 480_000, 480_000, 100 * TIB, failed_before=480_000,
        skipped=480_000, seconds=123_456.7, timings=timings,
    )  # fmt: skip
    report = RunReport([replace(stage, stage=name) for name in STAGES], (), interrupted=False)
    on = console(80)
    print_run(on, report, quiet=False)
    assert isinstance(on.file, io.StringIO)
    lines = [re.split(r"\s{2,}", line.strip()) for line in on.file.getvalue().splitlines()]
    heads = [line for line in lines if line[0] == "stage"]
    assert heads[0][1:] == ["present", "made", "failed", "skipped", "written", "seconds", "rate"]
    rows = [line for line in lines if line[0] == "verb"]
    assert rows[0] == ["verb", *["480,000"] * 4, "100.0 TiB", "123,456.7", "3.9 rows/s"]
    assert rows[1][1:] == ["123,456.7"] * len(Timings().as_dict())
    assert max(len("  ".join(line)) for line in lines if len(line) > 4) <= 80
    assert "…" not in on.file.getvalue()


def test_merge() -> None:
    job = Job(Path("20261121T174005-12345"), "", "node7", "slurm", 60, {}, 1)
    task = TaskReport(1023, "OUT_OF_MEMORY", 480_000, 120_000, 120_000, "lost")
    lines = shown(job_table(JobReport(job, [task])))
    assert lines[1] == ["task", "state", "end", "rows", "stored", "failed", "out", "missing"]
    counts = ["480,000", "120,000", "120,000", "0", "240,000"]
    assert lines[3] == ["1023", "OUT_OF_MEMORY", "lost", *counts]


@pytest.mark.parametrize("command", ["plan", "status"])
def test_commands_say_all_of_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli_support.WIDTH_WITHOUT_TERMINAL", 80)
    out = symbio(command, write_experiment(tmp_path)).out
    assert "…" not in out
    if command == "plan":
        assert "verb, noun, objects, aligned: first run with these settings" in out
