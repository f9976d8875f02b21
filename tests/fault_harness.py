"""What the fault tests share: work for a store, and the oracle.

The work is a list of steps on two generations. What each step makes of them is worked out here as
well, with dicts, so that after a fault in step n the store must lie between the state before that
step and the state after it. That, and that the work can then be finished, is what `check_store`
asserts after every fault.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_suite import SPECS, make_failure, make_key, make_rows

from stores import FeatureStore, Row, Store, open_store
from stores.formats import FORMATS

# ---- the kinds of store, and the work done in them


@dataclass(frozen=True)
class Kind:
    """A way of keeping rows that all faults are tried on."""

    format: str
    compression: str = "none"

    def open(self, root: Path, mode: str = "a") -> Store:
        return open_store(root, mode, self.format)

    def generation(self, store: Store, stage: str) -> FeatureStore:
        """Open a generation with room for two rows per shard; create it where it is not there."""
        specs = {name: SPECS[name] for name in STAGES[stage]}
        row_nbytes = sum(spec.row_nbytes for spec in specs.values())
        key, mib = make_key(sorted(STAGES).index(stage)), 2.5 * row_nbytes / 2**20
        return store.generation(stage, key, specs, None, mib, self.compression)


KINDS = [Kind(name) for name in sorted(FORMATS)]
ALL_KINDS = [*KINDS, *(Kind(name, "zstd") for name in sorted(FORMATS))]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.format)
every_compression = pytest.mark.parametrize(
    "kind", ALL_KINDS, ids=lambda kind: f"{kind.format}-{kind.compression}"
)

STAGES = {"objects": ("mask", "count"), "verb": ("features",)}

# (what, stage, rows, failures)
Step = tuple[str, str, tuple[int, ...], tuple[int, ...]]
STEPS: list[Step] = [
    ("open", "", (), ()),
    ("create", "objects", (), ()),
    ("append", "objects", (1, 2, 3), ()),
    ("commit", "objects", (), (4, 5)),
    ("create", "verb", (), ()),
    ("append", "verb", (1, 2), ()),
    ("forget", "objects", (1, 2), ()),
    ("commit", "objects", (1, 4), (7,)),
    ("clear", "objects", (), (5,)),
    ("close", "", (), ()),
    ("open", "", (), ()),
    ("append", "verb", (3,), ()),
    ("close", "", (), ()),
]


@dataclass(frozen=True)
class State:
    """What a generation should hold."""

    rows: frozenset[int] = frozenset()
    failures: frozenset[int] = frozenset()

    def after(self, step: Step) -> "State":
        what, _, rows, failures = step
        if what == "forget":
            return State(self.rows - set(rows), self.failures)
        if what == "clear":
            return State(self.rows, self.failures - set(failures))
        held = self.rows | set(rows)
        return State(held, (self.failures | set(failures)) - held)


def states(done: int) -> dict[str, State]:
    """Return stage → what it holds after `done` steps."""
    found = dict.fromkeys(STAGES, State())
    for step in STEPS[:done]:
        if step[1]:
            found[step[1]] = found[step[1]].after(step)
    return found


def rows_of(stage: str, numbers: Iterable[int]) -> list[Row]:
    """Return rows with the outputs of a stage."""
    return [
        Row(row.key, {name: row.arrays[name] for name in STAGES[stage]}, row.info)
        for row in make_rows(*numbers)
    ]


@dataclass
class Work:
    """Does the steps that are not done; says so after each, when it counts as acknowledged."""

    kind: Kind
    root: Path
    done: int = 0
    say: Callable[[int], None] = field(default=lambda done: None)
    store: Any = None

    def run(self) -> None:
        if self.done and STEPS[self.done][0] != "open":
            self.store = self.kind.open(self.root)
        for step in STEPS[self.done :]:
            self._do(*step)
            self.done += 1
            self.say(self.done)

    def _do(self, what: str, stage: str, rows: tuple[int, ...], failures: tuple[int, ...]) -> None:
        if what == "open":
            self.store = self.kind.open(self.root)
            return
        if what == "close":
            self.store.close()
            return
        made = self.kind.generation(self.store, stage)
        if what == "append":
            made.append(rows_of(stage, rows))
        elif what == "commit":
            receipts = []
            if rows:
                shard = made.reserve_shards(1)
                receipts.append(made.shard_writer().write_shard(shard, rows_of(stage, rows)))
            made.commit(receipts, [make_failure(number) for number in failures])
        elif what == "forget":
            made.forget([make_key(number) for number in rows])
        elif what == "clear":
            made.clear_failures([make_key(number) for number in failures])


# ---- the oracle


def check_store(kind: Kind, root: Path, done: int) -> None:
    """Assert what must hold after a fault in the step after the first `done`.

    A reader sees nothing wrong even before anything is put in order; the store opens; every
    acknowledged row is there, byte for byte, and no others; no temporary file is left; the rows
    that are missing can be made, and then all is as if nothing had happened.
    """
    before, after = states(done), states(done + 1)
    if done:  # else there need not be a store
        with kind.open(root, "r") as store:
            for what, stage, _, _ in STEPS[:done]:
                if what == "create":
                    made = kind.generation(store, stage)
                    _check_between(made, before[stage], after[stage])
    with kind.open(root) as store:
        assert temps(root) == []
        for info in store.generations():
            assert store.generation(info.stage, info.key).verify() == []
            check_listing(store.generation(info.stage, info.key))
        for stage in STAGES:
            made = kind.generation(store, stage)
            _check_between(made, before[stage], after[stage])
            wanted = before[stage].rows | after[stage].rows
            absent = set(made.missing(make_key(number) for number in wanted))
            made.append(rows_of(stage, [number for number in wanted if make_key(number) in absent]))
    with kind.open(root, "r") as store:
        for stage in STAGES:
            made = kind.generation(store, stage)
            rows = before[stage].rows | after[stage].rows
            _check_between(
                made, State(rows), State(rows, before[stage].failures | after[stage].failures)
            )


def number_of(key: str) -> int:
    """Return the number that `make_key` made a key from."""
    number = int(key[-4:], 16)
    assert key == make_key(number)
    return number


def _check_between(made: FeatureStore, before: State, after: State) -> None:
    """Assert that the rows and failures are those before or after a step, or some of its own."""
    there = set(map(number_of, made.keys()))
    assert before.rows & after.rows <= there <= before.rows | after.rows
    failed = {number_of(failure.row_key) for failure in made.failures()}
    assert before.failures & after.failures <= failed <= before.failures | after.failures
    assert not there & failed
    check_values(made, sorted(there))


def check_values(made: FeatureStore, numbers: list[int]) -> None:
    """Assert that rows are byte for byte what they were made as."""
    arrays = made.read([make_key(number) for number in numbers])
    for name, array in arrays.items():
        for number, row in zip(make_rows(*numbers), array, strict=True):
            assert np.asarray(number.arrays[name]).tobytes() == row.tobytes()


def check_listing(made: FeatureStore) -> None:
    """Assert that rows.csv says what the manifest says."""
    with (made.path / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["row_key"] for line in lines if line["row"]] == made.keys()
    failed = [failure.row_key for failure in made.failures()]
    assert [line["row_key"] for line in lines if not line["row"]] == failed


def temps(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.endswith(".tmp")]
