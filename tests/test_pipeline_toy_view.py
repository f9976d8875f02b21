"""What the toy kitchen shows, and that boxes lie on what they name."""

import dataclasses

import numpy as np
import pytest

from pipeline.toy_scene import (
    NOUNS,
    VERBS,
    Scene,
    camera_world_px,
    create_look,
    create_scene,
    hand_poses,
    target_poses,
)
from pipeline.toy_sprites import draw_jar
from pipeline.toy_view import Painter, sight_jars


def _scene(labels: list[tuple[int, int]], seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    times = [(0.5 + 2.0 * i, 2.0 + 2.0 * i) for i in range(len(labels))]
    return create_scene(labels, times, create_look(rng), rng)


@pytest.mark.parametrize("verb", range(len(VERBS)), ids=VERBS)
@pytest.mark.parametrize("time_seconds", [0.2, 0.9, 1.25, 1.6])
def test_boxes_lie_tightly_on_the_objects(verb: int, time_seconds: float) -> None:
    """What changes when a jar takes another hue is the jar: all of it in the box, up to its rim."""
    scene = _scene([(verb, 4)])
    [action] = scene.actions
    sighting = sight_jars(scene, np.array([time_seconds]))[0]
    recoloured = dataclasses.replace(
        action.target, hue_turns=(action.target.hue_turns + 0.5) % 1, inverted=True
    )
    other = dataclasses.replace(scene, actions=(dataclasses.replace(action, target=recoloured),))
    pictures = [Painter(s).draw(time_seconds).astype(int) for s in (scene, other)]
    ys, xs = np.nonzero(np.abs(pictures[0] - pictures[1]).max(axis=-1) > 40)
    x0, y0, x1, y1 = sighting.boxes_xyxy_px[0]
    assert xs.min() == pytest.approx(x0, abs=2.5)
    assert ys.min() == pytest.approx(y0, abs=2.5)
    assert ys.max() + 1 == pytest.approx(y1, abs=2.5)
    assert xs.max() + 1 == pytest.approx(x1, abs=2.5)


def test_distractors_stand_still_on_the_counter_and_are_others() -> None:
    scene = _scene([(0, 4), (2, 7)])
    times = np.linspace(0, 4, 30)
    camera = camera_world_px(scene, times)
    sightings = iter(sight_jars(scene, times))
    for action in scene.actions:
        next(sightings)  # the target
        nouns = {jar.noun_class for jar in action.others}
        assert 3 <= len(action.others) <= 4
        assert len(nouns | {action.target.noun_class}) == len(action.others) + 1
        for jar in action.others:
            boxes = next(sightings).boxes_xyxy_px
            whole = (boxes[:, 0] > 0) & (boxes[:, 2] < 456) & (boxes[:, 3] < 256)
            left_world = boxes[whole, 0] + camera[whole, 0]
            assert whole.sum() > 5
            assert np.ptp(left_world) < 1e-9
            assert jar.x_world_px - 20 < left_world[0] < jar.x_world_px


def test_what_is_behind_the_arm_is_less_visible() -> None:
    """A jar below the target stands where the forearm comes up."""
    scene = _scene([(2, 4)])
    [action] = scene.actions
    target = dataclasses.replace(action.target, x_world_px=250.0, y_world_px=150.0)
    below = dataclasses.replace(target, noun_class=5, x_world_px=260.0, y_world_px=215.0)
    beside = dataclasses.replace(below, noun_class=6, x_world_px=100.0)
    action = dataclasses.replace(action, target=target, others=(below, beside))
    scene = dataclasses.replace(scene, actions=(action,))
    _, covered, free = sight_jars(scene, np.array([0.0, 0.6]))
    assert covered.visible_share[0] == pytest.approx(1.0)  # before the hand comes
    assert covered.visible_share[1] < 0.5
    assert free.visible_share == pytest.approx([1.0, 1.0])


def test_the_hand_holds_the_target_during_the_action_and_is_away_outside() -> None:
    for verb in range(len(VERBS)):
        scene = _scene([(verb, 0)])
        [action] = scene.actions
        times = np.array([0.0, 0.25, 0.5, 1.2, 2.0, 2.25, 2.6])
        hand = hand_poses(action, camera_world_px(scene, times), times)
        held = target_poses(action, times)
        assert np.isnan(hand[[0, 1, 5, 6]]).all()
        np.testing.assert_allclose(hand[2:5, :2], held[2:5, :2])


def test_every_verb_moves_the_target_its_own_way() -> None:
    times = np.linspace(0.5, 2.0, 40)
    paths = []
    for verb in range(len(VERBS)):
        [action] = _scene([(verb, 0)]).actions
        path = target_poses(action, times)
        paths.append((path - path[0]) * [1, 1, 40, 100])
        assert np.abs(paths[-1]).max() > 20
    for verb, path in enumerate(paths):
        for other in paths[:verb]:
            assert np.abs(path - other).max(axis=0).max() > 20


def test_labels_give_a_noun_no_coarse_look() -> None:
    """Half of each label is ink whatever the pattern; the patterns themselves differ widely."""
    labels = []
    for noun in range(len(NOUNS)):
        sprite = draw_jar(noun, 0.3, inverted=False).image.convert("L")
        label = np.asarray(sprite, float)[16:64, 4:52]  # 24×24 px at twice the size
        labels.append(label)
    means = [label.mean() for label in labels]
    assert np.ptp(means) < 0.03 * np.mean(means)
    for index, label in enumerate(labels):
        for other in labels[:index]:
            assert abs(np.corrcoef(label.ravel(), other.ravel())[0, 1]) < 0.6
