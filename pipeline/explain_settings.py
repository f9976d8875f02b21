"""Which settings differ between a stage and rows that are stored, in words of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.experiment import Experiment
from pipeline.keys import canonical_json
from pipeline.stages import AlignedStage, Stage
from pipeline.yaml_file import YamlError, parse_yaml
from stores.base import GenerationInfo, Store

__all__ = ["Difference", "Nearest", "nearest_generation"]

SHA_DIGITS = 12
NOT_SET = "not set"
GEOMETRY = ("geometry",)

Flat = Mapping[tuple[str, ...], Any]  # settings by path


@dataclass(frozen=True)
class Difference:
    """One part of a key. ``path``: of the config, where it is a setting; ``old``: as stored."""

    path: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path} {self.old} → {self.new}"


@dataclass(frozen=True)
class Nearest:
    """The stored generation of a stage that differs least from what is asked for."""

    key: str
    created: str
    rows: int
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def nearest_generation(experiment: Experiment, store: Store, stage: Stage) -> Nearest | None:
    """The nearest generation under another key, the newest of equally near ones; None without any.

    Raises:
        ValueError: a generation's description is damaged.
    """
    found = [
        Nearest(
            info.key, info.created, info.rows, tuple(_differences(experiment, store, stage, info))
        )
        for info in sorted(store.generations(), key=lambda info: info.created, reverse=True)
        if info.stage == stage.name and info.key != stage.key
    ]
    return min(found, key=lambda nearest: len(nearest.differences), default=None)


def _differences(
    experiment: Experiment, store: Store, stage: Stage, info: GenerationInfo
) -> Iterator[Difference]:
    generation = store.generation(info.stage, info.key)
    old_settings = generation.provenance.get("settings", {})
    old_config = _config_of(generation.provenance)
    new_config = experiment.config.model_dump(mode="json")
    old, new = _flat(old_settings), _flat(stage.settings)
    changed = [path for path in {**new, **old} if old.get(path) != new.get(path)]
    for path in dict.fromkeys(map(_told_as, changed)):
        if path[0] == "upstream" and isinstance(stage, AlignedStage):
            yield from _upstream(experiment, store, path[1], str(old.get(path)))
        elif path[-1] == "weights":
            where = f"stages.{stage.name}.{'.'.join(path)}"
            yield Difference(
                where,
                _weights(old.get(path), _at(old_config, where)),
                _weights(new.get(path), _at(new_config, where)),
            )
        elif path == GEOMETRY:
            yield from _geometry(stage.name, old, new)
        else:
            name = _in_config(stage.name, path)
            yield Difference(name, _text(old, path), _text(new, path))


def _upstream(
    experiment: Experiment, store: Store, name: str, old_key: str
) -> Iterator[Difference]:
    """Why a stage that rows were made from has another key now."""
    for info in store.generations():
        if (info.stage, info.key) == (name, old_key):
            yield from _differences(experiment, store, experiment.stages[name], info)
            return
    new_key = experiment.stages[name].key
    yield Difference(
        f"stage {name}",
        f"generation {old_key[:SHA_DIGITS]}, which is stored no more",
        f"generation {new_key[:SHA_DIGITS]}",
    )


def _flat(settings: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Settings by path; weights are one thing, whatever they are made of."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in settings.items():
        path = (*above, name)
        if isinstance(value, Mapping) and name != "weights":
            found |= _flat(value, path)
        else:
            found[path] = list(value) if isinstance(value, tuple) else value  # as JSON has it
    return found


def _told_as(path: tuple[str, ...]) -> tuple[str, ...]:
    """Sizes of frames, and of the fields of flow made from them, are one thing."""
    is_size = path[-1] in ("resize_px", "crop_px")
    return GEOMETRY if is_size and path[:-1] in (GEOMETRY, ("flow", "field")) else path


def _geometry(stage: str, old: Flat, new: Flat) -> Iterator[Difference]:
    """How frames are resized and cropped, by the setting that decides it; nothing if that is it."""
    (was, old_size), (now, new_size) = _shape(old), _shape(new)
    if was != now:
        yield Difference(f"stages.{stage}.geometry", was, now)
    elif old_size != new_size and was == "square":
        yield Difference(f"stages.{stage}.size_px", old_size, new_size)
    elif old_size != new_size:  # of another network
        yield Difference(f"stages.{stage}.geometry", f"{was}, {old_size}", f"{now}, {new_size}")


def _shape(settings: Flat) -> tuple[str, str]:
    """The geometry that a config would have, and its size; the published ones have a crop."""
    if (*GEOMETRY, "resize_px") not in settings:
        return NOT_SET, ""
    match settings[*GEOMETRY, "resize_px"], settings.get((*GEOMETRY, "crop_px")):
        case [height, width], None if height == width:
            return "square", str(height)
        case resize, crop:
            return "published", f"{canonical_json(resize)} px cropped to {canonical_json(crop)}"


def _in_config(stage: str, path: tuple[str, ...]) -> str:
    """Where a part of a stage's settings stands in a config."""
    section = f"stages.{stage}"
    match path:
        case ("version",):
            return f"version of stage {stage}"
        case ("object_rate_fps",):
            return "stages.objects.rate_fps"
        case ("sampling", name):
            return f"{section}.clip.{name}"
        case ("aligned", name):
            return f"{section}.{name}"
        case ("network" | "detector" as network, "extractor"):
            return f"{section}.{network}.name"
        case ("network" | "detector" as network, "architecture", *names):
            return ".".join((section, network, *names))
        case ("network" | "detector", "precision"):
            return f"{section}.precision"
        case ("network" | "detector" as network, "version"):
            return f"version of {section}.{network}"
        case ("flow", "frames", "resize_px"):
            return f"{section}.flow.short_side_px"
        case ("reading", "reader"):
            return "data.videos.reader"
        case ("reading", *names):
            return f"video reader's {'.'.join(names)}"
    return ".".join((section, *path))


def _text(settings: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> str:
    if path not in settings:
        return NOT_SET
    value = settings[path]
    return value if isinstance(value, str) else canonical_json(value)


def _weights(content: Any, file: Any) -> str:
    """What weights are: a short digest and where they were read from, or a seed."""
    if not isinstance(content, Mapping):
        return NOT_SET
    if "random" in content:
        return f"random, seed {content['random']}"
    digest = f"sha256 {str(content.get('sha256'))[:SHA_DIGITS]}"
    return f"{digest} ({file})" if file else digest


def _config_of(provenance: Mapping[str, Any]) -> Any:
    """The config that a generation was made with, as plain values; None if it is not kept."""
    try:
        return parse_yaml(provenance["not_in_key"]["config"])[0]
    except (LookupError, TypeError, YamlError):
        return None


def _at(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
