"""Labels, boxes and videos looked at where something else is in the way of a run already.

No key is needed for that, nothing is hashed, and no video opened.
"""

from __future__ import annotations

from pipeline.boxes_store import check_boxes
from pipeline.checks import Problem
from pipeline.config import ExperimentConfig
from pipeline.config_data import ToyKitchenData
from pipeline.datasets import load_dataset
from pipeline.errors import MENDABLE, in_words
from pipeline.experiment import (
    MissingVideo,
    clips_of,
    given_boxes,
    locate,
    missing_videos,
)
from pipeline.videos import absent

__all__ = ["look_at_inputs"]


def look_at_inputs(config: ExperimentConfig) -> tuple[list[Problem], list[MissingVideo]]:
    """What is wrong with labels and boxes, and which videos are not there.

    The toy kitchen is rendered by whoever needs it, and is not looked at.
    """
    if isinstance(config.data, ToyKitchenData):
        return [], []
    problems, boxes = [], None
    try:
        boxes = given_boxes(config.stages.objects)
    except MENDABLE as error:
        problems.append(Problem("config", in_words(error)))
    try:
        dataset = load_dataset(config.data)
        videos = locate(config, dataset)
        reasons = {source: absent(v) for source, v in videos.items() if not v.path.exists()}
        missing = missing_videos(clips_of(config, dataset), videos, reasons)
        check_boxes(boxes, dataset)
    except MENDABLE as error:
        return [*problems, Problem("config", in_words(error))], []
    return problems, missing
