"""Other ways to keep the same rows and read them in random order.

Each is opened before the clock starts and reads row by row in the order asked, except
tensorstore, which is asked for 32 rows at a time and reads them at once. Those that read shards
read the ones that our own store wrote.

memmap and LMDB may come out above `preadv`: they map the file and copy rows without a system
call. The price is that a file which gets shorter, or a disk that fails, kills the process that
reads, where `preadv` returns an error.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from store_cases import KEY, OUTPUT, PLAIN, STAGE, Effort, Material, Places, bytes_of

ReadRows = Callable[[Places, NDArray[np.float16]], None]
Opener = Callable[[Material, ExitStack], ReadRows]

TENSORSTORE_ROWS = 32


def open_peers(
    material: Material, effort: Effort, stack: ExitStack
) -> dict[str, tuple[int, ReadRows]]:
    """Return peer → how many rows it should read, and the function that reads rows.

    Peers that are not installed are left out, with a line that says so.
    """
    count, few = len(material.rows), min(len(material.rows), effort.slow_rows)
    openers: dict[str, tuple[int, Opener]] = {
        "memmap": (count, _open_memmap),
        "lmdb": (count, _open_lmdb),
        "h5py": (count, _open_h5py),
        "tensorstore": (few, _open_tensorstore),
        "zarr_python": (few, _open_zarr_python),
    }
    peers: dict[str, tuple[int, ReadRows]] = {}
    for name, (rows, opener) in openers.items():
        try:
            peers[name] = rows, opener(material, stack)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return peers


def _open_memmap(material: Material, stack: ExitStack) -> ReadRows:
    shape = (len(material.rows), *material.case.shape)
    mapped = np.memmap(material.raw_path, np.float16, "r", shape=shape)

    def read(places: Places, batch: NDArray[np.float16]) -> None:
        for number, position in places:
            batch[position] = mapped[number]

    return read


def _open_lmdb(material: Material, stack: ExitStack) -> ReadRows:
    import lmdb

    size, path = material.row_nbytes, material.folder / "lmdb"
    map_size = 2 * len(material.rows) * size + 2**24
    shutil.rmtree(path, ignore_errors=True)
    database = stack.enter_context(lmdb.open(str(path), map_size=map_size, sync=False))
    with database.begin(write=True) as transaction:
        for row in material.rows:
            transaction.put(bytes.fromhex(row.key), bytes_of(row.arrays[OUTPUT]))
    keys = [bytes.fromhex(row.key) for row in material.rows]

    def read(places: Places, batch: NDArray[np.float16]) -> None:
        target = bytes_of(batch)
        with database.begin(buffers=True) as transaction:
            for number, position in places:
                target[position * size : (position + 1) * size] = transaction.get(keys[number])

    return read


def _open_h5py(material: Material, stack: ExitStack) -> ReadRows:
    import h5py

    count, shape = len(material.rows), material.case.shape
    path = material.folder / "h5py.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(OUTPUT, (count, *shape), "<f2", chunks=(1, *shape))
        for number in range(count):
            dataset[number] = material.values(number)
    dataset = stack.enter_context(h5py.File(path))[OUTPUT]

    def read(places: Places, batch: NDArray[np.float16]) -> None:
        for number, position in places:
            dataset.read_direct(batch, np.s_[number], np.s_[position])

    return read


def _open_tensorstore(material: Material, stack: ExitStack) -> ReadRows:
    import tensorstore

    kvstore = {"driver": "file", "path": f"{_zarr_folder(material)}/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()

    def read(places: Places, batch: NDArray[np.float16]) -> None:
        for first in range(0, len(places), TENSORSTORE_ROWS):
            numbers, positions = zip(*places[first : first + TENSORSTORE_ROWS], strict=True)
            batch[list(positions)] = array[list(numbers)].read().result()

    return read


def _open_zarr_python(material: Material, stack: ExitStack) -> ReadRows:
    import zarr

    array = zarr.open_array(_zarr_folder(material), mode="r")

    def read(places: Places, batch: NDArray[np.float16]) -> None:
        for number, position in places:
            batch[position] = array[number]

    return read


def _zarr_folder(material: Material) -> str:
    """Return the array that our own Zarr store holds; its rows are in the order of appending."""
    (variant,) = (variant for variant in PLAIN if variant.format == "zarr")
    with variant.open(material.folder) as store:
        return str(store.generation(STAGE, KEY).path / OUTPUT)
