import math

import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS

from heads.base import HeadDims
from heads.pooled import PooledHead
from heads.saoa import SaoaHead
from stores.base import ArraySpec


def test_dims_of_saoa_come_from_the_specs() -> None:
    dims = HeadDims.from_specs(SPECS, SaoaHead.inputs)
    assert dims == HeadDims(8, 12, object_channels=5, num_objects=6, num_local_objects=4)
    assert dims.local_start == 1
    assert dims.local_slice == slice(1, 5)


def test_paper_sizes_put_the_local_objects_in_the_middle() -> None:
    dims = HeadDims(2048, 2048, object_channels=1024, num_objects=60, num_local_objects=40)
    assert dims.local_slice == slice(10, 50)


def test_inputs_that_are_not_read_do_not_count() -> None:
    gaps = {name: SPECS[name] for name in ("verb_gap", "noun_gap")}
    expected = HeadDims(8, 12)
    assert HeadDims.from_specs(gaps, PooledHead.inputs) == expected
    assert HeadDims.from_specs(SPECS, PooledHead.inputs) == expected


def test_missing_input_is_named() -> None:
    gaps = {name: SPECS[name] for name in ("verb_gap", "noun_gap")}
    with pytest.raises(ValueError, match=r"expected it to hold \['verb_roi', 'object_features'"):
        HeadDims.from_specs(gaps, SaoaHead.inputs)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("verb_roi", (4, 9), r"got 'verb_roi' of shape \(4, 9\), expected \(4, 8\)"),
        ("object_mask", (5,), r"got 'object_mask' of shape \(5,\), expected \(6,\)"),
        ("verb_roi", (7, 8), "got 7 local objects, expected at most the 6"),
    ],
)
def test_contradicting_shapes_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    spec = ArraySpec(tuple("ab"[: len(shape)]), shape, "float16")
    with pytest.raises(ValueError, match=message):
        HeadDims.from_specs({**SPECS, name: spec}, SaoaHead.inputs)


def test_loss_is_the_sum_of_two_cross_entropies() -> None:
    head = PooledHead(HeadDims(8, 12), num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    logits = {
        "verb": torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]),  # P(label) = 3/4 and 1/2
        "noun": torch.tensor([[0.0, 0.0, math.log(2)], [0.0, 0.0, 0.0]]),  # 1/4 and 1/3
    }
    labels = {"verb": torch.tensor([0, 1]), "noun": torch.tensor([0, 2])}
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2 - (math.log(1 / 4) + math.log(1 / 3)) / 2
    assert head.loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
