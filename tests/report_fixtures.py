"""Runs to report on that nobody trained, and what the tests of reports look for in a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from experiment_fixtures import make_experiment

from heads.base import HeadConfig, HeadDims
from heads.checkpoint import Checkpoint
from pipeline.report_attention import Looked
from pipeline.report_run import Branch, ReportedRun
from pipeline.segments import Segment

__all__ = ["HOSTILE", "Page", "make_branch", "make_looked", "make_run"]

HOSTILE = "<script>alert(1)</script>\"' onload=x & {{ 7*7 }} " + "long" * 60
VOID = {"meta", "link", "img", "br", "hr", "input"}


def make_branch(
    name: str,
    labels: Sequence[int],
    answers: Sequence[int],
    names: Sequence[str],
    certainty: Sequence[float] | None = None,
) -> Branch:
    """Answers whose probability is `certainty`, 0.6 by default; the rest is spread evenly."""
    certain = np.full(len(labels), 0.6) if certainty is None else np.array(certainty)
    scores = np.repeat(((1 - certain) / (len(names) - 1))[:, None], len(names), axis=1)
    scores[np.arange(len(labels)), answers] = certain
    return Branch(name, names, scores, np.array(labels, dtype=np.int64))


def make_run(place: Path, **changes: Any) -> ReportedRun:
    """Six segments of two verbs and three nouns, of which four verbs and three nouns are right."""
    fields: dict[str, Any] = {
        "folder": place / "run",
        "config": make_experiment(place),
        "checkpoint": Checkpoint(
            HeadConfig("saoa", HeadDims(8, 8), 2, 3, {}),
            {"experiment": "small", "stages": {"verb": "ab" * 32}},
            {"epoch": 2, "selection": "best validation action top-1"},
        ),
        "split": "val",
        "metrics": {
            "metrics": {
                f"{task}_top{k}": value / 100
                for task, k, value in (
                    ("verb", 1, 66.7),
                    ("verb", 5, 100),
                    ("noun", 1, 50),
                    ("noun", 5, 99.9),
                    ("action", 1, 33.3),
                    ("action", 5, 83.3),
                )
            },
            "details": {"action_prior": "frequency", "skipped_segments": 0},
        },
        "epochs": [
            {"epoch": 1, "learning_rate": 0.1, "train_loss": 2.0, "validation_verb_top1": 0.5},
            {"epoch": 2, "learning_rate": 0.1, "train_loss": 1.0, "validation_verb_top1": 0.75},
            {"epoch": 3, "learning_rate": 0.01, "train_loss": 0.5, "validation_verb_top1": 0.6},
        ],
        "segment_ids": [f"s{i}" for i in range(6)],
        "verb": make_branch("verb", [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0], ["take", "put"]),
        "noun": make_branch(
            "noun", [0, 1, 2, 0, 1, 2], [0, 1, 0, 0, 2, 1], ["cup", "knife", "pan"]
        ),
        "segments": {
            f"s{i}": Segment(f"s{i}", "kitchen_b", "", i * 0.1, i * 0.1 + 1, 0, 0, "val", "take it")
            for i in range(6)
        },
        "num_segments": {"train": 4, "val": 6},
        "experiment": None,
        "notes": [],
    }
    return ReportedRun(**{**fields, **changes})


def make_looked(weights: dict[str, np.ndarray]) -> Looked:
    """Four frames of two places for objects; the last frame has one object."""
    boxes = np.array([[10, 20, 30, 50], [0, 0, 64, 48]], dtype=np.float32)
    return Looked(
        times_seconds=np.array([0.0, 0.5, 1.0, 1.5]),
        boxes_xyxy_px=np.tile(boxes, (4, 1, 1)),
        scores=np.tile(np.array([0.9, 0.5], dtype=np.float32), (4, 1)),
        real=np.array([[True, True]] * 3 + [[True, False]]),
        frame_size_px=(64, 48),
        weights=weights,
    )


class Page(HTMLParser):
    """A page taken apart: its text, elements, attributes; refuses tags that do not pair."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """All that a reader sees, and titles."""
        return " ".join(" ".join(text for tag, text in self.texts if tag != "style").split())

    def values(self, attribute: str) -> list[str]:
        """The values of an attribute anywhere."""
        return [value for _, name, value in self.attributes if name == attribute]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))
