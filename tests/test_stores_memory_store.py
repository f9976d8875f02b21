from pathlib import Path
from typing import Any

import numpy as np
from store_suite import StoreSuite, make_key

from stores import Store
from stores.memory_store import MemoryStore


class TestMemoryStore(StoreSuite):
    def make_store(self, folder: Path) -> Store:
        return MemoryStore(folder)

    def reopen(self, store: Store) -> Store:
        store.close()
        return store

    def _array(self, made: Any, output: str, number: int) -> Any:
        shard, slot, _, _ = made.rows[make_key(number)]
        return made.shards[shard][slot][output]

    def raw_get(self, made: Any, output: str, number: int) -> bytes:
        data: bytes = self._array(made, output, number).tobytes()
        return data

    def raw_set(self, made: Any, output: str, number: int, data: bytes) -> None:
        array = self._array(made, output, number)
        array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)


def test_rows_are_copies() -> None:
    from store_suite import SPECS, make_row

    made = MemoryStore().generation("objects", make_key(1000), SPECS)
    row = make_row(1)
    made.append([row])
    row.arrays["features"][...] = 9
    assert made.read([make_key(1)])["features"][0, 0, 0] == 1
