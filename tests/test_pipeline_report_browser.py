"""Reports in a real browser: nothing logged, nothing fetched, nothing wider than the window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BROWSER, NAMES, Browser
from report_fixtures import HOSTILE, make_branch, make_looked, make_run

from pipeline.experiment import Experiment
from pipeline.report import render_run
from pipeline.report_comparison import render_comparison
from pipeline.report_frames import data_uri
from pipeline.segments import Segment

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed: nothing to look with"
)

# Text that does not stand out from what is behind it, after WCAG 2.1: less than 4.5 to 1.
PALE_TEXT = """(() => {
  const parts = text => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith('color(') ? 255 : 1;
    return [...numbers.slice(0, 3).map(n => n * scale), numbers[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((n, i) => n * top[3] + below[i] * (1 - top[3]));
  const behind = element => {
    if (!element) return [255, 255, 255];
    return over(parts(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };
  const light = color => {
    const [r, g, b] = color.map(n => n / 255)
      .map(n => n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = [];
  for (const element of document.querySelectorAll('body *:not(svg, svg *)')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || element.closest('.hidden, .skip')) continue;
    const back = behind(element);
    const ink = over(parts(getComputedStyle(element).color), back);
    const [low, high] = [light(ink), light(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) pale.push(`${element.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return pale;
})()"""
SMALL_TEXT = """[...document.querySelectorAll('.chart text')]
  .filter(t => t.getBoundingClientRect().height < 9).map(t => t.textContent)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What sticks out of its parent without a bar to scroll it by.
STICKS_OUT = """[...document.querySelectorAll('main *, header *')]
  .filter(e => !e.closest('.scroll, pre, svg, .hidden') &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""
BROKEN_IMAGES = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def hostile_run(place: Path) -> Any:
    """A run of many classes, every name of which means harm or is much too long."""
    rng = np.random.default_rng(0)
    verbs = [f"{HOSTILE} {i}" if i % 2 else f"verb{'y' * 90}{i}" for i in range(40)]
    labels = rng.integers(40, size=60).tolist()
    answers = [*labels[:20], *rng.integers(40, size=40).tolist()]
    ids = [f"{HOSTILE}{i}" if i % 2 else f"{'P01_101_' * 20}{i}" for i in range(60)]
    return make_run(
        place,
        experiment=object.__new__(Experiment),
        notes=[HOSTILE, "no" * 200],
        segment_ids=ids,
        verb=make_branch("verb", labels, answers, verbs),
        noun=make_branch("noun", labels, labels, verbs),
        segments={i: Segment(i, HOSTILE, "", 0, 1, 0, 0, "val", HOSTILE) for i in ids},
    )


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report with frames, and with names that mean harm."""
    frame = np.random.default_rng(0).integers(256, size=(96, 128, 3)).astype(np.uint8)
    weights = np.array([[0.4, 0.1], [0.2, 0.05], [0.05, 0.0], [0.2, 0.0]], dtype=np.float32)
    local = np.where([[False], [True], [True], [False]], weights, np.float32(np.nan))
    looked = make_looked({"verb": local, "noun": weights})
    monkeypatch.setattr(
        "pipeline.report_segments.look", lambda run, _, ids: dict.fromkeys(ids, looked)
    )
    monkeypatch.setattr(
        "pipeline.report_segments._pictures", lambda *_: ([data_uri(frame)] * 4, HOSTILE)
    )
    path = tmp_path / "report.html"
    path.write_text(render_run(hostile_run(tmp_path)), encoding="utf-8")
    return path


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """A comparison of ten runs with such names."""
    rng = np.random.default_rng(1)
    first = hostile_run(tmp_path)
    names = first.verb.names
    labels = first.verb.labels.tolist()
    runs = [
        replace(
            first,
            folder=tmp_path / f"{HOSTILE.replace('/', '')} {i}",
            verb=make_branch("verb", labels, rng.integers(40, size=60).tolist(), names),
            metrics={**first.metrics, "official": {HOSTILE: i / 10}},
        )
        for i in range(9)
    ]
    path = tmp_path / "comparison.html"
    path.write_text(render_comparison([first, *runs]), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width_px", [1280, 390])
def test_a_report_is_whole_and_readable(
    width_px: int, dark: bool, page: Path, browser: Browser
) -> None:
    look_at(page, browser, width_px=width_px, dark=dark)
    assert browser.evaluate("document.images.length") == 6 * 4
    assert browser.evaluate(BROKEN_IMAGES) == 0


@pytest.mark.parametrize(("width_px", "dark"), [(1280, True), (390, False)])
def test_a_comparison_is_whole_and_readable(
    width_px: int, dark: bool, comparison: Path, browser: Browser
) -> None:
    look_at(comparison, browser, width_px=width_px, dark=dark)


def look_at(page: Path, browser: Browser, *, width_px: int, dark: bool) -> None:
    """Everything that must hold of any page, folded and unfolded."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(page, width_px=width_px, dark=dark)
    shown = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shown == "rgb(21, 21, 20)") is dark, "the style sheet is not applied"
    for everything in (False, True):
        if everything:
            browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.evaluate(OVERFLOW) == 0
        assert browser.evaluate(STICKS_OUT) == []
    assert browser.evaluate(SMALL_TEXT) == []
    assert browser.evaluate(PALE_TEXT) == []
    if folder := os.environ.get("SYMBIO_SCREENSHOTS"):  # for people to look at
        name = f"{page.stem}-{width_px}-{'dark' if dark else 'light'}.png"
        browser.screenshot(Path(folder) / name)
    assert browser.complaints == []
    assert browser.requests == []


def test_the_browser_would_complain(tmp_path: Path, browser: Browser) -> None:
    # What the test above must see: a script, a request, a style that the policy refuses, a wide
    # element, pale text.
    policy = "default-src 'none'; img-src data:"
    bad = tmp_path / "bad.html"
    bad.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><main>'
        '<script>alert(1)</script><p style="color: red">a</p><img src="http://localhost:9/a.png">'
        '<font color="#999999">pale</font><img width="3000" height="1" alt=""></main>'
    )
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(bad, width_px=1280)
    complaints = " ".join(browser.complaints)
    assert "script" in complaints
    assert "style" in complaints
    assert browser.requests == ["http://localhost:9/a.png"]
    assert browser.evaluate(OVERFLOW) > 0
    assert len(browser.evaluate(STICKS_OUT)) == 1
    assert [text.split(":")[0] for text in browser.evaluate(PALE_TEXT)] == ["pale"]
