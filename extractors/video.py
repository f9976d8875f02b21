"""Opening videos: the right reader for a file or for frames, and refusing what is cut off."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from extractors.file_stamp import FileStamp, check_unchanged, file_stamp
from extractors.video_reader import (
    FrameDecodeError,
    TruncatedVideo,
    UnreadableVideo,
    VideoChanged,
    VideoError,
    VideoReader,
    VideoVanished,
)

if TYPE_CHECKING:
    from extractors.pyav_probe import VideoFacts

__all__ = [
    "READER_POLICY",
    "FileStamp",
    "FrameDecodeError",
    "TruncatedVideo",
    "UnreadableVideo",
    "VideoChanged",
    "VideoError",
    "VideoReader",
    "VideoVanished",
    "check_complete",
    "check_unchanged",
    "file_stamp",
    "open_video",
    "reader_identity",
]

READER_POLICY = "1"  # goes up whenever the choice of reader or of a frame's pixels changes

REMEMBERED_VIDEOS = 512  # some 3 MB of frame times each for half an hour of video

# Distribution names whose versions decide a frame's pixels, per reader; first installed wins.
_DISTRIBUTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "pyav": {"av": ("av",)},
    "decord": {"decord": ("decord2", "decord"), "av": ("av",)},
    "frames": {"pillow": ("pillow",)},
    "flow": {"pillow": ("pillow",)},
}


def check_complete(reader: VideoReader) -> None:
    """Refuse a video that holds less than its container promises.

    A file cut off while downloading decodes without any error up to the cut. What tells is the
    duration in its header. A promise about the picture stream itself may be missed by two
    frames. One about the whole file may also count a longer soundtrack: it may be missed by a
    second, or by a tenth of the promise if that is less.

    Raises:
        TruncatedVideo: if the last frame ends earlier than that.
    """
    declared = reader.declared_duration_seconds
    if declared is None:
        return
    missing = declared - reader.duration_seconds
    if missing > reader.declared_margin_seconds:
        raise TruncatedVideo(
            f"{reader.path}: got {reader.num_frames} frames up to {reader.duration_seconds:.3f} s,"
            f" expected {declared:.3f} s as the container declares; get the whole file"
        )


def open_video(
    path: str | Path,
    *,
    kind: Literal["file", "frames", "tar", "flow"] = "file",
    reader: Literal["pyav", "decord"] = "pyav",
    frame_rate_fps: float | None = None,
    stride: int = 1,
    frame_pattern: str | None = None,
    check_complete: bool = True,
    expected_stamp: FileStamp | None = None,
    num_threads: int = 0,
) -> VideoReader:
    """Open a video file, or the numbered frames of a folder or tar.

    Args:
        path: what `kind` says.
        kind: "file", "frames" (a folder of RGB frames), "tar" (a tar of them, read in place) or
            "flow" (a folder or tar of optical flow, whose frames have two channels).
        reader: of files: "pyav", exact by construction and quick to open; or "decord", for those
            on which a trial decode proves it exact, PyAV for all others.
        frame_rate_fps: rate at which RGB frames were written; needed for all but files.
        stride: how many RGB frames there are to one of flow: 2 for EPIC's two-digit videos.
        frame_pattern: names of frames, such as "frame_{number:010d}.jpg", or for flow
            "{component}/frame_{number:010d}.jpg"; None finds the numbering by itself.
        check_complete: refuse a file that ends before its declared duration.
        expected_stamp: what `file_stamp` gave when the video was identified; None does not ask.
        num_threads: decoder threads; 0 leaves the number to the decoder.

    Raises:
        VideoChanged: if the path does not have the expected stamp.
        VideoVanished: if nothing is there, and a stamp is expected.
        UnreadableVideo: if nothing in the path can be decoded.
        TruncatedVideo: if the file is cut off and `check_complete` is set.
        ValueError: for arguments that do not fit together.
    """
    if expected_stamp is not None:
        check_unchanged(Path(path), expected_stamp)
    path = Path(path)
    if kind in ("frames", "tar", "flow"):
        return _open_frames(path, kind, frame_rate_fps, stride, frame_pattern)
    if kind != "file":
        raise ValueError(f'got kind "{kind}", expected "file", "frames", "tar" or "flow"')
    if frame_rate_fps is not None or frame_pattern is not None or stride != 1:
        raise ValueError(
            f"{path}: frame_rate_fps, stride and frame_pattern are for frames; a file carries its "
            "own frame times"
        )
    opened = _open_file(path, reader, num_threads)
    return _complete_or_closed(opened) if check_complete else opened


def reader_identity(reader: str) -> dict[str, str]:
    """What would decide the pixels of a video, for cache keys; opens nothing.

    Args:
        reader: "pyav" or "decord" as for `open_video`, "frames" for those of a folder or tar, or
            "flow".

    Returns:
        The reader, the policy version, and the version of each library, "none" if absent.
    """
    if reader not in _DISTRIBUTIONS:
        raise ValueError(f'got reader "{reader}", expected one of {sorted(_DISTRIBUTIONS)}')
    versions = {name: _installed(names) for name, names in _DISTRIBUTIONS[reader].items()}
    return {"reader": reader, "policy": READER_POLICY, **versions}


def _open_frames(
    path: Path,
    kind: Literal["frames", "tar", "flow"],
    frame_rate_fps: float | None,
    stride: int,
    frame_pattern: str | None,
) -> VideoReader:
    from extractors.frames_reader import FlowReader, FramesReader

    if frame_rate_fps is None:
        raise ValueError(f"{path}: frames need frame_rate_fps, such as 60")
    if kind == "flow":
        return FlowReader(
            path,
            kind="frames" if os.path.isdir(path) else "tar",
            frame_rate_fps=frame_rate_fps,
            stride=stride,
            frame_pattern=frame_pattern,
        )
    if stride != 1:
        raise ValueError(f"{path}: got stride {stride}, which is for flow; RGB frames have none")
    return FramesReader(path, kind=kind, frame_rate_fps=frame_rate_fps, frame_pattern=frame_pattern)


def _open_file(path: Path, reader: str, num_threads: int) -> VideoReader:
    from extractors.pyav_reader import PyavReader

    if reader not in ("pyav", "decord"):
        raise ValueError(f'got reader "{reader}", expected "pyav" or "decord"')
    facts = _facts(path)
    if reader == "decord":
        from extractors.decord_reader import DecordReader, NotExact

        try:
            return DecordReader(facts, num_threads=num_threads)
        except NotExact:
            pass
    return PyavReader(facts, num_threads=num_threads)


def _facts(path: Path) -> VideoFacts:
    """What `probe_video` finds, remembered: it reads a whole file, and training opens it often."""
    try:
        stat = path.stat()
    except OSError:
        return _probe(path, None)  # which says what is wrong
    return _probe(path, (stat.st_size, stat.st_mtime_ns, stat.st_ino))


@lru_cache(maxsize=REMEMBERED_VIDEOS)
def _probe(path: Path, stamp: tuple[int, int, int] | None) -> VideoFacts:
    from extractors.pyav_probe import probe_video

    return probe_video(path)


def _complete_or_closed(reader: VideoReader) -> VideoReader:
    try:
        check_complete(reader)
    except TruncatedVideo:
        reader.close()
        raise
    return reader


def _installed(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"
