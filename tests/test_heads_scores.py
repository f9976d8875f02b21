from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from heads.scores import Scores, load_scores, save_scores


def make_scores() -> Scores:
    generator = np.random.default_rng(0)
    return Scores(
        segment_ids=("P01_01_0", "ü", "0"),
        verb_scores=generator.random((3, 4)),
        noun_scores=generator.random((3, 5)),
        verb_labels=np.array([0, 3, -1]),
        noun_labels=np.array([0, 4, -1]),
    )


def test_a_file_gives_everything_back(tmp_path: Path) -> None:
    scores = make_scores()
    save_scores(tmp_path / "scores.npz", scores)
    found = load_scores(tmp_path / "scores.npz")
    assert found.segment_ids == scores.segment_ids
    for field in fields(Scores)[1:]:
        got, expected = getattr(found, field.name), getattr(scores, field.name)
        assert (got.dtype, got.tolist()) == (expected.dtype, expected.tolist())


def test_only_segments_with_both_labels_are_labelled() -> None:
    scores = make_scores()
    assert not scores.labelled
    assert not replace(scores, verb_labels=np.array([0, 3, 1])).labelled
    assert replace(scores, verb_labels=np.zeros(3, int), noun_labels=np.zeros(3, int)).labelled


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY", b"PK\x03\x04 cut off"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scores.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"no scores\.npz of an evaluation"):
        load_scores(tmp_path / "scores.npz")


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    save_scores(tmp_path / "scores.npz", replace(make_scores(), verb_labels=np.zeros(2, int)))
    with pytest.raises(ValueError, match="expected one row per segment"):
        load_scores(tmp_path / "scores.npz")


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "scores.npz").open("wb") as file:
        np.savez(file, segment_ids=np.array(["a"]), verb_scores=np.ones((1, 2)))
    with pytest.raises(ValueError, match="noun_scores"):
        load_scores(tmp_path / "scores.npz")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("segment_ids", ("a", "b", "a"), "segment ids that occur twice"),
        ("verb_scores", np.zeros(3), r"verb_scores float64 \(3,\), expected float64"),
        ("noun_scores", np.zeros((3, 2), np.float32), r"noun_scores float32 \(3, 2\)"),
        ("noun_scores", np.full((3, 5), np.nan), "NaN or infinite noun_scores"),
        ("verb_labels", np.zeros(3), r"verb_labels float64 \(3,\), expected int64"),
        ("verb_labels", np.array([0, 4, 0]), "verb_labels outside the 4 classes"),
        ("noun_labels", np.array([0, -2, 0]), "noun_labels outside the 5 classes"),
    ],
)
def test_what_no_evaluation_writes_is_refused(
    field: str, value: object, message: str, tmp_path: Path
) -> None:
    save_scores(tmp_path / "scores.npz", replace(make_scores(), **{field: value}))
    with pytest.raises(ValueError, match=f"scores.npz: got {message}"):
        load_scores(tmp_path / "scores.npz")
