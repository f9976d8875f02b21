import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, random_batch

from heads import registry
from heads.base import Head, HeadDims
from heads.registry import build_head, create_head, head_class, list_heads, register_head


def create(name: str, seed: int = 0) -> Head:
    return create_head(name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, seed=seed)


@pytest.mark.parametrize("name", list_heads())
def test_every_head_classifies_and_trains_all_its_parameters(name: str) -> None:
    head, batch = create(name), random_batch(5, dtype=torch.float32)
    logits = head({key: batch[key] for key in head.inputs})
    assert {key: tuple(value.shape) for key, value in logits.items()} == {
        "verb": (5, NUM_VERBS),
        "noun": (5, NUM_NOUNS),
    }
    labels = {"verb": torch.arange(5) % NUM_VERBS, "noun": torch.arange(5) % NUM_NOUNS}
    torch.autograd.backward(head.loss(logits, labels))
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize("name", list_heads())
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    head, batch = create(name).double(), random_batch(3)
    alone = head({key: tensor[1:2] for key, tensor in batch.items()})
    together = {key: rows[1:2] for key, rows in head(batch).items()}
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", list_heads())
def test_config_builds_the_same_head_again(name: str) -> None:
    head = create(name)
    assert head.config.name == head.name == name
    again = build_head(head.config)
    assert type(again) is type(head)
    again.load_state_dict(head.state_dict())
    batch = random_batch(2, dtype=torch.float32)
    assert torch.equal(again(batch)["verb"], head(batch)["verb"])


@pytest.mark.parametrize("name", list_heads())
def test_initial_weights_are_a_function_of_the_seed(name: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = create(name, seed=1).state_dict()
    torch.manual_seed(6)
    second, other = create(name, seed=1).state_dict(), create(name, seed=2).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    torch.manual_seed(5)
    create(name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_options_are_completed_with_defaults() -> None:
    assert create("saoa").config.options == {"l2_rescale": False, "scale_scores": False}
    assert create("pooled").config.options == {}


def test_unknown_names_and_options_list_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"got head 'soap', expected one of \['detections_"):
        head_class("soap")
    with pytest.raises(ValueError, match=r"got option 'l2' for head 'saoa', .*\['l2_rescale', 's"):
        create_head("saoa", specs=SPECS, num_verbs=4, num_nouns=7, l2=True)
    with pytest.raises(ValueError, match="got option 'l2' for head 'pooled', expected: none"):
        create_head("pooled", specs=SPECS, num_verbs=4, num_nouns=7, l2=True)
    with pytest.raises(ValueError, match="got l2_rescale='yes' for head 'saoa', expected bool"):
        create_head("saoa", specs=SPECS, num_verbs=4, num_nouns=7, l2_rescale="yes")


def test_register_adds_a_head_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_HEADS", dict(registry._HEADS))
    register_head("other", "heads.pooled:PooledHead")
    assert list_heads() == sorted({*registry._HEADS, "other"})
    assert head_class("other")(HeadDims(8, 12), num_verbs=1, num_nouns=1).name == "pooled"
    with pytest.raises(ValueError, match="got head 'saoa', which is registered already"):
        register_head("saoa", "heads.pooled:PooledHead")
