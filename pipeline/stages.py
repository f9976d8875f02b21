"""The stages: what decides their numbers (settings → key) and which rows they are asked for.

    verb, noun   clip rows: a 3-D CNN's map                         stage_clip
    objects      frame rows: the top K objects of one native frame  stage_objects
    aligned      derived rows: what heads train from                stage_aligned

A stage is named by the sha256 of its settings, so equal settings find equal rows wherever and
whenever they were made. ``VERSION`` of a stage is raised by hand when its code gives other numbers.
"""

from __future__ import annotations

from pipeline.stage_aligned import MAP_OUTPUTS, AlignedStage
from pipeline.stage_clip import ClipStage
from pipeline.stage_objects import ObjectsStage

__all__ = [
    "MAP_OUTPUTS",
    "STAGE_NAMES",
    "AlignedStage",
    "ClipStage",
    "ObjectsStage",
    "Stage",
    "VideoStage",
]

STAGE_NAMES = ("verb", "noun", "objects", "aligned")

VideoStage = ClipStage | ObjectsStage
Stage = VideoStage | AlignedStage
