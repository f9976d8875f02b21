"""What is remembered instead of loading torch, and when it is found out anew."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import make_clip_stage, make_objects_stage

from pipeline.errors import ConfigError
from pipeline.generations import planned_specs
from pipeline.known import KNOWN_NAME, ROOT, SOURCES, Known, code_digest


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command that has not loaded it."""
    monkeypatch.setattr("pipeline.known.torch_is_loaded", lambda: False)


class Found:
    """A question that counts how often it is answered."""

    def __init__(self, answer: Any = "an answer") -> None:
        self.answer = answer
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1
        return self.answer


def ask(store: Path, find: Callable[[], Any], what: str = "key", **about: Any) -> Any:
    """Ask as one command would, and keep what was learnt."""
    known = Known(store)
    answer = known.recall(what, about, find)
    known.save()
    return answer


@pytest.mark.usefixtures("without_torch")
def test_an_answer_is_found_out_once(tmp_path: Path) -> None:
    find = Found({"map": [1, None, "x"]})
    for _ in range(3):
        assert ask(tmp_path, find, depth=50) == {"map": [1, None, "x"]}
    assert find.times == 1
    ask(tmp_path, find, depth=18)
    ask(tmp_path, find, "specs", depth=50)
    assert find.times == 3
    written = (tmp_path / KNOWN_NAME).stat().st_mtime_ns
    ask(tmp_path, find, depth=18)
    assert (find.times, (tmp_path / KNOWN_NAME).stat().st_mtime_ns) == (3, written)


def test_a_process_with_torch_neither_asks_nor_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Found()
    ask(tmp_path, find)
    assert not (tmp_path / KNOWN_NAME).exists()
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.known.torch_is_loaded", lambda: False)
        ask(tmp_path, find)
    ask(tmp_path, find)
    assert find.times == 3


@pytest.mark.usefixtures("without_torch")
def test_errors_are_not_remembered(tmp_path: Path) -> None:
    def fail() -> str:
        raise ConfigError("no such network")

    known = Known(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError):
            known.recall("key", {}, fail)
    known.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("an answer", "another"),
        lambda text: json.dumps({**json.loads(text), "answers": []}),
        lambda text: json.dumps({**json.loads(text), "code": "other"}),
    ],
)
def test_a_file_that_says_something_else_is_not_believed(
    tmp_path: Path, spoil: Callable[[str], str]
) -> None:
    find = Found()
    ask(tmp_path, find)
    file = tmp_path / KNOWN_NAME
    file.write_text(spoil(file.read_text()))
    assert ask(tmp_path, find) == "an answer"
    assert find.times == 2
    assert ask(tmp_path, find) == "an answer"
    assert find.times == 2


@pytest.mark.usefixtures("without_torch")
def test_a_folder_that_cannot_be_written_is_only_looked_at(tmp_path: Path) -> None:
    known = Known(tmp_path / "absent")
    assert known.recall("key", {}, Found()) == "an answer"
    known.save_if_possible()
    with pytest.raises(OSError, match="absent"):
        known.save()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the digest of code looks at."""
    for package in SOURCES:
        shutil.copytree(ROOT / package, tmp_path / package)
    monkeypatch.setattr("pipeline.known.ROOT", tmp_path)
    return tmp_path


def test_the_digest_of_code_says_what_the_code_says(sources: Path) -> None:
    before = code_digest()
    assert code_digest() == before
    (sources / "pipeline" / "notes.txt").write_text("no code")
    assert code_digest() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("extractors/resnet3d.py", "VERSION = 1", "VERSION = 2"),
        ("pipeline/stage_clip.py", "VERSION: ClassVar[int] = 1", "VERSION: ClassVar[int] = 2"),
        ("pipeline/keys.py", "KEY_SCHEMA = 1", "KEY_SCHEMA = 2"),
        ("extractors/transforms.py", 'RESIZE = "bilinear', 'RESIZE = "nearest'),
        ("heads/saoa.py", "\n", "\n# a word\n"),
        ("stores/records.py", "\n", "\n# a word\n"),
    ],
)
def test_changed_code_is_other_code(sources: Path, name: str, old: str, new: str) -> None:
    before = code_digest()
    text = (sources / name).read_text()
    assert old in text
    (sources / name).write_text(text.replace(old, new, 1))
    assert code_digest() != before


def test_a_moved_or_new_file_is_other_code(sources: Path) -> None:
    digests = {code_digest()}
    (sources / "heads" / "sap.py").rename(sources / "heads" / "other.py")
    digests.add(code_digest())
    (sources / "heads" / "new.py").touch()
    digests.add(code_digest())
    assert len(digests) == 3


def test_another_version_of_a_library_is_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "decord", raising=False)
    digests = set()
    for name in ("torch-2.1.0.dist-info", "torch-2.2.0.dist-info"):
        (tmp_path / name).mkdir()
        digests.add(code_digest())
        (tmp_path / name).rmdir()
    digests.add(code_digest())
    (tmp_path / "decord.py").touch()
    digests.add(code_digest())
    monkeypatch.setattr(sys, "version", "4.0")
    digests.add(code_digest())
    assert len(digests) == 5


@pytest.mark.usefixtures("without_torch")
def test_rows_of_a_stage_without_any_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"network": {"name": "resnet3d", "depth": 10, "width": 4}, "weights": "random"}
    stage = make_clip_stage(**config, weights_seed=0, size_px=32, clip={"frames": 4})
    known = Known(tmp_path)
    specs = planned_specs(known, stage)
    known.save()
    monkeypatch.setattr("pipeline.generations.create_network", None)
    assert planned_specs(Known(tmp_path), stage) == specs
    for change in ({"dtype": "float32"}, {"size_px": 64}, {"clip": {"frames": 8}}):
        other = make_clip_stage(**config, weights_seed=0, **change)
        with pytest.raises(TypeError):
            planned_specs(Known(tmp_path), other)


@pytest.mark.usefixtures("without_torch")
def test_weights_that_are_gone_are_missed_whatever_is_remembered(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.touch()
    stage = make_objects_stage(weights=str(weights))
    known = Known(tmp_path)
    remembered = {"score": {"dims": [], "shape": [], "dtype": "float32"}}
    known.recall("row specs", stage.about, lambda: remembered)
    assert list(planned_specs(known, stage)) == ["score"]
    weights.unlink()
    with pytest.raises(ConfigError, match=r"stages\.objects: .*w\.pt"):
        planned_specs(known, stage)


def test_what_a_stage_is_about_names_all_that_its_settings_are_made_of() -> None:
    for make in (make_clip_stage, make_objects_stage):
        stages = [
            make(),
            make(weights_settings={"random": 1}),
            make(reading={"reader": "decord"}),
            make(dtype="float32"),
            make(precision="bfloat16"),
        ]
        abouts = {json.dumps(stage.about, sort_keys=True) for stage in stages}
        assert len(abouts) == len(stages) == len({stage.key for stage in stages})
