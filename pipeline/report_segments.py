"""Single segments: what was answered, and which objects were looked at, as in figure 3.4 of the
thesis.

Guesses where it is silent: which segments are shown (`choose_segments`), and which frames first
(`KEY_FRAMES` with the most attention of both branches together).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extractors.video import VideoError
from pipeline.errors import PipelineError, RunFolderError
from pipeline.experiment import Experiment
from pipeline.report_attention import Looked, look
from pipeline.report_frames import read_pictures
from pipeline.report_run import Branch, ReportedRun

__all__ = [
    "Answer",
    "Box",
    "FramePicture",
    "SegmentFigure",
    "choose_segments",
    "segment_figures",
]

SHOWN_RIGHT, SHOWN_WRONG = 3, 3
ANSWERS = 3
KEY_FRAMES = 3


@dataclass(frozen=True)
class Answer:
    """A branch's best answers to one segment: (class, probability, whether it is the label).

    ``label`` is "" and ``right`` None where the segment has none.
    """

    branch: str
    label: str
    right: bool | None
    best: Sequence[tuple[str, float, bool]]


@dataclass(frozen=True)
class Box:
    """An object in pixels of the native frame.

    ``weights``: by branch, of those that look at it. ``strengths``: the same over the branch's
    greatest weight in the segment, 0 to 1.
    """

    number: int
    x: float
    y: float
    width: float
    height: float
    score: float
    weights: Mapping[str, float]
    strengths: Mapping[str, float]


@dataclass(frozen=True)
class FramePicture:
    """A frame. ``image``: a ``data:`` URI, "" where the video is gone.

    ``weights``: attention by branch, all boxes together; no entry for a branch that does not look.
    """

    seconds: float
    image: str
    width: int
    height: int
    boxes: Sequence[Box]
    weights: Mapping[str, float]


@dataclass(frozen=True)
class SegmentFigure:
    """One segment. ``key_frames``: shown first; like ``other_frames`` in order of time.

    ``right``: None without labels. ``branches``: those that attend. ``missing``: what is gone.
    """

    segment_id: str
    title: str
    place: str
    narration: str
    right: bool | None
    answers: Sequence[Answer]
    branches: Sequence[str]
    key_frames: Sequence[FramePicture]
    other_frames: Sequence[FramePicture]
    missing: str


def choose_segments(run: ReportedRun) -> list[str]:
    """Segments worth a look: the most confident right and wrong ones, each of another action.

    Without labels, the most confident ones. Equal confidence goes by segment id.
    """
    confidence = run.confidence
    order = sorted(range(len(run.segment_ids)), key=lambda i: (-confidence[i], run.segment_ids[i]))
    groups = [
        ([i for i in order if run.right[i] and run.labelled[i]], SHOWN_RIGHT),
        ([i for i in order if not run.right[i] and run.labelled[i]], SHOWN_WRONG),
    ]
    if not run.labelled.any():
        groups = [(order, SHOWN_RIGHT + SHOWN_WRONG)]
    return [run.segment_ids[i] for group, most in groups for i in _of_different(run, group)[:most]]


def segment_figures(run: ReportedRun, segment_ids: Sequence[str]) -> list[SegmentFigure]:
    """The figures of some segments, in this order.

    Raises:
        RunFolderError: a segment that the run was not evaluated on.
    """
    rows = {segment_id: i for i, segment_id in enumerate(run.segment_ids)}
    if unknown := [segment_id for segment_id in segment_ids if segment_id not in rows]:
        raise RunFolderError(
            f"{run.folder}: got segment {unknown[0]!r}, expected one of the {len(rows):,} of split "
            f"{run.split}, such as {run.segment_ids[0]!r}"
        )
    looked, reason = _looked(run, segment_ids)
    return [
        _figure(run, rows[segment_id], looked.get(segment_id), reason) for segment_id in segment_ids
    ]


def _of_different(run: ReportedRun, rows: Sequence[int]) -> list[int]:
    """The rows, the first of each action (label, or answer where there is none) to the front."""
    first: dict[tuple[int, int], int] = {}
    for i in rows:
        labels = (int(run.verb.labels[i]), int(run.noun.labels[i]))
        answers = (int(run.verb.predictions[i]), int(run.noun.predictions[i]))
        first.setdefault(labels if min(labels) >= 0 else answers, i)
    front = set(first.values())
    return [*first.values(), *(i for i in rows if i not in front)]


def _looked(run: ReportedRun, segment_ids: Sequence[str]) -> tuple[dict[str, Looked], str]:
    """Boxes and attention by segment, and why there are none."""
    if run.experiment is None:
        return {}, ""  # the page says so on top
    try:
        return look(run, run.experiment, segment_ids), "No boxes of it are stored."
    except (PipelineError, OSError, ValueError, LookupError) as error:
        return {}, f"Boxes and attention cannot be read any more: {error}."


def _figure(run: ReportedRun, row: int, looked: Looked | None, reason: str) -> SegmentFigure:
    segment_id = run.segment_ids[row]
    segment = run.segments.get(segment_id)
    answers = [_answer(branch, row) for branch in (run.verb, run.noun)]
    frames: list[FramePicture] = []
    missing = reason
    if run.experiment is not None and segment is not None:
        if looked is None:
            missing = _absence(run.experiment, segment.video_id) or reason
        else:
            pictures, missing = _pictures(run.experiment, segment.video_id, looked)
            frames = [_frame(looked, m, pictures[m]) for m in range(len(pictures))]
    place = ""
    if segment is not None:
        place = (
            f"video {segment.video_id}, {segment.start_seconds:.2f} to {segment.stop_seconds:.2f} s"
        )
    shown = _shown_first(frames)
    labelled = all(answer.right is not None for answer in answers)
    return SegmentFigure(
        segment_id=segment_id,
        title=" ".join(answer.label or answer.best[0][0] for answer in answers),
        place=place,
        narration=segment.narration if segment else "",
        right=all(answer.right for answer in answers) if labelled else None,
        answers=answers,
        branches=list(looked.weights) if looked else [],
        key_frames=[frame for m, frame in enumerate(frames) if m in shown],
        other_frames=[frame for m, frame in enumerate(frames) if m not in shown],
        missing=missing,
    )


def _answer(branch: Branch, row: int) -> Answer:
    label, scores = int(branch.labels[row]), branch.scores[row]
    best = [int(i) for i in np.argsort(-scores, kind="stable")[:ANSWERS]]
    return Answer(
        branch=branch.name,
        label=branch.names[label] if label >= 0 else "",
        right=bool(branch.right[row]) if label >= 0 else None,
        best=[(branch.names[i], float(scores[i]), i == label) for i in best],
    )


def _pictures(experiment: Experiment, video_id: str, looked: Looked) -> tuple[list[str], str]:
    """The frames' pictures, empty ones and the reason where the video is gone."""
    try:
        return read_pictures(experiment.videos[video_id], looked.times_seconds.tolist()), ""
    except (VideoError, OSError) as error:
        return [""] * len(looked.times_seconds), f"Its frames cannot be read any more: {error}."


