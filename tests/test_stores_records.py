import math
import pickle

import numpy as np
import pytest
from store_suite import SPECS, make_failure, make_key, make_row

from stores import ArraySpec, Failure, MissingRowsError, Receipt, RowInfo
from stores.checks import rows_per_shard
from stores.records import check_specs, name_some


def test_row_nbytes_by_hand() -> None:
    assert ArraySpec(("t", "y"), (3, 5), "float16").row_nbytes == 30
    assert ArraySpec((), (), "int32").row_nbytes == 4


def test_specs_survive_json_and_pickle() -> None:
    spec = ArraySpec(["t"], [np.int64(3)], "uint8", "px", "boxes", {"frame": ("native", 1)})  # type: ignore[arg-type]
    assert spec.attributes == {"frame": ["native", 1]}
    assert ArraySpec.from_json(spec.to_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(ArraySpec(("t",), (3,), "uint8", "px", "boxes"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("t",), (3, 4), "uint8"), "expected one per axis"),
        ((("t", "t"), (3, 4), "uint8"), "different names"),
        ((("row",), (3,), "uint8"), "none of them 'row'"),
        ((("T",), (3,), "uint8"), "got dim name 'T'"),
        ((("t",), (0,), "uint8"), "sizes of at least 1"),
        (((), (), "bool"), "got dtype 'bool', expected one of bfloat16"),
        (((), (), ">f4"), "got dtype '>f4'"),
        (((), (), "uint8", "", "", {"units": "px"}), r"got attributes \['units'\]"),
        (((), (), "uint8", "", "", {"x": math.nan}), "not JSON compliant"),
    ],
)
def test_bad_specs_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArraySpec(*arguments)  # type: ignore[arg-type]


def test_outputs_of_a_generation_share_their_dims() -> None:
    same = {"a": ArraySpec(("t",), (3,), "uint8"), "b": ArraySpec(("t",), (3,), "float32")}
    assert check_specs(same) == same
    with pytest.raises(ValueError, match="dim 't' of size 4 in output 'c' and of size 3"):
        check_specs({**same, "c": ArraySpec(("t",), (4,), "uint8")})
    with pytest.raises(ValueError, match="got no outputs"):
        check_specs({})
    with pytest.raises(ValueError, match="got output name 'a/b'"):
        check_specs({"a/b": same["a"]})


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x85", "\ud800", "\u00e9" * 128])
@pytest.mark.parametrize("field", ["clip_id", "video_id", "segment_id", "flags"])
def test_ids_hold_no_control_characters_and_at_most_255_bytes(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"got {field}"):
        RowInfo(**{"clip_id": "clip", field: text})  # type: ignore[arg-type]


def test_ids_may_be_any_other_text() -> None:
    assert RowInfo("\u00e9" * 127, "../\U0001f600", "<b>").clip_id == "\u00e9" * 127


def test_bad_infos_are_refused() -> None:
    with pytest.raises(ValueError, match="empty clip_id"):
        RowInfo("")
    with pytest.raises(TypeError, match="got clip_id 7 of type int"):
        RowInfo(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got last_seconds nan for clip 'a'"):
        RowInfo("a", last_seconds=math.nan)


def test_infos_become_plain_values() -> None:
    info = RowInfo("a", view=np.int64(2), first_seconds=np.float32(0.5))  # type: ignore[arg-type]
    assert info.to_json() == ["a", "", "", 2, 0.5, 0.0, ""]
    assert type(info.view) is int
    assert RowInfo.from_json(info.to_json()) == info


def test_row_keys_are_checked() -> None:
    with pytest.raises(ValueError, match=r"got row key '\.\./x'"):
        type(make_row(1))("../x", {}, RowInfo("a"))
    with pytest.raises(ValueError, match="got row key ''"):
        Failure("", "a", "b", "c", "d")


def test_failures_take_any_message() -> None:
    failure = Failure(make_key(1), "a", "b", "OSError", "no \udc80 file \0")
    assert failure.message == "no \\udc80 file \\x00"
    assert make_failure(1).message == "no\nframe"


def test_receipts_survive_json() -> None:
    info = RowInfo("a", "v", "s", 1, 0.1, 4.1, "clamped")
    receipt = Receipt("verb", make_key(1), 3, {0: (make_key(2), info)}, 99, {"map": 2**32 - 1})
    assert Receipt.from_json(receipt.to_json()) == receipt
    bad = {**receipt.to_json(), "slots": [[0, "xyz", info.to_json()]]}
    with pytest.raises(ValueError, match="got row key 'xyz'"):
        Receipt.from_json(bad)


@pytest.mark.parametrize(
    ("nbytes", "mib", "rows"),
    [(2**20, 32, 32), (2**20 + 1, 32, 31), (2**26, 32, 1), (4, 32, 4096), (2**19, 0.5, 1)],
)
def test_rows_per_shard_by_hand(nbytes: int, mib: float, rows: int) -> None:
    assert rows_per_shard({"a": ArraySpec(("x",), (nbytes,), "uint8")}, mib) == rows


def test_rows_per_shard_counts_all_outputs() -> None:
    assert rows_per_shard(SPECS, 79 * 10 / 2**20) == 10  # 24 + 48 + 3 + 4 bytes a row
    with pytest.raises(ValueError, match="got shard_mib 0"):
        rows_per_shard(SPECS, 0)


def test_name_some() -> None:
    assert name_some(["a"]) == "'a'"
    assert name_some(list("abcde")) == "'a', 'b', 'c' and 2 more"


def test_missing_rows_error_survives_pickling() -> None:
    error = MissingRowsError("verb", [make_key(1)])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
