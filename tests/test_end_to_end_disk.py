"""A run on a disk that is full, and on one that may not be written to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, since it mounts a disk that nobody else is to see.
SCRIPT = """
import sys
from pathlib import Path
from unittest import mock

import pytest
from cli_fixtures import ALL_ROWS, symbio, table_rows, write_experiment
from fault_limits import mount_small_disk, remount

folder = Path(sys.argv[1])
store = folder / "store"
config = write_experiment(folder)
store.mkdir()
try:
    mount_small_disk(store, 2**20)
except pytest.skip.Exception as skip:
    sys.exit(f"skip {skip.msg}")

remount(store, read_only=True)
with mock.patch("pipeline.workbench.create_network", side_effect=AssertionError("built a network")):
    outcome = symbio("run", config)
assert outcome.code == 2
assert f"{store}: Read-only file system: got no access to write" in outcome.err, outcome.err

remount(store, nbytes=100 * 1024)
outcome = symbio("run", config)
assert outcome.code == 2
assert "KiB of free space, expected" in outcome.err, outcome.err

# Somebody else fills it while the run goes on.
mock.patch("pipeline.run.check_space", return_value=[]).start()
for kib in (100, 300, 600):
    remount(store, nbytes=kib * 1024)
    outcome = symbio("run", config)
    assert outcome.code == 2
    assert "/store/" in outcome.err
    assert "No space left on device (" in outcome.err, outcome.err

remount(store, nbytes=12 * 2**20)
outcome = symbio("run", config)
assert outcome.code == 0
made = {stage: int(row["made"]) for stage, row in table_rows(outcome.out, ("made",)).items()}
assert made["aligned"] == 6
assert 0 < sum(made.values()) < sum(ALL_ROWS.values())
assert symbio("store", "verify", store, "--deep").code == 0
assert "nothing" in symbio("plan", config).out
"""


def test_a_run_tells_of_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = [str(Path(__file__).parent), *sys.path]
    script = f"import sys; sys.path[:0] = {path!r}\n{SCRIPT}"
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.stderr.startswith("skip "):
        pytest.skip(result.stderr[5:])
    assert result.returncode == 0, result.stderr
