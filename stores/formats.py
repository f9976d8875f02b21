"""Store formats by name; a format's library is imported when it is first used."""

import importlib
from functools import cache

from stores.shard_format import ShardFormat

FORMATS = {
    "zarr": "stores.zarr_format:ZarrFormat",
    "hdf5": "stores.hdf5_format:Hdf5Format",
}
DEFAULT_FORMAT = "zarr"


def check_format(name: str) -> str:
    """Return `name`; raise ValueError unless it is one of `FORMATS`."""
    if name not in FORMATS:
        raise ValueError(f"got store format {name!r}, expected one of {', '.join(FORMATS)}")
    return name


@cache
def shard_format(name: str) -> ShardFormat:
    """Return the format of that name; raise ValueError where there is none."""
    module, attribute = FORMATS[check_format(name)].split(":")
    form: ShardFormat = getattr(importlib.import_module(module), attribute)()
    return form
