"""Why one row is missing, whose video is there and whose upstream rows are.

A row is looked for by its content. Where it is not found, what is stored under its *name*, or
failed under it, says what has changed since: another content of the video, or other times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.error_classes import class_name
from pipeline.rows import DerivedRow, VideoRow
from pipeline.stages import AlignedStage, ObjectsStage
from stores.base import FeatureStore, RowInfo

__all__ = ["ReasonName", "RowReason", "StoredNames", "info_of", "of_video"]

# docs/extraction.md says what each is.
ReasonName = Literal[
    "no_generation",
    "new_video",
    "never_made",
    "failed_before",
    "content_changed",
    "times_changed",
    "upstream_missing",
    "upstream_failed",
    "upstream_changed",
    "video_gone",
    "failed",
]
SAME_SECONDS = 5e-7  # times are whole microseconds


@dataclass(frozen=True)
class RowReason:
    """Why one row is missing.

    Attributes:
        name: stable, for programs.
        text: the same for people.
        about: the video, where it is a matter of one; reasons of a name are told apart by it.
        of_several: for people, where it is the reason of several rows and ``text`` is of one alone.
    """

    name: ReasonName
    text: str
    about: str = ""
    of_several: str = ""


def info_of(row: VideoRow | DerivedRow) -> RowInfo:
    """What people know of a row."""
    return row.info if isinstance(row, DerivedRow) else row.info(clamped=False)


def of_video(video_id: str, name: ReasonName, text: str) -> RowReason:
    """A reason that is one of a video."""
    return RowReason(name, f"video {video_id}: {text}", video_id)


class StoredNames:
    """What a generation holds, and what has failed of it, by the names that people know."""

    def __init__(self, generation: FeatureStore, *, has_boxes: bool) -> None:
        self._stage = generation.stage
        self._has_boxes = has_boxes
        self._infos = {info.clip_id: info for info in generation.infos(generation.keys())}
        self._videos = {info.video_id for info in self._infos.values()}
        self._classes: dict[str, set[str]] = {}  # by clip
        self._failed_videos: dict[str, set[str]] = {}
        for failure in generation.failures():
            name = class_name(failure.error_class)
            self._classes.setdefault(failure.clip_id, set()).add(name)
            self._failed_videos.setdefault(failure.video_id, set()).add(name)

    def why(self, row: RowInfo) -> RowReason:
        """Why a row is not there, whose video is and whose upstream rows are."""
        video = row.video_id
        old = self._infos.get(row.clip_id)
        if old is None:
            return self._never_stored(row)
        if not _same_times(old, row):
            then, now = _times(old), _times(row)
            text = f"video {video}: frames were at {then} and are at {now}"
            several = f"video {video}: frames are at other times, such as {then} then and {now} now"
            return RowReason("times_changed", text, video, several)
        if self._stage == AlignedStage.name:
            return of_video(video, "upstream_changed", "rows it is made from were made anew")
        boxes = " or the boxes given for it" if self._has_boxes else ""
        return of_video(
            video, "content_changed", f"its content{boxes} changed: rows are of what it was"
        )

    def _never_stored(self, row: RowInfo) -> RowReason:
        video, classes = row.video_id, self._classes.get(row.clip_id)
        if classes is not None:
            since = f"failed then as {_listed(classes)}; {self._changed} changed since"
            return RowReason("failed_before", f"video {video}: {since}", f"{video}: {since}")
        if video in self._videos:
            return of_video(video, "never_made", "not made yet, as others of it are")
        if video in self._failed_videos:
            failed = _listed(self._failed_videos[video])
            return of_video(video, "never_made", f"not made yet; others of it failed as {failed}")
        return of_video(video, "new_video", "it is new, no row of it was ever made")

    @property
    def _changed(self) -> str:
        """What a row can differ in from an earlier one of its name."""
        if self._stage == AlignedStage.name:
            return "rows it is made from have"
        if self._stage == ObjectsStage.name:  # whose names say at which times they look
            return (
                "its content or the boxes given for it have"
                if self._has_boxes
                else "its content has"
            )
        return "its times or content have"


def _listed(classes: set[str]) -> str:
    return " and ".join(sorted(classes))


def _same_times(one: RowInfo, other: RowInfo) -> bool:
    first = abs(one.first_seconds - other.first_seconds)
    return max(first, abs(one.last_seconds - other.last_seconds)) < SAME_SECONDS


def _times(info: RowInfo) -> str:
    if info.first_seconds == info.last_seconds:
        return f"{info.first_seconds:g} s"
    return f"{info.first_seconds:.2f}–{info.last_seconds:.2f} s"
