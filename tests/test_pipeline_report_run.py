"""Reports of runs that were really trained, from the command line; what is refused."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import symbio, write_experiment
from PIL import Image
from report_fixtures import Page

from pipeline.report_attention import look
from pipeline.report_frames import data_uri, read_pictures
from pipeline.report_run import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with a trained and evaluated run in ``run``."""
    folder = tmp_path_factory.mktemp("reported")
    config = write_experiment(folder)
    with pytest.MonkeyPatch.context() as patch:
        # Files of this very moment would not be remembered.
        patch.setattr("pipeline.identity.RACY_NANOSECONDS", 0)
        assert symbio("run", config, "-q").code == 0
    assert symbio("train", config, "-q", "--run", folder / "run").code == 0
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy of the run folder, to break."""
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def test_a_run_is_read_whole(folder: Path) -> None:
    run = read_run(folder / "run")
    assert (run.name, run.split, run.segment_ids) == ("run", "val", ("b0", "b1"))
    assert (run.verb.names, run.noun.names) == (("take", "put"), ("cup", "knife", "pan"))
    assert run.verb.labels.tolist() == [1, 0]
    assert [row["epoch"] for row in run.epochs] == [1, 2]
    assert run.num_segments == {"train": 2, "val": 2}
    assert run.experiment is not None
    assert run.notes == []


def test_the_command_writes_into_the_run_folder(run: Path) -> None:
    done = symbio("report", run)
    assert done.code == 0
    assert done.out.startswith(f"report: {run}/report.html (")
    text = Page((run / "report.html").read_text()).text
    assert "Experiment small, head saoa, split val." in text
    # Down to the stage keys, with what stands behind them.
    keys = read_run(run).checkpoint.provenance["stages"]
    assert all(f"{name} {key[:12]}" in text for name, key in keys.items())
    assert "weights random, seed 1" in text
    assert "clip 4 frames, stride 2, at 30 frames a second" in text
    assert "objects at most 3 a frame" in text
    assert "windows 2 s of objects, 1 s of them aligned locally, 2 frames a second" in text


def test_out_says_where(run: Path, tmp_path: Path) -> None:
    assert symbio("report", run, "--out", tmp_path / "new" / "page.html").code == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert not (run / "report.html").exists()


def test_another_split_is_reported_by_itself(run: Path) -> None:
    missing = symbio("report", run, "--split", "train")
    assert missing.code == 2
    assert f"run `symbio evaluate {run} --split train` first" in missing.err
    assert symbio("evaluate", run, "--split", "train").code == 0
    assert symbio("report", run, "--split", "train").code == 0
    assert "split train" in Page((run / "train" / "report.html").read_text()).text
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["scores.npz", "metrics.json"])
def test_a_run_that_was_not_evaluated(name: str, run: Path) -> None:
    (run / name).unlink()
    done = symbio("report", run)
    assert (done.code, done.out) == (2, "")
    assert f"got no {name} of split 'val'" in done.err
    assert f"run `symbio evaluate {run} --split val` first" in done.err


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    done = symbio("report", tmp_path)
    assert done.code == 2
    assert "got no config.yaml, expected the folder of a `symbio train`" in done.err


@pytest.mark.parametrize(
    ("name", "content"), [("scores.npz", b"PK nothing"), ("metrics.json", b"{"), ("log.csv", b"")]
)
def test_files_that_are_broken(name: str, content: bytes, run: Path) -> None:
    (run / name).write_bytes(content)
    done = symbio("report", run)
    if name == "log.csv":
        assert done.code == 0
        assert "#training" not in Page((run / "report.html").read_text()).values("href")
    else:
        assert done.code == 2
        assert str(run / name) in done.err


def test_labels_that_are_gone(folder: Path, run: Path, tmp_path: Path) -> None:
    # Another config than the one the run was trained with: its label file is not there.
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("labels.csv", "gone.csv"))
    assert symbio("report", run).code == 0
    page = Page((run / "report.html").read_text()).text
    assert "Classes go by their numbers" in page
    assert "gone.csv: no such label file" in page
    assert "verb 1" in page


def test_weights_that_are_gone_leave_the_names(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "weights: random\n    weights_seed: 3" in text
    changed = text.replace("weights: random\n    weights_seed: 3", "weights: /nowhere/w.pth")
    (run / "config.yaml").write_text(changed)
    assert symbio("report", run).code == 0
    page = Page((run / "report.html").read_text()).text
    assert "Frames and attention are left out: stages.objects.weights: /nowhere/w.pth" in page
    assert "knife" in page


def test_a_store_that_is_gone(run: Path, folder: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"{folder}/store", f"{folder}/nowhere"))
    assert symbio("report", run).code == 0
    assert "The store cannot be read any more" in Page((run / "report.html").read_text()).text


def pictures(page: Page) -> list[Image.Image]:
    """The frames in a page."""
    texts = [text.removeprefix("data:image/jpeg;base64,") for text in page.values("src")]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in texts]


def test_segments_have_frames_boxes_and_attention(run: Path) -> None:
    assert symbio("report", run, "--segment", "b1", "--segment", "b0", "--segment", "b1").code == 0
    page = Page((run / "report.html").read_text())
    assert page.elements["article"] == 2
    assert page.text.index("Segment b1") < page.text.index("Segment b0")
    # Two seconds of objects, two frames a second.
    frames = pictures(page)
    assert len(frames) == 8
    assert {frame.size for frame in frames} == {(64, 48)}
    assert page.elements["rect"] > 8 * 2


def test_weights_are_those_of_the_head(run: Path) -> None:
    known = read_run(run)
    assert known.experiment is not None
    found = look(known, known.experiment, ["b0"])["b0"]
    assert found.times_seconds.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert found.weights["noun"][found.real].sum() == pytest.approx(1)
    local = np.isfinite(found.weights["verb"])
    assert local.all(axis=1).tolist() == [False, True, True, False]
    assert np.nansum(found.weights["verb"]) == pytest.approx(1)
    np.testing.assert_allclose(found.boxes_xyxy_px[1, :2], [[4, 4, 30, 30], [20, 10, 60, 44]])
    assert found.real.sum(axis=1).tolist() == [2, 2, 2, 2]


def test_a_frame_is_that_of_its_time(run: Path) -> None:
    known = read_run(run)
    assert known.experiment is not None
    video = known.experiment.videos["kitchen_b"]
    early, late, again = read_pictures(video, [0.1, 1.5, 0.1])
    assert early == again != late
    with video.open() as reader:
        indices, _ = reader.index_at([1.5])
        frame = next(iter(reader.frames(indices)))[1]
    shown = Image.open(io.BytesIO(base64.b64decode(late.partition(",")[2])))
    assert np.abs(np.asarray(shown).astype(int) - frame).mean() < 12


def test_wide_frames_are_scaled_down() -> None:
    uri = data_uri(np.zeros((540, 960, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (360, 202)


def test_heads_that_do_not_attend_show_boxes_only(folder: Path, tmp_path: Path) -> None:
    config = folder / "small.yaml"
    run = tmp_path / "pooled"
    assert symbio("train", config, "-q", "--run", run, "--set", "head.name=pooled").code == 0
    assert symbio("report", run, "--segment", "b0").code == 0
    page = Page((run / "report.html").read_text())
    assert "Nothing here attends to them one by one" in page.text
    assert len(pictures(page)) == 4
    assert "plain" in page.values("class")
    assert "weights" not in page.values("class")


@pytest.mark.parametrize("remembered", [True, False])
def test_a_video_that_is_gone(remembered: bool, run: Path, folder: Path) -> None:
    video = folder / "videos" / "kitchen_b.mp4"
    video.rename(video.with_suffix(".away"))
    memo = folder / "store" / "identities.json"
    content = memo.read_text()
    if not remembered:
        memo.unlink()
    try:
        done = symbio("report", run)
    finally:
        video.with_suffix(".away").rename(video)
        memo.write_text(content)
    assert done.code == 0
    page = Page((run / "report.html").read_text())
    assert "Its frames cannot be read any more" in page.text
    assert "kitchen_b.mp4" in page.text
    assert page.values("src") == []
    # Boxes are found by what the video was.
    assert (page.elements["article"], "weights" in page.values("class")) == (2, remembered)


def test_rows_that_are_gone(run: Path, folder: Path) -> None:
    text = (run / "config.yaml").read_text()
    # Other settings, so other rows: there are none.
    changed = text.replace("global_window_seconds: 2", "global_window_seconds: 4")
    assert changed != text
    (run / "config.yaml").write_text(changed)
    assert symbio("report", run).code == 0
    page = Page((run / "report.html").read_text())
    assert "Boxes and attention cannot be read any more" in page.text


def test_a_segment_of_another_split(run: Path) -> None:
    done = symbio("report", run, "--segment", "a0")
    assert done.code == 2
    assert "got segment 'a0', expected one of the 2 of split val, such as 'b0'" in done.err
    assert not (run / "report.html").exists()


def test_a_fusion_is_reported_without_a_head(folder: Path, run: Path, tmp_path: Path) -> None:
    fused = tmp_path / "fused"
    assert symbio("fuse", folder / "run", run, "--out", fused).code == 0
    assert symbio("report", fused, "--segment", "b0").code == 0
    page = Page((fused / "report.html").read_text())
    assert "Experiment small, fusion of 2 runs, split val." in page.text
    assert "fused[0].weight 0.5" in page.text
    assert {"#training", "#features"}.isdisjoint(page.values("href"))
    assert (len(pictures(page)), "weights" in page.values("class")) == (4, False)
    # And compared with one of its runs.
    out = tmp_path / "comparison.html"
    assert symbio("report", run, fused, "--out", out).code == 0
    assert "small, fusion of 2 runs" in Page(out.read_text()).text
