"""Runs side by side: counted by hand, refused where they do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import symbio
from experiment_fixtures import make_experiment
from report_fixtures import HOSTILE, Page, make_branch, make_run

from pipeline.errors import RunFolderError
from pipeline.report_compare import (
    Outcome,
    align_runs,
    class_gains,
    comparison_charts,
    count_outcomes,
    disagreements,
    run_labels,
    setting_differences,
)
from pipeline.report_comparison import figure_rows, render_comparison
from pipeline.report_run import ReportedRun
from pipeline.segments import Segment

VERBS, NOUNS = ["take", "put"], ["cup", "knife", "pan"]
LABELS = [0, 0, 0, 1, 1, 1]


def run_of(
    place: Path, name: str, verb_answers: list[int], certainty: Sequence[float] = (0.6,) * 6
) -> ReportedRun:
    """A run whose nouns are all right, so that the verbs decide."""
    return make_run(
        place,
        folder=place / name,
        verb=make_branch("verb", LABELS, verb_answers, VERBS, certainty),
        noun=make_branch("noun", [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2], NOUNS),
    )


@pytest.fixture
def runs(tmp_path: Path) -> list[ReportedRun]:
    """The first is right on s0 s1 s3, the second on s0 s2 s3 s4."""
    return [
        run_of(tmp_path, "first", [0, 0, 1, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.95, 0.85]),
        run_of(tmp_path, "second", [0, 1, 0, 1, 1, 0]),
    ]


def reversed_run(run: ReportedRun) -> ReportedRun:
    """The same answers in another order of segments."""
    back = slice(None, None, -1)

    def turned(branch: Any) -> Any:
        return replace(branch, scores=branch.scores[back], labels=branch.labels[back])

    ids = list(run.segment_ids)[back]
    return replace(run, segment_ids=ids, verb=turned(run.verb), noun=turned(run.noun))


def test_segments_are_matched_by_id_not_by_place(runs: list[ReportedRun]) -> None:
    aligned = align_runs([runs[0], reversed_run(runs[1])])
    assert aligned[1].segment_ids == runs[0].segment_ids
    assert aligned[1].verb.labels.tolist() == LABELS
    assert aligned[1].verb.predictions.tolist() == runs[1].verb.predictions.tolist()
    assert aligned[1].noun.labels.tolist() == runs[0].noun.labels.tolist()


def test_outcomes_add_up(runs: list[ReportedRun]) -> None:
    assert count_outcomes(runs, ["a", "b"]) == [
        Outcome("right in all runs", 2, 2 / 6),
        Outcome("right in a alone", 1, 1 / 6),
        Outcome("right in b alone", 2, 2 / 6),
        Outcome("wrong in all runs", 1, 1 / 6),
    ]


def test_outcomes_of_three_runs(runs: list[ReportedRun], tmp_path: Path) -> None:
    third = run_of(tmp_path, "third", [0, 1, 0, 0, 0, 1])
    counts = [(one.name, one.count) for one in count_outcomes([*runs, third], ["a", "b", "c"])]
    assert counts == [
        ("right in all runs", 1),
        ("right in a alone", 1),
        ("right in b alone", 1),
        ("right in c alone", 1),
        ("right in several runs", 2),
        ("wrong in all runs", 0),
    ]


def test_disagreements_start_with_the_surest_mistake(runs: list[ReportedRun]) -> None:
    found, total = disagreements(runs)
    assert total == 3
    assert [one.segment_id for one in found] == ["s4", "s2", "s1"]
    first = found[0]
    assert (first.label, first.narration) == ("put knife", "take it")
    assert [(v.verb, v.verb_right, v.noun, v.noun_right) for v in first.verdicts] == [
        ("take", False, "knife", True),
        ("put", True, "knife", True),
    ]
    assert first.verdicts[0].confidence == pytest.approx(0.95 * 0.6)


def test_without_labels_other_answers_are_a_disagreement(tmp_path: Path) -> None:
    unlabelled = [
        make_run(
            tmp_path,
            folder=tmp_path / name,
            verb=make_branch("verb", [-1] * 6, answers, VERBS),
            noun=make_branch("noun", [-1] * 6, [0] * 6, NOUNS),
        )
        for name, answers in (("a", [0] * 6), ("b", [0, 0, 1, 0, 0, 0]))
    ]
    found, total = disagreements(unlabelled)
    assert (total, found[0].segment_id, found[0].label) == (1, "s2", "")
    assert count_outcomes(unlabelled, ["a", "b"]) == []
    assert class_gains(unlabelled, "verb") == []


def test_classes_gain_and_lose_recall(runs: list[ReportedRun]) -> None:
    take, put = 2 / 3, 1 / 3
    gains = class_gains(runs, "verb")
    assert [(one.name, one.support) for one in gains] == [("put", 3)]
    assert gains[0].recalls == pytest.approx([put, take])
    assert gains[0].gains == pytest.approx([take - put])
    assert class_gains(runs, "noun") == []


def test_only_settings_that_differ_are_shown(tmp_path: Path) -> None:
    config = make_experiment(tmp_path, ["train.seed=3", "head.name=pooled"])
    checkpoint = make_run(tmp_path).checkpoint
    other = make_run(
        tmp_path,
        config=config,
        checkpoint=replace(checkpoint, provenance={"stages": {"verb": "cd" * 32, "noun": "ef"}}),
    )
    assert setting_differences([make_run(tmp_path), other]) == [
        ("head.name", ["saoa", "pooled"]),
        ("train.seed", ["0", "3"]),
        ("key of stage verb", ["ab" * 6, "cd" * 6]),
        ("key of stage noun", ["–", "ef"]),
    ]


def test_figures_of_all_runs_and_the_best(runs: list[ReportedRun]) -> None:
    metrics = runs[0].metrics
    better = {
        **metrics,
        "metrics": {**metrics["metrics"], "verb_top1": 0.9},
        "official": {"mean_class_accuracy": 0.25},
    }
    rows = {row.name: row for row in figure_rows([runs[0], replace(runs[1], metrics=better)])}
    assert (rows["verb top-1"].values, rows["verb top-1"].best) == ([0.667, 0.9], 0.9)
    assert rows["mean class accuracy"].values == [None, 0.25]


def test_curves_have_a_line_per_run(runs: list[ReportedRun]) -> None:
    charts = comparison_charts(runs, ["a", "b"])
    assert [chart.title for chart in charts] == ["Verb top-1, validation", "Loss, training"]
    assert [(line.label, line.color) for line in charts[0].lines] == [("a", "c0"), ("b", "c1")]


def test_runs_go_by_their_names_or_else_their_paths(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, folder=tmp_path / name) for name in ("a/run", "b/run", "c")]
    assert run_labels(runs) == [f"{tmp_path}/a/run", f"{tmp_path}/b/run", "c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "got evaluations of splits val and test, expected one split"),
        (
            {"segment_ids": ["s0", "s1", "s2", "s3", "s4", "x9"]},
            "got different segments: 2 are in one of them alone, such as 's5'",
        ),
        (
            {"verb": make_branch("verb", LABELS, LABELS, ["a", "b", "c"])},
            "got 2 and 3 verb classes",
        ),
        (
            {"noun": make_branch("noun", [0, 1, 2, 0, 1, 0], [0] * 6, NOUNS)},
            "got different noun labels for 1 segments",
        ),
    ],
)
def test_runs_that_do_not_belong_together(
    changes: dict[str, Any], message: str, runs: list[ReportedRun]
) -> None:
    with pytest.raises(RunFolderError, match=message):
        align_runs([runs[0], replace(runs[1], **changes)])


def test_a_run_with_itself(runs: list[ReportedRun]) -> None:
    with pytest.raises(RunFolderError, match="twice, expected runs that differ"):
        align_runs([runs[0], replace(runs[1], folder=runs[0].folder / ".." / "first")])


def test_the_page_shows_it_all(runs: list[ReportedRun]) -> None:
    html = render_comparison([runs[0], reversed_run(runs[1])])
    page = Page(html)
    assert "2 runs compared Split val, 6 segments. Differences are from first." in page.text
    assert "right in second alone 2 33.3" in page.text
    assert "put 3 33.3 66.7 +33.3" in page.text
    assert "3 segments, the surest mistakes first" in page.text
    assert page.elements["script"] == 0
    assert page.values("style") == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {url[1:] for url in page.values("href") if url.startswith("#")} <= set(ids)


def test_hostile_names_stay_text(runs: list[ReportedRun]) -> None:
    names, ids = [HOSTILE, f"{HOSTILE}2"], [f"{HOSTILE}{i}" for i in range(6)]
    hostile = [
        replace(
            run,
            folder=run.folder / HOSTILE.replace("/", ""),
            segment_ids=ids,
            segments={i: Segment(i, "v", "", 0, 1, 0, 0, "val", HOSTILE) for i in ids},
            verb=replace(run.verb, names=names),
            notes=[HOSTILE],
        )
        for run in runs
    ]
    page = Page(render_comparison(hostile))
    assert page.elements["script"] == 0
    assert "onload" not in {name for _, name, _ in page.attributes}
    assert set(page.elements) == set(Page(render_comparison(runs)).elements)


def test_the_command_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, ReportedRun] = {}
    for name, answers in (("first", [0] * 6), ("second", [1] * 6)):
        made[name] = run_of(tmp_path, name, answers)
    monkeypatch.setattr(
        "pipeline.report_commands.read_run", lambda folder, split: made[folder.name]
    )
    monkeypatch.chdir(tmp_path)
    done = symbio("report", "first", "second")
    assert (done.code, done.out.split(" (")[0]) == (0, "report: comparison.html")
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    assert symbio("report", "first", "second", "--out", "other.html").code == 0
    assert (tmp_path / "other.html").is_file()
    done = symbio("report", "first", "second", "--segment", "s1")
    assert done.code == 2
    assert "got --segment with 2 runs, expected it with one" in done.err
