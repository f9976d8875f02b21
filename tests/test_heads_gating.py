import math

import torch

from heads.gating import CrossStreamGate

B, N, C_QUERY, C = 2, 3, 5, 4


def test_gate_equals_the_papers_equations() -> None:
    torch.manual_seed(0)
    module = CrossStreamGate(C_QUERY, C).double()
    objects = torch.randn(B, N, C, dtype=torch.float64)
    query = torch.randn(B, C_QUERY, dtype=torch.float64)
    weight, bias = module.linear.weight.tolist(), module.linear.bias.tolist()

    expected = torch.zeros(B, N, C, dtype=torch.float64)
    for b in range(B):
        for c in range(C):  # eq 3.4: one number per channel, whatever the object
            total = bias[c] + sum(weight[c][k] * float(query[b, k]) for k in range(C_QUERY))
            gate = 1 / (1 + math.exp(-total))
            for i in range(N):  # eq 3.5
                expected[b, i, c] = gate * objects[b, i, c]

    torch.testing.assert_close(module(objects, query), expected, rtol=0, atol=1e-14)


def test_gate_without_weights_halves() -> None:
    module = CrossStreamGate(C_QUERY, C)
    torch.nn.init.zeros_(module.linear.weight)
    torch.nn.init.zeros_(module.linear.bias)
    objects = torch.arange(24.0).reshape(B, N, C)
    assert torch.equal(module(objects, torch.randn(B, C_QUERY)), objects / 2)
