"""Decode processes: the frames they give, and what one that hangs or dies costs."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from decode_child import EndlessVideo, GreedyVideo, HarmfulVideo, die_in_mid_sentence
from video_files import write_video

from extractors.geometry import square
from pipeline import decode_process, decode_worker
from pipeline.decode_limits import DecodeLimits
from pipeline.decode_pass import DecodedRow
from pipeline.decode_pool import DecodePool
from pipeline.decode_videos import decode_video
from pipeline.decode_worker import Free, RowSent
from pipeline.rows import VideoRow
from pipeline.timings import Timings
from pipeline.videos import Video
from pipeline.work import Progress, VideoWork

GEOMETRIES = {"verb": square(16), "objects": None}


def row(video_id: str, key: str, frames: Sequence[int]) -> VideoRow:
    times = np.array([round((frame + 0.5) / 30 * 1e6) for frame in frames], dtype=np.int64)
    digest = hashlib.sha256(key.encode()).hexdigest()
    return VideoRow(digest, video_id, "s", 0, f"{video_id}/{key}", times, 0.0, 0.5)


def work(path: Path, *, clips: int = 3) -> VideoWork:
    """Overlapping clips of four frames, and two native frames."""
    video_id = path.stem
    verb = [row(video_id, f"{video_id}-c{i}", range(3 * i, 3 * i + 4)) for i in range(clips)]
    objects = [row(video_id, f"{video_id}-o{i}", [8 * i]) for i in range(2)]
    return VideoWork(Video(video_id, path, "file", None, None), {"verb": verb, "objects": objects})


OPEN: list[DecodePool] = []


def pool(**options: float | None) -> DecodePool:
    """One that ends with its test."""
    settings = {"processes": 2, "ring_nbytes": 2**20, "num_threads": 1}
    limits = {"stall_seconds": 60.0, "video_seconds": 60.0, "memory_mib": None}
    limits |= {name: options.pop(name) for name in limits.keys() & options.keys()}
    decoder = DecodePool(**{**settings, **options}, limits=DecodeLimits(**limits))  # type: ignore[arg-type]
    OPEN.append(decoder)
    return decoder


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def collect(decoder: DecodePool, works: Sequence[VideoWork]) -> tuple[dict, dict]:
    """Frames by key, and error class and message by key."""
    frames, failures = {}, {}
    for item in decoder.decode(works, GEOMETRIES):
        if isinstance(item, Progress):
            failures |= {f.row_key: (f.error_class, f.message) for f in item.failures}
        elif item is not None:
            frames[item.row.key] = np.array(item.frames)
    return frames, failures


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{name}.mp4", num_frames=20) for name in "abc"]


@pytest.mark.parametrize("ring_nbytes", [2**20, 4 * 16 * 16 * 3, 100])
@pytest.mark.parametrize("processes", [1, 3])
def test_frames_are_those_of_a_plain_pass(
    videos: list[Path], processes: int, ring_nbytes: int
) -> None:
    """Also where a ring holds a single clip, and where no row fits into it at all."""
    works = [work(path) for path in videos]
    frames, failures = collect(pool(processes=processes, ring_nbytes=ring_nbytes), works)
    expected = {
        item.row.key: np.array(item.frames)
        for one in works
        for item in decode_video(one, GEOMETRIES)
        if not isinstance(item, Progress)
    }
    assert failures == {}
    assert frames.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(frames[key], value, err_msg=key)


def test_costs_come_with_the_rows(videos: list[Path]) -> None:
    decoded = pool().decode([work(videos[0])], GEOMETRIES)
    rows = [item for item in decoded if item is not None]
    assert sum(item.timings.decode_seconds for item in rows) > 0
    assert sum(r.timings.transform_seconds for r in rows if r.stage == "verb") > 0


def test_a_video_that_cannot_be_read_fails_alone(videos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    frames, failures = collect(pool(processes=1), [work(broken), work(videos[0])])
    assert len(frames) == 5
    assert len(failures) == 5
    assert {kind for kind, _ in failures.values()} == {"UnreadableVideo"}
    assert all(str(broken) in message for _, message in failures.values())


def test_a_process_that_dies_while_it_speaks_costs_its_video(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process, "run_worker", die_in_mid_sentence)
    frames, failures = collect(pool(processes=1), [work(videos[0])])
    assert frames == {}
    assert {kind for kind, _ in failures.values()} == {"DecoderDied"}
    assert all("signal SIGKILL" in message for _, message in failures.values())


def test_a_process_that_hangs_costs_its_video(videos: list[Path], tmp_path: Path) -> None:
    works = [work(path) for path in videos]
    # One clip at a time: when the first row comes, the process has more of its video to say.
    decoder = pool(processes=1, stall_seconds=1.5, ring_nbytes=4 * 16 * 16 * 3)
    frames: dict[str, np.ndarray] = {}
    failures = {}
    with closing(decoder.decode(works, GEOMETRIES)) as decoded:
        for item in decoded:
            if isinstance(item, Progress):
                failures |= {f.row_key: f for f in item.failures}
            if not isinstance(item, DecodedRow):
                continue
            if not frames:  # stopped while it has more to say: a hang, to whoever listens
                os.kill(decoder.pids[0], signal.SIGSTOP)
            frames[item.row.key] = np.array(item.frames)
    assert {f.error_class for f in failures.values()} == {"DecoderHung"}
    assert all("nothing was read for 1.5 s" in f.message for f in failures.values())
    assert {f.video_id for f in failures.values()} == {"a"}
    assert len(frames) + len(failures) == 15


def test_a_process_that_dies_costs_its_video(videos: list[Path]) -> None:
    works = [work(path) for path in videos]
    decoder = pool(processes=1, ring_nbytes=4 * 16 * 16 * 3)  # one clip at a time
    frames, failures = {}, {}
    with closing(decoder.decode(works, GEOMETRIES)) as decoded:
        for item in decoded:
            if isinstance(item, Progress):
                failures |= {f.row_key: f for f in item.failures}
            if not isinstance(item, DecodedRow):
                continue
            if not frames:
                os.kill(decoder.pids[0], signal.SIGKILL)
            frames[item.row.key] = np.array(item.frames)
    assert {f.error_class for f in failures.values()} == {"DecoderDied"}
    assert all("signal SIGKILL" in f.message for f in failures.values())
    assert {f.video_id for f in failures.values()} == {"a"}
    assert len(frames) + len(failures) == 15


def test_time_that_the_networks_take_is_not_silence(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for room in its ring has nothing to say."""
    passed = 0.0
    real = time.monotonic
    clock = SimpleNamespace(monotonic=lambda: real() + passed)
    monkeypatch.setattr(decode_process, "time", clock)
    decoder = pool(processes=1, ring_nbytes=4 * 16 * 16 * 3)  # one clip at a time
    frames = 0
    for item in decoder.decode([work(path) for path in videos], GEOMETRIES):
        assert not isinstance(item, Progress)
        frames += item is not None
        passed += 1000.0
    assert frames == 15


