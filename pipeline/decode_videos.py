"""A video in, decoded rows out; a video that fails turns its remaining rows into failures.

A frame that fails costs the rows that want it, whatever other rows there are.

After each row's last frame the file, tar or folder is looked at once more: size, modification time
and inode. An image of a folder that is overwritten in place, under the name that it has, is not
noticed that way; `symbio run --rehash` finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from extractors.file_stamp import check_entry
from extractors.geometry import Geometry
from extractors.inference import is_out_of_memory
from extractors.video import VideoError, VideoReader
from pipeline.decode_limits import DecoderMemory
from pipeline.decode_pass import DecodedRow, FrameRequest, SpoiltRow, decode_pass
from pipeline.promises import check_length, check_segment
from pipeline.rows import VideoRow
from pipeline.videos import Video
from pipeline.work import Progress, VideoWork, row_failure

__all__ = ["Decoded", "Geometries", "decode_video"]

# How each stage wants its frames; None is the native frame.
Geometries = Mapping[str, Geometry | None]
Decoded = DecodedRow | Progress


def decode_video(
    work: VideoWork,
    geometries: Geometries,
    *,
    num_threads: int = 0,
    memory_mib: int | None = None,
) -> Iterator[Decoded]:
    """Rows of one video as they are complete; what cannot be decoded becomes failures.

    Args:
        work: the video and its rows.
        geometries: by stage.
        num_threads: of the decoder; 0 leaves the number to it.
        memory_mib: limit of this process, for messages.
    """
    left = {(name, row.key): row for name, rows in work.rows.items() for row in rows}
    try:
        for item in _decode(work, geometries, num_threads):
            if isinstance(item, Progress):
                for failure in item.failures:
                    del left[item.stage, failure.row_key]
            else:
                del left[item.stage, item.row.key]
            yield item
    except Exception as met:  # whatever a damaged file does to a library concerns this video
        error = _out_of_memory(work.video, met, memory_mib) if is_out_of_memory(met) else met
        for name in work.rows:
            failures = [
                row_failure(row, error) for (stage, _), row in left.items() if stage == name
            ]
            if failures:
                yield Progress(name, failures=failures)


def _decode(
    work: VideoWork,
    geometries: Geometries,
    num_threads: int,
) -> Iterator[Decoded]:
    video = work.video
    started = time.perf_counter()
    with video.open(num_threads=num_threads) as opened:
        check_length(video, opened)
        requests = []
        for name, rows in work.rows.items():
            broken = {row.key: _objection(row, opened, video) for row in rows}
            failures = [row_failure(row, e) for row in rows if (e := broken[row.key])]
            if failures:
                yield Progress(name, failures=failures)
            requests += [
                FrameRequest(name, row, geometries[name]) for row in rows if not broken[row.key]
            ]
        opening_seconds = time.perf_counter() - started
        for row in decode_pass(opened, requests, opening_seconds=opening_seconds):
            # What is written to while it is read gives rows of neither content.
            if video.stamp is not None:
                check_entry(video.path, video.stamp[0])
            if isinstance(row, SpoiltRow):
                yield Progress(row.stage, failures=[row_failure(row.row, row.error)])
            else:
                yield row


def _out_of_memory(video: Video, error: Exception, memory_mib: int | None) -> DecoderMemory:
    limit = "" if memory_mib is None else f" within engine.decode_memory_mib: {memory_mib}"
    raised = "" if memory_mib is None else ", or raise that limit if the machine has more"
    return DecoderMemory(
        f"{video.path}: got no more memory to decode it ({error}), expected it to fit{limit}; the "
        f"file is damaged or its frames are very large. Re-encode it{raised}"
    )


def _objection(row: VideoRow, opened: VideoReader, video: Video) -> VideoError | None:
    """Why the video does not hold what a row looks at, or None."""
    try:
        check_segment(video, opened, row.needed_from_seconds, row.needed_to_seconds)
        opened.check_present(opened.index_at(row.times_us / 1e6)[0])
    except VideoError as error:
        return error
    return None
