"""Heads by name. A head's module is imported when the head is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they load torch, which names do not need
    from heads.base import Head, HeadConfig
    from stores.base import ArraySpec

_HEADS = {
    "detections_attended": "heads.detections:AttendedDetectionsHead",
    "detections_max": "heads.detections:MaxDetectionsHead",
    "detections_mean": "heads.detections:MeanDetectionsHead",
    "fusion": "heads.pooled:FusionHead",
    "lfb_max": "heads.lfb:LfbMaxHead",
    "noun_detections": "heads.detections:NounDetectionsHead",
    "pooled": "heads.pooled:PooledHead",
    "saoa": "heads.saoa:SaoaHead",
    "saoa_local_noun": "heads.ablations:LocalNounHead",
    "saoa_no_arm": "heads.ablations:NoArmHead",
    "saoa_no_cross_stream": "heads.ablations:NoCrossStreamHead",
    "saoa_no_csg": "heads.ablations:NoCsgHead",
    "saoa_no_gating": "heads.ablations:NoGatingHead",
    "sap": "heads.sap:SapHead",
}


def register_head(name: str, target: str) -> None:
    """Add a head: `target` is "module:attribute" of a `Head` class.

    Raises:
        ValueError: if the name is taken.
    """
    if name in _HEADS:
        raise ValueError(f"got head '{name}', which is registered already as {_HEADS[name]}")
    _HEADS[name] = target


def list_heads() -> list[str]:
    """All names, sorted."""
    return sorted(_HEADS)


def head_class(name: str) -> type[Head]:
    """The class behind a name; it tells which `inputs` the head reads.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _HEADS:
        raise ValueError(f"got head '{name}', expected one of {list_heads()}")
    module, _, attribute = _HEADS[name].partition(":")
    found: type[Head] = getattr(import_module(module), attribute)
    return found


def head_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options without building anything.

    Args:
        name: one of `list_heads()`.
        options: some of the head's options.

    Returns:
        All options of the head, defaults filled in: a checkpoint outlives a changed default.

    Raises:
        ValueError: unknown name or option, or a value of another type than the default's.
    """
    cls = head_class(name)
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    for option, value in options.items():
        if option not in defaults:
            allowed = sorted(defaults) if defaults else "none"
            raise ValueError(f"got option '{option}' for head '{name}', expected: {allowed}")
        if type(value) is not type(defaults[option]):
            raise ValueError(
                f"got {option}={value!r} for head '{name}', expected "
                f"{type(defaults[option]).__name__} like the default {defaults[option]!r}"
            )
    return {**defaults, **options}


def create_head(
    name: str,
    *,
    specs: Mapping[str, ArraySpec],
    num_verbs: int,
    num_nouns: int,
    seed: int = 0,
    **options: Any,
) -> Head:
    """Build a new head for the rows of a store.

    Args:
        name: one of `list_heads()`.
        specs: the store's array specs (`reader.specs`).
        num_verbs: verb classes.
        num_nouns: noun classes.
        seed: of the initial weights; the global random state is neither used nor changed.
        **options: the head's own; see its class.

    Raises:
        ValueError: unknown name or option, an option of another type than its default, or a store
            that lacks an input.
    """
    import torch

    from heads.base import HeadConfig, HeadDims

    cls = head_class(name)
    dims = HeadDims.from_specs(specs, cls.inputs)
    config = HeadConfig(name, dims, num_verbs, num_nouns, head_options(name, options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_head(config)


def build_head(config: HeadConfig) -> Head:
    """Build the head a config describes; initial weights come from the global random state."""
    cls = head_class(config.name)
    options = head_options(config.name, config.options)
    head = cls(config.dims, num_verbs=config.num_verbs, num_nouns=config.num_nouns, **options)
    head.config = config
    return head
