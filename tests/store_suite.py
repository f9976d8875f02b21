"""What every store backend must do; each backend's tests subclass `StoreSuite`.

A subclass says how to make a store, how to get the same store again, and how to reach the stored
bytes of a row without going through the store.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import (
    ArraySpec,
    CorruptRowError,
    Failure,
    FeatureStore,
    MissingGenerationError,
    MissingRowsError,
    Receipt,
    Row,
    RowInfo,
    Store,
)
from stores.row_keys import packed_array

STAGE = "objects"
SPECS = {
    "features": ArraySpec(
        ("object", "channel"), (3, 4), "float16", "1", "pooled", {"layer": "fc7"}
    ),
    "boxes_xyxy_px": ArraySpec(("object", "corner"), (3, 4), "float32", "px"),
    "mask": ArraySpec(("object",), (3,), "uint8"),
    "count": ArraySpec((), (), "int32"),
}
ROW_NBYTES = 3 * 4 * 2 + 3 * 4 * 4 + 3 + 4
TEN_ROWS_MIB = 10.5 * ROW_NBYTES / 2**20


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Yield an empty folder, in memory where that is possible: a store syncs all it writes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def make_key(number: int) -> str:
    """Return a row or stage key; 251 is prime to 256, so keys differ in all their bytes."""
    return (
        bytes((number * 251 + place * place) % 256 for place in range(30)).hex() + f"{number:04x}"
    )


def make_arrays(number: int) -> dict[str, Any]:
    """Return the values of row `number`, all of them exact in float16."""
    return {
        "features": np.arange(12, dtype=np.float16).reshape(3, 4) + np.float16(number),
        "boxes_xyxy_px": np.full((3, 4), number / 3, np.float32),
        "mask": np.array([1, 0, number % 2], np.uint8),
        "count": np.int32(number),
    }


def make_row(number: int, **changes: Any) -> Row:
    """Return row `number`, with some of its arrays changed."""
    info = RowInfo(f"P01_{number}", "P01", "seg", number % 3, number / 2, number / 2 + 4, "clamped")
    return Row(make_key(number), {**make_arrays(number), **changes}, info)


def make_rows(*numbers: int) -> list[Row]:
    return [make_row(number) for number in numbers]


def make_failure(number: int) -> Failure:
    return Failure(make_key(number), f"P01_{number}", "P01", "DecodeError", "no\nframe", 7)


def assert_rows(reader: Any, numbers: list[int]) -> None:
    """Assert that the reader gives exactly these rows, in this order."""
    arrays = reader.read([make_key(number) for number in numbers])
    assert list(arrays) == list(SPECS)
    for name, array in arrays.items():
        expected = np.stack([make_arrays(number)[name] for number in numbers])
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


class StoreSuite(ABC):
    """The tests; `store` and `made` are fixtures made from the hooks below."""

    compression = "none"

    @abstractmethod
    def make_store(self, folder: Path) -> Store:
        """Return a new, writable store."""

    @abstractmethod
    def reopen(self, store: Store) -> Store:
        """Close the store and return it opened again for writing."""

    @abstractmethod
    def raw_get(self, made: FeatureStore, output: str, number: int) -> bytes:
        """Return the stored values of a row, not through the store."""

    @abstractmethod
    def raw_set(self, made: FeatureStore, output: str, number: int, data: bytes) -> None:
        """Overwrite the stored values of a row, not through the store."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        with fast_folder() as folder:
            self.opened = [self.make_store(folder / "store")]
            yield self.opened[0]
            for store in self.opened:
                store.close()

    def again(self, store: Store) -> Store:
        """Return the store opened again; closed when the test ends."""
        self.opened.append(self.reopen(store))
        return self.opened[-1]

    @pytest.fixture
    def made(self, store: Store) -> FeatureStore:
        return store.generation(
            STAGE,
            make_key(1000),
            SPECS,
            {"a": 1},
            shard_mib=TEN_ROWS_MIB,
            compression=self.compression,
        )

    # ---- reading what was written

    def test_a_new_generation_is_empty(self, made: FeatureStore) -> None:
        assert (len(made), made.keys(), made.failures(), made.verify()) == (0, [], [], [])
        assert made.missing([make_key(1), make_key(0)]) == [make_key(1), make_key(0)]
        assert {name: array.shape for name, array in made.read([]).items()} == {
            "features": (0, 3, 4),
            "boxes_xyxy_px": (0, 3, 4),
            "mask": (0, 3),
            "count": (0,),
        }

    def test_ten_rows_fit_a_shard_of_their_size(self, made: FeatureStore) -> None:
        assert made.rows_per_shard == 10

    def test_rows_come_back_in_the_order_asked_for(self, made: FeatureStore) -> None:
        receipts = made.append(make_rows(*range(25)))
        assert [len(receipt.slots) for receipt in receipts] == [10, 10, 5]
        assert_rows(made, [24, 0, 9, 10, 0, 24, 11])
        assert len(made) == 25
        assert made.keys() == [make_key(number) for number in range(25)]

    def test_raw_bytes_are_the_little_endian_values(self, made: FeatureStore) -> None:
        made.append(make_rows(4, 5))
        expected = (np.arange(12) + 5).astype("<f2").tobytes()
        assert self.raw_get(made, "features", 5) == expected
        assert self.raw_get(made, "count", 5) == b"\x05\0\0\0"

    def test_missing_keeps_the_order_and_names_each_key_once(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 3))
        asked = [make_key(number) for number in (5, 1, 2, 3, 2, 5)]
        assert made.missing(asked) == [make_key(5), make_key(2)]
        assert made.missing(iter(asked)) == [make_key(5), make_key(2)]

    def test_packed_keys_are_looked_up_by_the_batch(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 256, 3))
        asked = [make_key(number) for number in (3, 2, 256, 0, 3)]
        assert made.holds(packed_array(asked)).tolist() == [True, False, True, False, True]
        assert made.holds(packed_array([])).tolist() == []
        made.forget([make_key(3)])
        made.append(make_rows(0))
        assert made.holds(packed_array(asked)).tolist() == [False, False, True, True, False]
        with pytest.raises(ValueError, match="expected packed ones of S32"):
            made.holds(np.array([b"short"]))

    def test_read_some_outputs(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 2))
        arrays = made.read([make_key(2)], outputs=["count", "mask"])
        assert list(arrays) == ["count", "mask"]
        assert arrays["count"].tolist() == [2]

    def test_read_into_given_arrays(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 2))
        out: dict[str, Any] = {
            "count": np.full(2, -1, np.int32),
            "features": np.zeros((2, 3, 4), np.float16),
        }
        arrays = made.read([make_key(2), make_key(1)], out=out)
        assert arrays["count"] is out["count"]
        assert out["count"].tolist() == [2, 1]
        assert out["features"][:, 0, 0].tolist() == [2, 1]

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros(2, np.int64), "expected int32"),
            (np.zeros(3, np.int32), r"expected int32 \(2,\)"),
            (np.zeros(4, np.int32)[::2], "not C-contiguous and writable"),
        ],
    )
    def test_read_refuses_arrays_that_do_not_fit(
        self, made: FeatureStore, array: Any, message: str
    ) -> None:
        made.append(make_rows(1, 2))
        with pytest.raises(ValueError, match=message):
            made.read([make_key(1), make_key(2)], out={"count": array})

    def test_read_refuses_read_only_arrays(self, made: FeatureStore) -> None:
        made.append(make_rows(1))
        array = np.zeros(1, np.int32)
        array.setflags(write=False)
        with pytest.raises(ValueError, match="writable"):
            made.read([make_key(1)], out={"count": array})

    def test_read_refuses_unknown_outputs(self, made: FeatureStore) -> None:
        with pytest.raises(ValueError, match="'flow', expected one of"):
            made.read([], outputs=["flow"])
        with pytest.raises(ValueError, match="no array for output 'mask'"):
            made.read([], outputs=["mask"], out={})

    def test_reading_missing_rows_names_them(self, made: FeatureStore) -> None:
        made.append(make_rows(0))
        keys = [make_key(number) for number in range(6)]
        with pytest.raises(MissingRowsError) as caught:
            made.read(keys)
        assert isinstance(caught.value, KeyError)
        assert caught.value.row_keys == keys[1:]
        assert "got 5 row keys" in str(caught.value)
        assert f"'{keys[3]}' and 2 more" in str(caught.value)

    @pytest.mark.parametrize("key", ["", "ab", "G" * 64, "AB" * 32, " " + "a" * 63, "a" * 65])
    def test_row_keys_are_64_hex_digits(self, made: FeatureStore, key: str) -> None:
        for ask in (made.missing, made.read):
            with pytest.raises(ValueError, match="expected 64 lower-case hex digits"):
                ask([key])

    # ---- writing and committing

    def test_written_rows_exist_only_when_committed(self, made: FeatureStore) -> None:
        receipt = made.write_shard(made.reserve_shards(1), make_rows(1))
        assert made.missing([make_key(1)]) == [make_key(1)]
        made.commit([receipt])
        assert_rows(made, [1])

    def test_shards_are_committed_in_any_order(self, made: FeatureStore) -> None:
        first = made.reserve_shards(3)
        receipts = [
            made.write_shard(first + 2, make_rows(1, 2)),
            made.write_shard(first, make_rows(3)),
        ]
        made.commit(receipts[:1])
        assert_rows(made, [2, 1])
        made.commit(receipts[1:])
        assert made.keys() == [make_key(number) for number in (3, 1, 2)]
        assert made.verify() == []

    def test_shard_writer_gives_receipts_that_survive_json(self, made: FeatureStore) -> None:
        receipt = made.shard_writer().write_shard(made.reserve_shards(1), make_rows(1, 2))
        again = Receipt.from_json(receipt.to_json())
        assert again == receipt
        made.commit([again])
        assert_rows(made, [1, 2])

    def test_committing_twice_is_committing_once(self, made: FeatureStore) -> None:
        receipts = made.append(make_rows(1, 2))
        made.commit(receipts)
        made.commit([*receipts, *receipts])
        assert len(made) == 2
        assert_rows(made, [1, 2])

    def test_the_first_of_two_equal_keys_stays(self, made: FeatureStore) -> None:
        made.append(make_rows(1))
        made.append([make_row(1, count=np.int32(99)), make_row(2)])
        assert len(made) == 2
        assert_rows(made, [1, 2])

    def test_a_receipt_that_names_a_row_twice_commits_it_once(
        self, store: Store, made: FeatureStore
    ) -> None:
        twice = dict.fromkeys(range(2), (make_key(2), make_rows(2)[0].info))
        receipt = made.write_shard(made.reserve_shards(1), make_rows(2, 3))
        made.commit([replace(receipt, slots=twice)])
        again = self.again(store).generation(STAGE, make_key(1000))
        for reader in (made, again):
            assert reader.missing([make_key(2), make_key(3)]) == [make_key(3)]
            assert_rows(reader, [2])

    def test_shard_numbers_are_never_given_twice(self, store: Store, made: FeatureStore) -> None:
        assert [made.reserve_shards(2), made.reserve_shards(0), made.reserve_shards(1)] == [0, 2, 2]
        again = self.again(store).generation(STAGE, make_key(1000))
        assert again.reserve_shards(1) == 3

    def test_a_shard_is_written_once(self, made: FeatureStore) -> None:
        shard = made.reserve_shards(1)
        receipt = made.write_shard(shard, make_rows(1))
        with pytest.raises(FileExistsError, match="reserve another"):
            made.write_shard(shard, make_rows(2))
        made.commit([receipt])
        assert_rows(made, [1])

    def test_receipts_must_be_of_this_generation(self, store: Store, made: FeatureStore) -> None:
        other = store.generation(STAGE, make_key(1001), SPECS)
        receipt = other.write_shard(other.reserve_shards(1), make_rows(1))
        made.reserve_shards(1)
        with pytest.raises(ValueError, match="got a receipt of stage 'objects'"):
            made.commit([receipt])

    def test_receipts_must_be_for_reserved_shards(self, made: FeatureStore) -> None:
        receipt = made.write_shard(5, make_rows(1))
        with pytest.raises(ValueError, match="receipt for shard 5"):
            made.commit([receipt])
        assert len(made) == 0

    def test_receipts_must_be_for_written_shards(self, made: FeatureStore) -> None:
        shard = made.reserve_shards(2)
        receipt = made.write_shard(shard, make_rows(1))
        absent = Receipt.from_json({**receipt.to_json(), "shard": shard + 1})
        with pytest.raises(FileNotFoundError, match="receipt for"):
            made.commit([receipt, absent])
        assert len(made) == 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"count": np.int64(1)}, "output 'count': got dtype int64, expected int32"),
            ({"mask": np.ones(4, np.uint8)}, r"got shape \(4,\), expected \(3,\)"),
            ({"features": np.zeros((3, 4), ">f2")}, "got dtype >f2, expected float16"),
            ({"extra": np.int32(0)}, "expected \\['boxes_xyxy_px', 'count'"),
        ],
    )
    def test_write_refuses_values_that_do_not_fit(
        self, made: FeatureStore, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=f"stage 'objects', clip 'P01_7'.*{message}"):
            made.append([make_row(6), make_row(7, **changes)])
        assert made.missing([make_key(6)]) == [make_key(6)]

    @pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["features", "boxes_xyxy_px"])
    def test_write_refuses_nan_and_inf(self, made: FeatureStore, name: str, value: float) -> None:
        array = make_arrays(7)[name]
        array[2, 1] = value
        with pytest.raises(ValueError, match=f"'P01_7', output '{name}': got NaN or Inf"):
            made.append([make_row(7, **{name: array})])

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_and_inf_are_known_in_every_dtype(
        self, store: Store, dtype: str, value: float
    ) -> None:
        spec = ArraySpec(("t",), (2,), dtype)
        made = store.generation("verb", make_key(1), {"map": spec})
        row = Row(make_key(1), {"map": np.array([value, 1], spec.numpy_dtype)}, RowInfo("P01_1"))
        with pytest.raises(ValueError, match=r"stage 'verb', clip 'P01_1'.*got NaN or Inf"):
            made.append([row])

    def test_bfloat16_comes_back_as_bfloat16(self, store: Store) -> None:
        spec = ArraySpec(("t",), (2,), "bfloat16")
        made = store.generation("verb", make_key(1), {"map": spec}, None, 1, self.compression)
        values = np.array([-2.5, 3e38], spec.numpy_dtype)
        made.append([Row(make_key(1), {"map": values}, RowInfo("P01_1"))])
        found = made.read([make_key(1)])["map"]
        assert found.dtype == spec.numpy_dtype
        assert found.tobytes() == values.tobytes()

    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_largest_floats_are_finite(self, made: FeatureStore, sign: int) -> None:
        array = np.full((3, 4), sign * np.finfo(np.float16).max, np.float16)
        made.append([make_row(7, features=array)])
        np.testing.assert_array_equal(made.read([make_key(7)])["features"][0], array)

    def test_write_refuses_what_is_no_array(self, made: FeatureStore) -> None:
        with pytest.raises(TypeError, match="got int, expected a numpy array"):
            made.append([make_row(7, count=3)])

    def test_write_refuses_too_many_rows_and_none(self, made: FeatureStore) -> None:
        shard = made.reserve_shards(1)
        with pytest.raises(ValueError, match=r"got 11 rows .* expected 1 to 10"):
            made.write_shard(shard, make_rows(*range(11)))
        with pytest.raises(ValueError, match="got 0 rows"):
            made.write_shard(shard, [])
        with pytest.raises(ValueError, match="a row key twice"):
            made.write_shard(shard, make_rows(1, 1))

    def test_appending_nothing_does_nothing(self, made: FeatureStore) -> None:
        assert made.append([]) == []
        assert made.reserve_shards(1) == 0

    def test_arrays_need_not_be_contiguous(self, made: FeatureStore) -> None:
        wide = np.arange(24, dtype=np.float16).reshape(3, 8)
        made.append([make_row(7, features=wide[:, ::2])])
        np.testing.assert_array_equal(made.read([make_key(7)])["features"][0], wide[:, ::2])

    def test_ids_are_free_text(self, made: FeatureStore) -> None:
        row = Row(
            make_key(1), make_arrays(1), RowInfo('../a/"b",\u00e9\U0001f600<script>', "v/../w")
        )
        made.append([row])
        assert_rows(made, [1])

    def test_rows_say_what_they_are_about(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 2))
        assert made.infos([make_key(2), make_key(1)]) == [
            row.info for row in (*make_rows(2), *make_rows(1))
        ]
        with pytest.raises(MissingRowsError):
            made.infos([make_key(1), make_key(9)])

    # ---- failures and forgetting

    def test_failures_are_kept_until_the_row_is_made(self, made: FeatureStore) -> None:
        made.commit([], [make_failure(1), make_failure(2)])
        assert sorted(made.failures(), key=lambda failure: failure.clip_id) == [
            make_failure(1),
            make_failure(2),
        ]
        assert made.missing([make_key(1)]) == [make_key(1)]
        made.append(make_rows(1))
        assert made.failures() == [make_failure(2)]
        made.commit([], [make_failure(1)])
        assert made.failures() == [make_failure(2)]
        made.clear_failures([make_key(2), make_key(3)])
        assert made.failures() == []

    def test_a_later_failure_replaces_an_earlier_one(self, made: FeatureStore) -> None:
        made.commit([], [make_failure(1)])
        later = Failure(make_key(1), "P01_1", "P01", "OSError", "gone")
        made.commit([], [later])
        assert made.failures() == [later]

    def test_forgotten_rows_are_missing_and_can_be_made_again(self, made: FeatureStore) -> None:
        made.append(make_rows(1, 2))
        made.forget([make_key(2), make_key(9)])
        assert made.missing([make_key(1), make_key(2)]) == [make_key(2)]
        made.append([make_row(2)])
        assert_rows(made, [1, 2])
        assert made.verify() == []

    # ---- damage

    @pytest.mark.parametrize("name", list(SPECS))
    def test_damage_is_noticed_and_named(self, store: Store, made: FeatureStore, name: str) -> None:
        made.append(make_rows(1, 2, 3))
        data = bytearray(self.raw_get(made, name, 2))
        data[-1] ^= 0x10
        self.raw_set(made, name, 2, bytes(data))
        made = self.again(store).generation(STAGE, make_key(1000))
        with pytest.raises(CorruptRowError, match=f"stage 'objects', output '{name}'.*P01_2"):
            made.read([make_key(number) for number in (1, 2, 3)])
        assert_rows(made, [1, 3])
        (problem,) = made.verify()
        assert problem.row_keys == (make_key(2),)
        assert "P01_2" in str(problem)
        made.forget(problem.row_keys)
        made.append(make_rows(2))
        assert made.verify() == []
        assert_rows(made, [1, 2, 3])

    # ---- generations

    def test_generations_lie_side_by_side(self, store: Store, made: FeatureStore) -> None:
        made.append(make_rows(1, 2))
        other = store.generation("verb", make_key(1001), {"map": ArraySpec((), (), "float32")})
        other.append([Row(make_key(1), {"map": np.array(4, np.float32)}, RowInfo("P01_1"))])
        other.commit([], [make_failure(2)])
        assert other.read([make_key(1)])["map"].tolist() == [4]
        assert_rows(made, [1, 2])
        infos = store.generations()
        assert [(info.stage, info.key, info.rows, info.failures) for info in infos] == [
            (STAGE, make_key(1000), 2, 0),
            ("verb", make_key(1001), 1, 1),
        ]
        assert infos[0].path == made.path
        assert infos[0].nbytes >= 2 * ROW_NBYTES

    def test_an_existing_generation_needs_no_specs(self, store: Store, made: FeatureStore) -> None:
        made.append(make_rows(1))
        again = self.again(store).generation(STAGE, make_key(1000))
        assert again.specs == SPECS
        assert again.rows_per_shard == 10
        assert_rows(again, [1])

    def test_a_generation_keeps_its_specs(self, store: Store, made: FeatureStore) -> None:
        assert store.generation(STAGE, make_key(1000), SPECS).rows_per_shard == 10
        for target in (store, self.again(store)):
            with pytest.raises(ValueError, match="got specs"):
                target.generation(STAGE, make_key(1000), {"count": SPECS["count"]})

    def test_unknown_generations_are_an_error(self, store: Store) -> None:
        with pytest.raises(MissingGenerationError, match="got stage 'verb'"):
            store.generation("verb", make_key(1))

    @pytest.mark.parametrize("stage", ["", "Verb", "../x", "a/b", ".a", "1a", "a" * 65])
    def test_stage_names_are_plain_words(self, store: Store, stage: str) -> None:
        with pytest.raises(ValueError, match="got stage name"):
            store.generation(stage, make_key(1), SPECS)

    def test_stage_keys_are_64_hex_digits(self, store: Store) -> None:
        with pytest.raises(ValueError, match="got stage key 'ab'"):
            store.generation("verb", "ab", SPECS)
