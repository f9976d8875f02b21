import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from stores import open_store
from stores.formats import FORMATS
from stores.shard_format import ShardFormat


@pytest.mark.parametrize("target", FORMATS.values())
def test_every_format_is_there(target: str) -> None:
    module, attribute = target.split(":")
    assert issubclass(getattr(importlib.import_module(module), attribute), ShardFormat)


def test_unknown_formats_and_modes_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got store format 'tape', expected one of zarr"):
        open_store(tmp_path, "a", "tape")
    with pytest.raises(ValueError, match="got mode 'w', expected one of r, a"):
        open_store(tmp_path, "w")
    assert list(tmp_path.iterdir()) == []


def test_a_store_says_its_format(tmp_path: Path) -> None:
    open_store(tmp_path, "a", "zarr").close()
    assert type(open_store(tmp_path)).__name__ == "FolderStore"
    (tmp_path / "symbio.json").write_text('{"format_version": 1, "format": "other"}')
    with pytest.raises(ValueError, match="got a store of format 'other'"):
        open_store(tmp_path, "r", "zarr")


def test_importing_stores_loads_nothing_heavy() -> None:
    heavy = {"zarr", "h5py", "torch", "sqlite3", "numcodecs"}
    code = f"import stores, sys; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
