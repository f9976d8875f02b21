import math

import pytest
import torch
from heads_fakes import (
    C1,
    CN,
    CV,
    N_LOCAL,
    NUM_NOUNS,
    NUM_VERBS,
    SPECS,
    N,
    random_batch,
)
from torch import Tensor

from heads.base import Batch
from heads.registry import create_head
from heads.saoa import SaoaHead, SymbioticBranch

LOCAL = range(1, 5)  # the middle 4 of 6 objects


def make(*, l2_rescale: bool = False) -> SaoaHead:
    head = create_head(
        "saoa", specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, l2_rescale=l2_rescale
    )
    assert isinstance(head, SaoaHead)
    return head.double()


def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """A product written out, so that the reference shares no kernel with the head."""
    rows, columns = matrix.shape
    return torch.tensor(
        [sum(float(matrix[r, c] * vector[c]) for c in range(columns)) for r in range(rows)],
        dtype=torch.float64,
    )


def branch_slowly(
    branch: SymbioticBranch, features: list[Tensor], query: Tensor, objects: list[Tensor]
) -> tuple[Tensor, list[float]]:
    """One clip, real objects only: equations 3.1 to 3.11 in the paper's order."""
    linear, gate = branch.alignment.linear, branch.gate.linear
    channels = linear.out_features
    own, other = linear.weight[:, :channels], linear.weight[:, channels:]
    g = torch.sigmoid(matvec(gate.weight, query) + gate.bias)
    h = [
        g * torch.clamp(matvec(own, f) + matvec(other, f_o) + linear.bias, min=0)
        for f, f_o in zip(features, objects, strict=True)
    ]
    left = matvec(branch.relation.query.weight, query)
    scores = [float((left * matvec(branch.relation.key.weight, h_i)).sum()) for h_i in h]
    total = sum(math.exp(score) for score in scores)
    weights = [math.exp(score) / total for score in scores]
    attended = sum((w * h_i for w, h_i in zip(weights, h, strict=True)), torch.zeros(channels))
    return matvec(branch.classifier.weight, attended) + branch.classifier.bias, weights


@torch.no_grad()
def saoa_slowly(head: SaoaHead, batch: Batch) -> Batch:
    logits: dict[str, list[Tensor]] = {"verb": [], "noun": []}
    for b, mask in enumerate(batch["object_mask"]):
        objects = batch["object_features"][b]
        verb_gap, noun_gap = batch["verb_gap"][b], batch["noun_gap"][b]
        local = [i for i in LOCAL if mask[i]]
        regions = [batch["verb_roi"][b, i - LOCAL.start] for i in local]
        verb = branch_slowly(head.verb, regions, noun_gap, [objects[i] for i in local])
        everywhere = [i for i in range(N) if mask[i]]
        noun = branch_slowly(
            head.noun,
            [noun_gap] * len(everywhere),
            verb_gap,
            [objects[i] for i in everywhere],
        )
        logits["verb"].append(verb[0])
        logits["noun"].append(noun[0])
    return {name: torch.stack(rows) for name, rows in logits.items()}


def test_head_equals_the_papers_equations() -> None:
    head, batch = make(), random_batch(3)
    torch.testing.assert_close(head(batch), saoa_slowly(head, batch), rtol=0, atol=1e-13)


def test_l2_rescale_equals_rescaled_inputs() -> None:
    """With rescaling, object i counts with the norm of its region (verb) or of the GAP (noun)."""
    head, batch = make(l2_rescale=True), random_batch(2)
    plain = make()
    plain.load_state_dict(head.state_dict())
    unit = batch["object_features"] / batch["object_features"].norm(dim=2, keepdim=True)

    by_region = unit.clone()
    by_region[:, 1:5] *= batch["verb_roi"].norm(dim=2, keepdim=True)
    by_gap = unit * batch["noun_gap"].norm(dim=1)[:, None, None]

    logits = head(batch)
    verb = plain({**batch, "object_features": by_region})["verb"]
    noun = plain({**batch, "object_features": by_gap})["noun"]
    torch.testing.assert_close(logits, {"verb": verb, "noun": noun}, rtol=0, atol=1e-13)
    assert not torch.allclose(logits["noun"], plain(batch)["noun"])


def test_attention_covers_real_objects_of_each_branch() -> None:
    head, batch = make(), random_batch(3)
    attention = head.attention(batch)
    assert attention["verb"].shape == (3, N_LOCAL)
    assert attention["noun"].shape == (3, N)
    for name, mask in (
        ("verb", batch["object_mask"][:, 1:5]),
        ("noun", batch["object_mask"]),
    ):
        assert (attention[name][~mask] == 0).all()
        assert (attention[name][mask] > 0).all()
        torch.testing.assert_close(attention[name].sum(1), torch.ones(3, dtype=torch.float64))


