"""Which segments a report shows, and what it says of the objects a head looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import make_branch, make_looked, make_run

from pipeline.errors import RunFolderError
from pipeline.experiment import Experiment
from pipeline.report_run import ReportedRun
from pipeline.report_segments import SegmentFigure, choose_segments, segment_figures

VERBS, NOUNS = ["take", "put", "cut", "wash"], ["cup", "knife", "pan"]


def run_of(
    place: Path, verbs: list[int], verb_answers: list[int], certainty: list[float], ids: list[str]
) -> ReportedRun:
    count = len(verbs)
    return make_run(
        place,
        segment_ids=ids,
        verb=make_branch("verb", verbs, verb_answers, VERBS, certainty),
        noun=make_branch("noun", [min(v, 0) for v in verbs], [0] * count, NOUNS),
        segments={},
    )


def test_the_most_confident_right_and_wrong_ones_are_chosen(tmp_path: Path) -> None:
    verbs = [0, 1, 2, 3, 0, 1, 2, 3]
    answers = [0, 1, 2, 3, 1, 2, 3, 0]
    certainty = [0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.7]
    run = run_of(tmp_path, verbs, answers, certainty, list("abcdefgh"))
    assert choose_segments(run) == ["b", "c", "d", "g", "h", "e"]


def test_other_actions_come_before_more_of_the_same(tmp_path: Path) -> None:
    verbs, certainty = [0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6]
    run = run_of(tmp_path, verbs, verbs, certainty, ["a", "b", "c", "d"])
    assert choose_segments(run) == ["a", "d", "b"]


def test_equal_confidence_goes_by_id(tmp_path: Path) -> None:
    run = run_of(tmp_path, [0, 0, 0, 0], [0] * 4, [0.7] * 4, ["d", "b", "c", "a"])
    assert choose_segments(run) == ["a", "b", "c"]


def test_without_labels_the_most_confident_are_chosen(tmp_path: Path) -> None:
    run = run_of(tmp_path, [-1] * 3, [0, 1, 2], [0.5, 0.9, 0.7], ["a", "b", "c"])
    assert choose_segments(run) == ["b", "c", "a"]
    figure = segment_figures(run, ["b"])[0]
    assert (figure.right, figure.title) == (None, "put cup")
    assert [answer.right for answer in figure.answers] == [None, None]


def test_answers_are_named_best_first(tmp_path: Path) -> None:
    run = run_of(tmp_path, [2], [1], [0.7], ["a"])
    verb = segment_figures(run, ["a"])[0].answers[0]
    assert (verb.label, verb.right) == ("cut", False)
    names, probabilities, right = zip(*verb.best, strict=True)
    assert names == ("put", "take", "cut")
    assert probabilities == pytest.approx((0.7, 0.1, 0.1))
    assert right == (False, False, True)


def test_a_segment_that_was_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="got segment 'nowhere', expected one of the 6 of"):
        segment_figures(make_run(tmp_path), ["s1", "nowhere"])


@pytest.fixture
def experiment() -> Experiment:
    """A stand-in; what would read it is replaced."""
    return object.__new__(Experiment)


def figure_of(
    place: Path,
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    weights: dict[str, np.ndarray],
) -> SegmentFigure:
    monkeypatch.setattr("pipeline.report_segments.look", lambda *_: {"s0": make_looked(weights)})
    monkeypatch.setattr(
        "pipeline.report_segments._pictures", lambda *_: (["data:a", "data:b", "data:c", "d"], "")
    )
    return segment_figures(make_run(place, experiment=experiment), ["s0"])[0]


def test_boxes_carry_the_weights_of_the_branches_that_look(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = np.nan
    weights = {
        "verb": np.array([[nan, nan], [0.2, 0.3], [0.4, 0.1], [nan, nan]], dtype=np.float32),
        "noun": np.array([[0.5, 0.1], [0.1, 0.05], [0.05, 0.0], [0.2, 0.0]], dtype=np.float32),
    }
    figure = figure_of(tmp_path, experiment, monkeypatch, weights)
    # By both branches together: 0.6, 0.65, 0.55, 0.2.
    first, second, third = figure.key_frames
    (last,) = figure.other_frames
    assert [frame.seconds for frame in (first, second, third, last)] == [0.0, 0.5, 1.0, 1.5]
    assert [len(frame.boxes) for frame in (first, second, third, last)] == [2, 2, 2, 1]
    box = second.boxes[0]
    assert (box.number, box.x, box.y, box.width, box.height) == (1, 10, 20, 20, 30)
    assert box.weights == pytest.approx({"verb": 0.2, "noun": 0.1})
    assert box.strengths == pytest.approx({"verb": 0.5, "noun": 0.2})
    assert set(first.boxes[0].weights) == {"noun"}
    assert first.weights == pytest.approx({"noun": 0.6})
    assert third.weights == pytest.approx({"verb": 0.5, "noun": 0.05})
    assert last.weights == pytest.approx({"noun": 0.2})


def test_a_head_that_does_not_attend_shows_the_middle(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(tmp_path, experiment, monkeypatch, {})
    assert figure.branches == []
    assert figure.key_frames[0].boxes[0].weights == {}
    assert [frame.seconds for frame in figure.key_frames] == [0.0, 0.5, 1.0]
    assert [frame.seconds for frame in figure.other_frames] == [1.5]


def test_no_attention_at_all_is_no_division_by_zero(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_of(tmp_path, experiment, monkeypatch, {"noun": np.zeros((4, 2), np.float32)})
    assert figure.key_frames[0].boxes[0].strengths == {"noun": 0.0}


def test_frames_that_are_alike_are_all_shown(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As at the start of a video, where times before it give the first frame again.
    weights = {"noun": np.full((4, 2), 0.1, dtype=np.float32)}
    everywhere, start = np.ones((4, 2), dtype=bool), np.zeros(4)
    alike = replace(make_looked(weights), real=everywhere, times_seconds=start)
    monkeypatch.setattr("pipeline.report_segments.look", lambda *_: {"s0": alike})
    monkeypatch.setattr("pipeline.report_segments._pictures", lambda *_: (["data:a"] * 4, ""))
    figure = segment_figures(make_run(tmp_path, experiment=experiment), ["s0"])[0]
    assert (len(figure.key_frames), len(figure.other_frames)) == (3, 1)