@pytest.mark.parametrize("after_a_row", [False, True])
def test_a_process_that_never_ends_costs_its_video(videos: list[Path], after_a_row: bool) -> None:
    """It gives signs of life all the time, and rows of other videos go on coming."""
    endless = replace_video(work(videos[0]), EndlessVideo, after_a_row)
    decoder = pool(processes=1, video_seconds=1.5, stall_seconds=600.0)
    frames, failures = collect(decoder, [endless, work(videos[1])])
    assert {kind for kind, _ in failures.values()} == {"DecoderTimeout"}
    for _, message in failures.values():
        assert message.startswith(f"{videos[0]}: got ")
        assert "expected at most 1.5 s" in message
        assert "raise engine.video_seconds" in message
    assert len(failures) == (4 if after_a_row else 5)
    assert len(frames) == (6 if after_a_row else 5)


def test_time_that_networks_take_is_not_the_videos(videos: list[Path]) -> None:
    """The process waits for room in its ring, or to be listened to, longer than it may take."""
    decoder = pool(processes=1, ring_nbytes=4 * 16 * 16 * 3, video_seconds=2.0)
    rows = 0
    one = work(videos[0], clips=6)
    for item in decoder.decode([one], GEOMETRIES):
        assert not isinstance(item, Progress)
        if item is not None:
            rows += 1
            time.sleep(0.6)
    assert rows == 8


@pytest.mark.parametrize("after_a_row", [False, True])
def test_a_process_that_wants_all_memory_costs_its_video(
    videos: list[Path], after_a_row: bool
) -> None:
    greedy = replace_video(work(videos[0]), GreedyVideo, after_a_row)
    decoder = pool(processes=1, memory_mib=300)
    (first,) = decoder.pids
    frames, failures = {}, {}
    pids = set()
    for item in decoder.decode([greedy, work(videos[1])], GEOMETRIES):
        pids |= set(decoder.pids)
        if isinstance(item, Progress):
            failures |= {f.row_key: (f.error_class, f.message) for f in item.failures}
        elif item is not None:
            frames[item.row.key] = item
    assert {kind for kind, _ in failures.values()} == {"DecoderMemory"}
    for _, message in failures.values():
        assert message.startswith(f"{videos[0]}: got no more memory to decode it (")
        assert "expected it to fit within engine.decode_memory_mib: 300" in message
    assert len(failures) == (4 if after_a_row else 5)
    assert len(frames) == (6 if after_a_row else 5)
    assert pids > {first}  # what such a process has left is not for another video


def test_videos_that_want_all_memory_one_after_the_other(videos: list[Path]) -> None:
    works = [replace_video(work(path), GreedyVideo, False) for path in [*videos, *videos]]
    frames, failures = collect(pool(processes=1, memory_mib=300), works)
    assert frames == {}
    assert {kind for kind, _ in failures.values()} == {"DecoderMemory"}


def replace_video(one: VideoWork, kind: type[HarmfulVideo], after_a_row: bool) -> VideoWork:
    """The first row that comes looks at frame 0 only."""
    video = one.video
    harmful = kind(video.video_id, video.path, "file", None, None, well_until=int(after_a_row))
    return VideoWork(harmful, one.rows)


