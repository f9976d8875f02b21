"""The documentation is true: its commands, configs, code and links are tried out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
import torch
from docs_pages import CONFIGS, PAGES, ROOT, blocks, prose, section, table_rows, text_of

import cli
import heads.registry
import pipeline.config_data
from extractors.registry import CLIP_EXTRACTORS, create_clip_extractor
from heads.base import HeadDims
from heads.registry import create_head
from pipeline.config_file import load_config, parse_config
from pipeline.datasets import load_dataset
from pipeline.runs import default_run_folder
from pipeline.sweep_plan import plan_sweep
from stores import ArraySpec, Row, RowInfo, open_store


def command_lines(text: str) -> list[list[str]]:
    """The arguments of each `symbio` line, in code blocks and in the comments of configs."""
    lines = re.findall(r"^(?:#   )?symbio (.+?)(?:\s{3,}.*)?$", text, re.M)
    return [shlex.split(line) for line in lines]


def commands(
    group: click.Group = cli.main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its name in parts."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command a line calls and its parameters; refuses unknown commands and options."""
    command: click.Command = cli.main
    words = list(arguments)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    # As called from the group: commands remember the names of their help option.
    settings = {"help_option_names": cli.main.context_settings["help_option_names"]}
    return str(command.name), command.make_context(str(command.name), words, **settings).params


# Commands


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_the_readme_names_every_command(words: tuple[str, ...]) -> None:
    rows = table_rows(section("README.md", "Commands"))
    assert any(row[0].startswith(f"`symbio {' '.join(words)}") for row in rows)


def test_every_command_has_help_with_an_example() -> None:
    for words, command in commands():
        assert command.help, words
        assert f"symbio {' '.join(words)}" in command.help


@pytest.mark.parametrize(
    "page", ["README.md", "docs/store.md", *(f"configs/{name}" for name in CONFIGS)]
)
def test_command_lines_are_understood_and_fit_together(page: str) -> None:
    run_folders: set[Path] = set()
    for arguments in command_lines(text_of(page)):
        name, options = parsed(arguments)
        if name == "sweep":
            names = ("overrides", "grids", "seeds", "name")
            plan_sweep(ROOT / options["config"], **{key: options[key] for key in names})
        elif "config" in options and options["config"] not in run_folders:
            config = load_config(ROOT / options["config"], options["overrides"])
            if name == "train":
                run_folders.add(default_run_folder(config))
        if name == "evaluate":
            assert options["run_folder"] in run_folders
        assert set(options.get("run_folders", ())) <= run_folders


def test_the_readme_shows_a_whole_experiment() -> None:
    called = [parsed(arguments)[0] for arguments in command_lines(text_of("README.md"))]
    assert {"finetune", "plan", "run", "status", "train", "evaluate"} <= set(called)
    assert called.index("finetune") < called.index("run") < called.index("train")


def test_options_in_the_text_exist() -> None:
    known = {opt for _, command in commands() for param in command.params for opt in param.opts}
    for page in ("README.md", "docs/store.md"):
        inline = " ".join(re.findall(r"`([^`]+)`", prose(page)))
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", inline))
        assert named
        assert named <= known | {"--help"}


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), re.M)
        assert named
        assert set(named) <= targets


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert re.search(r"^```sh\nmake test\n```$", section("README.md", "Tests"), re.M)
    assert text_of(".ci/run").splitlines()[-2:] == ["make check", "make test"]


# Configuration


@pytest.mark.parametrize("name", CONFIGS)
def test_example_configs_load(name: str) -> None:
    load_config(ROOT / "configs" / name)


def test_the_readme_config_and_labels_load(tmp_path: Path) -> None:
    (config_text,), (labels,) = blocks("README.md", "yaml"), blocks("README.md", "csv")
    (tmp_path / "labels.csv").write_text(labels)
    annotations = f"data.annotations={tmp_path}/labels.csv"
    config = parse_config(config_text, [annotations], source="README.md")
    segments = load_dataset(config.data).segments
    assert [(s.segment_id, s.split) for s in segments] == [("a1", "train"), ("a2", "val")]


# Code


def python_blocks() -> dict[str, str]:
    """README's Python by the file it belongs in, or "run N" for what stands alone."""
    found = {}
    for number, code in enumerate(blocks("README.md", "python")):
        match = re.match(r"# (\S+\.py)\n", code)
        found[match[1] if match else f"run {number}"] = code
    return found


