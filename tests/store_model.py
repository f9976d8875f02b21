"""What the generations of a store should hold, in plain dicts; see test_stores_model.py."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from store_suite import make_key

from stores import ArraySpec, CorruptRowError, Failure, Receipt, Row, RowInfo
from stores.formats import shard_format
from stores.memory_store import MemoryGeneration
from stores.shard_format import part_of

NUMBERS = range(9)
KEYS = [make_key(number) for number in NUMBERS]
COUNT = ArraySpec((), (), "int32")
GENERATIONS: list[tuple[str, str, dict[str, ArraySpec]]] = [
    ("objects", make_key(1000), {"count": COUNT, "map": ArraySpec(("t",), (4,), "float16")}),
    ("objects", make_key(1001), {"count": COUNT, "map": ArraySpec(("t",), (2,), "bfloat16")}),
    ("verb", make_key(1000), {"map": ArraySpec(("t",), (5,), "float32")}),
]

# (shard, slot)
Place = tuple[int, int]


def make_row(specs: dict[str, ArraySpec], number: int, tag: int) -> Row:
    """Return row `number`; `tag` tells one version of it from another."""
    arrays = {
        name: np.full(spec.shape, tag % 251 - 100, spec.numpy_dtype) for name, spec in specs.items()
    }
    return Row(KEYS[number], arrays, RowInfo(f"P01_{number}", "P01", str(tag), tag))


def make_failure(number: int, tag: int) -> Failure:
    return Failure(KEYS[number], f"P01_{number}", "P01", "DecodeError", f"try {tag}", tag)


@dataclass
class Model:
    """What a generation should hold.

    Attributes:
        shards: what was written, committed or not: shard → (number, tag) by slot.
        known: shards that were committed or taken in.
        rows: number → its place and tag.
        damaged, gone: places and shards whose bytes were spoiled or removed.
    """

    specs: dict[str, ArraySpec]
    shards: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    receipts: dict[int, Receipt] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    rows: dict[int, tuple[Place, int]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    damaged: set[Place] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def take(self, shard: int, *, only_intact: bool) -> None:
        """Make the rows of a shard exist; the first of a key stays."""
        self.known.add(shard)
        for slot, (number, tag) in enumerate(self.shards[shard]):
            if not (only_intact and (shard, slot) in self.damaged):
                self.rows.setdefault(number, ((shard, slot), tag))
        for number in self.rows:
            self.failures.pop(number, None)

    def adopt(self) -> None:
        """Do what opening for writing does with shards that nobody committed."""
        for shard in sorted(self.shards.keys() - self.known - self.gone):
            self.take(shard, only_intact=True)

    def rebuild(self) -> None:
        """Do what losing the manifest does."""
        self.drop(self.gone)
        self.known, self.rows, self.failures = set(), {}, {}
        self.adopt()

    def drop_empty_shards(self) -> None:
        """Do what removing shards without rows does."""
        self.drop(self.known - {place[0] for place, _ in self.rows.values()})

    def drop(self, shards: set[int]) -> None:
        """Do what removing shards for good does; their numbers may come again."""
        self.damaged = {place for place in self.damaged if place[0] not in shards}
        for shard in shards:
            del self.shards[shard], self.receipts[shard]
        self.known, self.gone = self.known - shards, self.gone - shards

    def is_lost(self, place: Place) -> bool:
        return place in self.damaged or place[0] in self.gone

    def split(self) -> tuple[list[int], list[int]]:
        """Return the numbers of readable and of lost rows, in the order of their places."""
        order = sorted(self.rows, key=lambda number: self.rows[number][0])
        lost = [number for number in order if self.is_lost(self.rows[number][0])]
        return [number for number in order if number not in lost], lost


def assert_equal(made: Any, model: Model) -> None:
    """Compare a generation with its model through everything that asks and changes nothing."""
    good, lost = model.split()
    order = sorted(model.rows, key=lambda number: model.rows[number][0])
    assert made.keys() == [KEYS[number] for number in order]
    assert len(made) == len(order)
    assert made.failures() == sorted(model.failures.values(), key=lambda f: f.row_key)
    assert made.missing(KEYS) == [KEYS[n] for n in NUMBERS if n not in model.rows]
    expected = [make_row(model.specs, number, model.rows[number][1]) for number in order]
    assert made.infos([row.key for row in expected]) == [row.info for row in expected]
    arrays = made.read([KEYS[number] for number in good])
    for name, spec in model.specs.items():
        assert arrays[name].dtype == spec.numpy_dtype
        for got, number in zip(arrays[name], good, strict=True):
            row = make_row(model.specs, number, model.rows[number][1])
            assert got.tobytes() == row.arrays[name].tobytes()
    for number in lost[:1]:
        with pytest.raises(CorruptRowError, match=f"'P01_{number}'") as caught:
            made.read([KEYS[number]])
        assert caught.value.row_keys == [KEYS[number]]


def spoil(made: Any, place: Place) -> None:
    """Change one stored byte of a row, not through the store."""
    shard, slot = place
    if isinstance(made, MemoryGeneration):
        made.shards[shard][slot]["map"].view("u1")[0] ^= 1
        return
    form = shard_format(made.layout.format)
    part = part_of(form, made.layout, "map")
    path = form.path(made.layout, part, shard)
    with path.open("r+b") as file:
        tail = form.read_tail(made.layout, part, path, file.fileno())
        file.seek(tail.chunks["map"].offsets[slot])
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
