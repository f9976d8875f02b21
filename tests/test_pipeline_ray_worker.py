"""What an actor does, asked as the coordinator asks it, without a cluster."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import ray_worker
from pipeline.errors import ConfigError
from pipeline.local_worker import Broken, Finished, Line, Ready, Stop
from pipeline.ray_worker import Here, Lacking, Place, RayWorker
from pipeline.videos import Video
from pipeline.work import Progress, Unit, VideoWork

NOTHING = pickle.dumps(None)  # in place of a setup, which no network is built from here


@pytest.fixture(autouse=True)
def _stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # and back, wherever actors go


def unit_of(*paths: Path) -> Unit:
    videos = (Video(path.stem, path, "file", None, None) for path in paths)
    return Unit(7, tuple(VideoWork(video, {}) for video in videos), {})


def serve_with(monkeypatch: pytest.MonkeyPatch, serve: Any) -> RayWorker:
    monkeypatch.setattr(ray_worker, "serve", serve)
    return RayWorker()


def said_by(worker: RayWorker, message: Any = None, *, until: type) -> list[object]:
    """All that is said up to the first message of a kind."""
    said = worker.ask(message)
    last = time.monotonic() + 30
    while not any(isinstance(item, until) for item in said):
        assert time.monotonic() < last, said
        said += worker.ask(None)
    return said


def test_messages_go_in_and_come_out_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(line: Line, setup: Any) -> None:
        line.send(Ready())
        unit = line.recv()
        line.send(Progress("verb", computed=unit.number))
        assert line.recv() == Stop()
        line.send(Finished(unit.number))
        line.recv()

    worker = serve_with(monkeypatch, serve)
    here = worker.begin(NOTHING, Place(tmp_path, None))
    assert isinstance(here, Here)
    assert here.pid == os.getpid()
    assert said_by(worker, until=Ready) == [Ready()]
    assert said_by(worker, unit_of(), until=Progress) == [Progress("verb", computed=7)]
    assert said_by(worker, Stop(), until=Finished) == [Finished(7)]


def test_a_worker_says_that_it_is_there_before_it_loads_torch() -> None:
    code = "import sys, pipeline.ray_worker; print('torch' in sys.modules)"
    line = [sys.executable, "-c", code]
    loaded = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert loaded == "False\n"


def test_a_setup_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    worker = RayWorker()
    worker.begin(b"cnowhere\nSetup\n.", Place(tmp_path, None))
    (broken,) = said_by(worker, until=Broken)
    assert isinstance(broken, Broken)
    assert str(broken.error) == "ModuleNotFoundError: No module named 'nowhere'"
    assert not broken.is_of_the_run


def test_who_has_nothing_to_say_answers_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "ASK_SECONDS", 0.01)
    worker = serve_with(monkeypatch, lambda line, setup: line.recv())
    worker.begin(NOTHING, Place(tmp_path, None))
    assert worker.ask(None) == []


def test_a_thread_that_ends_without_a_word_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "ASK_SECONDS", 0.2)
    worker = serve_with(monkeypatch, lambda line, setup: line.send(Ready()))
    worker.begin(NOTHING, Place(tmp_path, None))
    assert said_by(worker, until=Ready) == [Ready()]
    with pytest.raises(RuntimeError, match="ended without a word"):
        worker.ask(None)


def test_relative_paths_start_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    worker = serve_with(monkeypatch, lambda line, setup: line.send(Progress(os.getcwd())))
    worker.begin(NOTHING, Place(tmp_path / "there", None))
    assert said_by(worker, until=Progress) == [Progress(str(tmp_path / "there"))]


def trouble_of(worker: RayWorker, place: Place) -> str:
    worker.begin(NOTHING, place)
    (broken,) = worker.ask(None)
    assert isinstance(broken, Broken)
    assert isinstance(broken.error, ConfigError)
    return str(broken.error)


def test_a_folder_that_is_not_on_the_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = serve_with(monkeypatch, lambda line, setup: line.send(Ready()))
    message = trouble_of(worker, Place(tmp_path / "gone", None))
    assert message.startswith(f"{tmp_path}/gone: No such file or directory: the command runs in")


def test_a_store_that_is_not_the_same_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "SEEN_SECONDS", 0.01)
    worker = serve_with(monkeypatch, lambda line, setup: line.send(Ready()))
    logs = tmp_path / "store" / "logs"
    logs.mkdir(parents=True)
    message = trouble_of(worker, Place(tmp_path, logs / "run.jsonl"))
    assert message.startswith(f"workers write to {tmp_path}/store, which this machine does not")
    (logs / "run.jsonl").touch()
    worker.begin(NOTHING, Place(tmp_path, logs / "run.jsonl"))
    assert said_by(worker, until=Ready) == [Ready()]


def test_a_video_that_is_not_on_the_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "ASK_SECONDS", 0.01)
    worker = serve_with(monkeypatch, lambda line, setup: line.recv())
    worker.begin(NOTHING, Place(tmp_path, None))
    (tmp_path / "here.mp4").touch()
    paths = [tmp_path / "here.mp4", tmp_path / "gone.mp4", tmp_path / "gone2.mp4"]
    assert worker.ask(unit_of(*paths)) == [Lacking(tmp_path / "gone.mp4")]
