import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.alignment import (
    GlobalAlignment,
    LocalAlignment,
    ObjectAlignment,
    ProjectedDetections,
    RawDetections,
    rescale,
)
from heads.base import Batch, HeadDims

B, N, C, C1 = 2, 3, 4, 5
DIMS = HeadDims(99, C, object_channels=C1, num_objects=N + 2, num_local_objects=N)
KINDS = [GlobalAlignment, LocalAlignment]


def make(kind: type[ObjectAlignment], *, l2_rescale: bool = False) -> ObjectAlignment:
    torch.manual_seed(0)
    return kind("noun", DIMS, l2_rescale=l2_rescale).double()


def inputs() -> Batch:
    generator = torch.Generator().manual_seed(1)
    shapes = {"noun_gap": (C,), "noun_roi": (N, C), "object_features": (N + 2, C1)}
    return {
        name: torch.randn(B, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def pairs(kind: type[ObjectAlignment], batch: Batch) -> tuple[Tensor, Tensor]:
    """The features that meet, one backbone feature per object."""
    if kind is LocalAlignment:
        return batch["noun_roi"], batch["object_features"][:, 1 : N + 1]
    return batch["noun_gap"].unsqueeze(1).expand(B, N + 2, C), batch["object_features"]


def align_slowly(module: ObjectAlignment, features: Tensor, objects: Tensor) -> Tensor:
    """Eq 3.1 and 3.2, number by number."""
    weight, bias = module.linear.weight.detach(), module.linear.bias.detach()
    result = torch.zeros(*features.shape, dtype=torch.float64)
    for b in range(B):
        for i in range(features.shape[1]):
            for c in range(C):
                total = float(bias[c])
                total += sum(float(weight[c, k] * features[b, i, k]) for k in range(C))
                total += sum(float(weight[c, C + k] * objects[b, i, k]) for k in range(C1))
                result[b, i, c] = max(total, 0.0)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_equals_the_papers_equation(kind: type[ObjectAlignment]) -> None:
    module, batch = make(kind), inputs()
    expected = align_slowly(module, *pairs(kind, batch))
    torch.testing.assert_close(module(batch), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_factorised_alignment_equals_literal_concatenation(kind: type[ObjectAlignment]) -> None:
    module, batch = make(kind), inputs()
    literal = F.relu(module.linear(torch.cat(pairs(kind, batch), dim=2)))
    torch.testing.assert_close(module(batch), literal, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_factorised_alignment_has_the_gradients_of_the_literal_one(
    kind: type[ObjectAlignment],
) -> None:
    module, batch = make(kind), inputs()
    for tensor in batch.values():
        tensor.requires_grad_()
    used = [batch["noun_roi" if kind is LocalAlignment else "noun_gap"], batch["object_features"]]
    variables = [*used, *module.parameters()]
    literal = F.relu(module.linear(torch.cat(pairs(kind, batch), dim=2)))
    weights = torch.randn(literal.shape, dtype=torch.float64)
    expected = torch.autograd.grad((literal * weights).sum(), variables)
    found = torch.autograd.grad((module(batch) * weights).sum(), variables)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_rescaled_alignment_equals_normalise_concatenate_multiply(
    kind: type[ObjectAlignment],
) -> None:
    module, batch = make(kind, l2_rescale=True), inputs()
    features, objects = pairs(kind, batch)
    length = features.norm(dim=2, keepdim=True)
    both = torch.cat([features / length, objects / objects.norm(dim=2, keepdim=True)], dim=2)
    literal = F.relu(module.linear(both * length))
    torch.testing.assert_close(module(batch), literal, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [*KINDS, RawDetections])
def test_inputs_are_left_as_they_are(kind: type[ObjectAlignment]) -> None:
    """Sums and ReLUs are made in place, but not in the place of what came in."""
    module = RawDetections(DIMS) if kind is RawDetections else make(kind, l2_rescale=True)
    batch = inputs()
    before = {name: tensor.clone() for name, tensor in batch.items()}
    module(batch)
    assert all(torch.equal(batch[name], before[name]) for name in batch)


def test_detections_alone() -> None:
    module, batch = ProjectedDetections("noun", DIMS).double(), inputs()
    expected = F.relu(module.linear(batch["object_features"]))
    torch.testing.assert_close(module(batch), expected, rtol=0, atol=0)
    assert module(batch).shape == (B, N + 2, C)
    assert RawDetections(DIMS)(batch) is batch["object_features"]


def test_rescale_by_hand() -> None:
    objects = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]])
    features = torch.tensor([[[6.0, 8.0]]])  # of length 10
    expected = torch.tensor([[[6.0, 8.0], [0.0, 0.0], [0.0, 10.0]]])
    torch.testing.assert_close(rescale(objects, features), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rescaling_has_gradients_where_objects_and_features_are_zero(
    kind: type[ObjectAlignment],
) -> None:
    batch = {name: torch.zeros_like(tensor).requires_grad_() for name, tensor in inputs().items()}
    make(kind, l2_rescale=True)(batch).sum().backward()
    used = [batch["noun_roi" if kind is LocalAlignment else "noun_gap"], batch["object_features"]]
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in used)