def test_order_of_objects_does_not_matter() -> None:
    head, batch = make(), random_batch(3)
    inner = torch.tensor([3, 1, 4, 2])  # local objects among themselves, the outer two swapped
    order = torch.cat([torch.tensor([5]), inner, torch.tensor([0])])
    permuted = {
        **batch,
        "object_features": batch["object_features"][:, order],
        "object_mask": batch["object_mask"][:, order],
        "verb_roi": batch["verb_roi"][:, inner - 1],
    }
    torch.testing.assert_close(head(permuted), head(batch), rtol=0, atol=1e-13)


def test_contents_of_padded_objects_do_not_matter() -> None:
    head, batch = make(), random_batch(3)
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    changed["object_features"][~batch["object_mask"]] = 1e3
    changed["verb_roi"][~batch["object_mask"][:, 1:5]] = -1e3
    assert not torch.equal(changed["verb_roi"], batch["verb_roi"])
    torch.testing.assert_close(head(changed), head(batch), rtol=0, atol=0)


def test_number_of_padded_objects_does_not_matter() -> None:
    """The same clips in a store with room for two more objects on either side."""
    head, batch = make(), random_batch(3)
    roomy = create_head(
        "saoa",
        specs={
            **SPECS,
            "object_features": type(SPECS["object_features"])(("o", "c"), (N + 4, C1), "float16"),
            "object_mask": type(SPECS["object_mask"])(("o",), (N + 4,), "uint8"),
        },
        num_verbs=NUM_VERBS,
        num_nouns=NUM_NOUNS,
    ).double()
    roomy.load_state_dict(head.state_dict())
    padded = {
        **batch,
        "object_features": torch.nn.functional.pad(batch["object_features"], (0, 0, 2, 2)),
        "object_mask": torch.nn.functional.pad(batch["object_mask"], (2, 2)),
    }
    torch.testing.assert_close(roomy(padded), head(batch), rtol=0, atol=1e-13)


@pytest.mark.parametrize("l2_rescale", [False, True])
def test_clip_without_objects_is_classified_by_the_biases(l2_rescale: bool) -> None:
    head, batch = make(l2_rescale=l2_rescale), random_batch(2)
    batch["object_mask"][1] = False
    batch["object_features"][1] = 0
    batch["verb_roi"][1] = 0
    logits = head(batch)
    assert torch.equal(logits["verb"][1], head.verb.classifier.bias)
    assert torch.equal(logits["noun"][1], head.noun.classifier.bias)
    labels = {"verb": torch.tensor([0, 1]), "noun": torch.tensor([2, 3])}
    torch.autograd.backward(head.loss(logits, labels))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("l2_rescale", [False, True])
def test_gradients_are_those_of_finite_differences(l2_rescale: bool) -> None:
    head, batch = make(l2_rescale=l2_rescale), random_batch(2)
    names = ["verb_gap", "noun_gap", "verb_roi", "object_features"]
    labels = {"verb": torch.tensor([0, 3]), "noun": torch.tensor([6, 1])}
    parameters = dict(head.named_parameters())

    def loss(*tensors: Tensor) -> Tensor:
        features = dict(zip(names, tensors, strict=False))
        weights = dict(zip(parameters, tensors[len(names) :], strict=True))
        logits = torch.func.functional_call(head, weights, ({**batch, **features},))
        return head.loss(logits, labels)

    variables = [batch[name].requires_grad_() for name in names] + list(parameters.values())
    assert torch.autograd.gradcheck(loss, variables, fast_mode=True)


def test_branches_have_the_widths_of_their_own_streams() -> None:
    shapes = {name: tuple(p.shape) for name, p in make().named_parameters()}
    assert shapes == {
        "verb.alignment.linear.weight": (CV, CV + C1),
        "verb.alignment.linear.bias": (CV,),
        "verb.gate.linear.weight": (CV, CN),
        "verb.gate.linear.bias": (CV,),
        "verb.relation.query.weight": (CV // 4, CN),
        "verb.relation.key.weight": (CV // 4, CV),
        "verb.classifier.weight": (NUM_VERBS, CV),
        "verb.classifier.bias": (NUM_VERBS,),
        "noun.alignment.linear.weight": (CN, CN + C1),
        "noun.alignment.linear.bias": (CN,),
        "noun.gate.linear.weight": (CN, CV),
        "noun.gate.linear.bias": (CN,),
        "noun.relation.query.weight": (CN // 4, CV),
        "noun.relation.key.weight": (CN // 4, CN),
        "noun.classifier.weight": (NUM_NOUNS, CN),
        "noun.classifier.bias": (NUM_NOUNS,),
    }
