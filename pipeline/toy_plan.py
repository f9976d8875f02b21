"""Which videos a toy kitchen has, who made them, and what happens in them when."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.toy_scene import NOUNS, VERBS, Scene, create_look, create_scene

__all__ = ["RATE_FPS", "TRAIN_PARTICIPANTS", "VAL_PARTICIPANTS", "ToyVideo", "plan_videos"]

RATE_FPS = 24
TRAIN_PARTICIPANTS = range(1, 26)
VAL_PARTICIPANTS = range(26, 32)

_EDGE_CENTISECONDS = 30  # before the first action and after the last
_GAP_CENTISECONDS = 50  # between two actions; the head turns meanwhile
_ACTION_CENTISECONDS = (150, 190)


@dataclass(frozen=True, slots=True)
class ToyVideo:
    """One video: its name, its actions, and the scene they happen in."""

    participant: int
    number: int
    labels: tuple[tuple[int, int], ...]
    times_centiseconds: tuple[tuple[int, int], ...]
    num_frames: int
    scene: Scene

    @property
    def participant_id(self) -> str:
        return f"P{self.participant:02d}"

    @property
    def video_id(self) -> str:
        return f"{self.participant_id}_{self.number:02d}"


def plan_videos(
    num_segments: int, segments_per_video: int, participants: range, seed: int
) -> list[ToyVideo]:
    """Deal the actions of one split out to videos, and those in turn to participants."""
    num_videos = math.ceil(num_segments / segments_per_video)
    if num_videos > 99 * len(participants):
        raise ValueError(
            f"got {num_videos} videos for {len(participants)} participants, expected at most 99 "
            "each: EPIC-55's ids have two digits; raise segments_per_video"
        )
    rng = np.random.default_rng([seed, 0, participants.start])
    labels = _balanced_labels(num_segments, rng)
    videos = []
    for index in range(num_videos):
        participant = participants[index % len(participants)]
        number = 1 + index // len(participants)
        own = labels[index * segments_per_video : (index + 1) * segments_per_video]
        videos.append(_plan_one(participant, number, own, seed))
    return videos


def _balanced_labels(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(verb, noun) pairs in random order, every verb, noun and pair as often as the next."""
    period = math.lcm(len(VERBS), len(NOUNS))  # after which the diagonal meets itself: shift it
    pairs = [(i % len(VERBS), (i + i // period) % len(NOUNS)) for i in range(count)]
    return [pairs[int(i)] for i in rng.permutation(count)]


def _plan_one(participant: int, number: int, labels: list[tuple[int, int]], seed: int) -> ToyVideo:
    look = create_look(np.random.default_rng([seed, participant]))
    rng = np.random.default_rng([seed, participant, number])
    times, clock = [], _EDGE_CENTISECONDS
    for _ in labels:
        stop = clock + int(rng.integers(*_ACTION_CENTISECONDS, endpoint=True))
        times.append((clock, stop))
        clock = stop + _GAP_CENTISECONDS
    num_frames = math.ceil((times[-1][1] + _EDGE_CENTISECONDS) * RATE_FPS / 100)
    seconds = [(start / 100, stop / 100) for start, stop in times]
    scene = create_scene(labels, seconds, look, rng)
    return ToyVideo(participant, number, tuple(labels), tuple(times), num_frames, scene)
