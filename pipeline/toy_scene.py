"""A toy kitchen as plain data, and where everything in it is at time t.

A scene is a counter with one work place per action. The wearer looks at a place, a hand reaches
in, does a verb to one jar among others, leaves, and the head turns to the next place; all the
while the head shakes. Verb and noun of an action are independent; the other jars are of other
nouns. The mat of a place is what a backbone may learn of a noun without seeing its label: of
`FAVOURITE_MAT_SHARE` of the actions it has the noun's favourite colour, else any.

Frames of reference: `world` px count on the counter; x runs right and y down. The camera's offset
is where the frame's top left corner lies. Poses are (T, 4) of centre x and y in world px, angle in
radians clockwise, and scale.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.toy_sprites import NOUNS, Colour

__all__ = [
    "FRAME_SIZE_PX",
    "MARGIN_PX",
    "NOUNS",
    "PLACE_SPACING_PX",
    "VERBS",
    "Action",
    "Floats",
    "Jar",
    "Look",
    "Scene",
    "camera_world_px",
    "create_look",
    "create_scene",
    "hand_poses",
    "rest_poses",
    "target_heights_px",
    "target_poses",
]

Floats = NDArray[np.float64]

FRAME_SIZE_PX = (456, 256)
VERBS = ("push", "pull", "lift", "shake", "stir", "turn", "pour")
FAVOURITE_MAT_SHARE = 0.45
PLACE_SPACING_PX = 480  # from one work place to the next: no jar is in view at two of them
MARGIN_PX = 24  # of counter beyond the frame, for the head to shake over

_COLUMNS, _ROWS = 5, 2  # jars stand in different cells of this grid
_TARGET_COLUMNS = (1, 2, 3)  # so that what the hand does stays well in view
_REACH_SECONDS = 0.2  # before an action starts and after it stops
_HAND_SCALE = 1.35
_SHAKE_WAVES = ((5.0, 0.5, 1.0), (2.0, 1.4, 2.2), (1.0, 2.6, 4.0))  # px, from Hz, to Hz


@dataclass(frozen=True, slots=True)
class Jar:
    """A jar at rest; its centre in world px."""

    noun_class: int
    hue_turns: float
    inverted: bool
    x_world_px: float
    y_world_px: float
    tilt_radians: float
    scale: float


@dataclass(frozen=True, slots=True)
class Action:
    """A verb done to one jar while others stand by, at a place with a mat.

    The hand is in view from a little before the start to a little after the stop.
    """

    start_seconds: float
    stop_seconds: float
    verb_class: int
    target: Jar
    others: tuple[Jar, ...]
    mat_noun_class: int
    mat_centre_world_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """What tells one participant's videos from another's."""

    stone: Colour
    wall: Colour
    board: Colour
    skin: Colour
    sleeve: Colour


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one video shows.

    `shake` is (2, 3, 3): for x and y, three waves of amplitude px, frequency Hz, phase radians.
    """

    look: Look
    actions: tuple[Action, ...]
    counter_seed: int
    shake: Floats


def create_look(rng: np.random.Generator) -> Look:
    """Draw a participant's kitchen, skin and sleeve."""
    stones = ((150, 166, 172), (128, 150, 148), (186, 192, 196), (112, 126, 142), (158, 160, 150))
    walls = ((214, 222, 222), (226, 214, 194), (196, 214, 200), (206, 204, 220), (228, 204, 196))
    skins = ((236, 194, 166), (222, 172, 138), (186, 132, 98), (132, 90, 66), (240, 208, 186))
    sleeves = ((44, 66, 120), (130, 44, 56), (40, 92, 66), (64, 52, 84), (210, 150, 60))
    drawn = []
    for colours in (stones, walls, ((222, 192, 150),), skins, sleeves):
        shift = rng.integers(-12, 13, size=3)
        red, green, blue = (colours[int(rng.integers(len(colours)))] + shift).tolist()
        drawn.append((red, green, blue))
    return Look(*drawn)


def create_scene(
    labels: list[tuple[int, int]],
    times_seconds: list[tuple[float, float]],
    look: Look,
    rng: np.random.Generator,
) -> Scene:
    """Set a scene in which the given actions happen.

    Args:
        labels: (verb class, noun class) of each action.
        times_seconds: its start and stop; each pair after the one before.
        look: the participant's.
        rng: places, hues, tilts, distractors, mats, shake.
    """
    actions = []
    for place, ((verb, noun), (start, stop)) in enumerate(zip(labels, times_seconds, strict=True)):
        jars = _stand_jars(noun, place, rng)
        mat = noun if rng.uniform() < FAVOURITE_MAT_SHARE else int(rng.integers(len(NOUNS)))
        x, y = rng.uniform(160, 300), rng.uniform(145, 170)
        centre = (MARGIN_PX + PLACE_SPACING_PX * place + float(x), MARGIN_PX + float(y))
        actions.append(Action(start, stop, verb, jars[0], jars[1:], mat, centre))
    shake = [
        [(size, rng.uniform(low, high), rng.uniform(0, 2 * np.pi)) for size, low, high in waves]
        for waves in (_SHAKE_WAVES, _SHAKE_WAVES)
    ]
    return Scene(look, tuple(actions), int(rng.integers(2**31)), np.array(shake))


