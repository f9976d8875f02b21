"""What cannot be: the message names the file, row or key, and the rest of the run goes on.

Exit codes: 0 all is there; 1 finished, but rows failed or are missing; 2 could not start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from cli_fixtures import ALL_ROWS, Outcome, symbio, table_rows, write_experiment
from experiment_fixtures import SEGMENTS, settings, write_labels
from safetensors.torch import save_file
from video_files import cut_off, write_video

from extractors.resnet3d import ResNet3D
from extractors.weights import save_checkpoint

# Rows of kitchen_a alone.
HALF = {"verb": 4, "noun": 4, "objects": 5, "aligned": 4}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The small experiment's file; nothing has run yet."""
    return write_experiment(tmp_path)


def cannot(done: Outcome) -> str:
    """The message of a command that could not start."""
    assert done.code == 2, done
    assert done.err.startswith("Error: ")
    assert "Traceback" not in done.err + done.out
    return done.err


def made(done: Outcome) -> dict[str, int]:
    """Rows made per stage, from the summary."""
    rows = table_rows(done.out, ["made", "failed", "skipped"])
    return {stage: int(row["made"]) for stage, row in rows.items()}


def flat(text: str) -> str:
    """Text without the line breaks of tables."""
    return " ".join(text.split())


# --- the experiment file ---------------------------------------------------------------------


def test_a_missing_experiment_file() -> None:
    assert "nowhere.yaml: no such experiment file" in cannot(symbio("run", "nowhere.yaml"))


@pytest.mark.parametrize("command", ["plan", "run", "status", "train", "finetune"])
def test_an_unknown_key_is_named_with_its_line(command: str, config: Path) -> None:
    text = config.read_text().replace("top_k: 3", "topk: 3")
    config.write_text(text)
    line = text.split("topk: 3")[0].count("\n") + 1
    more = ["--net", "verb"] if command == "finetune" else []
    message = cannot(symbio(command, config, *more))
    assert f"{config}:{line}: stages.objects.topk: unknown key" in message
    assert "did you mean top_k?" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views.trian=2", "--set: views.trian: unknown key"),
        ("views.train=many", "--set: views.train: got 'many'"),
        ("views", "--set views: expected key.path=value"),
        ("name.first=x", "--set name.first=x: name is not a section"),
        ("stages.verb.network.depth=11", "stages.verb.network: got depth 11, expected one of 10"),
        ("stages.verb.network.name=vgg", "stages.verb.network: got clip extractor 'vgg'"),
        ("stages.aligned.local_window_seconds=3", "the local window no longer than the global one"),
        ("stages.verb.weights_seed=null", "weights_seed goes with weights: random"),
    ],
)
def test_an_override_that_cannot_be(override: str, message: str, config: Path) -> None:
    assert message in cannot(symbio("plan", config, "--set", override))


