"""The peer that SAOA is timed against computes what SAOA computes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, random_batch

from heads.base import HeadDims
from heads.registry import create_head

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_literal_saoa_has_the_logits_of_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    literal_saoa = import_module("heads_literal").LiteralSaoa
    head = create_head("saoa", specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS).double()
    dims = HeadDims.from_specs(SPECS, head.inputs)
    literal = literal_saoa(dims, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS).double()
    for mine, theirs in zip(literal.parameters(), head.parameters(), strict=True):
        mine.data.copy_(theirs.data)  # both: alignment, gate, query, key, classifier
    batch = random_batch(3)
    torch.testing.assert_close(literal(batch), head(batch), rtol=0, atol=1e-13)
