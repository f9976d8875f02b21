"""Sizes foretold are those of the shards that a store then writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.sizing import Size, future_layout, stored_size
from stores.base import ArraySpec, Row, RowInfo
from stores.registry import open_store

KEY = "a" * 64
MAP = {"map": ArraySpec(("time", "y", "x", "channel"), (2, 3, 3, 16), "float16")}
OBJECTS = {
    "features": ArraySpec(("object", "channel"), (3, 40), "float32"),
    "boxes_xyxy_px": ArraySpec(("object", "xyxy"), (3, 4), "float32", "px", "boxes"),
    "count": ArraySpec((), (), "int32"),
}
SHARD_MIB = 0.01
PROVENANCE = {"settings": {"stage": "verb"}, "not_in_key": {"config": "name: small\n" * 30}}


def rows_of(specs: Mapping[str, ArraySpec], count: int) -> list[Row]:
    """Rows of noise, which nothing compresses, with names of one length."""
    noise = np.random.default_rng(0)
    return [
        Row(
            f"{i:064x}",
            {
                name: noise.integers(0, 100, spec.shape).astype(spec.numpy_dtype)
                for name, spec in specs.items()
            },
            RowInfo(f"video/{i:04d}/0", "video", f"{i:04d}", 0, 1.25, 2.75),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("specs", [MAP, OBJECTS], ids=["map", "objects"])
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("count", [1, 70])
def test_the_size_is_that_of_the_files(
    tmp_path: Path, specs: dict[str, ArraySpec], format: str, compression: str, count: int
) -> None:
    rows = rows_of(specs, count)
    layout = future_layout(
        tmp_path,
        "verb",
        KEY,
        specs,
        PROVENANCE,
        format=format,
        shard_mib=SHARD_MIB,
        compression=compression,
    )
    size = stored_size(layout, count, [row.info for row in rows[:5]])
    with open_store(tmp_path, mode="a", format=format) as store:
        made = store.generation("verb", KEY, specs, PROVENANCE, SHARD_MIB, compression)
        assert (made.rows_per_shard, made.path) == (layout.rows_per_shard, layout.path)
        written = sum(receipt.nbytes for receipt in made.append(rows))
    assert size.shards == -(-count // layout.rows_per_shard)
    if compression == "none":
        assert size == Size(written, size.shards, at_most=False)
    else:
        assert size.at_most
        plain = count * sum(spec.row_nbytes for spec in specs.values())
        # The bound of zstd is 64 bytes a row and output above what does not compress.
        assert written <= size.nbytes <= written + plain + 70 * count * len(specs)


def test_no_rows_take_nothing(tmp_path: Path) -> None:
    layout = future_layout(
        tmp_path, "verb", KEY, MAP, {}, format=None, shard_mib=32, compression="zstd"
    )
    assert stored_size(layout, 0, []) == Size(0, 0, at_most=True)
