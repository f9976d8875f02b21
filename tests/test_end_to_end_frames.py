"""Whole runs on frames in tar files: the rows of the same frames in folders, and bad tars told."""

from __future__ import annotations

import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from experiment_fixtures import Silent, make_experiment
from PIL import Image
from stage_fixtures import key_of
from video_files import picture

from pipeline.experiment import Experiment, resolve
from pipeline.run import RunReport, run_experiment
from pipeline.stages import STAGE_NAMES
from stores.registry import open_store

VIDEOS = {"kitchen_a": 60, "kitchen_b": 66}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Frames of both videos at 30 fps, in folders and in tars beside them."""
    root = tmp_path / "frames"
    for video_id, count in VIDEOS.items():
        (root / video_id).mkdir(parents=True)
        for number in range(1, count + 1):
            Image.fromarray(picture(number)).save(root / video_id / f"frame_{number:010d}.png")
        with tarfile.open(root / f"{video_id}.tar", "w") as archive:
            archive.add(root / video_id, ".")
    return root


def run(folder: Path, kind: str, root: Path) -> tuple[Experiment, RunReport]:
    suffix = ".tar" if kind == "tar" else ""
    videos = f"{{root: {root}, pattern: '{{video_id}}{suffix}', kind: {kind}, frame_rate_fps: 30}}"
    store = folder / f"store_{kind}"
    overrides = [f"data.videos={videos}", f"store.path={store}", "views.train=1"]
    experiment = resolve(make_experiment(folder, overrides))
    report = run_experiment(
        experiment,
        stages=STAGE_NAMES,
        retry_failed=False,
        reporter=Silent(),
        stop=threading.Event(),
    )
    return experiment, report


def test_a_tar_gives_the_rows_of_its_folder(tmp_path: Path, frames: Path) -> None:
    maps = {}
    for kind in ("frames", "tar"):
        experiment, report = run(tmp_path, kind, frames)
        assert report.complete
        with open_store(experiment.config.store.path, mode="r") as store:
            verb = experiment.aligned.verb
            generation = store.generation("verb", verb.key)
            keys = [key_of(verb, clip, experiment.identities) for clip in experiment.clips]
            maps[kind] = generation.read(keys)["map"]
    assert np.array_equal(maps["tar"], maps["frames"])
    assert len({clip.tobytes() for clip in maps["tar"]}) == len(maps["tar"])


def test_a_bad_tar_takes_one_video_with_it(tmp_path: Path, frames: Path) -> None:
    bad = frames / "kitchen_a.tar"
    with tarfile.open(bad, "a") as archive:
        link = tarfile.TarInfo("frame_0000000061.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    _, report = run(tmp_path, "tar", frames)
    verb = next(stage for stage in report.stages if stage.stage == "verb")
    assert {failure.video_id for failure in verb.failures} == {"kitchen_a"}
    assert "a link to '/etc/hostname' in 'frame_0000000061.png'" in verb.failures[0].message
    assert verb.made == 2
