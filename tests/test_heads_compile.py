"""Every head under torch.compile: one graph, the same numbers, the same gradients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, random_batch

from heads.registry import create_head, list_heads

LABELS = {"verb": torch.arange(4) % NUM_VERBS, "noun": torch.arange(4) % NUM_NOUNS}


@pytest.fixture(autouse=True)
def forget_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check(name: str, backend: str, tolerance: float) -> None:
    head = create_head(name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    batch = random_batch(4, dtype=torch.float32)
    batch["object_mask"][3] = False
    compiled = torch.compile(head, fullgraph=True, backend=backend)
    answers = []
    for forward in (head, compiled):
        head.zero_grad()
        logits = forward(batch)
        torch.autograd.backward(head.loss(logits, LABELS))
        grads = {n: p.grad.clone() for n, p in head.named_parameters() if p.grad is not None}
        assert grads.keys() == dict(head.named_parameters()).keys()
        answers.append((logits, grads))
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", list_heads())
def test_a_head_is_one_graph(name: str) -> None:
    check(name, "aot_eager", 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
@pytest.mark.parametrize("name", list_heads())
def test_a_compiled_head_has_the_same_numbers(name: str) -> None:
    check(name, "inductor", 1e-5)