def _absence(experiment: Experiment, video_id: str) -> str:
    """Why nothing is known of a video; "" if it is."""
    reasons = [lost.reason for lost in experiment.missing_videos if lost.video.video_id == video_id]
    return f"Its frames cannot be read any more: {reasons[0]}." if reasons else ""


def _frame(looked: Looked, m: int, image: str) -> FramePicture:
    width_px, height_px = looked.frame_size_px
    sums = {name: weights[m][looked.real[m]] for name, weights in looked.weights.items()}
    return FramePicture(
        seconds=float(looked.times_seconds[m]),
        image=image,
        width=width_px,
        height=height_px,
        boxes=[_box(looked, m, k) for k in np.flatnonzero(looked.real[m]).tolist()],
        weights={
            name: float(np.nansum(values))
            for name, values in sums.items()
            if not np.isnan(looked.weights[name][m]).all()
        },
    )


def _box(looked: Looked, m: int, k: int) -> Box:
    left, top, right, bottom = (float(value) for value in looked.boxes_xyxy_px[m, k])
    weights = {
        name: float(values[m, k])
        for name, values in looked.weights.items()
        if not math.isnan(values[m, k])
    }
    return Box(
        number=k + 1,
        x=round(left, 1),
        y=round(top, 1),
        width=round(right - left, 1),
        height=round(bottom - top, 1),
        score=float(looked.scores[m, k]),
        weights=weights,
        strengths={name: _share(value, looked.weights[name]) for name, value in weights.items()},
    )


def _share(value: float, values: npt.NDArray[np.float32]) -> float:
    """A weight over the greatest one."""
    most = float(np.nanmax(values))
    return value / most if most > 0 else 0.0


def _shown_first(frames: Sequence[FramePicture]) -> set[int]:
    """Which frames have the most attention; without attention the middle ones."""
    if not any(frame.weights for frame in frames):
        start = max(0, (len(frames) - KEY_FRAMES) // 2)
        return set(range(start, start + KEY_FRAMES))
    order = sorted(range(len(frames)), key=lambda m: (-sum(frames[m].weights.values()), m))
    return set(order[:KEY_FRAMES])
