"""Rows named by columns are those that one would name one by one."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from stage_fixtures import make_aligned_stage, make_clip, make_clip_stage, make_objects_stage

from pipeline.clip_table import ClipTable
from pipeline.clips import Clip, clip_times_us, grid_times_us, window_times_us
from pipeline.keys import derived_row_keys, row_key, row_keys
from pipeline.stage_rows import each_once, keys_once
from stores.row_keys import KEY_DTYPE, key_texts, packed_array

# Two videos of one content, one without a source, and identities of more than one length.
IDENTITIES = {
    "a": "11" * 32,
    "b": "22" * 32,
    "copy": "11" * 32,
    "frames": "33" * 32 + "@59.94fps",
}


def random_clips(count: int, seed: int) -> list[Clip]:
    """Clips of videos in turns; some at one moment, some before the first frame could be."""
    draw = random.Random(seed)
    return [
        make_clip(
            draw.choice(["a", "b", "copy", "frames", "gone"]),
            str(i),
            centre_us=draw.choice([0, 10_100_000, draw.randrange(40_000_000)]),
            stop_seconds=draw.choice([12.0, 13.0, 50.0]),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_times_of_many_clips_are_those_of_each(seed: int) -> None:
    draw = random.Random(seed)
    centres = np.array([0, 10**13, *(draw.randrange(2 * 10**10) for _ in range(50))])
    rate_fps = draw.choice([2.0, 29.97, 1 / 3, draw.uniform(0.1, 120)])
    window = {"window_seconds": draw.uniform(1, 9), "rate_fps": rate_fps}
    sampling = {"frames": draw.randint(1, 9), "stride": draw.randint(1, 4), "rate_fps": rate_fps}
    for times_of, arguments in (
        (grid_times_us, window),
        (window_times_us, window),
        (clip_times_us, sampling),
        (clip_times_us, {**sampling, "before": 3, "after": 1}),
    ):
        each = [times_of(int(centre), **arguments).tolist() for centre in centres]
        assert times_of(centres, **arguments).tolist() == each


def test_many_row_keys_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.keys.ROWS_AT_ONCE", 7)
    identities = ["ab" * 32, "cd" * 32 + "@60fps", "ef" * 32]
    which = np.arange(40) % 3
    moments = np.arange(40) * 1_000_003 - 5

    def times_of(some: np.ndarray) -> np.ndarray:
        return some[:, None] + np.array([0, 40_000, 80_000])

    keys = row_keys(identities, which, moments, times_of)
    assert key_texts(keys) == [
        row_key(identities[i], times_of(moments[k : k + 1])[0]) for k, i in enumerate(which)
    ]


def test_many_derived_keys_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.keys.ROWS_AT_ONCE", 4)
    names = [hashlib.sha256(bytes([i])).hexdigest() for i in range(9)]
    first = np.arange(9)[:, None]
    others = np.array([[i, 0, i] for i in range(9)])
    made = derived_row_keys([(packed_array(names), first), (packed_array(names[::-1]), others)])
    for i, key in enumerate(key_texts(made)):
        upstream = [names[i], *(names[::-1][k] for k in (i, 0, i))]
        text = "\0".join(["symbio derived row", *upstream])
        assert key == hashlib.sha256(text.encode()).hexdigest()


def test_no_rows_have_no_keys() -> None:
    none = np.empty(0, np.int64)
    assert len(row_keys([], none, none, lambda some: some[:, None])) == 0
    assert len(derived_row_keys([(packed_array([]), none[:, None])])) == 0
    table = ClipTable([make_clip("gone")], IDENTITIES)
    for stage in (make_clip_stage(), make_objects_stage(), make_aligned_stage()):
        assert len(stage.rows(table)) == 0
        assert stage.naming(table).named.tolist() == [False]


def test_a_key_may_end_in_zeros() -> None:
    names = ["ab" * 16 + "00" * 16, "00" * 32, "ab" * 16 + "00" * 15 + "01"]
    keys = packed_array(names)
    assert keys.dtype == KEY_DTYPE
    assert key_texts(keys) == names
    assert [a.tolist() for a in keys_once(keys[[1, 0, 1, 2]])] == [[0, 1, 3], [0, 1, 0, 2]]


def test_keys_that_begin_alike_are_told_apart() -> None:
    names = ["ab" * 31 + f"{i:02x}" for i in (7, 3, 7, 5, 3)]
    firsts, numbers = keys_once(packed_array(names))
    assert firsts.tolist() == [0, 1, 3]
    assert numbers.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("far", [1, 2**62])
def test_each_pair_counts_once_in_the_order_of_its_first_time(far: int) -> None:
    which = np.array([1, 0, 1, 0, 1, 2])
    moments = np.array([-5, far, -5, -5, far, far])
    firsts, numbers = each_once(which, moments)
    assert firsts.tolist() == [0, 1, 3, 4, 5]
    assert numbers.tolist() == [0, 1, 0, 2, 3, 4]


def test_pairs_that_no_number_can_count_are_told_apart() -> None:
    # 4 times 2**62 is 0 in 64 bits.
    firsts, numbers = each_once(np.array([0, 4, 0, 4]), np.array([0, 0, 2**62 - 1, 0]))
    assert firsts.tolist() == [0, 1, 2]
    assert numbers.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("times", ["grid", "centred"])
def test_object_rows_are_those_named_one_by_one(times: str) -> None:
    clips = random_clips(60, seed=1)
    stage = make_objects_stage(times=times)
    table = ClipTable(clips, IDENTITIES)
    naming, rows = stage.naming(table), stage.rows(table)
    first: dict[str, tuple[str, int]] = {}
    ends: dict[str, Clip] = {}
    for clip, numbers in zip(clips, naming.numbers.tolist(), strict=True):
        video_id = clip.segment.video_id
        if video_id not in IDENTITIES:
            assert set(numbers) == {-1}
            continue
        moments = [max(0, int(time)) for time in stage.times_us(clip)]
        keys = [row_key(IDENTITIES[video_id], np.array([time])) for time in moments]
        assert key_texts(naming.keys[numbers]) == keys
        for key, time in zip(keys, moments, strict=True):
            first.setdefault(key, (video_id, time))
            if clip.segment.stop_seconds < ends.setdefault(key, clip).segment.stop_seconds:
                ends[key] = clip
    assert [row.key for row in rows] == list(first)
    assert [(row.video_id, int(row.times_us[0])) for row in rows] == list(first.values())
    assert [row.needed_to_seconds for row in rows] == [
        ends[key].segment.stop_seconds for key in first
    ]


def test_clip_rows_are_those_named_one_by_one() -> None:
    clips = random_clips(60, seed=2)
    stage = make_clip_stage()
    table = ClipTable(clips, IDENTITIES)
    first: dict[str, Clip] = {}
    for clip in clips:
        if clip.segment.video_id in IDENTITIES:
            key = row_key(IDENTITIES[clip.segment.video_id], stage.times_us(clip))
            first.setdefault(key, clip)
    assert len(first) < 50
    rows = stage.rows(table)
    assert [(row.key, row.clip_id) for row in rows] == [(k, c.clip_id) for k, c in first.items()]
    for row, (key, clip) in zip(rows, first.items(), strict=True):
        assert row.times_us.tolist() == stage.times_us(clip).tolist()
        assert rows[list(first).index(key)].clip_id == row.clip_id


def test_stages_with_equal_sampling_share_their_names() -> None:
    table = ClipTable(random_clips(5, seed=3), IDENTITIES)
    verb, noun = make_clip_stage("verb"), make_clip_stage("noun", dtype="float32")
    assert verb.naming(table) is noun.naming(table)
    other = make_clip_stage("noun", clip={"frames": 4})
    assert other.naming(table).keys.tolist() != verb.naming(table).keys.tolist()


def test_some_of_the_rows() -> None:
    table = ClipTable([make_clip(v, centre_us=10**7) for v in ("b", "a", "b")], IDENTITIES)
    stage = make_aligned_stage()
    rows = stage.rows(table)
    some = rows.take(np.array([False, True]))
    (row,) = some
    assert row.key == rows[1].key == rows[-1].key == some[0].key
    assert (row.info.video_id, len(some)) == ("a", 1)
    keys, numbers = some.upstream("objects")
    assert tuple(key_texts(keys[numbers[0]])) == row.upstream["objects"]
    assert [row.key for row in rows[::-1]] == [row.key for row in list(rows)[::-1]]
    assert rows.count_by_source() == {"b": 1, "a": 1}
    assert {s: [r.key for r in some] for s, some in rows.by_source().items()} == {
        "b": [rows[0].key],
        "a": [rows[1].key],
    }
    with pytest.raises(IndexError):
        rows[2]