def camera_world_px(scene: Scene, times_seconds: Floats) -> Floats:
    """The frame's top left corner on the counter, whole px; (T, 2)."""
    amplitude, rate, phase = np.moveaxis(scene.shake, -1, 0)
    waves = amplitude * np.sin(2 * np.pi * rate * times_seconds[:, None, None] + phase)
    offset = MARGIN_PX + waves.sum(-1)  # (T, 2)
    for before, after in pairwise(scene.actions):
        gap = after.start_seconds - before.stop_seconds
        offset[:, 0] += PLACE_SPACING_PX * _smooth((times_seconds - before.stop_seconds) / gap)
    return np.asarray(np.rint(offset))


def rest_poses(jar: Jar, count: int) -> Floats:
    """A jar that stands still, `count` times."""
    pose = np.array([jar.x_world_px, jar.y_world_px, jar.tilt_radians, jar.scale])
    return np.tile(pose, (count, 1))


def target_poses(action: Action, times_seconds: Floats) -> Floats:
    """Poses of the jar that the hand moves; before and after, where it was found and left."""
    right, down, height, turn = _motion(action, times_seconds)
    change = np.stack([right, down - height, turn, height * 0.006], axis=-1)  # nearer is larger
    return rest_poses(action.target, len(times_seconds)) + change


def target_heights_px(action: Action, times_seconds: Floats) -> Floats:
    """How far the target is held above its shadow; (T,)."""
    return _motion(action, times_seconds)[2]


def hand_poses(action: Action, camera: Floats, times_seconds: Floats) -> Floats:
    """Poses of the hand, its pivot in what it holds; NaN while it is out of view.

    Args:
        action: what it does.
        camera: (T, 2) world px; the arm comes from below the frame.
        times_seconds: (T,).
    """
    held = target_poses(action, times_seconds)
    reach = np.minimum(
        _smooth(1 + (times_seconds - action.start_seconds) / _REACH_SECONDS),
        _smooth(1 + (action.stop_seconds - times_seconds) / _REACH_SECONDS),
    )
    pivot = held[:, :2] + (1 - reach)[:, None] * [90.0, 250.0]
    elbow = camera + np.array(FRAME_SIZE_PX) * [0.62, 1.6]
    down = elbow - pivot
    angle = np.arctan2(-down[:, 0], down[:, 1])
    angle += 0.65 * (held[:, 2] - action.target.tilt_radians)
    scale = _HAND_SCALE * (1 + held[:, 3] - action.target.scale)
    poses = np.column_stack([pivot, angle, scale])
    poses[reach == 0] = np.nan
    return poses


def _stand_jars(noun_class: int, place: int, rng: np.random.Generator) -> tuple[Jar, ...]:
    """The target, and three or four jars of other nouns, in cells of their own."""
    others = rng.choice(len(NOUNS) - 1, size=int(rng.integers(3, 5)), replace=False)
    nouns = [noun_class, *(int(other) + int(other >= noun_class) for other in others)]
    cells = rng.permutation(_COLUMNS * _ROWS)
    first = int(rng.choice(np.flatnonzero(np.isin(cells % _COLUMNS, _TARGET_COLUMNS))))
    cells[[0, first]] = cells[[first, 0]]
    jars = []
    for noun, cell in zip(nouns, cells.tolist(), strict=False):
        x = 48 + 72 * (cell % _COLUMNS) + rng.uniform(0, 40)
        y = 112 + 46 * (cell // _COLUMNS) + rng.uniform(0, 26)
        jar = Jar(
            noun_class=noun,
            hue_turns=float(rng.uniform()),
            inverted=bool(rng.integers(2)),
            x_world_px=float(MARGIN_PX + PLACE_SPACING_PX * place + x),
            y_world_px=float(MARGIN_PX + y),
            tilt_radians=float(rng.uniform(-0.12, 0.12)),
            scale=float(0.9 + 0.2 * (y - 112) / 72),  # nearer is larger
        )
        jars.append(jar)
    return tuple(jars)


def _motion(action: Action, times_seconds: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """What a verb does to the jar: px right, down and up from the counter, radians; (T,) each."""
    length = action.stop_seconds - action.start_seconds
    done = np.clip((times_seconds - action.start_seconds) / length, 0.0, 1.0)
    waves = 2 * np.pi * length * done  # radians at one wave a second
    along = _smooth((done - 0.15) / 0.7)
    held = np.minimum(_smooth(4 * done), _smooth(4 * (1 - done)))
    still = np.zeros_like(done)
    match VERBS[action.verb_class]:
        case "push":
            return -64 * along, -36 * along, still, still
        case "pull":
            return 36 * along, 56 * along, still, still
        case "lift":
            return still, still, 80 * held, still
        case "shake":
            to_and_fro = held * np.sin(2.4 * waves)
            return 30 * to_and_fro, 25 * to_and_fro, 12 * held, still
        case "stir":
            return 44 * held * np.sin(waves), 32 * held * np.cos(waves), still, still
        case "turn":
            return still, still, still, held * np.sin(1.4 * waves)
    return still, still, 34 * held, -1.7 * held  # pour


def _smooth(x: Floats) -> Floats:
    """0 below 0, 1 above 1, and without a jerk between."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))
