"""Runs whose work is done by the tasks of a job: what they make, and what is left when they end."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import symbio, write_experiment
from experiment_fixtures import make_experiment
from jobs_fixtures import (
    LOCAL,
    ONE_THREAD,
    Contents,
    Told,
    contents,
    run,
    run_task,
    tasks_in_this_process,
)

from pipeline import job_watch
from pipeline.errors import ConfigError
from pipeline.executor_slurm import pack
from pipeline.experiment import resolve
from pipeline.job_folder import DamagedJobError, Job, find_jobs, load_work
from pipeline.job_report import in_words
from pipeline.merge import merge_jobs
from pipeline.settled import settled_report
from pipeline.task_journal import TaskJournal, journals, read_events
from pipeline.work import Unit, VideoWork
from stores.base import StorageUnavailableError
from stores.folder_store import FolderStore
from stores.registry import open_store

ROWS = 22  # of the small experiment's stages that read videos
NO_WAIT = "executor.wait=false"
ALL = {"verb": 6, "noun": 6, "objects": 10}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("in-process")
    assert run(folder).complete
    return contents(folder)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in this process when their job is submitted."""
    monkeypatch.setattr("pipeline.executor_slurm.submit", tasks_in_this_process())


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run when a test runs them."""
    monkeypatch.setattr("pipeline.executor_slurm.submit", tasks_in_this_process(at_once=False))


def the_job(folder: Path) -> Job:
    (job,) = find_jobs(folder / "store")
    return job


def events(job: Job, task: int = 0) -> list[Any]:
    return [event for path in journals(job.folder, task) for event in read_events(path)[0]]


def made(report: Any) -> dict[str, int]:
    return {stage.stage: stage.made for stage in report.stages}


def leases(folder: Path) -> list[str]:
    with open_store(folder / "store") as store:
        return [lease.name for lease in store.leases()]


def test_tasks_of_submitit_make_the_same_rows_to_the_byte(
    tmp_path: Path, undisturbed: Contents
) -> None:
    told = Told()
    report = run(tmp_path, *LOCAL, reporter=told)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    assert {name: made(report)[name] for name in ALL} == ALL
    assert "2 tasks, processes" in told.lines[0]
    assert find_jobs(tmp_path / "store") == []
    assert leases(tmp_path) == []
    (log,) = (tmp_path / "store" / "logs").iterdir()
    logged = Counter(json.loads(line)["event"] for line in log.read_text().splitlines())
    for event in ("worker_started", "unit_started", "unit_finished", "worker_ended"):
        assert logged[event] == 2
    verb = report.stages[0]
    assert verb.timings.decode_seconds > 0
    assert verb.batch_size == 2


@pytest.mark.usefixtures("here")
def test_a_driver_that_does_not_wait_leaves_rows_to_the_merge(
    tmp_path: Path, undisturbed: Contents
) -> None:
    told = Told()
    report = run(tmp_path, *LOCAL, NO_WAIT, reporter=told, stages=tuple(ALL))
    assert not report.complete
    assert report.handed_over
    assert sum(stage.left for stage in report.stages) == ROWS
    assert "symbio merge" in told.lines[-1]
    job = the_job(tmp_path)
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]
    (merged,) = merge_jobs(tmp_path / "store")
    assert [(task.end, task.missing) for task in merged.tasks] == [("finished", 0)] * 2
    assert sum(task.stored for task in merged.tasks) == ROWS
    assert find_jobs(tmp_path / "store") == []
    assert leases(tmp_path) == []
    assert merge_jobs(tmp_path / "store") == []
    again = run(tmp_path)
    assert made(again) == {"verb": 0, "noun": 0, "objects": 0, "aligned": 6}
    assert contents(tmp_path) == undisturbed


@pytest.mark.usefixtures("here")
def test_aligned_rows_of_what_is_not_merged_are_to_do(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT, stages=tuple(ALL))
    experiment = resolve(make_experiment(tmp_path, [ONE_THREAD]))
    assert settled_report(experiment, ["aligned"], retry_failed=False) is None
    assert made(run(tmp_path, stages=["aligned"])) == {"aligned": 6}


@pytest.mark.usefixtures("later")
def test_a_second_run_leaves_alone_what_tasks_are_making(
    tmp_path: Path, undisturbed: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    job = the_job(tmp_path)
    states = ["RUNNING", "PENDING"]
    monkeypatch.setattr("pipeline.job_report.task_states", lambda job: states)
    told = Told()
    report = run(tmp_path, *LOCAL, NO_WAIT, reporter=told)
    assert (sum(made(report).values()), report.complete) == (0, False)
    assert report.handed_over
    assert told.lines == [
        f"job {job.name}: tasks 2 running; rows 0 stored, 0 failed, 22 out, 0 missing"
    ]
    run_task(job, 0)
    file = write_experiment(tmp_path)
    line = f"job {job.name}: tasks 2 running; rows 0 stored, 0 failed, 22 out, 0 missing (symbio "
    for command in ("status", "plan"):
        assert line in symbio(command, file, "--set", ONE_THREAD).out
    planned = json.loads(symbio("plan", file, "--set", ONE_THREAD, "--json").out)["stages"]
    video_stages = [stage for stage in planned if stage["stage"] in ALL]
    assert {stage["stage"]: stage["out"] for stage in video_stages} == ALL
    assert not any(stage["missing"] or stage["present"] for stage in video_stages)
    assert symbio("run", file, "--set", ONE_THREAD).code == 0
    told_of = symbio(
        "explain", file, "--set", ONE_THREAD, "--stage", "verb", "--clip", "kitchen_b/b1/0"
    ).out
    assert f"of job {job.name} makes it" in told_of
    assert journals(job.folder, 0)
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]
    (merged,) = merge_jobs(tmp_path / "store")
    assert merged.tasks[0].stored == merged.tasks[0].rows
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]
    states[:] = ["GONE", "RUNNING"]
    merge_jobs(tmp_path / "store")
    assert leases(tmp_path) == [job.lease(1)]
    states[:] = ["GONE", "NODE_FAIL"]
    assert run(tmp_path).complete
    assert contents(tmp_path) == undisturbed
    assert find_jobs(tmp_path / "store") == []


@pytest.mark.usefixtures("here")
def test_rows_go_to_their_own_generation_when_settings_change(
    tmp_path: Path, undisturbed: Contents
) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    other = run(tmp_path, "stages.verb.clip.frames=2", "stages.noun.clip.frames=2")
    assert made(other) == {"verb": 6, "noun": 6, "objects": 0, "aligned": 6}
    first = run(tmp_path)
    assert made(first) == {"verb": 0, "noun": 0, "objects": 0, "aligned": 6}
    assert contents(tmp_path)["objects"] == undisturbed["objects"]


@pytest.mark.usefixtures("later")
def test_what_a_driver_read_is_not_committed_again(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    job = the_job(tmp_path)
    run_task(job, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job_report.task_states", lambda job: ["RUNNING"] * 2)
        merge_jobs(tmp_path / "store")
        with open_store(tmp_path / "store", mode="a") as store:
            verb = store.generation("verb", job.keys["verb"])
            key = verb.keys()[0]
            verb.forget([key])  # as a repair does, where a row is damaged
        merge_jobs(tmp_path / "store")
    with open_store(tmp_path / "store") as store:
        assert store.generation("verb", job.keys["verb"]).missing([key]) == [key]


def kill_at(folder: str, count: int) -> None:
    """Run task 0 of the job in a folder, killed when it has written so many shards."""
    write = TaskJournal.write
    seen = 0

    def maybe(self: TaskJournal, event: str, **fields: Any) -> None:
        nonlocal seen
        seen += event == "rows"
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, event, **fields)

    TaskJournal.write = maybe  # type: ignore[method-assign]
    run_task(the_job(Path(folder)), 0)


@pytest.mark.usefixtures("later")
def test_a_task_that_is_killed_loses_only_what_was_not_written(
    tmp_path: Path, undisturbed: Contents
) -> None:
    run(tmp_path, *LOCAL, NO_WAIT, "executor.tasks=1")
    job = the_job(tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=kill_at, args=(str(tmp_path), 3))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with journals(job.folder, 0)[0].open("ab") as file:
        file.write(b'{"event": "rows", "stage": "ver')
    rows = [event for event in events(job) if event["event"] == "rows"]
    spoken_of = sum(len(event["receipt"]["slots"]) for event in rows)
    (merged,) = merge_jobs(tmp_path / "store")
    (task,) = merged.tasks
    assert task.end == "lost"
    at_work = task.reason.removeprefix("it ended without a word, at videos ")
    assert at_work in ("'kitchen_a'", "'kitchen_a', 'kitchen_b'")  # the next unit may have begun
    assert 0 < spoken_of < task.stored < ROWS  # the third shard was whole, and is taken in
    assert find_jobs(tmp_path / "store") == []
    report = run(tmp_path)
    assert sum(made(report)[name] for name in ALL) == task.missing == ROWS - task.stored
    assert contents(tmp_path) == undisturbed


def test_a_job_that_cannot_be_submitted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="could not be submitted"):
        run(tmp_path, "executor.name=slurm")
    assert list((tmp_path / "store" / "jobs").iterdir()) == []
    assert leases(tmp_path) == []


def test_where_jobs_cannot_be_submitted_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch and srun not found on the PATH"):
        run(tmp_path, "executor.name=slurm")
    assert not (tmp_path / "store" / "jobs").exists()


@pytest.mark.usefixtures("later")
def test_a_driver_that_is_told_to_stop_leaves_the_job_to_itself(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job_watch.task_states", lambda job: ["RUNNING"] * 2)
        stop = threading.Event()
        timer = threading.Timer(1.0, stop.set)
        told = Told()
        timer.start()
        report = run(tmp_path, *LOCAL, stop=stop, reporter=told)
    assert report.interrupted
    job = the_job(tmp_path)
    assert "kill 0 0" in told.lines[-1]
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]


@pytest.mark.usefixtures("later")
def test_a_driver_tells_of_a_task_that_was_lost_and_goes_on(tmp_path: Path) -> None:
    told = Told()
    report = run(tmp_path, *LOCAL, reporter=told)
    assert not report.complete
    assert not report.handed_over
    assert [line.split(" ended")[0] for line in told.lines[1:]] == ["task 0", "task 1"]
    assert the_job(tmp_path).tasks == 2  # for the merge


@pytest.mark.parametrize(("seconds", "comes_back"), [(0.5, False), (60, True)])
def test_a_driver_waits_for_a_folder_that_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, comes_back: bool
) -> None:
    jobs, gone = tmp_path / "store" / "jobs", tmp_path / "gone"

    def submit(job: Job, config: Any, device: str) -> Job:
        submitted = tasks_in_this_process()(job, config, device)
        jobs.rename(gone)
        if comes_back:
            threading.Timer(1.0, gone.rename, [jobs]).start()
        return submitted

    monkeypatch.setattr("pipeline.executor_slurm.submit", submit)
    settings = (*LOCAL, f"engine.storage_seconds={seconds}")
    if comes_back:
        told = Told()
        assert run(tmp_path, *settings, reporter=told).complete
        assert told.lines[-1] == "the storage is back"
        return
    with pytest.raises(StorageUnavailableError, match="no folder of a job"):
        run(tmp_path, *settings)
    gone.rename(jobs)
    assert sum(task.stored for task in merge_jobs(tmp_path / "store")[0].tasks) == ROWS


@pytest.mark.parametrize("when", ["journals", "save_merged", "release"])
@pytest.mark.usefixtures("here")
def test_a_driver_waits_for_a_store_that_vanishes_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Contents, when: str
) -> None:
    store, gone = tmp_path / "store", tmp_path / "gone"
    target = {
        "journals": ("pipeline.job_watch.journals", job_watch.journals),
        "save_merged": ("pipeline.job_folder.Job.save_merged", Job.save_merged),
        "release": ("stores.folder_store.FolderStore.release", FolderStore.release),
    }[when]
    moved = threading.Event()

    def vanishing(*arguments: Any) -> Any:
        if not moved.is_set():
            moved.set()
            store.rename(gone)
            threading.Timer(1.0, gone.rename, [store]).start()
        return target[1](*arguments)

    monkeypatch.setattr(target[0], vanishing)
    told = Told()
    assert run(tmp_path, *LOCAL, reporter=told).complete
    assert told.lines[-1] == "the storage is back"
    assert contents(tmp_path) == undisturbed
    assert leases(tmp_path) == []


@pytest.mark.usefixtures("later")
def test_what_a_crash_left_of_a_job_goes_with_the_next_one(tmp_path: Path) -> None:
    half = tmp_path / "store" / "jobs" / "20200101T000000.000000Z-1"
    run(tmp_path, stages=["verb"])
    half.mkdir(parents=True)
    (half / "setup.pkl").touch()
    run(tmp_path, *LOCAL, NO_WAIT)
    assert list(half.parent.iterdir()) == [the_job(tmp_path).folder]


@pytest.mark.usefixtures("later")
def test_a_job_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    file = the_job(tmp_path).folder / "job.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="another version of symbio, expected 1"):
        merge_jobs(tmp_path / "store")


@pytest.mark.usefixtures("later")
def test_a_merge_is_not_advised_while_somebody_holds_the_store(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    file = write_experiment(tmp_path)
    advice = "(symbio merge takes in what is done"
    said = " ".join(symbio("status", file, "--set", ONE_THREAD).out.split())
    assert f"{advice})" in said
    with open_store(tmp_path / "store", mode="a"):
        said = " ".join(symbio("status", file, "--set", ONE_THREAD).out.split())
    assert f"{advice} once the store is free, which is held by process {os.getpid()}" in said


@pytest.mark.usefixtures("later")
def test_tasks_of_another_machine_keep_their_leases(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    job = dataclasses.replace(the_job(tmp_path), host="not-this-one")
    job.save()
    (merged,) = merge_jobs(tmp_path / "store")
    assert merged.running
    assert in_words(merged).endswith(
        "processes of not-this-one: only symbio merge there sees them end"
    )
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("job.json", "x", r"job.json: got no JSON \(Expecting value"),
        ("job.json", '{"format": 1}', "job.json: got fields none, expected created, host"),
        ("task_0.json", "{}", "task_0.json: got no units"),
        ("merged.json", "[]", "merged.json: got list, expected keys and values"),
    ],
)
def test_a_damaged_job_is_named_and_the_others_are_merged(
    tmp_path: Path, name: str, content: str, got: str
) -> None:
    run(tmp_path, *LOCAL, NO_WAIT, "executor.tasks=1", stages=["verb"])
    damaged = the_job(tmp_path).folder
    (damaged / name).write_text(content)
    shutil.move(damaged, tmp_path / "aside")
    run(tmp_path, *LOCAL, NO_WAIT, "executor.tasks=1", stages=["objects"])
    other = the_job(tmp_path).folder
    shutil.move(tmp_path / "aside", damaged)
    out = symbio("status", write_experiment(tmp_path), "--set", ONE_THREAD).out
    assert damaged.name in out
    with pytest.raises(DamagedJobError, match=f"{got}.*once no task of the job runs, delete"):
        merge_jobs(tmp_path / "store")
    assert (damaged.exists(), other.exists()) == (True, False)
    with open_store(tmp_path / "store") as store:
        assert [i.rows for i in store.generations() if i.stage == "objects"] == [ALL["objects"]]
    shutil.rmtree(damaged)
    assert run(tmp_path).complete


@pytest.mark.usefixtures("here")
def test_leases_go_with_the_folder_of_a_job_that_was_given_up(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    job = the_job(tmp_path)
    (job.folder / "job.json").write_text("x")
    with pytest.raises(DamagedJobError):
        merge_jobs(tmp_path / "store")
    assert leases(tmp_path) == [job.lease(0), job.lease(1)]
    shutil.rmtree(job.folder)
    assert merge_jobs(tmp_path / "store") == []
    assert leases(tmp_path) == []
    assert run(tmp_path).complete


def unit(number: int, rows: int) -> Unit:
    return Unit(number, (VideoWork(None, {"verb": [None] * rows}),), {})  # type: ignore[arg-type,list-item]


def test_units_are_shared_out_evenly() -> None:
    packed = pack([unit(n, rows) for n, rows in enumerate([9, 1, 8, 2, 7, 3])], 3, {"verb": 10})
    assert [[u.number for u in share] for share in packed] == [[0, 1], [2, 3], [4, 5]]
    assert [len(share) for share in pack([unit(0, 1)], 4, {"verb": 10})] == [1]


@pytest.mark.usefixtures("later")
def test_work_that_others_could_have_written_is_not_loaded(tmp_path: Path) -> None:
    run(tmp_path, *LOCAL, NO_WAIT)
    job = the_job(tmp_path)
    assert job.folder.stat().st_mode & 0o777 == 0o700
    _, units = load_work(job.folder, 0)
    described = json.loads((job.folder / "task_0.json").read_text())["units"]
    assert [unit.number for unit in units] == [unit["unit"] for unit in described]
    (job.folder / "setup.pkl").chmod(0o620)
    with pytest.raises(PermissionError, match="others can write"):
        load_work(job.folder, 0)
