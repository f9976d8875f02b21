"""Clips of computed flow: which pairs, what the network sees, and what overlapping clips share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extractors.flow import FlowEstimator
from extractors.flow_clips import FlowClipExtractor, FlowClips
from extractors.geometry import Geometry, square
from extractors.registry import create_clip_extractor

Frames = Sequence[NDArray[np.uint8]]


class Counting(FlowEstimator):
    """Flow right is the first frame's number, flow down the second's."""

    name = "counting"
    VERSION = 1
    needs_weights = False

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.pairs: list[tuple[int, int]] = []

    @classmethod
    def library(cls) -> str:
        return "none"

    def _estimate(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
        pairs = [(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(first, second, strict=True)]
        self.pairs += pairs
        shapes = [frame.shape[:2] for frame in first]
        return [np.full((*s, 2), p, dtype=np.float32) for s, p in zip(shapes, pairs, strict=True)]


def numbered(numbers: Sequence[int], size_px: tuple[int, int] = (6, 8)) -> NDArray[np.uint8]:
    return np.stack([np.full((*size_px, 3), n, dtype=np.uint8) for n in numbers])


@pytest.mark.parametrize("span", [1, 3])
def test_flow_goes_from_a_span_before_the_next_frame_to_it(span: int) -> None:
    estimator = Counting()
    clip = FlowClips(estimator, geometry=square(4), span=span)(numbered(range(4 + span)))
    assert clip.shape == (4, 4, 4, 2)
    assert clip.dtype == np.float32
    np.testing.assert_allclose(clip[:, 1, 2, 0], range(4), atol=1e-5)
    np.testing.assert_allclose(clip[:, 1, 2, 1], np.arange(4) + span, atol=1e-5)


def test_the_bound_is_what_the_network_knows_as_its_own() -> None:
    clip = FlowClips(Counting(bound_px=5), geometry=square(4))(numbered([2, 3, 9]))
    np.testing.assert_allclose(clip[:, 0, 0], [[8, 12], [12, 20]])


def test_fields_are_resized_and_cropped_without_scaling_values() -> None:
    geometry = Geometry(8, 4)
    fields: list[NDArray[np.float32]] = []

    class Ramp(Counting):
        def _estimate(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
            values = np.linspace(-9, 9, 16 * 24 * 2, dtype=np.float32)
            fields.append(values.reshape(16, 24, 2))
            return [fields[-1]]

    clip = FlowClips(Ramp(), geometry=geometry)(numbered([1, 2], (16, 24)))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(fields[0]).permute(2, 0, 1)[None],
        size=(8, 12),
        mode="bilinear",
        antialias=True,
    )[0].permute(1, 2, 0)[2:6, 4:8]
    np.testing.assert_allclose(clip[0], expected.numpy(), atol=1e-6)


def test_overlapping_clips_share_pairs_of_equal_content() -> None:
    estimator = Counting()
    flow = FlowClips(estimator, geometry=square(4))
    first = flow(numbered([0, 1, 2, 3]))
    second = flow(numbered([2, 3, 4, 4, 4]))
    assert estimator.pairs == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]
    np.testing.assert_array_equal(first[2], second[0])
    np.testing.assert_allclose(second[:, 0, 0], [[2, 3], [3, 4], [4, 4], [4, 4]])


def test_equal_bytes_of_another_shape_are_another_pair() -> None:
    flow = FlowClips(estimator := Counting(), geometry=square(4))
    flow(numbered([1, 2], (6, 8)))
    flow(numbered([1, 2], (8, 6)))
    assert len(estimator.pairs) == 2


def test_the_memo_is_bounded_and_forgets_the_oldest() -> None:
    nbytes = 4 * 4 * 2 * 4
    flow = FlowClips(estimator := Counting(), geometry=square(4), memo_nbytes=2 * nbytes)
    flow(numbered([0, 1, 2]))
    flow(numbered([0, 1]))  # now used last
    flow(numbered([5, 6]))
    estimator.pairs.clear()
    flow(numbered([0, 1]))
    flow(numbered([5, 6]))
    assert estimator.pairs == []
    flow(numbered([1, 2]))
    assert estimator.pairs == [(1, 2)]


def test_a_clip_needs_more_frames_than_its_span() -> None:
    with pytest.raises(ValueError, match="got 3 frames for a span of 3"):
        FlowClips(Counting(), geometry=square(4), span=3)(numbered([0, 1, 2]))
    with pytest.raises(ValueError, match="got span 0"):
        FlowClips(Counting(), geometry=square(4), span=0)


def network(modality: str) -> Any:
    return create_clip_extractor(
        "i3d",
        architecture={"modality": modality, "width": 4},
        weights=None,
        seed=1,
        frames=3,
        size_px=32,
        dtype="float32",
    )


def test_an_extractor_is_the_network_on_the_flow() -> None:
    inner = network("flow")
    extractor = FlowClipExtractor(inner, FlowClips(Counting(), geometry=square(32)))
    assert (extractor.frames, extractor.size_px, extractor.channels) == (3, 32, 2)
    assert extractor.outputs == inner.outputs
    prepared = [extractor.prepare(numbered(n)) for n in ([0, 5, 9, 3], [7, 7, 1, 0])]
    clips = torch.from_numpy(np.stack(prepared))
    got = extractor.launch(clips).collect()["map"]
    pairs = np.array([[[0, 5], [5, 9], [9, 3]], [[7, 7], [7, 1], [1, 0]]], dtype=np.float32)
    plain = np.broadcast_to(pairs[:, :, None, None], (2, 3, 32, 32, 2)).copy()
    np.testing.assert_allclose(got, inner(torch.from_numpy(plain))["map"], atol=1e-5)
    np.testing.assert_array_equal(got, extractor(clips)["map"])


def test_a_network_over_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="got a network with 3 channels"):
        FlowClipExtractor(network("rgb"), FlowClips(Counting(), geometry=square(32)))
