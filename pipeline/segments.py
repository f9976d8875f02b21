"""A labelled stretch of video, and a data set as a list of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heads.protocols import Protocol
from heads.scores import UNLABELLED
from pipeline.errors import AnnotationError

# Four months: beyond it a number is not a time in a video but a mistake.
LONGEST_VIDEO_SECONDS = 1e7

__all__ = ["UNLABELLED", "Dataset", "Segment", "check_segments", "make_dataset"]

# A clip is called video/segment/view, and stores keep names of up to 255 bytes.
MAX_ID_BYTES = 120


@dataclass(frozen=True, slots=True)
class Segment:
    """One labelled action.

    ``start_seconds`` and ``stop_seconds`` count from the first frame of the video. ``split`` is
    ``train``, ``val`` or a test split. Classes are `UNLABELLED` where labels are withheld.
    ``session_id``: the recording that a video was cut from, where the data set names it.
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
    session_id: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """What decides where its video lies."""
        return self.video_id, self.participant_id, self.session_id

    @property
    def labelled(self) -> bool:
        """Whether its verb and its noun are known."""
        return self.verb_class != UNLABELLED and self.noun_class != UNLABELLED


@dataclass(frozen=True)
class Dataset:
    """Segments with the names of their classes.

    ``promised_seconds`` is the length the annotations give each video, where they give one.
    ``protocol`` is the official evaluation, and the lists of classes it needs.
    """

    segments: Sequence[Segment]
    verb_names: Sequence[str]
    noun_names: Sequence[str]
    promised_seconds: Mapping[str, float] = field(default_factory=dict)
    protocol: Protocol = field(default_factory=Protocol)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have segments, in file order."""
        return tuple(dict.fromkeys(segment.split for segment in self.segments))

    def split(self, name: str) -> list[Segment]:
        """The segments of one split, in file order."""
        return [segment for segment in self.segments if segment.split == name]


def make_dataset(
    segments: Mapping[str, Segment],
    verb_names: Sequence[str],
    noun_names: Sequence[str],
    *,
    source: Path,
    splits: Collection[str] = (),
    promised_seconds: Mapping[str, float] | None = None,
    protocol: Protocol | None = None,
) -> Dataset:
    """A data set of segments that have been looked at.

    Args:
        segments: by ``file:line``.
        source: the file or folder they are from.
        splits: each of these must have segments.

    Raises:
        AnnotationError: no segments, an empty split, or as `check_segments`.
    """
    if not segments:
        raise AnnotationError(f"{source}: got no rows, expected one per segment")
    check_segments(segments, num_verbs=len(verb_names), num_nouns=len(noun_names))
    dataset = Dataset(
        list(segments.values()),
        verb_names,
        noun_names,
        promised_seconds or {},
        protocol or Protocol(),
    )
    _check_test_labels(segments)
    found = dataset.splits
    for split in splits:
        if split not in found:
            raise AnnotationError(
                f"{source}: split {split!r} has no rows, only {', '.join(found)} have; "
                "give its labels, or leave it out of data.splits"
            )
    return dataset


def check_segments(segments: Mapping[str, Segment], *, num_verbs: int, num_nouns: int) -> None:
    """Refuse what cannot be a segment. Test splits may be without labels, others not.

    Args:
        segments: by ``file:line``.

    Raises:
        AnnotationError: stop not after start, a negative start, a class out of range, a segment
            id that occurs twice, or an id that a store cannot keep; names the file, the line, the
            segment and the value.
    """
    first_places: dict[str, str] = {}
    for place, segment in segments.items():
        first = first_places.setdefault(segment.segment_id, place)
        trouble = (
            (first != place and _same_id(first))
            or _trouble_of_ids(segment)
            or _trouble_of_times(segment)
            or _trouble_of_classes(segment, num_verbs, num_nouns)
        )
        if trouble:
            raise AnnotationError(
                f"{place}: segment {segment.segment_id!r} of video {segment.video_id!r}: {trouble}"
            )


def _same_id(first: str) -> str:
    return f"this segment id is that of {Path(first).name} already; give every row an id of its own"


def _trouble_of_times(segment: Segment) -> str:
    start, stop = segment.start_seconds, segment.stop_seconds
    if start < 0:
        return f"got start {start} s, expected >= 0"
    if stop > LONGEST_VIDEO_SECONDS:
        return f"got stop {stop} s, expected seconds within a video"
    if stop <= start:
        return f"got start {start} s and stop {stop} s, expected stop after start"
    return ""


def _trouble_of_classes(segment: Segment, num_verbs: int, num_nouns: int) -> str:
    verb, noun = segment.verb_class, segment.noun_class
    if verb == noun == UNLABELLED and segment.split.startswith("test"):
        return ""
    if not 0 <= verb < num_verbs:
        return f"got verb_class {verb}, expected 0 to {num_verbs - 1} ({num_verbs} classes)"
    if not 0 <= noun < num_nouns:
        return f"got noun_class {noun}, expected 0 to {num_nouns - 1} ({num_nouns} classes)"
    return ""


def _check_test_labels(segments: Mapping[str, Segment]) -> None:
    """A split is measured or it is not: some labels would be dropped in silence."""
    firsts: dict[str, tuple[str, bool]] = {}
    for place, segment in segments.items():
        if segment.split not in firsts:
            firsts[segment.split] = place, segment.labelled
        first, labelled = firsts[segment.split]
        if labelled != segment.labelled:
            got = "labels" if segment.labelled else "no labels"
            raise AnnotationError(
                f"{place}: segment {segment.segment_id!r}: got {got} in split {segment.split!r}, "
                f"expected all or none to have them, as in {Path(first).name}"
            )


def _trouble_of_ids(segment: Segment) -> str:
    for name, value in (("segment_id", segment.segment_id), ("video_id", segment.video_id)):
        if not value.isprintable() or len(value.encode()) > MAX_ID_BYTES:
            return f"got {name} {value!r}, expected printable text of at most {MAX_ID_BYTES} bytes"
    return ""
