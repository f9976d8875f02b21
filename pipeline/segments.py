"""A labelled stretch of video, and a data set as a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heads.scores import UNLABELLED
from pipeline.errors import AnnotationError

# Four months: beyond it a number is not a time in a video but a mistake.
LONGEST_VIDEO_SECONDS = 1e7

__all__ = ["UNLABELLED", "Dataset", "Segment", "check_segments"]

# A clip is called video/segment/view, and stores keep names of up to 255 bytes.
MAX_ID_BYTES = 120


@dataclass(frozen=True, slots=True)
class Segment:
    """One labelled action.

    ``start_seconds`` and ``stop_seconds`` count from the first frame of the video. ``split`` is
    ``train``, ``val`` or a test split. Classes are `UNLABELLED` where labels are withheld.
    """

    segment_id: str
    video_id: str
    participant_id: str
    start_seconds: float
    stop_seconds: float
    verb_class: int
    noun_class: int
    split: str
    narration: str = ""

    @property
    def labelled(self) -> bool:
        """Whether its verb and its noun are known."""
        return self.verb_class != UNLABELLED and self.noun_class != UNLABELLED


@dataclass(frozen=True)
class Dataset:
    """Segments with the names of their classes.

    ``promised_seconds`` is the length the annotations give each video, where they give one.
    """

    segments: Sequence[Segment]
    verb_names: Sequence[str]
    noun_names: Sequence[str]
    promised_seconds: Mapping[str, float] = field(default_factory=dict)

    def split(self, name: str) -> list[Segment]:
        """The segments of one split, in file order."""
        return [segment for segment in self.segments if segment.split == name]


def check_segments(
    segments: Mapping[int, Segment], *, num_verbs: int, num_nouns: int, source: Path
) -> None:
    """Refuse what cannot be a labelled segment.

    Args:
        segments: by line of the file.

    Raises:
        AnnotationError: stop not after start, a negative start, a class out of range, a segment
            id that occurs twice, or an id that a store cannot keep; names the file, the line, the
            segment and the value.
    """
    first_lines: dict[str, int] = {}
    for line, segment in segments.items():
        where = f"{source}:{line}: segment {segment.segment_id!r} of video {segment.video_id!r}"
        first = first_lines.setdefault(segment.segment_id, line)
        if first != line:
            raise AnnotationError(
                f"{where}: this segment id is that of line {first} already; give every row an id "
                "of its own"
            )
        _check_ids(segment, where)
        if segment.start_seconds < 0:
            raise AnnotationError(f"{where}: got start {segment.start_seconds} s, expected >= 0")
        if segment.stop_seconds > LONGEST_VIDEO_SECONDS:
            raise AnnotationError(
                f"{where}: got stop {segment.stop_seconds} s, expected seconds within a video"
            )
        if segment.stop_seconds <= segment.start_seconds:
            raise AnnotationError(
                f"{where}: got start {segment.start_seconds} s and stop {segment.stop_seconds} s, "
                "expected stop after start"
            )
        for kind, value, count in (
            ("verb_class", segment.verb_class, num_verbs),
            ("noun_class", segment.noun_class, num_nouns),
        ):
            if not 0 <= value < count:
                raise AnnotationError(
                    f"{where}: got {kind} {value}, expected 0 to {count - 1} ({count} classes)"
                )


def _check_ids(segment: Segment, where: str) -> None:
    for name in ("segment_id", "video_id"):
        value = getattr(segment, name)
        if not value.isprintable() or len(value.encode()) > MAX_ID_BYTES:
            raise AnnotationError(
                f"{where}: got {name} {value!r}, expected printable text of at most "
                f"{MAX_ID_BYTES} bytes"
            )
