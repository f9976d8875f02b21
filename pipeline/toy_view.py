"""A toy kitchen through the wearer's eyes: its frames, and the boxes a detector would give.

Both follow from the scene and the time alone. Boxes and frames are in px of the video's frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.toy_scene import (
    FRAME_SIZE_PX,
    MARGIN_PX,
    PLACE_SPACING_PX,
    Action,
    Floats,
    Jar,
    Scene,
    camera_world_px,
    hand_poses,
    rest_poses,
    target_heights_px,
    target_poses,
)
from pipeline.toy_sprites import (
    JAR_CORNER_PX,
    JAR_HEIGHT_PX,
    JAR_WIDTH_PX,
    Sprite,
    draw_counter,
    draw_hand,
    draw_jar,
    draw_mat,
    draw_shadow,
)

__all__ = ["Painter", "Sightings", "sight_jars"]

_WALL_HEIGHT_PX = 66 + MARGIN_PX
_ARM_HALF_WIDTH_PX, _HAND_LENGTH_PX = 21.0, 16.0


@dataclass(frozen=True, slots=True)
class Sightings:
    """One jar at many times.

    Attributes:
        noun_class: of the jar.
        boxes_xyxy_px: (T, 4), cut to the frame.
        visible_share: (T,) 0..1, how much of it is neither outside nor behind hand and forearm.
    """

    noun_class: int
    boxes_xyxy_px: Floats
    visible_share: Floats


def sight_jars(scene: Scene, times_seconds: Floats) -> list[Sightings]:
    """Say where each jar of a scene is to be seen, at (T,) times."""
    camera = camera_world_px(scene, times_seconds)
    sightings = []
    for action in scene.actions:
        held = target_poses(action, times_seconds)
        sightings.append(_sight(action.target, held, camera, None))
        hand = hand_poses(action, camera, times_seconds)
        for jar in action.others:
            rest = rest_poses(jar, len(times_seconds))
            sightings.append(_sight(jar, rest, camera, hand))
    return sightings


class Painter:
    """Draws the frames of one scene; the counter and the sprites are drawn once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        look = scene.look
        width, height = (size + 2 * MARGIN_PX for size in FRAME_SIZE_PX)
        self._counter = draw_counter(
            (width + PLACE_SPACING_PX * (len(scene.actions) - 1), height),
            _WALL_HEIGHT_PX,
            (look.stone, look.wall, look.board),
            np.random.default_rng(scene.counter_seed),
        )
        self._shadow = draw_shadow()
        self._hand = draw_hand(look.skin, look.sleeve)
        self._targets = [_draw(action.target) for action in scene.actions]
        for action in scene.actions:
            draw_mat(self._counter, action.mat_centre_world_px, action.mat_noun_class)
            for jar in sorted(action.others, key=lambda other: other.y_world_px):
                self._paste_jar(self._counter, _draw(jar), rest_poses(jar, 1)[0], 0.0)

    def draw(self, time_seconds: float) -> NDArray[np.uint8]:
        """Draw the frame at a time; (256, 456, 3) RGB."""
        times = np.array([time_seconds])
        camera = camera_world_px(self.scene, times)
        left, top = camera[0].astype(int).tolist()
        frame = self._counter.crop((left, top, left + FRAME_SIZE_PX[0], top + FRAME_SIZE_PX[1]))
        for action, sprite in zip(self.scene.actions, self._targets, strict=True):
            if abs(action.target.x_world_px - left - FRAME_SIZE_PX[0] / 2) < PLACE_SPACING_PX:
                self._paste_action(frame, action, sprite, camera, times)
        return np.asarray(frame)

    def _paste_action(
        self,
        frame: Image.Image,
        action: Action,
        sprite: Sprite,
        camera: Floats,
        times: Floats,
    ) -> None:
        """The target in the hand: palm and fingers behind it, the thumb before it."""
        shift = np.append(camera[0], (0.0, 0.0))
        hand = hand_poses(action, camera, times)[0] - shift
        behind, before = self._hand
        in_view = bool(np.isfinite(hand).all())
        if in_view:
            behind.paste(frame, hand)
        pose = target_poses(action, times)[0] - shift
        self._paste_jar(frame, sprite, pose, float(target_heights_px(action, times)[0]))
        if in_view:
            before.paste(frame, hand)

    def _paste_jar(
        self, image: Image.Image, sprite: Sprite, pose: Floats, height_px: float
    ) -> None:
        """A jar and its shadow on the counter below it."""
        x, y, _, scale = pose.tolist()
        ground = np.array([x, y + height_px + 0.45 * JAR_HEIGHT_PX * scale, 0.0, 1.0])
        self._shadow.paste(image, ground)
        sprite.paste(image, pose)


def _draw(jar: Jar) -> Sprite:
    return draw_jar(jar.noun_class, jar.hue_turns, inverted=jar.inverted)


def _sight(jar: Jar, poses: Floats, camera: Floats, hand: Floats | None) -> Sightings:
    """Box a jar at its poses and tell its visible share; `hand`, if given, is before it."""
    cos, sin = np.abs(np.cos(poses[:, 2])), np.abs(np.sin(poses[:, 2]))
    wide, high = JAR_WIDTH_PX - 2 * JAR_CORNER_PX, JAR_HEIGHT_PX - 2 * JAR_CORNER_PX
    turned = np.stack([wide * cos + high * sin, wide * sin + high * cos], axis=-1)
    half = (turned / 2 + JAR_CORNER_PX) * poses[:, 3:]  # a round corner is as far at any angle
    centre = poses[:, :2] - camera
    corners = np.stack([centre - half, centre + half], axis=1)  # (T, 2, xy)
    cut = np.clip(corners, 0.0, FRAME_SIZE_PX)
    share = np.prod((cut[:, 1] - cut[:, 0]) / (2 * half), axis=-1)
    if hand is not None:
        share = share * (1 - _covered(cut, camera, hand))
    return Sightings(jar.noun_class, cut.reshape(-1, 4), share)


def _covered(corners: Floats, camera: Floats, hand: Floats) -> Floats:
    """Share of each box, (T, 2, xy), behind hand and forearm, as 5×5 points of it tell; (T,)."""
    steps = (np.arange(5) + 0.5) / 5
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(25, 2)
    low, high = corners[:, None, 0], corners[:, None, 1]
    from_pivot = low + (high - low) * grid - (hand[:, :2] - camera)[:, None]  # (T, 25, xy)
    angle, scale = hand[:, 2:3], hand[:, 3:]
    along = from_pivot[..., 1] * np.cos(angle) - from_pivot[..., 0] * np.sin(angle)
    aside = from_pivot[..., 0] * np.cos(angle) + from_pivot[..., 1] * np.sin(angle)
    # Without a hand all is NaN, and no comparison with NaN holds.
    hidden = (along > -_HAND_LENGTH_PX * scale) & (np.abs(aside) < _ARM_HALF_WIDTH_PX * scale)
    return np.asarray(hidden.mean(axis=-1))
