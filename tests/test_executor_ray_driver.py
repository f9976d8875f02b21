"""A coordinator on a Ray cluster that is killed or interrupted, and a machine that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import (
    WAIT_SECONDS,
    Contents,
    command,
    contents,
    events,
    is_alive,
    make_five_videos,
    run,
    wait_for,
)

from pipeline.crew import MOST_UNITS
from pipeline.ray_cluster import import_ray

pytestmark = pytest.mark.slow

RAY = ("executor.name=ray", "executor.workers=1")


@pytest.fixture(scope="module", autouse=True)
def ray() -> Any:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    return import_ray()


def wait_for_rows(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until a commit is in the log."""
    wait_for(lambda: process.poll() is not None or events(folder, "committed"))
    assert process.poll() is None, process.communicate()[0]


def test_a_coordinator_that_is_killed_takes_its_actors_along(
    tmp_path: Path, undisturbed: Contents
) -> None:
    with command(tmp_path, *RAY) as process:
        wait_for_rows(tmp_path, process)
        process.kill()
    (worker,) = events(tmp_path, "worker_started")
    wait_for(lambda: not is_alive(worker["pid"]))
    kept = sum(len(rows) for rows in contents(tmp_path).values())
    assert kept > 0
    report = run(tmp_path, *RAY)
    assert report.complete
    assert contents(tmp_path) == undisturbed
    # Shards that were written and not committed are adopted: they are neither kept nor made.
    made = sum(stage.made for stage in report.stages)
    assert kept + made <= sum(len(rows) for rows in undisturbed.values())


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, undisturbed: Contents) -> None:
    with command(tmp_path, *RAY) as process:
        wait_for_rows(tmp_path, process)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, output
    assert "interrupted: what was finished is stored" in output
    (worker,) = events(tmp_path, "worker_started")
    wait_for(lambda: not is_alive(worker["pid"]))
    kept = contents(tmp_path)
    total = sum(len(rows) for rows in undisturbed.values())
    assert 0 < sum(len(rows) for rows in kept.values()) < total
    for name, rows in kept.items():
        assert rows.items() <= undisturbed[name].items()
    assert run(tmp_path).complete
    assert contents(tmp_path) == undisturbed


def test_a_machine_that_is_lost_costs_its_units(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, ray: Any
) -> None:
    from ray.cluster_utils import Cluster

    alone = tmp_path_factory.mktemp("alone")
    for folder in (tmp_path, alone):
        make_five_videos(folder)
    assert run(alone).complete
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = {}
        for _ in range(2):
            node = cluster.add_node(num_cpus=1)
            nodes[node.node_id] = node
        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)

        def lose() -> None:
            pid = pid_at_work(tmp_path)
            lost = next(node for node in nodes.values() if is_below(pid, node))
            os.kill(pid, signal.SIGSTOP)  # it says nothing more while its machine goes
            cluster.remove_node(lost, allow_graceful=False)
            os.kill(pid, signal.SIGKILL)

        settings = (*RAY, "executor.workers=2", "engine.decode_processes=0")
        assert run(tmp_path, *settings, act=lose).complete
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert contents(tmp_path) == contents(alone)
    assert 1 <= len(events(tmp_path, "unit_lost")) <= MOST_UNITS


def pid_at_work(folder: Path) -> int:
    """The worker that has most units."""
    workers = [event["worker"] for event in events(folder, "unit_started")]
    ended = [event["worker"] for event in events(folder, "unit_finished")]
    open_units = Counter(workers) - Counter(ended)
    pids = {event["worker"]: event["pid"] for event in events(folder, "worker_started")}
    return int(pids[open_units.most_common(1)[0][0]])


def is_below(pid: int, node: Any) -> bool:
    """Whether a process is of a machine that is made up of processes."""
    raylets = node.all_processes["raylet"]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return any(raylet.process.pid == parent for raylet in raylets)
