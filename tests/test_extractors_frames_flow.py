"""Frames of flow: two grey images each, at their own stride, in folders and tars."""

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extractors.video import (
    FrameDecodeError,
    UnreadableVideo,
    VideoChanged,
    VideoReader,
    open_video,
)

EPIC = "{component}/frame_{number:010d}.png"


def write_flow(folder: Path, counts: dict[str, int], pattern: str = EPIC) -> Path:
    """Flat grey images: horizontal frame n has the value n, vertical 100 + n."""
    for offset, (component, count) in zip((0, 100), counts.items(), strict=True):
        for number in range(1, count + 1):
            file = folder / pattern.format(component=component, number=number)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 6), offset + number).save(file)
    return folder


def pack(folder: Path, prefix: str = ".") -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(folder, prefix)
    return path


def open_flow(path: Path, **settings: Any) -> VideoReader:
    return open_video(path, kind="flow", **{"frame_rate_fps": 60.0, "stride": 2} | settings)


@pytest.mark.parametrize(
    ("components", "pattern"),
    [
        ("uv", EPIC),
        ("uv", "P01_01/{component}/frame_{number:010d}.png"),
        ("uv", "P01_01_flow_{component}_{number:010d}.png"),
        ("xy", "flow_{component}_{number:05d}.png"),
    ],
)
def test_both_components_of_a_frame(tmp_path: Path, components: str, pattern: str) -> None:
    folder = write_flow(tmp_path / "flow", dict.fromkeys(components, 4), pattern)
    paths = [pack(folder)]
    if pattern.count("/") < 2:
        paths.append(folder)
    for path in paths:
        with open_flow(path) as reader:
            assert (reader.reader_name, reader.channels, reader.num_frames) == ("flow", 2, 4)
            assert (reader.width_px, reader.height_px) == (8, 6)
            for index, frame in reader.frames([0, 2, 3]):
                assert frame.shape == (6, 8, 2)
                assert frame.dtype == np.uint8
                assert frame.flags.c_contiguous
                assert (frame == [index + 1, index + 101]).all()


@pytest.mark.parametrize(("stride", "rate_fps"), [(2, 60.0), (1, 50.0), (5, 30.0)])
def test_a_flow_frame_is_there_when_its_rgb_frames_are(
    tmp_path: Path, stride: int, rate_fps: float
) -> None:
    """RGB number n, on screen from n / rate, goes with flow number (n - 1) // stride + 1."""
    folder = write_flow(tmp_path / "flow", {"u": 7, "v": 7})
    numbers = np.arange(1, 7 * stride + 1)
    with open_flow(folder, stride=stride, frame_rate_fps=rate_fps) as reader:
        indices, outside = reader.index_at(numbers / rate_fps)
        assert indices.tolist() == ((numbers - 1) // stride).tolist()
        assert not outside.any()
        assert reader.index_at([0.0])[0].tolist() == [0]
        assert reader.index_at([(7 * stride + 1) / rate_fps])[1].all()
        assert reader.duration_seconds == (7 * stride + 1) / rate_fps


def test_a_pattern_may_be_named(tmp_path: Path) -> None:
    folder = write_flow(tmp_path / "flow", {"u": 2, "v": 2})
    write_flow(folder, {"u": 3, "v": 3}, "{component}_old_{number:03d}.png")
    with pytest.raises(UnreadableVideo, match="expected two that differ in one letter"):
        open_flow(folder)
    assert open_flow(folder, frame_pattern=EPIC).num_frames == 2
    for pattern in ("frame_{number:010d}.png", "{component}.png", "{number}_{component!r}.png"):
        with pytest.raises(ValueError, match="got frame_pattern"):
            open_flow(folder, frame_pattern=pattern)


def test_components_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="got 3 images of horizontal and 2 of vertical"):
        open_flow(write_flow(tmp_path / "counts", {"u": 3, "v": 2}))
    with pytest.raises(UnreadableVideo, match="expected two that differ in one letter"):
        open_flow(write_flow(tmp_path / "alone", {"u": 3, "": 0}))
    with pytest.raises(UnreadableVideo, match="expected two that differ in one letter"):
        open_flow(write_flow(tmp_path / "others", {"a": 3, "b": 3}))

    sizes = write_flow(tmp_path / "sizes", {"u": 3, "v": 3})
    Image.new("L", (8, 7)).save(sizes / "v" / "frame_0000000002.png")
    with open_flow(sizes) as reader:
        with pytest.raises(FrameDecodeError, match=r"\(6, 8\) pixels of horizontal .*\(7, 8\)"):
            list(reader.frames([1]))
        assert len(list(reader.frames([0, 2]))) == 2


def test_coloured_pictures_are_no_flow(tmp_path: Path) -> None:
    folder = write_flow(tmp_path / "flow", {"u": 2, "v": 2})
    Image.new("RGB", (8, 6)).save(folder / "v" / "frame_0000000002.png")
    with (
        open_flow(folder) as reader,
        pytest.raises(FrameDecodeError, match=r"v/frame_0000000002\.png: got an image of mode RGB"),
    ):
        list(reader.frames([1]))


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_must_be_one(tmp_path: Path, stride: int) -> None:
    with pytest.raises(ValueError, match="got stride"):
        open_flow(write_flow(tmp_path / "flow", {"u": 2, "v": 2}), stride=stride)


def test_shared_flow(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "frames" / "P01_01_flow"
    (tmp_path / "P01_01").symlink_to(folder)
    with tarfile.open(tmp_path / "P01_01.tar", "w", dereference=True) as archive:
        archive.add(tmp_path / "P01_01", "./P01_01")
    for path in (folder, tmp_path / "P01_01.tar"):
        with open_flow(path) as reader:
            assert (reader.num_frames, reader.width_px, reader.height_px) == (100, 456, 256)
            assert reader.duration_seconds == 201 / 60
            ((_, frame),) = reader.frames([49])
            for channel, component in enumerate("uv"):
                name = f"P01_01_flow_{component}_0000000050.jpg"
                with Image.open(folder / name) as image:
                    assert np.array_equal(frame[..., channel], np.asarray(image))


def test_a_component_that_changes_while_it_is_read_gives_no_more_frames(tmp_path: Path) -> None:
    folder = write_flow(tmp_path / "flow", {"u": 3, "v": 3})
    os.utime(folder / "v", ns=(0, 0))  # the clock may be coarse
    with open_flow(folder) as reader:
        frames = reader.frames([0, 1, 2])
        next(frames)
        (folder / "v" / "new").touch()
        with pytest.raises(VideoChanged, match=r"/v: got another size"):
            next(frames)


def test_a_frame_that_misses_a_component_is_named(tmp_path: Path) -> None:
    folder = write_flow(tmp_path / "flow", {"u": 20, "v": 20})
    (folder / "v" / "frame_0000000009.png").unlink()
    for path in (folder, pack(folder)):
        with open_flow(path) as reader:
            assert len(list(reader.frames([7, 9]))) == 2
            with pytest.raises(FrameDecodeError, match=r"v/frame_0000000009\.png: is missing"):
                reader.check_present([7, 8])
