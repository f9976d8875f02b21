"""Names of error classes, which people type and programs match."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_pages import table_rows

from extractors.video import (
    FrameDecodeError,
    TruncatedVideo,
    UnreadableVideo,
    VideoChanged,
    VideoVanished,
)
from pipeline.decode_pool import DecoderDied, DecoderHung
from pipeline.error_classes import ERROR_CLASSES, class_name, of_classes
from pipeline.errors import ConfigError
from stores.base import Failure, RefusedRowError

PAGE = Path(__file__).parent.parent / "docs" / "extraction.md"


def failure(error_class: str) -> Failure:
    return Failure("0" * 64, "v/1/0", "v", error_class, "no")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (FrameDecodeError, "decode_error"),
        (TruncatedVideo, "truncated_video"),
        (UnreadableVideo, "unreadable_video"),
        (VideoChanged, "video_changed"),
        (VideoVanished, "video_vanished"),
        (DecoderHung, "decoder_hung"),
        (DecoderDied, "decoder_died"),
        (ValueError, "bad_input"),
        (RefusedRowError, "not_finite"),
        (OverflowError, "not_finite"),
        (MemoryError, "out_of_memory"),
        (ZeroDivisionError, "zero_division_error"),
    ],
)
def test_exceptions_have_names(error: type[Exception], name: str) -> None:
    assert class_name(error.__name__) == name
    assert class_name(name) == name


def test_names_of_the_unknown_are_spelt_like_the_others() -> None:
    assert [class_name(name) for name in ("CUDAError", "IOFault2Big", "odd")] == [
        "cuda_error",
        "io_fault2_big",
        "odd",
    ]


def test_choosing_by_class() -> None:
    found = [failure("FrameDecodeError"), failure("OddThing"), failure("MemoryError")]
    assert of_classes(found, ()) == found
    assert of_classes(found, ["odd_thing", "decode_error"]) == found[:2]
    assert of_classes(found, ["decoder_hung"]) == []
    with pytest.raises(ConfigError, match=r"got decode_eror, worse, expected one of bad_input, .*"):
        of_classes(found, ["worse", "decode_eror", "odd_thing"])


def test_the_documentation_lists_them_all() -> None:
    rows = [row[0].strip("`") for row in table_rows(PAGE.read_text())]
    assert [name for name in rows if name in ERROR_CLASSES] == list(ERROR_CLASSES)
