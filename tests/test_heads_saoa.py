import pytest
import torch
from heads_fakes import C1, CN, CV, NUM_NOUNS, NUM_VERBS, SPECS, random_batch

from heads.registry import create_head
from heads.saoa import SaoaHead


def make(*, l2_rescale: bool = False) -> SaoaHead:
    head = create_head(
        "saoa", specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS, l2_rescale=l2_rescale
    )
    assert isinstance(head, SaoaHead)
    return head.double()


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


@pytest.mark.parametrize("l2_rescale", [False, True])
def test_clip_without_objects_is_classified_by_the_biases(l2_rescale: bool) -> None:
    head, batch = make(l2_rescale=l2_rescale), random_batch(2)
    batch["object_mask"][1] = False
    logits = head(batch)
    assert torch.equal(logits["verb"][1], head.verb.classifier.bias)
    assert torch.equal(logits["noun"][1], head.noun.classifier.bias)


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