def test_whoever_waits_is_woken(videos: list[Path]) -> None:
    decoder = pool(processes=1, ring_nbytes=2**14)  # no room for all rows
    with closing(decoder.decode([work(videos[0])], GEOMETRIES)) as decoded:
        next(item for item in decoded if item is not None)
        os.kill(decoder.pids[0], signal.SIGSTOP)
        assert None in decoded


def test_a_process_that_dies_before_it_began_costs_nothing(videos: list[Path]) -> None:
    decoder = pool(processes=2)
    for pid in decoder.pids:
        os.kill(pid, signal.SIGKILL)
    frames, failures = collect(decoder, [work(path) for path in videos])
    assert len(frames) == 15
    assert failures == {}


def test_processes_that_never_begin_are_told_of(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process, "run_worker", print)  # ends at once
    with pytest.raises(RuntimeError, match="3 decode processes in turn ended before they began"):
        collect(pool(), [work(path) for path in videos])


def test_a_process_ends_with_its_parent() -> None:
    script = Path(__file__).with_name("decode_child.py")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 60)
    os.close(child)
    assert ended


def test_a_plain_script_is_not_run_again(videos: list[Path], tmp_path: Path) -> None:
    """Whoever calls this from a script need not guard it with `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path[:0] = sys.argv[2:]; print('begun', flush=True)\n"
        "from pathlib import Path\n"
        "import test_pipeline_decode_pool as t\n"
        "print(len(t.collect(t.pool(), [t.work(Path(sys.argv[1]))])[0]))\n"
    )
    tests = Path(__file__).parent
    command = [sys.executable, script, videos[0], tests.parent, tests]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["begun", "5"]


def test_no_more_processes_start_than_there_are_videos(videos: list[Path]) -> None:
    decoder = pool(processes=3)
    with closing(decoder.decode([work(videos[0])], GEOMETRIES)) as decoded:
        next(item for item in decoded if item is not None)
        assert len(decoder.pids) == 1


def test_videos_may_come_later(videos: list[Path]) -> None:
    came: list[str] = []

    def works() -> Iterator[VideoWork | None]:
        yield work(videos[0])
        while len(came) < 5:
            yield None
        yield work(videos[1])

    decoder = pool(processes=2)
    for item in decoder.decode(works(), GEOMETRIES):
        assert not isinstance(item, Progress)
        came += [] if item is None else [item.row.video_id]
    assert came == ["a"] * 5 + ["b"] * 5


def test_who_dies_between_videos_is_replaced(videos: list[Path]) -> None:
    decoder = pool(processes=1)
    died: list[int] = []
    frames: set[str] = set()

    def works() -> Iterator[VideoWork | None]:
        yield work(videos[0])
        while len(frames) < 5:
            yield None
        yield None
        died.extend(decoder.pids)
        os.kill(died[0], signal.SIGKILL)
        yield work(videos[1])

    for item in decoder.decode(works(), GEOMETRIES):
        assert not isinstance(item, Progress)
        frames |= set() if item is None else {item.row.key}
    assert len(frames) == 10
    assert has_ended(died[0])


def test_the_processes_end_with_their_work(videos: list[Path]) -> None:
    decoder = pool(processes=2)
    with closing(decoder.decode([work(path) for path in videos], GEOMETRIES)) as decoded:
        next(item for item in decoded if item is not None)
        pids = decoder.pids
    assert (len(pids), decoder.pids) == (2, [])
    assert all(has_ended(pid) for pid in pids)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_no_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 decode processes"):
        pool(processes=0)


class Answers:
    """A connection whose other side answers rows only when it is asked to; none is ever lost."""

    def __init__(self) -> None:
        self.open = self.most_open = self.sent = 0

    def send(self, message: object) -> None:
        if isinstance(message, RowSent):
            self.sent += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)

    def recv(self) -> Free:
        self.open -= 1
        return Free()


def test_small_rows_do_not_fill_the_connection() -> None:
    """Some hundred rows under way, unanswered, and both sides would wait for ever."""
    connection = Answers()
    outlet = decode_worker._Outlet(connection, np.zeros(2**24, np.uint8))  # type: ignore[arg-type]
    frame = np.zeros((4, 4, 3), np.uint8)
    for number in range(1000):
        one = row("v", f"v-{number}", [number])
        outlet.send_row(DecodedRow("verb", one, [frame], False, Timings()))
    assert connection.sent == 1000
    assert connection.most_open == decode_worker.MOST_ROWS_AHEAD


def test_a_video_of_many_small_rows_comes_through(videos: list[Path]) -> None:
    many = work(videos[0], clips=1500)
    rows = [replace(one, times_us=one.times_us % 600_000) for one in many.rows["verb"]]
    frames, failures = collect(
        pool(processes=1, ring_nbytes=2**26), [VideoWork(many.video, {"verb": rows})]
    )
    assert (len(frames), failures) == (1500, {})
