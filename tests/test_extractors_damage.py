"""What a damaged video gives for a frame, or a row, does not depend on what else is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from video_files import (
    COUNTED_STREAMS,
    DAMAGED_FRAMES,
    OTHER_STREAMS,
    STREAMS,
    damage,
    plain_decode,
    write_video,
)

from extractors.video import (
    FrameDecodeError,
    TruncatedVideo,
    UnreadableVideo,
    VideoReader,
    open_video,
)

ALL = STREAMS | OTHER_STREAMS | COUNTED_STREAMS
# It leaves to PyAV what it is not sure of; not everybody has it.
FAST: Literal["decord", "pyav"] = "decord" if find_spec("decord") else "pyav"
Told = NDArray[np.uint8] | str


def spoil(path: Path, *, seed: int) -> Path:
    """A copy with a stretch of other bytes in its middle, or with single bytes changed."""
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    start = int(len(data) * rng.uniform(0.2, 0.7))
    if seed % 2:
        places = start + rng.integers(0, len(data) // 8, int(rng.integers(1, 6)))
    else:
        places = np.arange(start, start + int(len(data) * rng.uniform(0.001, 0.1)))
    data[places] = rng.integers(0, 256, len(places))
    spoilt = path.with_stem(f"{path.stem}_{seed}")
    spoilt.write_bytes(data.tobytes())
    return spoilt


def told(reader: VideoReader, wanted: Sequence[int]) -> dict[int, Told]:
    """Each frame, or the words that say why there is none."""
    given = list(reader.outcomes(wanted))
    assert [index for index, _ in given] == list(wanted)
    for index, outcome in given:
        assert not isinstance(outcome, FrameDecodeError) or outcome.frame == index
    return {i: str(got) if isinstance(got, FrameDecodeError) else got for i, got in given}


def is_same(one: Told, other: Told) -> bool:
    return isinstance(one, str) == isinstance(other, str) and np.array_equal(one, other)


@pytest.mark.parametrize("name", ALL)
def test_a_frame_is_given_or_not_whatever_else_is_wanted(tmp_path: Path, name: str) -> None:
    file_name, settings = ALL[name]
    whole = write_video(tmp_path / file_name, **settings)
    rng = np.random.default_rng(4)
    for path in (damage(whole), *(spoil(whole, seed=seed) for seed in range(3))):
        try:
            reader = open_video(path, reader=FAST, num_threads=int(rng.integers(1, 4)))
        except (UnreadableVideo, TruncatedVideo):
            continue
        with reader:
            together = told(reader, range(reader.num_frames))
            thirds = told(reader, range(0, reader.num_frames, 3))
            assert all(is_same(together[index], got) for index, got in thirds.items())
            for index in rng.permutation(reader.num_frames)[:15]:
                assert is_same(told(reader, [index])[index], together[index]), f"{path} {index}"


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_only_what_is_decoded_behind_damage_is_lost(
    tmp_path: Path, num_threads: int, *, is_whole: bool
) -> None:
    """The decoder starts every 30 frames; it makes something of pictures of which half is lost."""
    file_name, settings = ALL["closed-gop-mp4"]
    path = write_video(tmp_path / file_name, **settings)
    expected = plain_decode(path)
    with av.open(str(path)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.size]
    first = DAMAGED_FRAMES.start
    before = {sorted(pts).index(each) for each in pts[:first]}
    assert before != set(range(first))
    damaged = damage(path, share=1.0 if is_whole else 0.5)
    with open_video(damaged, num_threads=num_threads) as reader:
        given = told(reader, range(reader.num_frames))
    failed = {index for index, got in given.items() if isinstance(got, str)}
    assert failed == set(range(60)) - before
    for index in set(given) - failed:
        assert np.array_equal(given[index], expected[index])


def test_a_picture_that_nothing_is_built_on_spoils_itself(tmp_path: Path) -> None:
    """Every other picture is such a one."""
    file_name, settings = ALL["closed-gop-mp4"]
    path = write_video(tmp_path / file_name, **settings)
    expected = plain_decode(path)
    damaged = damage(path, [39, 41])
    with open_video(damaged) as reader:
        for num_threads in (1, 3):
            reader._num_threads = num_threads  # type: ignore[attr-defined]
            given = told(reader, range(reader.num_frames))
            assert [i for i, got in given.items() if isinstance(got, str)] == [39, 41]
            for index in set(given) - {39, 41}:
                assert np.array_equal(given[index], expected[index])
