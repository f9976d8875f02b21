"""Readers give signs of life wherever they may be busy for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from video_files import write_video

from extractors import heartbeat
from extractors.video import open_video


@pytest.fixture
def beats() -> Iterator[list[None]]:
    given: list[None] = []
    heartbeat.listen(lambda: given.append(None))
    yield given
    heartbeat.listen(None)


@pytest.mark.parametrize(
    ("name", "codec", "reader"),
    [("v.avi", "mpeg4", "pyav"), ("v.mp4", "libx264", "pyav"), ("w.mp4", "libx264", "decord")],
)
def test_opening_and_skipping_are_signs_of_life(
    tmp_path: Path, beats: list[None], name: str, codec: str, reader: str
) -> None:
    """Each packet that is numbered, each picture that is passed over."""
    path = write_video(tmp_path / name, num_frames=60, codec=codec)
    with open_video(path, reader=reader) as video:  # type: ignore[arg-type]
        opening = len(beats)
        assert opening >= 60
        assert [index for index, _ in video.frames([59])] == [59]
        assert len(beats) - opening >= 60


def test_nobody_has_to_listen() -> None:
    heartbeat.listen(None)
    heartbeat.beat()
