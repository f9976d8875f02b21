import math

import pytest
import torch
from torch import Tensor

from heads.base import HeadDims
from heads.gating import GatedObjects
from heads.relation import ActionAttendedRelation, MeanRelation

B, N, C_QUERY, C = 2, 4, 5, 8
DIMS = HeadDims(99, C_QUERY)


def make(*, scale_scores: bool = False) -> tuple[ActionAttendedRelation, Tensor, Tensor]:
    torch.manual_seed(0)
    module = ActionAttendedRelation("noun", DIMS, C, scale_scores=scale_scores).double()
    objects = torch.randn(B, N, C, dtype=torch.float64)
    return module, objects, torch.randn(B, C_QUERY, dtype=torch.float64)


def attend(
    module: ActionAttendedRelation, objects: Tensor, query: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    attended, attention = module(GatedObjects(objects, mask), {"noun_gap": query})
    return attended, attention


def attend_slowly(
    module: ActionAttendedRelation, objects: Tensor, query: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq 3.9 and 3.10 in the paper's order: every object is projected to C/4 numbers."""
    A, B_matrix = module.query.weight.T.tolist(), module.key.weight.tolist()
    quarter = C // 4
    attended = torch.zeros(B, C, dtype=torch.float64)
    weights = torch.zeros(B, N, dtype=torch.float64)
    for b in range(B):
        left = [sum(float(query[b, k]) * A[k][q] for k in range(C_QUERY)) for q in range(quarter)]
        scores = {}
        for i in range(N):
            right = [
                sum(B_matrix[q][c] * float(objects[b, i, c]) for c in range(C))
                for q in range(quarter)
            ]
            if mask[b, i]:
                scores[i] = sum(x * y for x, y in zip(left, right, strict=True))
        total = sum(math.exp(score) for score in scores.values())
        for i, score in scores.items():
            weights[b, i] = math.exp(score) / total
            attended[b] += weights[b, i] * objects[b, i]
    return attended, weights


def test_relation_equals_the_papers_equations() -> None:
    module, objects, query = make()
    mask = torch.tensor([[True, True, True, True], [True, False, True, False]])
    attended, attention = attend(module, objects, query, mask)
    expected_attended, expected_attention = attend_slowly(module, objects, query, mask)
    torch.testing.assert_close(attended, expected_attended, rtol=0, atol=1e-14)
    torch.testing.assert_close(attention, expected_attention, rtol=0, atol=1e-14)


def test_projections_have_the_papers_shapes_and_no_bias() -> None:
    module = ActionAttendedRelation("verb", HeadDims(20, 99), 32)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {"query.weight": (8, 20), "key.weight": (8, 32)}


def test_masked_objects_have_exactly_no_weight() -> None:
    module, objects, query = make()
    mask = torch.tensor([[True, False, True, True], [False, False, False, True]])
    attended, attention = attend(module, objects, query, mask)
    assert (attention[~mask] == 0).all()
    torch.testing.assert_close(attention.sum(1), torch.ones(B, dtype=torch.float64))
    assert torch.equal(attended[1], objects[1, 3])


def test_no_real_object_gives_zeros_and_finite_gradients() -> None:
    module, objects, query = make()
    objects.requires_grad_()
    mask = torch.tensor([[False] * N, [True] * N])
    attended, attention = attend(module, objects, query, mask)
    assert (attended[0] == 0).all()
    assert (attention[0] == 0).all()
    attended.sum().backward()
    assert objects.grad is not None
    assert (objects.grad[0] == 0).all()
    assert (objects.grad[1] != 0).any()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_huge_scores_do_not_overflow() -> None:
    module, objects, query = make()
    mask = torch.ones(B, N, dtype=torch.bool)
    attended, attention = attend(module.float(), objects.float() * 1e6, query.float() * 1e6, mask)
    assert attended.isfinite().all()
    torch.testing.assert_close(attention.sum(1), torch.ones(B))


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 channels, expected at least 4"):
        ActionAttendedRelation("verb", DIMS, 3)


def test_scaled_scores_are_divided_by_the_root_of_the_spaces_size() -> None:
    module, objects, query = make(scale_scores=True)
    mask = torch.ones(B, N, dtype=torch.bool)
    weaker = attend_slowly(module, objects, query / math.sqrt(C // 4), mask)
    torch.testing.assert_close(attend(module, objects, query, mask), weaker, rtol=0, atol=1e-14)


def test_mean_is_over_real_gated_objects() -> None:
    objects = torch.tensor([[[2.0, 4.0], [9.0, 9.0], [4.0, 8.0]], [[1.0, 1.0]] * 3])
    mask = torch.tensor([[True, False, True], [False] * 3])
    gate = torch.tensor([[1.0, 0.5], [1.0, 1.0]])
    found, attention = MeanRelation()(GatedObjects(objects, mask, gate), {})
    assert torch.equal(found, torch.tensor([[3.0, 3.0], [0.0, 0.0]]))
    assert attention is None
