import numpy as np
import pytest

from extractors.base import (
    GivenBoxes,
    OutputSpec,
    check_frames,
    object_outputs,
)
from extractors.objects import pack_objects


def given(n: int) -> GivenBoxes:
    boxes = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
    return GivenBoxes(boxes, np.ones(n, np.float32), np.arange(n, dtype=np.int32))


def test_output_spec_wants_a_name_for_each_axis() -> None:
    with pytest.raises(ValueError, match="got 1 dims for shape"):
        OutputSpec(("object",), (3, 4), "float32")


def test_output_spec_refuses_empty_axes() -> None:
    with pytest.raises(ValueError, match="expected every axis to be 1 or longer"):
        OutputSpec(("object",), (0,), "float32")


def test_given_boxes_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"got boxes of shape \(2, 5\)"):
        GivenBoxes(np.zeros((2, 5), np.float32), np.zeros(2, np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=r"got scores of shape \(3,\) for 2 boxes"):
        GivenBoxes(np.zeros((2, 4), np.float32), np.zeros(3, np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=r"got classes of shape \(1,\) for 2 boxes"):
        GivenBoxes(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros(1, np.int32))


def test_object_outputs() -> None:
    outputs = object_outputs(5, 256, "float16")
    shapes = {name: (spec.shape, spec.dtype) for name, spec in outputs.items()}
    assert shapes == {
        "features": ((5, 256), "float16"),
        "boxes_xyxy_px": ((5, 4), "float32"),
        "scores": ((5,), "float32"),
        "classes": ((5,), "int32"),
        "count": ((), "int32"),
        "frame_size_px": ((2,), "int32"),
    }
    assert outputs["boxes_xyxy_px"].units == "px"
    assert "native frame" in outputs["boxes_xyxy_px"].attributes["box_frame"]


def test_object_outputs_refuse_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="got top_k=0"):
        object_outputs(0, 256, "float16")
    with pytest.raises(ValueError, match="got dtype 'int8', expected one of float16, bfloat16"):
        object_outputs(5, 256, "int8")


def test_pack_objects_pads_with_zeros() -> None:
    frame = np.zeros((6, 8, 3), np.uint8)
    row = pack_objects(np.full((2, 3), 7, np.float16), given(2), frame, top_k=4)
    assert row["features"].tolist() == [[7, 7, 7], [7, 7, 7], [0, 0, 0], [0, 0, 0]]
    assert row["features"].dtype == np.float16
    assert row["boxes_xyxy_px"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0] * 4, [0] * 4]
    assert row["scores"].tolist() == [1, 1, 0, 0]
    assert row["classes"].tolist() == [0, 1, 0, 0]
    assert int(row["count"]) == 2
    assert row["frame_size_px"].tolist() == [8, 6]
    outputs = object_outputs(4, 3, "float16")
    for name, spec in outputs.items():
        assert (row[name].shape, row[name].dtype.name) == (spec.shape, spec.dtype)


def test_check_frames() -> None:
    frame = np.zeros((6, 8, 3), np.uint8)
    check_frames([frame], None, needs_boxes=False)
    check_frames([frame], [given(1)], needs_boxes=True)
    with pytest.raises(ValueError, match="got no frames"):
        check_frames([], None, needs_boxes=False)
    with pytest.raises(ValueError, match=r"got frame 1 of shape \(6, 8, 3\) and dtype float32"):
        check_frames([frame, frame.astype(np.float32)], None, needs_boxes=False)
    with pytest.raises(ValueError, match=r"got frame 0 of shape \(6, 8\)"):
        check_frames([frame[..., 0]], None, needs_boxes=False)
    with pytest.raises(ValueError, match="got frame 0 of shape"):
        check_frames([frame[:0]], None, needs_boxes=False)
    with pytest.raises(ValueError, match="got boxes, expected none"):
        check_frames([frame], [given(1)], needs_boxes=False)
    with pytest.raises(ValueError, match="got no boxes, expected one GivenBoxes for each of 1"):
        check_frames([frame], None, needs_boxes=True)
    with pytest.raises(ValueError, match="got boxes of 2 frames"):
        check_frames([frame], [given(1), given(1)], needs_boxes=True)