def test_the_reading_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.arange(3 * 24, dtype=np.float16).reshape(3, 1, 2, 3, 4)
    spec = ArraySpec(("time", "y", "x", "channel"), (1, 2, 3, 4), "float16")
    with open_store(tmp_path / "my-store", mode="a") as store:
        generation = store.generation("verb", "0123456789ab".ljust(64, "0"), {"map": spec})
        infos = [RowInfo(clip_id=f"v/{i}/0") for i in range(3)]
        generation.append([Row(f"{i}" * 64, {"map": maps[i]}, infos[i]) for i in range(3)])
    monkeypatch.chdir(tmp_path)
    results: dict[str, Any] = {}
    examples = [code for name, code in python_blocks().items() if name.startswith("run ")]
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "README.md", "exec"), results)
    np.testing.assert_array_equal(results["first"], maps[0])
    assert [row["clip_id"] for row in results["rows"]] == ["v/0/0", "v/1/0", "v/2/0"]
    np.testing.assert_array_equal(results["batch"]["map"], maps[:2])


def load_module(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """README's code for a new file, as the module it would be."""
    module = ModuleType(path.removesuffix(".py").replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(python_blocks()[path], path, "exec"), vars(module))
    return module


def test_the_extractor_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("extractors/tiny3d.py", monkeypatch)
    monkeypatch.setattr(CLIP_EXTRACTORS, "_targets", dict(CLIP_EXTRACTORS._targets))
    exec(python_blocks()["extractors/registry.py"], {"CLIP_EXTRACTORS": CLIP_EXTRACTORS})
    extractor = create_clip_extractor(
        "tiny3d", architecture={"width": 5}, weights=None, seed=0, frames=8, size_px=16
    )
    found = extractor(torch.zeros(2, 8, 16, 16, 3, dtype=torch.uint8))["map"]
    assert found.shape == (2, *extractor.outputs["map"].shape) == (2, 2, 4, 4, 5)
    network = module.Tiny3DExtractor.build(module.Tiny3DOptions(width=5), 3)
    assert network(torch.zeros(2, 3, 8, 16, 16)).shape == (2, 3)


def test_the_head_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("heads/object_mean.py", monkeypatch)
    monkeypatch.setattr(heads.registry, "_HEADS", dict(heads.registry._HEADS))
    (name, target) = re.findall(r'`"(\w+)": "([\w.:]+)"`', text_of("README.md"))[0]
    heads.registry.register_head(name, target)
    specs = {
        "verb_gap": ArraySpec(("verb_channel",), (4,), "float16"),
        "noun_gap": ArraySpec(("noun_channel",), (4,), "float16"),
        "object_features": ArraySpec(("object", "object_channel"), (6, 3), "float16"),
        "object_mask": ArraySpec(("object",), (6,), "uint8"),
    }
    head = create_head(name, specs=specs, num_verbs=2, num_nouns=5, dropout=0.5).eval()
    assert isinstance(head, module.ObjectMeanHead)
    assert head.config.dims == HeadDims(4, 4, 3, 6)
    batch = {n: torch.rand(2, *specs[n].shape) for n in module.ObjectMeanHead.inputs}
    batch["object_mask"] = torch.tensor([[1, 1, 0, 0, 0, 0], [0] * 6], dtype=torch.bool)
    logits = head(batch)
    assert logits["verb"].shape == (2, 2)
    mean = batch["object_features"][0, :2].mean(dim=0)
    torch.testing.assert_close(logits["noun"][0], head.noun(mean))
    torch.testing.assert_close(logits["noun"][1], head.noun.bias)


def test_the_data_set_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_names = dict(vars(pipeline.config_data))
    exec(python_blocks()["pipeline/config_data.py"], config_names)
    data_class = config_names["DiaryData"]
    monkeypatch.setattr(pipeline.config_data, "DiaryData", data_class, raising=False)
    loader_names: dict[str, Any] = {}
    exec(python_blocks()["pipeline/dataset_diary.py"], loader_names)
    diary = tmp_path / "diary.csv"
    diary.write_text("person,video,from_ms,to_ms,verb,noun\n1,a,500,1500,0,1\n9,b,0,250,1,0\n")
    data = data_class(kind="diary", annotations=diary, videos={"root": tmp_path}, last_train=5)
    first, second = loader_names["load_diary"](data).segments
    assert (first.start_seconds, first.stop_seconds, first.split) == (0.5, 1.5, "train")
    assert (second.video_id, second.noun_class, second.split) == ("b", 0, "val")


# Links and words


def anchors(page: str) -> set[str]:
    """The anchors that headings of a page get on GitHub."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        linked = (folder / path).resolve() if path else ROOT / page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(str(linked.relative_to(ROOT))), target
    for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|md|yaml))`", prose(page)):
        made_or_theirs = path.startswith(("benchmarks/results/", "COCO-Detection/"))
        assert (ROOT / path).exists() or made_or_theirs, path


def test_config_files_are_introduced_in_the_readme() -> None:
    for name in CONFIGS:
        assert f"(configs/{name})" in text_of("README.md")


def test_headings_do_not_skip_levels() -> None:
    for page in PAGES:
        levels = [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.M)]
        assert all(after <= before + 1 for before, after in pairwise(levels)), page
