from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.keys import canonical_json, derived_row_keys, row_key, stage_key
from stores.row_keys import key_texts, packed_array

SETTINGS = {"stage": "verb", "version": 1, "size_px": 256, "rate": 60.0, "names": ["é", None, True]}
TIMES = np.array([-500_000, 0, 1_000_000], dtype=np.int64)


def test_a_stage_key_written_down_by_hand() -> None:
    text = (
        '{"names":["\\u00e9",null,true],"rate":60.0,"schema":1,"size_px":256,'
        '"stage":"verb","version":1}'
    )
    expected = "6aeb8fa3eafd6ac8a7af36b246b560f41935be3224ae92412c6cdc7a67726208"
    assert hashlib.sha256(text.encode()).hexdigest() == expected
    assert stage_key(SETTINGS) == expected


def derived_row_key(*upstream: str) -> str:
    """The key of one row made from others."""
    (key,) = key_texts(derived_row_keys([(packed_array(upstream), np.arange(len(upstream))[None])]))
    return key


def test_a_row_key_written_down_by_hand() -> None:
    # Two's complement, least significant byte first: -500,000 = ffffffff fff85ee0.
    times = bytes.fromhex("e05ef8ffffffffff" + "0000000000000000" + "40420f0000000000")
    expected = "3de262a47a4e635f69048d3d652b113842715982266eb105b48c579d26e1990e"
    content = b"symbio row\0" + b"ab" * 32 + b"\0" + times + b"\0"
    assert hashlib.sha256(content).hexdigest() == expected
    assert row_key("ab" * 32, TIMES) == expected


def test_a_derived_row_key_written_down_by_hand() -> None:
    expected = "1838434d64ee4ef67970789d6fd2b211f5384f1f6b768acd8736c248b97e4214"
    content = b"symbio derived row\0" + b"aa" * 32 + b"\0" + b"bb" * 32
    assert hashlib.sha256(content).hexdigest() == expected
    assert derived_row_key("aa" * 32, "bb" * 32) == expected


def test_the_order_of_settings_does_not_matter() -> None:
    assert stage_key(dict(reversed(SETTINGS.items()))) == stage_key(SETTINGS)


@pytest.mark.parametrize(
    "changed",
    [
        {"stage": "noun"},
        {"version": 2},
        {"size_px": 256.0},
        {"size_px": "256"},
        {"names": [None, "é", True]},
        {"names": ["é", None, 1]},
        {"more": None},
    ],
)
def test_every_setting_matters(changed: dict[str, object]) -> None:
    assert stage_key({**SETTINGS, **changed}) != stage_key(SETTINGS)


def test_what_a_row_key_depends_on() -> None:
    keys = [
        row_key("ab" * 32, TIMES),
        row_key("cd" * 32, TIMES),
        row_key("ab" * 32, TIMES + 1),
        row_key("ab" * 32, TIMES[::-1]),
        row_key("ab" * 32, TIMES[:2]),
        row_key("ab" * 32, TIMES, b"\0"),
        row_key("ab" * 32, TIMES, b"box"),
    ]
    assert len(set(keys)) == len(keys)


def test_a_row_key_does_not_depend_on_how_the_times_lie_in_memory() -> None:
    times = np.arange(6, dtype=np.int64) * 1000
    spread = np.repeat(times, 2)[::2]
    assert row_key("ab", spread) == row_key("ab", times)
    assert row_key("ab", times.astype(">i8")) == row_key("ab", times)
    assert row_key("ab", times.astype(np.int32)) == row_key("ab", times)


def test_derived_rows_depend_on_order_and_are_no_video_rows() -> None:
    first, second = "aa" * 32, "bb" * 32
    assert derived_row_key(first, second) != derived_row_key(second, first)
    assert derived_row_key(first, first) != derived_row_key(first)
    assert derived_row_key(first) != row_key(first, TIMES[:0])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(value=VALUES)
def test_canonical_json_is_json_and_plain_ascii(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_numbers_that_are_none_have_no_key(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


def test_objects_have_no_key() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        canonical_json({"a": {1, 2}})
