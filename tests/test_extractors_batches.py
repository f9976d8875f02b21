"""A row does not depend on the batch it is in: not on its size, its place or its neighbours."""

from typing import Any

import numpy as np
import pytest
import torch

from extractors.base import ClipExtractor
from extractors.registry import CLIP_EXTRACTORS, create_clip_extractor

# One small network of each family; torchvision's has a single size.
SMALL: dict[str, dict[str, Any]] = {
    "i3d": {"width": 8},
    "r2plus1d": {"depth": 18, "width": 4},
    "resnet3d": {"depth": 18, "width": 4},
    "torchvision:r3d_18": {},
}
NAMES = [name for name in SMALL if name in CLIP_EXTRACTORS.names()]
FRAMES, SIZE_PX = 9, 33


def create(name: str, **changes: Any) -> ClipExtractor:
    settings: dict[str, Any] = {"weights": None, "seed": 0, "dtype": "float32", **changes}
    return create_clip_extractor(
        name, architecture=SMALL[name], frames=FRAMES, size_px=SIZE_PX, **settings
    )


def clips(count: int, channels: int) -> torch.Tensor:
    shape = (count, FRAMES, SIZE_PX, SIZE_PX, channels)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch[1], batch[2] = 0, 255  # neighbours of another kind
    return batch


def test_every_family_is_here() -> None:
    families = {name.partition(":")[0] for name in CLIP_EXTRACTORS.names()}
    assert families == {name.partition(":")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_do_not_depend_on_the_batch(name: str, dtype: str) -> None:
    net = create(name, dtype=dtype, outputs=("map", "pooled", "logits"))
    batch = clips(17, net.channels)  # libraries choose other algorithms from 16 on
    together = net(batch)
    # of bfloat16 the last digit may be rounded the other way
    limit = 1e-4 if dtype == "float32" else 2**-7
    for rows in ([0], [16], [3, 2], [5, 1, 0, 2, 4]):
        apart = net(batch[rows])
        for output, values in apart.items():
            expected = together[output][rows].astype(np.float32)
            assert np.abs(expected).max() > 0.01
            np.testing.assert_allclose(
                values.astype(np.float32), expected, rtol=limit, atol=limit, err_msg=output
            )


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_half_precision_depend_on_the_batch_by_rounding_only(name: str) -> None:
    net = create(name, precision="bfloat16")
    batch = clips(5, net.channels)
    together, exact = net(batch)["map"], create(name)(batch)["map"]
    alone = np.concatenate([net(batch[i : i + 1])["map"] for i in range(5)])
    rounding = np.abs(together - exact).max()
    assert 0 < rounding < 0.1 * np.abs(exact).max()
    assert np.abs(together - alone).max() <= 2 * rounding
