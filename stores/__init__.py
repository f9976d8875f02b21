"""Feature stores: durable rows of named arrays, written once and read many times."""

from stores.base import (
    ArraySpec,
    CorruptRowError,
    Failure,
    FeatureReader,
    FeatureStore,
    GenerationInfo,
    MissingGenerationError,
    MissingRowsError,
    Problem,
    Receipt,
    RefusedRowError,
    Row,
    RowInfo,
    ShardWriter,
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
    "GenerationInfo",
    "MissingGenerationError",
    "MissingRowsError",
    "Problem",
    "Receipt",
    "RefusedRowError",
    "Row",
    "RowInfo",
    "ShardWriter",
    "Store",
    "StoreLockedError",
    "open_store",
]
