import math

import torch

from heads.base import HeadDims
from heads.gating import CrossStreamGate, GatedObjects

B, N, C_QUERY, C = 2, 3, 5, 4


def make_gate() -> CrossStreamGate:
    torch.manual_seed(0)
    return CrossStreamGate("noun", HeadDims(99, C_QUERY), C)


def make_objects() -> tuple[GatedObjects, torch.Tensor]:
    """Objects behind a gate, and the same with the gate multiplied in."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(B, N, C, generator=generator, dtype=torch.float64)
    gate = torch.rand(B, C, generator=generator, dtype=torch.float64)
    mask = torch.ones(B, N, dtype=torch.bool)
    return GatedObjects(features, mask, gate), features * gate.unsqueeze(1)


def test_gate_equals_the_papers_equation() -> None:
    module = make_gate().double()
    query = torch.randn(B, C_QUERY, dtype=torch.float64)
    weight, bias = module.linear.weight.tolist(), module.linear.bias.tolist()
    expected = torch.zeros(B, C, dtype=torch.float64)
    for b in range(B):
        for c in range(C):  # eq 3.4: one number per channel, whatever the object
            total = bias[c] + sum(weight[c][k] * float(query[b, k]) for k in range(C_QUERY))
            expected[b, c] = 1 / (1 + math.exp(-total))
    torch.testing.assert_close(module({"noun_gap": query}), expected, rtol=0, atol=1e-14)


def test_gate_without_weights_halves() -> None:
    module = make_gate()
    torch.nn.init.zeros_(module.linear.weight)
    torch.nn.init.zeros_(module.linear.bias)
    assert torch.equal(module({"noun_gap": torch.randn(B, C_QUERY)}), torch.full((B, C), 0.5))


def test_products_are_those_of_gated_objects() -> None:
    objects, gated = make_objects()
    direction = torch.randn(B, C, dtype=torch.float64)
    expected = torch.stack(
        [torch.stack([gated[b, i].dot(direction[b]) for i in range(N)]) for b in range(B)]
    )
    torch.testing.assert_close(objects.dot(direction), expected, rtol=0, atol=1e-14)


def test_sums_are_those_of_gated_objects() -> None:
    objects, gated = make_objects()
    weights = torch.rand(B, N, dtype=torch.float64)
    expected = (gated * weights.unsqueeze(2)).sum(dim=1)
    torch.testing.assert_close(objects.weighted_sum(weights), expected, rtol=0, atol=1e-14)


def test_objects_without_a_gate_are_what_they_are() -> None:
    objects = make_objects()[0]._replace(gate=None)
    direction, weights = torch.ones(B, C).double(), torch.ones(B, N).double()
    torch.testing.assert_close(objects.dot(direction), objects.features.sum(dim=2))
    torch.testing.assert_close(objects.weighted_sum(weights), objects.features.sum(dim=1))
