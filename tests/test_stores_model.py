"""Every backend against a dict: whatever is done to a store, in whatever order, both agree."""

import copy
import shutil
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from store_machine import WritingMachine
from store_model import GENERATIONS, KEYS, assert_equal, make_row, spoil

from stores import GenerationInUseError, StoreLockedError, open_store
from stores.formats import FORMATS, shard_format

KINDS = ["memory", *(f"{name}-{how}" for name in sorted(FORMATS) for how in ("none", "zstd"))]

on_disk = precondition(lambda self: not self.in_memory)


class StoreMachine(WritingMachine):
    """Damage, crashes and readers beside what the other does."""

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

    @rule(mend=st.sampled_from(["forget", "repair", ""]))
    def verify(self, mend: str) -> None:
        """Name the lost rows, and perhaps make them missing, so that they can be made again."""
        _, lost = self.model.split()
        problems = self.generation.repair() if mend == "repair" else self.generation.verify()
        named = {key for problem in problems for key in problem.row_keys}
        assert named == {KEYS[number] for number in lost}
        assert all(problem.row_keys for problem in problems)
        if mend == "repair":
            for number in lost:
                del self.model.rows[number]
        elif mend:
            self.forget(lost)

    @rule()
    def remove_leftovers(self) -> None:
        """Remove shards without rows, unless somebody may be reading them."""
        for leftovers in self.store.leftovers():
            which = self.which(leftovers)
            if which in self.read:
                with pytest.raises(GenerationInUseError):
                    self.store.remove_leftovers(leftovers)
            else:
                self.store.remove_leftovers(leftovers)
                if which >= 0:
                    self.models[which].drop_empty_shards()

    @rule(which=st.integers(0, len(GENERATIONS) - 1))
    def remove_generation(self, which: int) -> None:
        if which in self.read:
            with pytest.raises(GenerationInUseError):
                self.store.remove(*GENERATIONS[which][:2])
        elif self.models.pop(which, None):
            self.store.remove(*GENERATIONS[which][:2])
        self.choose_generation(self.current)

    def which(self, found: Any) -> int:
        names = [(stage, key) for stage, key, _ in GENERATIONS]
        return names.index((found.stage, found.key)) if found.stage else -1

    @property
    def read(self) -> set[int]:
        return {which for _, which, _ in self.readers}

    # ---- opening again

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.come_back()

    @on_disk
    @rule()
    def kill(self) -> None:
        """Leave the folder as a process leaves it that dies now."""
        spare = self.folder / "spare"
        shutil.copytree(self.root, spare)
        self.store.close()
        shutil.rmtree(self.root)
        spare.rename(self.root)
        self.come_back()

    @on_disk
    @rule()
    def lose_manifest(self) -> None:
        self.store.close()
        (self.root / "manifest.sqlite").unlink()
        for model in self.models.values():
            model.rebuild()
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

    @on_disk
    @rule()
    def open_reader(self) -> None:
        stage, key, _ = GENERATIONS[self.current]
        reader = open_store(self.root, verify_every_read=True).generation(stage, key)
        assert len(reader) == len(self.model.rows)  # now it has looked
        self.readers.append((reader, self.current, copy.deepcopy(self.model.rows)))

    @on_disk
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
        infos = {self.which(info): info for info in self.store.generations()}
        assert infos.keys() == self.models.keys()
        for which, info in infos.items():
            model = self.models[which]
            assert (info.rows, info.failures) == (len(model.rows), len(model.failures))
        assert self.store.check() == []

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
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_a_dict(kind: str) -> None:
    check(kind, examples=8 if kind.endswith("zstd") else 30, steps=25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_a_dict_for_long(kind: str) -> None:
    check(kind, examples=60, steps=50)
