"""Settings and provenance of a run in plain words, down to the stage keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config_file import dump_config
from pipeline.report_run import ReportedRun
from pipeline.stages import STAGE_NAMES
from stores.base import Store
from stores.errors import MissingGenerationError
from stores.registry import open_store

__all__ = ["Fact", "Facts", "StageFacts", "describe_run", "describe_stages", "flatten"]

Fact = tuple[str, str]
READERS = {
    "pyav": "PyAV",
    "decord": "decord where it is exact, PyAV elsewhere",
    "frames": "numbered frames",
    "flow": "official flow",
}
# Sections of the config that a run's page shows as a table; all of it is there as text.
LONGEST_VALUE = 240
SAID_ELSEWHERE = ("split", "experiment", "checkpoint", "stages", "fused")
SECTIONS = (("Head", "head"), ("Data", "data"), ("Views", "views"), ("Training", "train"))


@dataclass(frozen=True)
class Facts:
    """A titled list of (what, value)."""

    title: str
    facts: Sequence[Fact]


@dataclass(frozen=True)
class StageFacts:
    """One stage as the store describes it.

    ``words``: what matters most, in words. ``settings``: everything the key is made of.
    ``missing``: why the store says nothing of it, or "".
    """

    name: str
    key: str
    words: Sequence[Fact]
    settings: Sequence[Fact]
    missing: str


def describe_run(run: ReportedRun) -> list[Facts]:
    """What was trained, on what, how, and how it was measured."""
    measured = [("split", run.split), ("segments", f"{len(run.segment_ids):,}")]
    if run.checkpoint:
        kept = f"epoch {run.kept_epoch}, the {run.checkpoint.training.get('selection', 'one kept')}"
        measured.append(("checkpoint", kept))
    measured += flatten({k: v for k, v in run.details.items() if k not in SAID_ELSEWHERE})
    whole = run.config.model_dump(mode="json")
    groups = {title: list(flatten(whole[section])) for title, section in SECTIONS}
    groups["Data"] += [
        (f"segments, {split}", f"{count:,}") for split, count in run.num_segments.items() if count
    ]
    if fused := run.details.get("fused"):
        groups = {"Fused runs": list(flatten(fused, "fused")), "Data": groups["Data"]}
    return [
        Facts(title, [(name, _cut(text)) for name, text in facts])
        for title, facts in {"Evaluation": measured, **groups}.items()
    ]


def describe_stages(run: ReportedRun) -> list[StageFacts]:
    """The stages whose rows the head was trained on, by the keys in its checkpoint."""
    keys = {name: run.stage_keys[name] for name in STAGE_NAMES if name in run.stage_keys}
    path = run.config.store.path
    try:
        with open_store(path, mode="r") as store:
            return [_stage(name, key, store) for name, key in keys.items()]
    except (OSError, ValueError) as error:
        gone = f"The store cannot be read any more: {error}."
        return [StageFacts(name, key, [], [], gone) for name, key in keys.items()]


def config_text(run: ReportedRun) -> str:
    """The whole experiment as YAML."""
    return dump_config(run.config)


def flatten(value: Any, name: str = "") -> Iterator[Fact]:
    """Nested settings as (``a.b``, text), in their order; what is not set is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{name}[{i}]")
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(inner) for inner in value) or "none"
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    elif value is not None:
        yield name, str(value)


def _cut(text: str) -> str:
    """Names of hundreds of classes would bury the rest; the whole file is on the page as well."""
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _stage(name: str, key: str, store: Store) -> StageFacts:
    try:
        generation = store.generation(name, key)
    except MissingGenerationError:
        return StageFacts(name, key, [], [], "Its rows are no longer in the store.")
    settings = generation.provenance.get("settings", {})
    others = generation.provenance.get("not_in_key", {})
    versions = others.get("versions", {})
    words = [
        ("rows in the store", f"{len(generation):,}"),
        *_words(settings),
        ("made by", ", ".join(f"{library} {version}" for library, version in versions.items())),
    ]
    return StageFacts(name, key, [fact for fact in words if fact[1]], list(flatten(settings)), "")


def _words(settings: Mapping[str, Any]) -> Iterator[Fact]:
    """What people ask first of a stage."""
    network = settings.get("network") or settings.get("detector")
    if network:
        yield "network", _network(network)
        yield "precision", str(network.get("precision", ""))
    if weights := settings.get("weights"):
        yield "weights", _weights(weights)
    if sampling := settings.get("sampling"):
        yield (
            "clip",
            f"{sampling['frames']} frames, stride {sampling['stride']}, at "
            f"{sampling['rate_fps']:g} frames a second",
        )
    if geometry := settings.get("geometry"):
        yield "frame size", _size(geometry)
    if reading := settings.get("reading"):
        yield "read by", _reader(reading)
    if aligned := settings.get("aligned"):
        yield (
            "windows",
            f"{aligned['global_window_seconds']:g} s of objects, "
            f"{aligned['local_window_seconds']:g} s of them aligned locally, "
            f"{settings['object_rate_fps']:g} frames a second",
        )
    if top_k := settings.get("top_k"):
        yield "objects", f"at most {top_k} a frame"
    yield "stored as", str(settings.get("dtype") or (aligned or {}).get("dtype", ""))


def _network(network: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {text}" for name, text in flatten(network.get("architecture", {})))
    version = f"version {network['version']}" if "version" in network else ""
    inside = "; ".join(part for part in (options, version) if part)
    return f"{network.get('extractor', 'unknown')} ({inside})" if inside else str(network)


def _weights(weights: Mapping[str, Any]) -> str:
    if "sha256" in weights:
        return f"a file with sha256 {weights['sha256']}"
    return f"random, seed {weights['random']}" if "random" in weights else str(dict(weights))


def _size(geometry: Mapping[str, Any]) -> str:
    resize, crop = geometry.get("resize_px"), geometry.get("crop_px")
    words = []
    if isinstance(resize, list | tuple):
        words.append(f"resized to {resize[0]} × {resize[1]} pixels")
    elif resize is not None:
        words.append(f"shorter side resized to {resize} pixels")
    if crop is not None:
        words.append(f"middle {crop} pixels cropped")
    return ", ".join(words)


def _reader(reading: Mapping[str, Any]) -> str:
    name = READERS.get(reading.get("reader", ""), str(reading.get("reader")))
    policy = reading.get("policy", "unknown")
    versions = [f"{key} {text}" for key, text in reading.items() if key not in ("reader", "policy")]
    return f"{name} ({', '.join([*versions, f'policy {policy}'])})"
