"""What holds for every registered head, whatever it computes."""

from __future__ import annotations

import pytest
import torch
from heads_fakes import C1, N_LOCAL, NUM_NOUNS, NUM_VERBS, SPECS, N, random_batch
from torch import Tensor

from heads.base import Batch, Head
from heads.registry import create_head, head_options, list_heads
from stores.base import ArraySpec

CASES = [(name, False) for name in list_heads()] + [
    (name, True) for name in list_heads() if "l2_rescale" in head_options(name, {})
]
LABELS = {"verb": torch.tensor([0, 3]), "noun": torch.tensor([6, 1])}
FEATURES = ["verb_gap", "noun_gap", "verb_roi", "noun_roi", "object_features"]
LOCAL = slice(1, 5)

every_head = pytest.mark.parametrize(("name", "l2_rescale"), CASES)


def make(name: str, l2_rescale: bool, specs: dict[str, ArraySpec] = SPECS) -> Head:
    options = {"l2_rescale": True} if l2_rescale else {}
    return create_head(
        name, specs=specs, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, **options
    ).double()


def inputs(head: Head, batch_size: int) -> Batch:
    """Only what the head says it reads."""
    batch = random_batch(batch_size)
    return {name: batch[name] for name in head.inputs}


@every_head
def test_order_of_objects_does_not_matter(name: str, l2_rescale: bool) -> None:
    head = make(name, l2_rescale)
    batch = random_batch(3)
    inner = torch.tensor([3, 1, 4, 2])  # local objects among themselves, the outer two swapped
    order = torch.cat([torch.tensor([5]), inner, torch.tensor([0])])
    permuted = {
        **batch,
        "object_features": batch["object_features"][:, order],
        "object_mask": batch["object_mask"][:, order],
        "verb_roi": batch["verb_roi"][:, inner - 1],
        "noun_roi": batch["noun_roi"][:, inner - 1],
    }
    torch.testing.assert_close(head(permuted), head(batch), rtol=0, atol=1e-13)


@every_head
def test_what_stands_in_padded_rows_does_not_matter(name: str, l2_rescale: bool) -> None:
    head, batch = make(name, l2_rescale), random_batch(3)
    changed = {key: tensor.clone() for key, tensor in batch.items()}
    changed["object_features"][~batch["object_mask"]] = 1e3
    for roi in ("verb_roi", "noun_roi"):
        changed[roi][~batch["object_mask"][:, LOCAL]] = -1e3
    assert not torch.equal(changed["verb_roi"], batch["verb_roi"])
    torch.testing.assert_close(head(changed), head(batch), rtol=0, atol=1e-13)


@every_head
def test_number_of_padded_objects_does_not_matter(name: str, l2_rescale: bool) -> None:
    """The same clips in a store with room for two more objects on either side."""
    head, batch = make(name, l2_rescale), random_batch(3)
    roomy = make(
        name,
        l2_rescale,
        {
            **SPECS,
            "object_features": ArraySpec(("o", "c"), (N + 4, C1), "float16"),
            "object_mask": ArraySpec(("o",), (N + 4,), "uint8"),
        },
    )
    roomy.load_state_dict(head.state_dict())
    padded = {
        **batch,
        "object_features": torch.nn.functional.pad(batch["object_features"], (0, 0, 2, 2)),
        "object_mask": torch.nn.functional.pad(batch["object_mask"], (2, 2)),
    }
    torch.testing.assert_close(roomy(padded), head(batch), rtol=0, atol=1e-13)


@every_head
def test_no_object_at_all_gives_finite_logits_and_gradients(name: str, l2_rescale: bool) -> None:
    head = make(name, l2_rescale)
    batch = random_batch(2)
    batch["object_mask"][1] = False
    for key in ("object_features", "verb_roi", "noun_roi"):
        batch[key][1] = 0
    for key in FEATURES:
        batch[key].requires_grad_()
    logits = head(batch)
    torch.autograd.backward(head.loss(logits, LABELS))
    grads = [tensor.grad for tensor in (*head.parameters(), *(batch[key] for key in FEATURES))]
    assert all(grad.isfinite().all() for grad in grads if grad is not None)
    assert all(rows.isfinite().all() for rows in logits.values())


@every_head
def test_gradients_are_those_of_finite_differences(name: str, l2_rescale: bool) -> None:
    head, batch = make(name, l2_rescale), random_batch(2)
    parameters = dict(head.named_parameters())
    read = [key for key in FEATURES if key in head.inputs]

    def loss(*tensors: Tensor) -> Tensor:
        features = dict(zip(read, tensors, strict=False))
        weights = dict(zip(parameters, tensors[len(read) :], strict=True))
        logits = torch.func.functional_call(head, weights, ({**batch, **features},))
        return head.loss(logits, LABELS)

    variables = [batch[key].requires_grad_() for key in read] + list(parameters.values())
    assert torch.autograd.gradcheck(loss, variables, fast_mode=True)


@every_head
def test_only_the_inputs_are_read_and_none_is_changed(name: str, l2_rescale: bool) -> None:
    head = make(name, l2_rescale)
    batch = inputs(head, 2)
    before = {key: tensor.clone() for key, tensor in batch.items()}
    head(batch)
    assert all(torch.equal(batch[key], before[key]) for key in batch)
    for key in set(head.inputs) - {"object_mask"}:
        changed = head({**batch, key: batch[key] + 1})
        assert any(not torch.equal(changed[s], rows) for s, rows in head(batch).items()), key


@every_head
def test_autocast_changes_the_precision_and_little_else(name: str, l2_rescale: bool) -> None:
    head = make(name, l2_rescale).float()
    batch = random_batch(4, dtype=torch.float32)
    batch["object_mask"][3] = False
    expected = head(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(batch)
    torch.autograd.backward(head.loss(logits, {"verb": torch.arange(4), "noun": torch.arange(4)}))
    for stream, rows in logits.items():
        torch.testing.assert_close(rows.float(), expected[stream], rtol=0.1, atol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("name", [n for n in list_heads() if "scale_scores" in head_options(n, {})])
def test_attention_of_a_clip_adds_up_to_one_or_nothing(name: str) -> None:
    head, batch = make(name, False), random_batch(3)
    batch["object_mask"][2] = False
    slices = head.object_slices(head.config.dims)
    attention = head.attention(batch)
    assert attention.keys() == {"verb", "noun"}
    for stream, weights in attention.items():
        local = f"{stream}_roi" in head.inputs
        assert slices[stream] == (LOCAL if local else slice(0, N))
        assert weights.shape == (3, N_LOCAL if local else N)
        torch.testing.assert_close(weights.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]).double())


@pytest.mark.needs_cuda
@every_head
def test_a_gpu_gives_the_same_logits(name: str, l2_rescale: bool) -> None:
    head, batch = make(name, l2_rescale), random_batch(4)
    batch["object_mask"][3] = False
    expected = head(batch)
    found = head.cuda()({key: tensor.cuda() for key, tensor in batch.items()})
    for stream, rows in found.items():
        torch.testing.assert_close(rows.cpu(), expected[stream], rtol=0, atol=1e-10)
