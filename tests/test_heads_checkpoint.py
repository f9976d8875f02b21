from pathlib import Path

import pytest
import torch
from heads_fakes import NUM_NOUNS, NUM_VERBS, SPECS, random_batch
from safetensors.torch import save_file

from heads.base import Head
from heads.checkpoint import load_head, load_weights, read_checkpoint, save_head
from heads.registry import create_head, list_heads
from stores.base import ArraySpec


def create(name: str, seed: int = 0, num_verbs: int = NUM_VERBS, **options: bool) -> Head:
    return create_head(
        name, specs=SPECS, num_verbs=num_verbs, num_nouns=NUM_NOUNS, seed=seed, **options
    )


def save(path: Path, head: Head) -> Path:
    save_head(path, head, provenance={"data": "kitchens"}, training={"epoch": 3})
    return path


@pytest.mark.parametrize("name", list_heads())
def test_loaded_head_answers_as_the_saved_one(name: str, tmp_path: Path) -> None:
    head = create(name)
    path = save(tmp_path / "head.safetensors", head)
    loaded = load_head(path, name=name, specs=SPECS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    assert loaded.config == head.config
    batch = random_batch(3, dtype=torch.float32)
    for key, logits in head(batch).items():
        assert torch.equal(loaded(batch)[key], logits)


def test_options_survive(tmp_path: Path) -> None:
    head = create("saoa", l2_rescale=True)
    loaded = load_head(save(tmp_path / "head.safetensors", head))
    assert loaded.config.options == {"l2_rescale": True, "scale_scores": False}
    batch = random_batch(3, dtype=torch.float32)
    assert torch.equal(loaded(batch)["verb"], head(batch)["verb"])
    assert not torch.equal(create("saoa")(batch)["verb"], head(batch)["verb"])


def test_description_is_read_without_the_weights(tmp_path: Path) -> None:
    head = create("saoa")
    checkpoint = read_checkpoint(save(tmp_path / "head.safetensors", head))
    assert checkpoint.config == head.config
    assert checkpoint.provenance == {"data": "kitchens"}
    assert checkpoint.training == {"epoch": 3}


def test_mismatches_say_got_and_expected(tmp_path: Path) -> None:
    path = save(tmp_path / "head.safetensors", create("saoa"))
    with pytest.raises(ValueError, match="got head 'saoa' in the checkpoint, expected 'pooled'"):
        load_head(path, name="pooled")
    with pytest.raises(ValueError, match="got num_verbs 4 in the checkpoint, expected 97"):
        load_head(path, num_verbs=97)
    with pytest.raises(ValueError, match="got num_nouns 7 in the checkpoint, expected 300"):
        load_head(path, num_nouns=300)
    wider = {
        **SPECS,
        "verb_gap": ArraySpec(("c",), (16,), "float16"),
        "verb_roi": ArraySpec(("o", "c"), (4, 16), "float16"),
    }
    with pytest.raises(ValueError, match="got verb_channels 8 in the checkpoint, expected 16"):
        load_head(path, specs=wider)


def test_sizes_of_inputs_that_are_not_read_do_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "head.safetensors", create("pooled"))
    gaps = {name: SPECS[name] for name in ("verb_gap", "noun_gap")}
    assert load_head(path, specs=gaps).name == "pooled"


def test_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "head.safetensors", create("pooled"))
    with pytest.raises(ValueError, match=r"num_verbs=4.*expected .*num_verbs=5"):
        load_weights(path, create("pooled", num_verbs=5))


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(FileNotFoundError):
        load_head(path)
    path.write_bytes(b"not at all")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_head(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="without a 'symbio' entry, expected a trained head"):
        load_head(path)


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.checkpoint.FORMAT", 2)
    path = save(tmp_path / "head.safetensors", create("pooled"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="of format 2, expected 1"):
        load_head(path)
