"""A store that vanishes under a run and comes back; rows that come when nobody waits for them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from experiment_fixtures import Silent, make_experiment
from run_fixtures import ONE_THREAD, TWO_WORKERS, Contents, contents, events

from pipeline.experiment import resolve
from pipeline.run import run_experiment
from pipeline.stages import STAGE_NAMES
from stores.base import FeatureStore, Row
from stores.registry import open_store

AWAY_SECONDS = 3.0


class Vanishing(Silent):
    """Takes the store away when the first row is computed; somebody brings it back."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self._store, self._away = folder / "store", folder / "away"
        self._is_done = False

    def advance(self, stage: str, rows: int) -> None:
        if not self._is_done:
            self._is_done = True
            self._store.rename(self._away)
            threading.Timer(AWAY_SECONDS, self._away.rename, [self._store]).start()

    def say(self, text: str) -> None:
        self.said.append(text)


def run(folder: Path, reporter: Silent, *overrides: str) -> bool:
    report = run_experiment(
        resolve(make_experiment(folder, [ONE_THREAD, *overrides])),
        stages=STAGE_NAMES,
        retry_failed=False,
        reporter=reporter,
        stop=threading.Event(),
    )
    return report.complete


@pytest.mark.parametrize("overrides", [(), (TWO_WORKERS,)])
def test_a_store_that_vanishes_is_waited_for(
    tmp_path: Path, undisturbed: Contents, overrides: tuple[str, ...]
) -> None:
    assert run(tmp_path, Vanishing(tmp_path), *overrides)
    assert contents(tmp_path) == undisturbed


def test_a_store_that_stays_away_ends_the_run(tmp_path: Path, undisturbed: Contents) -> None:
    reporter = Vanishing(tmp_path)
    with pytest.raises(OSError, match="the store is not there now"):
        run(tmp_path, reporter, "engine.storage_seconds=0.5")
    while not (tmp_path / "store").exists():
        threading.Event().wait(0.1)
    assert run(tmp_path, Silent())
    assert contents(tmp_path) == undisturbed


def rows_of(generation: FeatureStore) -> list[Row]:
    keys = generation.keys()
    arrays = generation.read(keys)
    infos = generation.infos(keys)
    return [
        Row(key, {name: values[i] for name, values in arrays.items()}, infos[i])
        for i, key in enumerate(keys)
    ]


@pytest.mark.parametrize("is_told", [False, True])
def test_rows_of_a_worker_that_was_given_up_are_taken_once(
    tmp_path: Path, undisturbed: Contents, is_told: bool
) -> None:
    """It was stopped, others did its unit, and now it writes its shard under its own number."""
    assert run(tmp_path, Silent())
    late: list[Any] = []
    with open_store(tmp_path / "store", mode="a") as store:
        for info in store.generations():
            generation = store.generation(info.stage, info.key)
            number = generation.reserve_shards(1)
            late.append((generation.shard_writer(), number, rows_of(generation)))
            if is_told:
                writer, number, rows = late.pop()
                generation.commit([writer.write_shard(number, rows)])
    for writer, number, rows in late:
        writer.write_shard(number, rows)
    with open_store(tmp_path / "store", mode="a") as store:
        for info in store.generations():
            assert info.rows == len(undisturbed[info.stage])
            assert store.generation(info.stage, info.key).verify() == []
    assert contents(tmp_path) == undisturbed
    assert run(tmp_path, Silent())
    assert not events(tmp_path, "failure")
