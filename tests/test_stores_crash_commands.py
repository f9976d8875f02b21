"""Crashes and power cuts in the midst of repair, removal, conversion and a rebuilt manifest."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fault_calls import CrashAt, crash, intercepted
from fault_disk import cut_power
from fault_harness import KINDS, Kind, check_listing, check_values, number_of, rows_of, temps
from fault_recorder import Recorder
from store_damage import files_of, place_of
from store_suite import fast_folder, make_failure, make_key

from stores import FeatureStore
from stores.convert import convert_store
from stores.manifest_db import MANIFEST_FILE

STAGE = "objects"


def overwrite(path: Path, offset: int, data: bytes, size: int | None = None) -> None:
    """Damage a file, durably."""
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    if size is not None:
        os.ftruncate(descriptor, size)
    os.fsync(descriptor)
    os.close(descriptor)


def check_rows(made: FeatureStore, numbers: set[int]) -> None:
    """Assert that a generation holds exactly these rows, and nothing is wrong with it."""
    assert set(map(number_of, made.keys())) == numbers
    check_values(made, sorted(numbers))
    assert made.verify() == []


class Command(ABC):
    """Something that is done to a store, and what must be so if it is cut off."""

    def prepare(self, kind: Kind, root: Path) -> None:
        """Make a store: rows 1 to 6 in three shards, 2 forgotten, 9 failed; another stage."""
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            for shard in ((1, 2), (3, 4), (5, 6)):
                made.append(rows_of(STAGE, shard))
            made.forget([make_key(2)])
            made.commit([], [make_failure(9)])
            kind.generation(store, "verb").append(rows_of("verb", [1, 2]))

    @abstractmethod
    def run(self, kind: Kind, root: Path) -> None: ...

    @abstractmethod
    def check(self, kind: Kind, root: Path) -> None:
        """Assert that nothing is lost, and that a second call brings it to its end."""

    @abstractmethod
    def is_done(self, kind: Kind, root: Path) -> bool:
        """Return whether all is as the command leaves it."""


class Repair(Command):
    """Row 3 is damaged, and a file of the shard with rows 5 and 6 is cut off."""

    def prepare(self, kind: Kind, root: Path) -> None:
        super().prepare(kind, root)
        with kind.open(root, "r") as store:
            made = kind.generation(store, STAGE)
            path, offset, _ = place_of(made, "mask", 3)
            overwrite(path, offset, b"\x55\x55\x55")
            overwrite(files_of(made, 2)[-1], 0, b"", size=50)

    def run(self, kind: Kind, root: Path) -> None:
        with kind.open(root) as store:
            store.repair()
            for stage in (STAGE, "verb"):
                kind.generation(store, stage).repair()

    def check(self, kind: Kind, root: Path) -> None:
        self.run(kind, root)
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            check_rows(made, {1, 4})
            check_listing(made)
            made.append(rows_of(STAGE, [2, 3, 5, 6]))
            check_rows(made, {1, 2, 3, 4, 5, 6})
            check_rows(kind.generation(store, "verb"), {1, 2})

    def is_done(self, kind: Kind, root: Path) -> bool:
        with kind.open(root, "r") as store:
            return sorted(map(number_of, kind.generation(store, STAGE).keys())) == [1, 4]


class Rewrite(Command):
    """What a shard says to other programs is damaged, its rows are not."""

    def prepare(self, kind: Kind, root: Path) -> None:
        super().prepare(kind, root)
        with kind.open(root, "r") as store:
            overwrite(files_of(kind.generation(store, STAGE), 0)[0], 0, b"\x55")

    run = Repair.run

    def is_done(self, kind: Kind, root: Path) -> bool:
        with kind.open(root, "r") as store:
            (info,) = [info for info in store.generations() if info.stage == STAGE]
            files = info.path.glob("shard.*")
            return info.nbytes == sum(path.stat().st_size for path in files)

    def check(self, kind: Kind, root: Path) -> None:
        with kind.open(root, "r") as store:
            check_values(kind.generation(store, STAGE), [1, 3, 4, 5, 6])
        Repair().run(kind, root)
        with kind.open(root) as store:
            check_rows(kind.generation(store, STAGE), {1, 3, 4, 5, 6})


class Remove(Command):
    def run(self, kind: Kind, root: Path) -> None:
        with kind.open(root) as store:
            for info in store.generations():
                if info.stage == "verb":
                    store.remove(info.stage, info.key)

    def check(self, kind: Kind, root: Path) -> None:
        with kind.open(root) as store:
            if any(info.stage == "verb" for info in store.generations()):
                check_rows(kind.generation(store, "verb"), {1, 2})
            check_rows(kind.generation(store, STAGE), {1, 3, 4, 5, 6})
        self.run(kind, root)
        kind.open(root).close()
        assert self.is_done(kind, root)
        kind.open(root).close()
        assert not any((root / "verb").glob(".*"))

    def is_done(self, kind: Kind, root: Path) -> bool:
        with kind.open(root) as store:
            return [info.stage for info in store.generations()] == [STAGE]


class RemoveLeftovers(Command):
    def prepare(self, kind: Kind, root: Path) -> None:
        super().prepare(kind, root)
        with kind.open(root) as store:
            kind.generation(store, STAGE).forget([make_key(3), make_key(4)])

    def run(self, kind: Kind, root: Path) -> None:
        with kind.open(root) as store:
            for leftovers in store.leftovers():
                store.remove_leftovers(leftovers)

    def check(self, kind: Kind, root: Path) -> None:
        for _ in range(2):
            with kind.open(root) as store:
                made = kind.generation(store, STAGE)
                check_rows(made, {1, 5, 6})
            self.run(kind, root)
        with kind.open(root) as store:
            assert store.leftovers() == []
            assert not any(path.exists() for path in files_of(kind.generation(store, STAGE), 1))

    def is_done(self, kind: Kind, root: Path) -> bool:
        with kind.open(root, "r") as store:
            return store.leftovers() == []


class Convert(Command):
    """Into another format, beside the store."""

    def target(self, kind: Kind, root: Path) -> tuple[Kind, Path]:
        other = KINDS[KINDS.index(kind) - 1]
        return other, root.with_name(other.format)

    def run(self, kind: Kind, root: Path) -> None:
        other, target = self.target(kind, root)
        convert_store(root, target, other.format)

    def check(self, kind: Kind, root: Path) -> None:
        self.run(kind, root)
        for form, path in ((kind, root), self.target(kind, root)):
            with form.open(path) as store:
                made = form.generation(store, STAGE)
                check_rows(made, {1, 3, 4, 5, 6})
                assert made.failures() == [make_failure(9)]
                check_rows(form.generation(store, "verb"), {1, 2})

    def is_done(self, kind: Kind, root: Path) -> bool:
        other, target = self.target(kind, root)
        with other.open(target, "r") as store:
            return len(other.generation(store, STAGE)) == 5


class Rebuild(Command):
    """The manifest is lost, and with it that row 2 was forgotten and 9 failed."""

    def prepare(self, kind: Kind, root: Path) -> None:
        super().prepare(kind, root)
        (root / MANIFEST_FILE).write_bytes(b"garbage")

    def run(self, kind: Kind, root: Path) -> None:
        kind.open(root).close()

    def check(self, kind: Kind, root: Path) -> None:
        with kind.open(root) as store:
            made = kind.generation(store, STAGE)
            check_rows(made, {1, 3, 4, 5, 6} | set(map(number_of, made.keys())) & {2})
            check_rows(kind.generation(store, "verb"), {1, 2})

    def is_done(self, kind: Kind, root: Path) -> bool:
        with kind.open(root, "r") as store:
            return len(kind.generation(store, STAGE)) == 6


COMMANDS = [Repair(), Rewrite(), Remove(), RemoveLeftovers(), Convert(), Rebuild()]
each = pytest.mark.parametrize(
    ("kind", "command"),
    [
        pytest.param(kind, command, id=f"{kind.format}-{type(command).__name__}")
        for kind in KINDS
        for command in COMMANDS
        if kind.format == "hdf5" or not isinstance(command, Rewrite)  # Zarr says such things apart
    ],
)


def crash_at_points(kind: Kind, command: Command, step: int) -> int:
    """Crash at each n-th point; return the last of them."""
    with fast_folder() as folder:
        command.prepare(kind, folder / "before/store")
        for point in itertools.count(1, step):
            shutil.copytree(folder / "before", folder / "after")
            root = folder / "after/store"
            crashed, _ = crash(lambda say, root=root: command.run(kind, root), CrashAt(point))
            try:
                assert crashed or command.is_done(kind, root)
                command.check(kind, root)
                assert temps(root) == []
            except BaseException as error:
                error.add_note(f"after a crash at point {point}")
                raise
            if not crashed:
                return point
            shutil.rmtree(folder / "after")
    raise AssertionError


def cut_power_often(kind: Kind, command: Command, cases: Iterable[int]) -> None:
    """Cut the power at random moments from the beginning of a command to its end."""
    with fast_folder() as folder:
        recorder = Recorder(folder)
        with intercepted(recorder):
            command.prepare(kind, folder / "store")
            first = len(recorder.events)
            command.run(kind, folder / "store")
    for case in cases:
        choose = random.Random(case)
        cut = min(choose.randint(first, len(recorder.events) + 20), len(recorder.events))
        try:
            with fast_folder() as folder:
                cut_power(recorder, cut, choose, folder)
                if cut == len(recorder.events):
                    assert command.is_done(kind, folder / "store")
                command.check(kind, folder / "store")
        except BaseException as error:
            error.add_note(f"case {case}: power cut after event {cut - first} of the command")
            raise


@each
def test_a_crash_costs_nothing(kind: Kind, command: Command, small_process: Any) -> None:
    assert small_process(crash_at_points, kind, command, 4) > 20


@each
@pytest.mark.slow
def test_a_crash_at_any_point_costs_nothing(
    kind: Kind, command: Command, small_process: Any
) -> None:
    assert small_process(crash_at_points, kind, command, 1) > 20


@each
def test_a_power_cut_costs_nothing(kind: Kind, command: Command) -> None:
    cut_power_often(kind, command, range(25))


@each
@pytest.mark.slow
def test_many_power_cuts_cost_nothing(kind: Kind, command: Command) -> None:
    cut_power_often(kind, command, range(25, 300))
