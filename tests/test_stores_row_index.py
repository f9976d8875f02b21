import re
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stores.row_index
from stores.row_index import RowIndex
from stores.row_keys import key_texts, pack_keys, packed_array

# Few different keys, among them neighbours, keys that end in zero bytes, and such that differ only
# in what numpy does not show.
NUMBERS = (0, 1, 2, 255, 256, 2**248, 2**255, 2**255 + 1, 2**255 + 2**8)
KEYS = [f"{number:064x}" for number in NUMBERS] + ["f" * 62 + "00", "f" * 60 + "0000"]
BATCHES = st.lists(st.lists(st.sampled_from(KEYS), max_size=6), max_size=6)


@given(
    BATCHES,
    st.lists(st.sampled_from(KEYS)),
    st.lists(st.sampled_from(KEYS)),
    st.sampled_from((0, 2, 9)),
)
def test_index_is_a_dict_that_keeps_the_first(
    batches: list[list[str]], gone: list[str], asked: list[str], max_recent: int
) -> None:
    with mock.patch.object(stores.row_index, "_MAX_RECENT", max_recent):
        check_index(batches, gone, asked)


def check_index(batches: list[list[str]], gone: list[str], asked: list[str]) -> None:
    index, expected, number = RowIndex(), dict[str, int](), 0
    for batch in batches:
        numbers = list(range(number, number + len(batch)))
        index.add(pack_keys(batch), numbers)
        for key, value in zip(batch, numbers, strict=True):
            expected.setdefault(key, value)
        number += len(batch)
    for key in gone:
        expected.pop(key, None)
    index.remove(gone)
    assert index.numbers_of(asked).tolist() == [expected.get(key, -1) for key in asked]
    assert index.numbers_of_packed(packed_array(asked)[::-1]).tolist()[::-1] == numbers_in(
        index, asked
    )
    assert index.keys() == sorted(expected, key=lambda key: expected[key])
    again = RowIndex.of_sorted(*index.rows())
    assert numbers_in(again, asked) == numbers_in(index, asked)
    assert len(index) == len(expected)
    assert index.end == max(expected.values(), default=-1) + 1


def numbers_in(index: RowIndex, asked: list[str]) -> list[int]:
    numbers: list[int] = index.numbers_of(asked).tolist()
    return numbers


def test_many_keys_are_found() -> None:
    generator = np.random.default_rng(0)
    keys = key_texts(np.frombuffer(generator.bytes(32 * 40_000), "S32"))
    index, rest = RowIndex(pack_keys(keys[:20_000]), range(20_000)), keys[20_000:]
    for start in range(0, len(rest), 3_000):
        some = rest[start : start + 3_000]
        index.add(pack_keys(some), [20_000 + start + place for place in range(len(some))])
    asked = [keys[place] for place in generator.permutation(40_000)]
    expected = {key: number for number, key in enumerate(keys)}
    assert numbers_in(index, asked) == [expected[key] for key in asked]
    assert numbers_in(index, [key[::-1] for key in asked[:100]]) == [-1] * 100


@pytest.mark.parametrize("keys", [["ab" * 32], np.empty(3, "S31"), np.empty((3, 1), "S32")])
def test_packed_keys_are_of_one_dtype_and_shape(keys: Any) -> None:
    with pytest.raises(ValueError, match="expected packed ones of S32"):
        RowIndex().numbers_of_packed(np.asarray(keys))


KEY = "0f" * 32


@pytest.mark.parametrize(
    "bad",
    [KEY.upper(), KEY[:-2], KEY + "0f", KEY[:-2] + " 0", KEY[:-2] + "0g", KEY[:-1] + "é", 7],
)
def test_a_key_among_others_that_is_none_is_named(bad: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(bad))):
        pack_keys([KEY, bad, KEY])


def test_keys_whose_lengths_make_up_for_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 64"):
        pack_keys([KEY[:-2], KEY + "0f"])


def test_keys_are_packed_one_after_the_other() -> None:
    assert pack_keys([KEY, "ab" * 32]) == b"\x0f" * 32 + b"\xab" * 32
    assert pack_keys(iter(())) == b""


def test_packed_keys_can_be_unpacked() -> None:
    assert key_texts(packed_array(KEYS)) == KEYS
    assert key_texts(packed_array(KEYS)[::2]) == KEYS[::2]
    assert key_texts(packed_array([])) == []
