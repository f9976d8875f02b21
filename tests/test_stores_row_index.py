import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.row_index import RowIndex, pack_keys

# Few different keys, among them neighbours and keys that end in zero bytes.
KEYS = [f"{number:064x}" for number in (0, 1, 2, 255, 256, 2**255, 2**255 + 1)] + ["f" * 62 + "00"]
BATCHES = st.lists(st.lists(st.sampled_from(KEYS), max_size=6), max_size=6)


@given(BATCHES, st.lists(st.sampled_from(KEYS)), st.lists(st.sampled_from(KEYS)))
def test_index_is_a_dict_that_keeps_the_first(
    batches: list[list[str]], gone: list[str], asked: list[str]
) -> None:
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
    assert index.keys() == sorted(expected, key=lambda key: expected[key])
    assert len(index) == len(expected)
    assert index.end == max(expected.values(), default=-1) + 1


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