def test_an_unknown_head_is_refused_before_anything_is_trained(config: Path) -> None:
    assert symbio("run", config).code == 0
    message = cannot(symbio("train", config, "--set", "head.name=soap"))
    assert "head.name: " in message
    assert "'soap'" in message
    assert not (config.parent / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("command", ["run", "train", "finetune"])
def test_a_device_that_is_not_there(command: str, config: Path) -> None:
    if command == "train":
        assert symbio("run", config).code == 0
    more = ["--net", "verb"] if command == "finetune" else []
    message = cannot(symbio(command, config, *more, "--set", "device=cuda"))
    assert "got device 'cuda' but no CUDA device is available" in message


# --- labels ----------------------------------------------------------------------------------


def segments(position: int, *row: object) -> list[tuple[object, ...]]:
    """The labels with one row replaced; it stands in line position + 2 of the file."""
    return [row if i == position else segment for i, segment in enumerate(SEGMENTS)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a1", "kitchen_a", 1.0, 1.8, 2, 0, "train"), "got verb_class 2, expected 0 to 1"),
        (("a1", "kitchen_a", 1.0, 1.8, 1, -1, "train"), "got noun_class -1, expected 0 to 2"),
        (("a1", "kitchen_a", 1.8, 1.8, 1, 0, "train"), "got start 1.8 s and stop 1.8 s"),
        (("a1", "kitchen_a", 1.8, 1.0, 1, 0, "train"), "expected stop after start"),
        (("a0", "kitchen_a", 1.0, 1.8, 1, 0, "train"), "this segment id is that of labels.csv:2"),
        (("a1", "kitchen_a", "soon", 1.8, 1, 0, "train"), "got start_seconds 'soon'"),
        (("a1", "kitchen_a", 1.0, 1.8, 1, 0, "training"), "got split 'training'"),
        (("a1", "", 1.0, 1.8, 1, 0, "train"), "video_id is empty"),
        (("a1", "../kitchen_a", 1.0, 1.8, 1, 0, "train"), "got video_id '../kitchen_a'"),
    ],
)
def test_a_wrong_label_is_named_with_its_line(
    row: tuple[object, ...], message: str, config: Path
) -> None:
    labels = config.parent / "labels.csv"
    write_labels(labels, segments(1, *row))
    found = cannot(symbio("run", config))
    assert message in found
    assert "'a1'" in found or f"{labels}:3: " in found
    assert not (config.parent / "store").exists()


def test_a_missing_column_is_named(config: Path) -> None:
    labels = config.parent / "labels.csv"
    labels.write_text(labels.read_text().replace("noun_class", "noun"))
    assert f"{labels}: got the columns" in (message := cannot(symbio("run", config)))
    assert "missing: noun_class" in message


def test_a_missing_label_file_is_named(config: Path) -> None:
    (config.parent / "labels.csv").unlink()
    assert f"{config.parent / 'labels.csv'}: no such label file" in cannot(symbio("plan", config))


# --- videos ----------------------------------------------------------------------------------


def remove(video: Path) -> None:
    video.unlink()


def empty(video: Path) -> None:
    video.write_bytes(b"")


def write_text(video: Path) -> None:
    video.write_text("not a video")


def make_folder(video: Path) -> None:
    video.unlink()
    video.mkdir()


@pytest.mark.parametrize("damage", [remove, empty, write_text, make_folder])
def test_a_bad_video_is_named_and_the_rest_is_made(
    damage: Callable[[Path], None], config: Path
) -> None:
    video = config.parent / "videos" / "kitchen_b.mp4"
    whole = video.read_bytes()
    damage(video)
    done = symbio("run", config)
    assert done.code == 1
    assert str(video) in done.out
    assert made(done) == HALF
    status = symbio("status", config)
    assert status.code == 0
    assert str(video) in flat(status.out)
    # Heads say what is missing, or go on without it if told to.
    assert "2 of 2 segments of split 'val' have no stored features" in cannot(
        symbio("train", config)
    )
    # The file is put right: what was made stays, the rest is made.
    if video.is_dir():
        video.rmdir()
    video.write_bytes(whole)
    done = symbio("run", config)
    assert (done.code, made(done)) == (0, {stage: n - HALF[stage] for stage, n in ALL_ROWS.items()})


def test_a_cut_off_video_is_refused_or_clamped_if_told_to(config: Path) -> None:
    videos = config.parent / "videos"
    for name in ("kitchen_a", "kitchen_b"):
        (videos / f"{name}.mp4").unlink()
        write_video(videos / f"{name}.mkv", num_frames=66, rate_fps=30)
    cut_off(videos / "kitchen_b.mkv", 0.6).replace(videos / "kitchen_b.mkv")
    pattern = ("--set", "data.videos.pattern={video_id}.mkv")
    done = symbio("run", config, *pattern)
    assert (done.code, made(done)) == (1, HALF)
    assert f"{videos / 'kitchen_b.mkv'}: got" in done.out
    assert "expected 2.200 s as the container declares" in done.out
    clamp = (*pattern, "--set", "data.videos.truncated=clamp")
    assert symbio("run", config, *clamp).code == 1  # failed before, not asked to try again
    done = symbio("run", config, *clamp, "--retry-failed")
    assert done.code == 0
    rows = next((config.parent / "store" / "verb").glob("*/rows.csv")).read_text().splitlines()
    assert ["clamped" in row for row in rows if "/b1/" in row] == [True]


