import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, FakeReader, make_data

from heads.base import Head
from heads.evaluation import score_table, write_evaluation
from heads.metrics import recognition_metrics
from heads.registry import create_head
from heads.table import FeatureTable, Sample


def create(name: str = "saoa") -> Head:
    return create_head(name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)


def make_table(size: int = 7, views: int = 1) -> FeatureTable:
    reader, samples = make_data(size, views=views)
    return FeatureTable(reader, samples, outputs=create().inputs)


def test_scores_are_the_softmax_of_the_heads_logits() -> None:
    head, table = create(), make_table()
    scores = score_table(head, table, batch_size=3)
    logits = head(table.batch(range(7), [0] * 7))
    np.testing.assert_allclose(
        scores.verb_scores, torch.softmax(logits["verb"], 1).detach(), rtol=1e-5
    )
    np.testing.assert_allclose(
        scores.noun_scores, torch.softmax(logits["noun"], 1).detach(), rtol=1e-5
    )
    assert scores.verb_scores.dtype == scores.noun_scores.dtype == np.float64
    assert scores.segment_ids == ("s0", "s1", "s2", "s3", "s4", "s5", "s6")
    assert scores.verb_labels.tolist() == [sample.verb for sample in table.samples]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_are_the_mean_of_the_views_scores(batch_size: int) -> None:
    reader, samples = make_data(5, views=3)
    samples[1] = replace(samples[1], row_keys=samples[1].row_keys[:1])
    head = create()
    table = FeatureTable(reader, samples, outputs=head.inputs)
    scores = score_table(head, table, batch_size=batch_size)
    for i, sample in enumerate(samples):
        of_views = [
            score_table(
                head,
                FeatureTable(reader, [replace(sample, row_keys=(key,))], outputs=head.inputs),
            )
            for key in sample.row_keys
        ]
        for name in ("verb_scores", "noun_scores"):
            expected = np.mean([getattr(one, name)[0] for one in of_views], axis=0)
            np.testing.assert_allclose(getattr(scores, name)[i], expected, rtol=1e-5)
    assert len({tuple(row) for row in scores.verb_scores}) == 5


def test_a_broken_view_is_not_hidden_by_the_others() -> None:
    reader, samples = make_data(5, views=3)
    reader.rows["0-3-2"]["noun_gap"][0] = np.nan
    table = FeatureTable(reader, samples, outputs=create("pooled").inputs)
    with pytest.raises(ValueError, match=r"NaN or infinite noun logits for 1 segments .*: s3\)"):
        score_table(create("pooled"), table, batch_size=4)


def test_metrics_are_those_of_the_scores() -> None:
    scores = score_table(create(), make_table())
    prior = np.random.default_rng(0).random((NUM_VERBS, NUM_NOUNS))
    assert scores.metrics(prior) == recognition_metrics(
        scores.verb_scores, scores.noun_scores, scores.verb_labels, scores.noun_labels, prior
    )


def test_written_files_give_everything_back(tmp_path: Path) -> None:
    scores = score_table(create(), make_table())
    metrics = scores.metrics(np.ones((NUM_VERBS, NUM_NOUNS)))
    folder = tmp_path / "runs" / "one"
    write_evaluation(folder, scores, metrics, details={"prior": "none"})
    with np.load(folder / "scores.npz", allow_pickle=False) as arrays:
        assert arrays["segment_ids"].tolist() == list(scores.segment_ids)
        for name in ("verb_scores", "noun_scores", "verb_labels", "noun_labels"):
            assert arrays[name].dtype == getattr(scores, name).dtype
            assert np.array_equal(arrays[name], getattr(scores, name))
    written = json.loads((folder / "metrics.json").read_text())
    assert written["details"] == {"prior": "none"}
    assert written["metrics"]["num_segments"] == 7
    assert written["metrics"]["action_top5"] == metrics.action_top5
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "scores.npz"]


def test_segments_with_broken_features_are_named() -> None:
    reader, samples = make_data(5)
    reader.rows["0-3-0"]["verb_gap"][0] = np.nan
    table = FeatureTable(reader, samples, outputs=create("pooled").inputs)
    with pytest.raises(ValueError, match=r"NaN or infinite verb logits for 1 segments .*: s3\)"):
        score_table(create("pooled"), table)


def test_segments_without_labels_are_scored_and_not_measured(tmp_path: Path) -> None:
    reader, samples = make_data(3)
    unlabelled = [Sample(sample.segment_id, sample.row_keys, -1, -1) for sample in samples]
    table = FeatureTable(reader, unlabelled, outputs=create().inputs)
    scores = score_table(create(), table)
    assert not scores.labelled
    with pytest.raises(ValueError, match="segments without labels"):
        scores.metrics(np.ones((NUM_VERBS, NUM_NOUNS)))
    write_evaluation(tmp_path, scores, None, details={})
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] is None


def test_unknown_labels_are_refused() -> None:
    reader, samples = make_data(1)
    samples.append(Sample("odd", samples[0].row_keys, NUM_VERBS, 0))
    table = FeatureTable(FakeReader(reader.rows), samples, outputs=create().inputs)
    with pytest.raises(ValueError, match="got verb class 4 for segment 'odd'"):
        score_table(create(), table)
