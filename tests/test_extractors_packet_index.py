"""Numbering frames by packets, and the plans made from it; all by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.packet_index import (
    PacketFacts,
    SeekPoint,
    first_picture_type,
    index_packets,
    is_disposable,
    nal_length_size,
    plan_runs,
)

IDR, SLICE, HEVC_CRA, HEVC_TRAIL = 5, 1, 21, 1


def packet(pts: int | None, picture_type: int | None = SLICE, **changes: object) -> PacketFacts:
    facts = PacketFacts(
        pts=pts,
        dts=pts,
        duration=10,
        is_key=picture_type != SLICE,
        is_discard=False,
        is_corrupt=False,
        picture_type=picture_type,
    )
    return facts._replace(**changes)


def test_frames_are_numbered_by_time_on_screen() -> None:
    index = index_packets([packet(0, IDR), packet(30), packet(10), packet(20)], "h264")
    assert index is not None
    assert index.pts.tolist() == [0, 10, 20, 30]
    assert index.end_pts == 40
    assert index.reorder_depth == 1
    assert index.seek_points == (SeekPoint(0, 0, 0),)


def test_a_pyramid_is_reordered_twice_as_deep() -> None:
    index = index_packets([packet(t, IDR) for t in (0, 40, 20, 10, 30, 50)], "h264")
    assert index is not None
    assert index.reorder_depth == 2


@pytest.mark.parametrize(("block", "depth"), [(5, 4), (17, 16), (18, 16), (500, 16)])
def test_a_decoder_is_never_told_to_hold_back_more_than_it_can(block: int, depth: int) -> None:
    times = [start + place for start in (0, block) for place in reversed(range(block))]
    index = index_packets([packet(10 * time) for time in times], "h264")
    assert index is not None
    assert index.reorder_depth == depth


def test_hidden_and_cut_off_packets_are_no_frames() -> None:
    packets = [
        packet(-20, IDR, is_discard=True),
        packet(0),
        packet(10, IDR),
        packet(20, is_corrupt=True),
    ]
    index = index_packets(packets, "h264")
    assert index is not None
    assert index.pts.tolist() == [0, 10]
    assert index.seek_points == (SeekPoint(1, 10, 10),)


@pytest.mark.parametrize("pts", [[0, None], [0, 10, 10], []])
def test_times_that_tell_nothing_apart_make_no_index(pts: list[int | None]) -> None:
    assert index_packets([packet(time) for time in pts], "h264") is None


def test_a_last_frame_of_unknown_length_lasts_a_usual_step() -> None:
    index = index_packets([packet(t, duration=0) for t in (0, 40, 80, 200)], "vp9")
    assert index is not None
    assert index.end_pts == 240


@pytest.mark.parametrize(
    ("codec", "picture_type", "is_safe"),
    [
        ("h264", IDR, True),
        ("h264", SLICE, False),  # a recovery point
        ("h264", None, False),
        ("hevc", 16, True),
        ("hevc", HEVC_CRA, True),
        ("hevc", HEVC_TRAIL, False),
        ("vp9", None, True),
        ("mjpeg", None, True),
        ("av1", None, False),
    ],
)
def test_decoders_start_only_where_they_start_afresh(
    codec: str, picture_type: int | None, is_safe: bool
) -> None:
    index = index_packets([packet(0, picture_type, is_key=True, dts=None)], codec)
    assert index is not None
    assert index.seek_points == ((SeekPoint(0, 0, 0),) if is_safe else ())
    unflagged = index_packets([packet(0, picture_type, is_key=False)], codec)
    assert unflagged is not None
    assert unflagged.seek_points == ()


POINTS = [SeekPoint(frame, frame * 10, frame * 10) for frame in (0, 30, 60, 90)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([0, 1, 2], [(None, [0, 1, 2])]),
        ([29], [(None, [29])]),
        ([30], [(30, [30])]),
        ([5, 31], [(None, [5]), (30, [31])]),  # 24 frames saved: just enough
        ([3, 31, 95, 96], [(None, [3]), (30, [31]), (90, [95, 96])]),
        ([0, 100], [(None, [0]), (90, [100])]),
    ],
)
def test_runs_jump_where_much_is_saved(
    wanted: list[int], expected: list[tuple[int | None, list[int]]]
) -> None:
    runs = plan_runs(wanted, POINTS)
    assert [(run.start and run.start.frame, run.indices) for run in runs] == expected


def test_runs_do_not_jump_to_save_little() -> None:
    assert [run.start for run in plan_runs([6, 31], POINTS)] == [None]  # 23 frames saved


@given(
    st.lists(st.integers(0, 400), min_size=1, unique=True).map(sorted),
    st.lists(st.integers(0, 400), unique=True).map(sorted),
)
def test_runs_take_every_frame_after_their_start(wanted: list[int], starts: list[int]) -> None:
    runs = plan_runs(wanted, [SeekPoint(frame, frame, frame) for frame in starts])
    assert [index for run in runs for index in run.indices] == wanted
    for run in runs[1:]:
        assert run.start is not None
    for run in runs:
        assert run.start is None or run.start.frame <= run.indices[0]


def nal(header: int, size: int, length_size: int = 4) -> bytes:
    return size.to_bytes(length_size, "big") + bytes([header]) + bytes(size - 1)


def test_the_first_slice_of_a_packet() -> None:
    h264 = nal(0x09, 2) + nal(0x06, 30) + nal(0x65, 9) + nal(0x41, 9)
    assert first_picture_type(memoryview(h264), "h264", 4) == IDR
    hevc = nal(35 << 1, 3, 2) + nal(39 << 1, 5, 2) + nal(HEVC_CRA << 1, 7, 2)
    assert first_picture_type(memoryview(hevc), "hevc", 2) == HEVC_CRA
    assert first_picture_type(memoryview(nal(0x06, 30)), "h264", 4) is None
    assert first_picture_type(memoryview(b"\x00\x00"), "h264", 4) is None


def test_how_units_are_stored() -> None:
    avc = bytes([1, 100, 0, 13, 0xFF])
    assert nal_length_size("h264", avc) == 4
    assert nal_length_size("h264", avc[:4] + b"\xfd") == 2
    assert nal_length_size("h264", b"\x00\x00\x00\x01\x67") is None  # start codes
    assert nal_length_size("h264", b"") is None
    assert nal_length_size("hevc", bytes([1]) + bytes(20) + b"\x03") == 4
    assert nal_length_size("vp9", avc) is None


def test_times_may_be_negative_and_large() -> None:
    times = [-(2**40), 2**40, 0]
    index = index_packets([packet(t, IDR) for t in times], "h264")
    assert index is not None
    assert index.pts.dtype == np.int64
    assert index.pts.tolist() == sorted(times)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([0x01], True),
        ([0x41], False),
        ([0x21], False),
        ([0x65], False),
        ([0x01, 0x01], True),
        ([0x01, 0x41], False),  # one slice that others need is enough
        ([0x67, 0x68, 0x06, 0x01], True),  # parameter sets and messages say nothing
        ([0x06, 0x67], False),  # no picture, so nothing is known
        ([], False),
    ],
)
def test_pictures_that_no_other_needs(headers: list[int], expected: bool) -> None:
    units = [bytes([header, 0x88, 0x84]) for header in headers]
    data = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    assert is_disposable(memoryview(data), 4) is expected
    assert not is_disposable(memoryview(data[:4]), 4)
    assert not is_disposable(memoryview(data[:-1]), 4)  # a damaged one is not believed
    assert not is_disposable(memoryview(data + b"\0"), 4)
