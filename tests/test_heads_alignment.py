import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.alignment import ObjectAlignment, rescale_objects

B, N, C, C1 = 2, 3, 4, 5


def make(*, l2_rescale: bool = False) -> ObjectAlignment:
    torch.manual_seed(0)
    return ObjectAlignment(C, C1, l2_rescale=l2_rescale).double()


def inputs(num_features: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(B, num_features, C, generator=generator, dtype=torch.float64)
    return features, torch.randn(B, N, C1, generator=generator, dtype=torch.float64)


def align_slowly(module: ObjectAlignment, features: Tensor, objects: Tensor) -> Tensor:
    """Eq 3.1 (one feature) and 3.2 (one per object), number by number."""
    weight, bias = module.linear.weight.detach(), module.linear.bias.detach()
    result = torch.zeros(B, N, C, dtype=torch.float64)
    for b in range(B):
        for i in range(N):
            f = features[b, 0 if features.shape[1] == 1 else i]
            for c in range(C):
                total = float(bias[c])
                total += sum(float(weight[c, k] * f[k]) for k in range(C))
                total += sum(float(weight[c, C + k] * objects[b, i, k]) for k in range(C1))
                result[b, i, c] = max(total, 0.0)
    return result


@pytest.mark.parametrize("num_features", [1, N], ids=["global", "local"])
def test_alignment_equals_the_papers_equation(num_features: int) -> None:
    module, (features, objects) = make(), inputs(num_features)
    torch.testing.assert_close(
        module(features, objects), align_slowly(module, features, objects), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("num_features", [1, N], ids=["global", "local"])
def test_factorised_alignment_equals_literal_concatenation(num_features: int) -> None:
    module, (features, objects) = make(), inputs(num_features)
    concatenated = torch.cat([features.expand(B, N, C), objects], dim=2)
    literal = F.relu(module.linear(concatenated))
    torch.testing.assert_close(module(features, objects), literal, rtol=0, atol=1e-14)


@pytest.mark.parametrize("num_features", [1, N], ids=["global", "local"])
def test_rescaled_alignment_equals_normalise_concatenate_multiply(num_features: int) -> None:
    module, (features, objects) = make(l2_rescale=True), inputs(num_features)
    features = features.expand(B, N, C)
    length = features.norm(dim=2, keepdim=True)
    both = torch.cat([features / length, objects / objects.norm(dim=2, keepdim=True)], dim=2)
    literal = F.relu(module.linear(both * length))
    actual = module(features[:, :num_features], objects)
    torch.testing.assert_close(actual, literal, rtol=0, atol=1e-14)


def test_rescale_objects_by_hand() -> None:
    objects = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]])
    features = torch.tensor([[[6.0, 8.0]]])  # of length 10
    expected = torch.tensor([[[6.0, 8.0], [0.0, 0.0], [0.0, 10.0]]])
    torch.testing.assert_close(rescale_objects(objects, features), expected)


def test_rescaling_has_gradients_where_objects_and_features_are_zero() -> None:
    module = make(l2_rescale=True)
    features = torch.zeros(1, N, C, dtype=torch.float64, requires_grad=True)
    objects = torch.zeros(1, N, C1, dtype=torch.float64, requires_grad=True)
    module(features, objects).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert objects.grad is not None
    assert objects.grad.isfinite().all()