def test_failed_rows_are_left_alone_until_asked_for(config: Path) -> None:
    video = config.parent / "videos" / "kitchen_b.mp4"
    video.write_text("not a video")
    assert symbio("run", config, "--quiet").code == 1
    done = symbio("run", config)
    assert done.code == 1
    assert "--retry-failed tries them again" in done.out
    rows = table_rows(symbio("status", config).out, ["wanted", "failed"])
    assert {stage: int(row["failed"]) for stage, row in rows.items()} == {
        "verb": 2,
        "noun": 2,
        "objects": 5,
        "aligned": 0,
    }
    done = symbio("run", config, "--retry-failed", "--quiet")
    assert done.code == 1
    assert (
        f"failed: verb, noun, objects: video kitchen_b: 9 rows: unreadable_video: {video}"
        in done.out
    )
    # Status gives the same reasons.
    reasons = [line for line in done.out.splitlines() if line.startswith("failed: ")]
    assert len(reasons) == 1
    lines = symbio("status", config).out.splitlines()
    assert [line for line in lines if line.startswith("failed: ")] == reasons


@pytest.mark.parametrize(
    ("net", "override"),
    [
        ("verb", "finetune.verb.cached_views=1"),
        ("verb", "finetune.verb.cached_views=0"),
        ("noun", "finetune.noun={weights: random, weights_seed: 0, epochs: 1, workers: 1}"),
        ("objects", "finetune.objects.epochs=1"),
    ],
)
def test_a_missing_video_stops_a_finetune_with_its_name(
    net: str, override: str, config: Path
) -> None:
    video = config.parent / "videos" / "kitchen_a.mp4"
    aside = video.rename(config.parent / "aside.mp4")
    command = ("finetune", config, "--net", net, "--set", override)
    assert str(video) in cannot(symbio(*command))
    # What never started holds no folder: the same command works once the video is there.
    aside.rename(video)
    if net == "verb":
        assert symbio(*command).code == 0


# --- weights ---------------------------------------------------------------------------------


def absent(folder: Path) -> Path:
    return folder / "absent.safetensors"


def no_bytes(folder: Path) -> Path:
    (folder / "empty.safetensors").touch()
    return folder / "empty.safetensors"


def no_bytes_pth(folder: Path) -> Path:
    (folder / "empty.pth").touch()
    return folder / "empty.pth"


def wrong_keys(folder: Path) -> Path:
    save_file({"backbone.weight": torch.zeros(3)}, folder / "other.safetensors")
    return folder / "other.safetensors"


def wrong_shapes(folder: Path) -> Path:
    save_checkpoint(folder / "wide.safetensors", ResNet3D(10, width=8))
    return folder / "wide.safetensors"


def wrong_suffix(folder: Path) -> Path:
    (folder / "weights.bin").write_bytes(b"weights")
    return folder / "weights.bin"


WEIGHTS = [absent, no_bytes, no_bytes_pth, wrong_keys, wrong_shapes, wrong_suffix]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("stage", ["verb", "objects"])
def test_weights_that_do_not_fit_are_named_and_nothing_is_lost(
    weights: Callable[[Path], Path], stage: str, config: Path
) -> None:
    assert symbio("run", config, "--stage", "noun").code == 0
    before = symbio("store", "info", config.parent / "store")
    path = weights(config.parent)
    bad = (f"stages.{stage}.weights={path}", f"stages.{stage}.weights_seed=null")
    message = cannot(symbio("run", config, "--set", bad[0], "--set", bad[1]))
    assert str(path) in message
    assert symbio("store", "info", config.parent / "store") == before
    assert made(symbio("run", config)) == {**ALL_ROWS, "noun": 0}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_a_finetune_cannot_start_from(
    weights: Callable[[Path], Path], config: Path
) -> None:
    path = weights(config.parent)
    bad = ("--set", f"finetune.verb.weights={path}", "--set", "finetune.verb.weights_seed=null")
    assert str(path) in cannot(symbio("finetune", config, "--net", "verb", *bad))
    assert not (config.parent / "runs").exists()


