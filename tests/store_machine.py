"""A store and its model side by side: opening, writing, committing; see test_stores_model.py."""

import itertools
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from store_model import GENERATIONS, KEYS, NUMBERS, Model, make_failure, make_row
from store_suite import fast_folder

from stores import Receipt, open_store
from stores.memory_store import MemoryStore


class WritingMachine(RuleBasedStateMachine):
    """One store of one kind, three generations in it, and what they should hold."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.format, _, self.compression = kind.partition("-")
        self.in_memory = self.format == "memory"
        self.tags = itertools.count(1)
        self.context = ExitStack()
        self.models: dict[int, Model] = {}
        self.current = 0
        self.readers: list[tuple[Any, Any, Model]] = []

    @initialize()
    def start(self) -> None:
        self.folder = self.context.enter_context(fast_folder())
        self.root = self.folder / "store"
        self.store: Any = MemoryStore() if self.in_memory else self.open()
        for which in (1, 0):
            self.choose_generation(which)
            self.append([0, 1, 2, 3])
            self.write([3, 4, 5], 1)
            self.write([5, 6], 0)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.context.close()

    def open(self) -> Any:
        return open_store(self.root, "a", self.format, verify_every_read=True)

    def made(self, which: int) -> Any:
        stage, key, specs = GENERATIONS[which]
        nbytes = sum(spec.row_nbytes for spec in specs.values())
        mib = 3.5 * nbytes / 2**20
        return self.store.generation(stage, key, specs, {}, mib, self.compression or "none")

    @property
    def model(self) -> Model:
        return self.models[self.current]

    @property
    def generation(self) -> Any:
        return self.made(self.current)

    # ---- writing

    @rule(which=st.integers(0, len(GENERATIONS) - 1))
    def choose_generation(self, which: int) -> None:
        """Change the config, or change it back."""
        self.current = which
        self.models.setdefault(which, Model(GENERATIONS[which][2]))
        assert self.generation.rows_per_shard == 3

    @rule(numbers=st.lists(st.sampled_from(NUMBERS), max_size=7, unique=True))
    def append(self, numbers: list[int]) -> None:
        tagged = [(number, next(self.tags)) for number in numbers]
        rows = [make_row(self.model.specs, *version) for version in tagged]
        receipts = self.generation.append(rows)
        assert len(receipts) == (len(rows) + 2) // 3
        for at, receipt in enumerate(receipts):
            self.note(receipt, tagged[3 * at : 3 * at + 3])
            self.model.take(receipt.shard, only_intact=False)

    @rule(
        numbers=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3, unique=True),
        skipped=st.integers(0, 2),
    )
    def write(self, numbers: list[int], skipped: int) -> None:
        """Write a shard and commit it later, or never; leave out some shard numbers."""
        tagged = [(number, next(self.tags)) for number in numbers]
        shard = self.generation.reserve_shards(skipped + 1) + skipped
        rows = [make_row(self.model.specs, *version) for version in tagged]
        receipt = self.generation.shard_writer().write_shard(shard, rows)
        self.note(Receipt.from_json(receipt.to_json()), tagged)
        with pytest.raises(FileExistsError):
            self.generation.write_shard(shard, rows)

    def note(self, receipt: Receipt, tagged: list[tuple[int, int]]) -> None:
        assert receipt.shard not in self.model.shards
        self.model.shards[receipt.shard] = tagged
        self.model.receipts[receipt.shard] = receipt

    @rule(data=st.data(), failed=st.lists(st.sampled_from(NUMBERS), max_size=3))
    def commit(self, data: Any, failed: list[int]) -> None:
        """Commit some receipts in some order, perhaps again, and some failures."""
        model = self.model
        choice = st.lists(st.sampled_from(sorted(model.receipts)), max_size=3)
        shards = data.draw(choice) if model.receipts else []
        receipts = [model.receipts[shard] for shard in shards]
        failures = {number: make_failure(number, next(self.tags)) for number in failed}
        if model.gone & set(shards):
            with pytest.raises(FileNotFoundError):
                self.generation.commit(receipts, list(failures.values()))
            return
        self.generation.commit(receipts, list(failures.values()))
        model.failures.update(failures)
        for shard in shards:
            model.take(shard, only_intact=False)
        for number in model.rows:
            model.failures.pop(number, None)

    @rule(numbers=st.lists(st.sampled_from(NUMBERS), max_size=4))
    def forget(self, numbers: list[int]) -> None:
        self.generation.forget([KEYS[number] for number in numbers])
        for number in numbers:
            self.model.rows.pop(number, None)

    @rule(numbers=st.lists(st.sampled_from(NUMBERS), max_size=4))
    def clear_failures(self, numbers: list[int]) -> None:
        self.generation.clear_failures([KEYS[number] for number in numbers])
        for number in numbers:
            self.model.failures.pop(number, None)
