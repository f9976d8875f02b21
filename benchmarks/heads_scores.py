"""From logits to every figure and file of an evaluation, at the size of EPIC-100's validation."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from figures import Figures
from heads_cases import Effort

from heads.class_figures import class_table
from heads.evaluation import write_evaluation
from heads.metrics import action_prior, ranked_metrics, softmax
from heads.protocols import Protocol, ranked_figures
from heads.ranking import rank_classes
from heads.scores import Scores

NUM_VERBS, NUM_NOUNS = 97, 300  # EPIC-100


def bench_scores(figures: Figures, effort: Effort, folder: Path) -> None:
    """CPU seconds of all threads together."""
    random = np.random.default_rng(0)
    count = effort.scored
    logits = [
        random.standard_normal((count, size), np.float32) * 3 for size in (NUM_VERBS, NUM_NOUNS)
    ]
    labels = [random.integers(size, size=count) for size in (NUM_VERBS, NUM_NOUNS)]
    people = [f"P{number:02}" for number in random.integers(40, size=count)]
    prior = action_prior("frequency", *labels, NUM_VERBS, NUM_NOUNS)
    protocol = Protocol(
        name="epic100",
        tail_verbs=tuple(range(20, NUM_VERBS)),
        tail_nouns=tuple(range(80, NUM_NOUNS)),
        unseen_participants=("P01", "P02", "P03"),
    )

    def evaluate() -> None:
        scores = Scores(
            tuple(f"P01_101_{number}" for number in range(count)),
            softmax(logits[0]),
            softmax(logits[1]),
            *labels,
        )
        ranking = rank_classes(scores.verb_scores, scores.noun_scores, prior)
        official = ranked_figures(protocol, ranking, scores, people)
        classes = {
            "verb": class_table(ranking.verbs[:, 0], labels[0], [str(n) for n in range(NUM_VERBS)]),
            "noun": class_table(ranking.nouns[:, 0], labels[1], [str(n) for n in range(NUM_NOUNS)]),
        }
        metrics = ranked_metrics(ranking, *labels)
        write_evaluation(folder, scores, metrics, official=official, classes=classes, details={})

    evaluate()
    seconds = []
    for _ in range(effort.turns):
        start = time.process_time()
        evaluate()
        seconds.append(time.process_time() - start)
    figures.add("evaluation_cpu", statistics.median(seconds), "s", ("<=", 2.0))