# --- stores and run folders ------------------------------------------------------------------


def test_a_folder_that_holds_something_else_is_left_alone(config: Path) -> None:
    store = config.parent / "store"
    store.mkdir()
    (store / "thesis.tex").write_text("ten years of work")
    for command in ("run", "plan", "status", "train"):
        assert str(store) in cannot(symbio(command, config))
    assert str(store) in cannot(symbio("store", "info", store))
    assert [path.name for path in store.iterdir()] == ["thesis.tex"]


def test_a_file_where_the_store_should_be(config: Path) -> None:
    store = config.parent / "store"
    store.write_text("a file")
    for command in ("run", "plan", "status", "train"):
        assert str(store) in cannot(symbio(command, config))
    below = ("--set", f"store.path={store / 'below'}")
    assert str(store) in cannot(symbio("run", config, *below))
    assert store.read_text() == "a file"


def test_an_empty_folder_is_a_store_to_be(config: Path) -> None:
    (config.parent / "store").mkdir()
    for command in ("plan", "status", "run"):
        assert symbio(command, config).code == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike the ones tests usually get."""
    folder = Path(tempfile.mkdtemp(prefix="symbio-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere, so it is somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_without_permission(open_folder: Path) -> None:
    config = write_experiment(open_folder)
    store = open_folder / "store"
    assert symbio("run", config, "--stage", "verb").code == 0
    before = symbio("status", config)
    for path in (store, *store.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_nobody():
        assert str(store) in cannot(symbio("run", config))
        assert symbio("status", config) == before
        assert str(store) in cannot(symbio("run", config, "--set", f"store.path={store}/below"))
    store.chmod(0o000)
    with as_nobody():
        for command in ("run", "plan", "status", "train"):
            assert str(store) in cannot(symbio(command, config))
        assert str(store) in cannot(symbio("store", "info", store))
    store.chmod(0o755)
    assert symbio("run", config).code == 0


def test_no_store_and_no_rows_yet(config: Path) -> None:
    store = config.parent / "store"
    assert f"{store}: there is no store yet" in cannot(symbio("train", config))
    assert str(store) in cannot(symbio("store", "info", store))
    assert symbio("run", config, "--stage", "verb").code == 0
    assert f"{store}: no aligned rows under key" in cannot(symbio("train", config))
    done = symbio("run", config, "--stage", "aligned")
    assert done.code == 1
    assert "rows they are made from are not there" in done.out


@pytest.mark.parametrize("what", ["absent", "file", "empty", "other", "unfinished"])
def test_evaluating_what_is_no_run_folder(what: str, config: Path) -> None:
    run = config.parent / "run"
    if what == "file":
        run.write_text("a file")
    elif what != "absent":
        run.mkdir()
    if what == "other":
        (run / "photo.jpg").touch()
    if what == "unfinished":
        shutil.copy(config, run / "config.yaml")
    message = cannot(symbio("evaluate", run))
    assert str(run) in message
    assert "expected the folder of a finished `symbio train`" in message


def test_a_run_folder_is_not_overwritten(config: Path) -> None:
    assert symbio("run", config).code == 0
    assert symbio("train", config).code == 0
    run = config.parent / "runs" / "small-saoa-seed0"
    head = (run / "head.safetensors").read_bytes()
    assert f"{run}: holds a run already" in cannot(symbio("train", config))
    changed = ("--resume", "--set", "train.learning_rate=0.5")
    assert f"{run}: holds a run with other settings" in cannot(symbio("train", config, *changed))
    taken = config.parent / "videos"
    assert f"{taken}: not empty" in cannot(symbio("train", config, "--run", taken))
    file = config.parent / "labels.csv"
    assert f"{file}: got a file" in cannot(symbio("train", config, "--run", file))
    assert (run / "head.safetensors").read_bytes() == head


def test_a_damaged_head_is_named(config: Path) -> None:
    assert symbio("run", config).code == 0
    assert symbio("train", config).code == 0
    head = config.parent / "runs" / "small-saoa-seed0" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:1000])
    assert str(head) in cannot(symbio("evaluate", head.parent))


def test_a_split_without_segments(config: Path) -> None:
    assert symbio("run", config).code == 0
    assert symbio("train", config).code == 0
    run = config.parent / "runs" / "small-saoa-seed0"
    done = symbio("evaluate", run, "--split", "test")
    assert "got split 'test', expected one with segments: train, val;" in cannot(done)


def test_a_split_to_measure_that_the_data_have_not(config: Path) -> None:
    assert symbio("run", config).code == 0
    done = symbio("train", config, "--set", "evaluate.split=tset")
    assert "evaluate.split: got 'tset', expected one of train, val" in cannot(done)
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    ("net", "message"),
    [("verb", "finetune.verb: this section is absent"), ("objects", "finetune.objects: needs")],
)
def test_a_finetune_without_its_section(net: str, message: str, tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    assert message in cannot(symbio("finetune", config, "--net", net))


def test_what_click_refuses() -> None:
    for arguments in (["walk"], ["run"], ["run", "a.yaml", "--fast"], ["completion", "tcsh"]):
        done = symbio(*arguments)
        assert done.code == 2
        assert "Usage: " in done.err
    assert "got 'a', expected whole numbers" in symbio("demo", "--seeds", "a").err


def test_a_head_is_not_scored_on_other_features(config: Path) -> None:
    run = config.parent / "run"
    assert symbio("run", config).code == 0
    assert symbio("train", config, "--run", run).code == 0
    # As if the checkpoint at the same path had been trained anew: other weights, another key.
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("weights_seed: 1", "weights_seed: 7"))
    assert symbio("run", file).code == 0
    message = cannot(symbio("evaluate", run))
    assert "trained on other features: stage verb, aligned has another key" in message
    assert cannot(symbio("train", file, "--run", run, "--resume")) == message


def test_another_split_leaves_the_results_as_they_are(config: Path) -> None:
    run = config.parent / "run"
    assert symbio("run", config).code == 0
    assert symbio("train", config, "--run", run).code == 0
    before = (run / "metrics.json").read_bytes()
    assert symbio("evaluate", run, "--split", "train").code == 0
    assert (run / "metrics.json").read_bytes() == before
    assert (run / "train" / "metrics.json").is_file()


def test_inverted_boxes_stop_a_finetune_with_video_and_time(config: Path) -> None:
    boxes = config.parent / "boxes.csv"
    boxes.write_text(boxes.read_text().replace(",4,4,30,30,", ",40,4,30,30,"))
    message = cannot(symbio("finetune", config, "--net", "objects"))
    assert "video kitchen_a at 0 s" in message
    assert "inverted" in message


def test_a_head_that_does_not_exist_is_found_out_by_plan(config: Path) -> None:
    assert "head.name: got 'soa'" in cannot(symbio("plan", config, "--set", "head.name=soa"))
    assert symbio("plan", config, "--set", "head.l2_rescale=true").code == 0


def test_options_that_a_head_does_not_take_are_found_out_by_plan(config: Path) -> None:
    message = cannot(symbio("plan", config, "--set", "head.l2=true"))
    assert "head: got option 'l2' for head 'saoa', expected: ['l2_rescale', " in message
    message = cannot(symbio("plan", config, "--set", "head.l2_rescale=1"))
    assert "head: got l2_rescale=1 for head 'saoa', expected bool" in message


def test_a_head_whose_output_is_not_stored_is_found_out_by_plan(config: Path) -> None:
    local = ("plan", config, "--set", "head.name=saoa_local_noun")
    assert "reads noun_roi, with stages.aligned.noun_roi: false" in cannot(symbio(*local))
    assert symbio(*local, "--set", "stages.aligned.noun_roi=true").code == 0
    assert symbio(*local, "--set", "train.features=maps").code == 0
