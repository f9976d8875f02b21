"""Every backend against a dict: whatever is done to a store, in whatever order, both agree."""

import copy
import itertools
import shutil
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_model import (
    GENERATIONS,
    KEYS,
    NUMBERS,
    Model,
    assert_equal,
    make_failure,
    make_row,
    spoil,
)
from store_suite import fast_folder

from stores import Receipt, StoreLockedError, open_store
from stores.formats import FORMATS, shard_format
from stores.memory_store import MemoryStore

KINDS = ["memory", *(f"{name}-{how}" for name in sorted(FORMATS) for how in ("none", "zstd"))]


class StoreMachine(RuleBasedStateMachine):
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

    # ---- damage

    @rule(data=st.data())
    def damage(self, data: Any) -> None:
        """Change a stored byte of a row, committed or not, and find just that."""
        model = self.model
        places = [
            (shard, slot)
            for shard, rows in sorted(model.shards.items())
            for slot in range(len(rows))
            if not model.is_lost((shard, slot))
        ]
        if places:
            place = data.draw(st.sampled_from(places))
            spoil(self.generation, place)
            model.damaged.add(place)

    @precondition(lambda self: not self.in_memory and self.model.shards)
    @rule(data=st.data())
    def remove_shard(self, data: Any) -> None:
        """Remove one of the files of a shard; who has it open reads on."""
        model, made = self.model, self.generation
        self.store.close()
        shard = data.draw(st.sampled_from(sorted(model.shards)))
        form = shard_format(self.format)
        part = data.draw(st.sampled_from(sorted(form.parts(made.layout))))
        form.path(made.layout, part, shard).unlink(missing_ok=True)
        model.gone.add(shard)
        self.come_back()

    @rule(forget=st.booleans())
    def verify(self, forget: bool) -> None:
        """Name the lost rows, and perhaps forget them, so that they can be made again."""
        _, lost = self.model.split()
        problems = self.generation.verify()
        named = {key for problem in problems for key in problem.row_keys}
        assert named == {KEYS[number] for number in lost}
        assert all(problem.row_keys for problem in problems)
        if forget:
            self.forget(lost)

    # ---- opening again

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.come_back()

    @precondition(lambda self: not self.in_memory)
    @rule()
    def kill(self) -> None:
        """Leave the folder as a process leaves it that dies now."""
        spare = self.folder / "spare"
        shutil.copytree(self.root, spare)
        self.store.close()
        shutil.rmtree(self.root)
        spare.rename(self.root)
        self.come_back()

    @precondition(lambda self: not self.in_memory)
    @rule()
    def lose_manifest(self) -> None:
        self.store.close()
        (self.root / "manifest.sqlite").unlink()
        for model in self.models.values():
            model.rebuild()
        self.come_back()

    @precondition(lambda self: not self.in_memory)
    @rule(which=st.integers(0, len(GENERATIONS) - 1))
    def remove_generation(self, which: int) -> None:
        self.store.close()
        stage, key, _ = GENERATIONS[which]
        shutil.rmtree(self.root / stage / key[:12], ignore_errors=True)
        self.models.pop(which, None)
        self.come_back()

    def come_back(self) -> None:
        self.readers.clear()
        if not self.in_memory:
            self.store = self.open()
            for model in self.models.values():
                model.adopt()
        self.choose_generation(self.current)
        self.all_agree()

    # ---- others beside the writer

    @precondition(lambda self: not self.in_memory)
    @rule()
    def open_reader(self) -> None:
        stage, key, _ = GENERATIONS[self.current]
        reader = open_store(self.root, verify_every_read=True).generation(stage, key)
        assert len(reader) == len(self.model.rows)  # now it has looked
        self.readers.append((reader, self.current, copy.deepcopy(self.model.rows)))

    @precondition(lambda self: not self.in_memory)
    @rule()
    def refuse_second_writer(self) -> None:
        with pytest.raises(StoreLockedError, match="held by"):
            self.open()

    # ---- what always holds

    @invariant()
    def agrees(self) -> None:
        assert_equal(self.generation, self.model)

    def all_agree(self) -> None:
        """Compare the other generations, too: nothing but their own rules changes them."""
        for which, model in self.models.items():
            assert_equal(self.made(which), model)
        infos = {(info.stage, info.key): info for info in self.store.generations()}
        assert len(infos) == len(self.models)
        for which, model in self.models.items():
            info = infos[GENERATIONS[which][:2]]
            assert (info.rows, info.failures) == (len(model.rows), len(model.failures))

    @invariant()
    def readers_agree(self) -> None:
        """A reader sees what there was when it first looked."""
        for reader, which, rows in self.readers:
            model = copy.copy(self.models[which])
            model.rows = rows
            good, _ = model.split()
            arrays = reader.read([KEYS[number] for number in good], ["map"])
            for got, number in zip(arrays["map"], good, strict=True):
                row = make_row(model.specs, number, rows[number][1])
                assert got.tobytes() == row.arrays["map"].tobytes()


def check(kind: str, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(kind),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_a_dict(kind: str) -> None:
    check(kind, examples=6 if kind.endswith("zstd") else 20, steps=20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_a_dict_for_long(kind: str) -> None:
    check(kind, examples=60, steps=50)
