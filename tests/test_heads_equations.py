"""Every head against a slow float64 reference written straight from the papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, random_batch
from heads_reference import REFERENCES, reference

from heads.base import Head
from heads.registry import create_head, head_options, list_heads

OTHER_VALUES = {"l2_rescale": True, "scale_scores": True, "project": False}
CASES = [(name, {}) for name in list_heads()] + [
    (name, {option: OTHER_VALUES[option]})
    for name in list_heads()
    for option in head_options(name, {})
]


def make(name: str, **options: Any) -> Head:
    head = create_head(name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, **options)
    return head.double()


def test_every_head_has_a_reference() -> None:
    assert sorted(REFERENCES) == list_heads()


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_logits_and_attention_are_the_papers(name: str, options: dict[str, Any]) -> None:
    head, batch = make(name, **options), random_batch(4)
    batch["object_mask"][3] = False  # a clip without any object
    batch["object_features"] *= 3  # so that attention is far from even
    expected, expected_attention = reference(head, batch)
    torch.testing.assert_close(head(batch), expected, rtol=0, atol=1e-12)
    assert head.attends == bool(expected_attention[0])
    if head.attends:
        attention = head.attention(batch)
        slices = head.object_slices(head.config.dims)
        assert attention.keys() == expected_attention[0].keys()
        for stream, weights in attention.items():
            mask = batch["object_mask"][:, slices[stream]]
            assert weights.shape == mask.shape
            assert (weights[~mask] == 0).all()
            for clip, row in enumerate(expected_attention):
                found = weights[clip][mask[clip]].detach().numpy()
                np.testing.assert_allclose(found, row[stream], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[1]], ids=str)
def test_every_option_changes_something(name: str, options: dict[str, Any]) -> None:
    batch = random_batch(2)
    torch.manual_seed(0)
    plain, other = make(name)(batch), make(name, **options)(batch)
    assert any(not torch.equal(plain[stream], other[stream]) for stream in plain)


@pytest.mark.parametrize("name", [n for n in list_heads() if not make(n).attends])
def test_heads_that_do_not_attend_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"got head '{name}', expected one that attends"):
        make(name).attention(random_batch(1))
