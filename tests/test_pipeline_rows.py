from __future__ import annotations

import numpy as np
import pytest

from pipeline.rows import VideoRow
from stores.base import RowInfo


@pytest.mark.parametrize(("clamped", "flags"), [(True, "clamped"), (False, "")])
def test_what_the_store_keeps_for_people(clamped: bool, flags: str) -> None:
    times = np.array([-500_000, 0, 1_250_000], dtype=np.int64)
    row = VideoRow("ab" * 32, "P01_01", "7", 2, "P01_01/7/2", times, 0.1, 1.0)
    assert row.info(clamped=clamped) == RowInfo(
        clip_id="P01_01/7/2",
        video_id="P01_01",
        segment_id="7",
        view=2,
        first_seconds=-0.5,
        last_seconds=1.25,
        flags=flags,
    )
