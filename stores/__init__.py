"""Feature stores: durable rows of named arrays, written once and read many times.

Where to look:
    what a store is asked and answers      base, reader, records, infos, names, errors,
                                           checks
    getting one                            registry (`open_store`)
    a store in a folder, in memory         folder_store, folder_generation; memory_store
    files, whatever the format             layout, shard_format, shard_footer, shard_set (writing),
                                           shard_files, shard_rows (reading), compression,
                                           durable, storage
    the formats                            formats; zarr_format, zarr_metadata; hdf5_format, hdf5_*
    which rows exist                       manifest, manifest_*, row_index, row_keys,
                                           index_file
    who else writes                        lock, leases
    files for people                       documents, rows_csv, descriptions (stage.json), marker
    after crashes and damage               recovery, verify, repair, quarantine; untrusted,
                                           descriptors
    taking things out                      removal (gc), convert, export, export_*, hdf5_export
"""

from stores.base import (
    ArraySpec,
    CorruptRowError,
    Failure,
    FeatureReader,
    FeatureStore,
    GenerationInfo,
    GenerationInUseError,
    Lease,
    Leftovers,
    MissingGenerationError,
    MissingRowsError,
    Problem,
    Receipt,
    RefusedRowError,
    Row,
    RowInfo,
    ShardRange,
    ShardWriter,
    StorageUnavailableError,
    Store,
    StoreLockedError,
)
from stores.registry import open_store

__all__ = [
    "ArraySpec",
    "CorruptRowError",
    "Failure",
    "FeatureReader",
    "FeatureStore",
    "GenerationInUseError",
    "GenerationInfo",
    "Lease",
    "Leftovers",
    "MissingGenerationError",
    "MissingRowsError",
    "Problem",
    "Receipt",
    "RefusedRowError",
    "Row",
    "RowInfo",
    "ShardRange",
    "ShardWriter",
    "StorageUnavailableError",
    "Store",
    "StoreLockedError",
    "open_store",
]
