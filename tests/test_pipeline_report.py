"""The page of a run: what it says, that it holds what it shows, and that names stay names."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import HOSTILE, Page, make_branch, make_run

from pipeline.report import official_figures, render_run
from pipeline.report_settings import flatten
from pipeline.segments import Segment

ROOT = Path(__file__).parent.parent


def test_the_page_names_the_run_and_its_results(tmp_path: Path) -> None:
    page = Page(render_run(make_run(tmp_path)))
    assert "Experiment small, head saoa, split val. Weights of epoch 2 of 3." in page.text
    assert "verb 66.7 100.0 noun 50.0 99.9 action 33.3 83.3" in page.text
    assert "lang" in {name for tag, name, _ in page.attributes if tag == "html"}


def test_classes_go_by_name(tmp_path: Path) -> None:
    text = Page(render_run(make_run(tmp_path))).text
    assert "take 3 66.7 66.7 put (1)" in text
    assert "pan answered as cup: 1 of 2" in text


def test_official_figures_are_shown_where_there_are_some(tmp_path: Path) -> None:
    metrics = {
        **make_run(tmp_path).metrics,
        "official": {"verb_top1": 0.5, "unseen_action_top1": 0.123},
    }
    assert official_figures(metrics) == [("unseen action top-1", 0.123)]
    text = Page(render_run(make_run(tmp_path, metrics=metrics))).text
    assert "unseen action top-1 12.3" in text


def test_a_split_without_labels_has_no_results(tmp_path: Path) -> None:
    unlabelled = {
        name: make_branch(name, [-1] * 6, [0] * 6, ["a", "b", "c"]) for name in ("verb", "noun")
    }
    metrics = {"metrics": None, "details": {}}
    page = Page(render_run(make_run(tmp_path, metrics=metrics, **unlabelled)))
    assert "The split has no labels" in page.text
    assert "#verbs" not in page.values("href")


def test_what_is_gone_is_said(tmp_path: Path) -> None:
    page = Page(render_run(make_run(tmp_path, notes=["Frames are left out: no such file."])))
    assert "Frames are left out: no such file." in page.text
    assert "The store cannot be read any more" in page.text


def test_the_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    html = render_run(make_run(tmp_path))
    page = Page(html)
    assert page.elements["script"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    # An attribute named style would be refused by the policy, and the page would look wrong.
    assert page.values("style") == []
    assert page.values("src") == []
    assert all(url.startswith(("#", "data:")) for url in page.values("href"))
    policy = next(p for p in page.values("content") if p.startswith("default-src"))
    style = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_links_lead_to_places_that_occur_once(tmp_path: Path) -> None:
    page = Page(render_run(make_run(tmp_path)))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    named = [url[1:] for url in page.values("href") if url.startswith("#")]
    assert set(named) | set(page.values("aria-labelledby")) <= set(ids)
    assert "results" in named


@pytest.mark.parametrize(
    "place", ["verb name", "noun name", "segment id", "segment", "note", "folder", "metrics"]
)
def test_hostile_names_stay_text(place: str, tmp_path: Path) -> None:
    plain = make_run(tmp_path)
    changes: dict[str, Any] = {
        "verb name": {"verb": make_branch("verb", [0] * 6, [1] * 6, [HOSTILE, "b"])},
        "noun name": {"noun": make_branch("noun", [0] * 6, [1] * 6, ["a", HOSTILE])},
        "segment id": {"segment_ids": [HOSTILE + str(i) for i in range(6)]},
        "segment": {
            "segments": {
                f"s{i}": Segment(f"s{i}", HOSTILE, HOSTILE, 0, 1, 0, 0, "val", HOSTILE)
                for i in range(6)
            }
        },
        "note": {"notes": [HOSTILE]},
        "folder": {"folder": tmp_path / HOSTILE.replace("/", "")[:100]},
        "metrics": {"metrics": {**plain.metrics, "official": {HOSTILE: 0.5}}},
    }[place]
    page = Page(render_run(make_run(tmp_path, **changes)))
    expected = Page(render_run(plain)).elements
    assert page.elements["script"] == 0
    assert "onload" not in {name for _, name, _ in page.attributes}
    assert set(page.elements) == set(expected)
    assert "49" not in [text.strip() for _, text in page.texts]
    assert HOSTILE.replace("/", "")[:60] in page.text.replace("/", "")


def test_settings_are_flat_and_complete() -> None:
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True, "f": [], "g": [{"h": 0.5}]}
    assert list(flatten(nested)) == [
        ("a.b", "1"),
        ("a.c", "1, 2"),
        ("e", "yes"),
        ("f", "none"),
        ("g[0].h", "0.5"),
    ]


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    assert render_run(make_run(tmp_path)) == render_run(make_run(tmp_path))


def test_templates_are_installed_with_the_package() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["pipeline"]
    templates = [
        str(path.relative_to(ROOT / "pipeline"))
        for path in (ROOT / "pipeline/templates").rglob("*")
    ]
    assert "templates/run.html.j2" in templates
    assert [path for path in templates if not any(fnmatch(path, p) for p in patterns)] == []
