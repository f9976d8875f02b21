"""Where a head looked: the stored boxes of segments, and the weights that it gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from heads.base import Head
from heads.checkpoint import load_head
from heads.table import FeatureTable, Sample
from heads.training import HEAD_FILE
from pipeline.clips import Clip
from pipeline.experiment import Experiment
from pipeline.head_rows import open_rows
from pipeline.report_run import ReportedRun
from stores.base import FeatureReader
from stores.row_keys import key_texts

__all__ = ["Looked", "look"]

BOX_OUTPUTS = ("object_boxes_xyxy_px", "object_mask", "object_scores", "frame_size_px")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Looked:
    """The M frames of K places for objects that a head saw of one segment.

    Attributes:
        times_seconds: (M,) of the frames, the first frame of the video being 0.
        boxes_xyxy_px: (M, K, 4) in pixels of the native frame.
        scores: (M, K) of the detector.
        real: (M, K) whether there is an object.
        frame_size_px: width and height of the native frame.
        weights: by branch, (M, K), adding up to 1 over all; NaN for objects it does not look at.
            Empty for heads that do not attend.
    """

    times_seconds: npt.NDArray[np.float64]
    boxes_xyxy_px: Floats
    scores: Floats
    real: npt.NDArray[np.bool_]
    frame_size_px: tuple[int, int]
    weights: Mapping[str, Floats]


def look(run: ReportedRun, experiment: Experiment, segment_ids: Sequence[str]) -> dict[str, Looked]:
    """Read boxes and ask the head again; segments without stored rows are left out.

    Raises:
        RowsMissing: there is no store, or none of these rows in it.
        ValueError: the rows are not those the head was trained on.
    """
    clips = _clips(experiment, segment_ids)
    with open_rows(experiment) as reader:
        missing = set(reader.missing([key for _, key in clips.values()]))
        clips = {name: (clip, key) for name, (clip, key) in clips.items() if key not in missing}
        if not clips or not set(BOX_OUTPUTS) <= set(reader.specs):
            return {}
        keys = [key for _, key in clips.values()]
        stored = reader.read(keys, BOX_OUTPUTS)
        weights = _weights(run, reader, {name: key for name, (_, key) in clips.items()})
    found = {}
    for i, (segment_id, (clip, _)) in enumerate(clips.items()):
        times = np.maximum(experiment.aligned.objects.times_us(clip), 0) / 1e6
        shape = (len(times), -1)
        width_px, height_px = stored["frame_size_px"][i]
        found[segment_id] = Looked(
            times_seconds=times,
            boxes_xyxy_px=stored["object_boxes_xyxy_px"][i].reshape(*shape, 4),
            scores=stored["object_scores"][i].reshape(shape),
            real=stored["object_mask"][i].reshape(shape).astype(bool),
            frame_size_px=(int(width_px), int(height_px)),
            weights={name: values[i].reshape(shape) for name, values in weights.items()},
        )
    return found


def _clips(experiment: Experiment, segment_ids: Sequence[str]) -> dict[str, tuple[Clip, str]]:
    """By segment: its middle view, and the row of that; nothing for those without a video."""
    naming = experiment.aligned.naming(experiment.table)
    views: dict[str, list[int]] = {segment_id: [] for segment_id in segment_ids}
    for place in np.flatnonzero(naming.named).tolist():
        segment_id = experiment.clips[place].segment.segment_id
        if segment_id in views:
            views[segment_id].append(place)
    middle = {name: places[len(places) // 2] for name, places in views.items() if places}
    keys = key_texts(naming.keys[naming.numbers[list(middle.values()), 0]])
    clips = (experiment.clips[place] for place in middle.values())
    return dict(zip(middle, zip(clips, keys, strict=True), strict=True))


def _weights(
    run: ReportedRun, reader: FeatureReader, row_keys: Mapping[str, str]
) -> dict[str, Floats]:
    """By branch, (segments, N) float32; NaN for the objects it does not look at.

    Empty for heads that do not attend, and for fusions.
    """
    if run.checkpoint is None:
        return {}
    head = load_head(run.folder / HEAD_FILE, specs=reader.specs)
    if not head.attends:
        return {}
    samples = [Sample(name, (key,), 0, 0) for name, key in row_keys.items()]
    table = FeatureTable(reader, samples, outputs=head.inputs)
    indices = np.arange(len(samples))
    with torch.no_grad():
        attention = head.eval().attention(table.batch(indices, np.zeros_like(indices)))
    return {name: _all_objects(head, name, part.numpy()) for name, part in attention.items()}


def _all_objects(head: Head, branch: str, weights: Floats) -> Floats:
    """Weights over a branch's own objects, put among all of them."""
    dims = head.config.dims
    everywhere = np.full((len(weights), dims.num_objects), np.nan, dtype=np.float32)
    everywhere[:, head.object_slices(dims)[branch]] = weights
    return everywhere
