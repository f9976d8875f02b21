"""Extractors by name. An extractor's module is imported only when its name is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from extractors.base import ClipExtractor, Extractor, FrameExtractor


class Registry:
    """Names → "module:attribute".

    Args:
        kind: what the entries are, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._targets: dict[str, str] = {}

    def register(self, name: str, target: str) -> None:
        """Add an entry.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._targets:
            raise ValueError(
                f"got {self._kind} {name!r} twice: already registered as {self._targets[name]}"
            )
        self._targets[name] = target

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._targets)

    def resolve(self, name: str) -> type[Extractor]:
        """The class behind a name.

        Raises:
            ValueError: if the name is unknown; the message lists the known ones.
        """
        if name not in self._targets:
            raise ValueError(
                f"got {self._kind} {name!r}, expected one of {', '.join(self.names())}"
            )
        module, _, attribute = self._targets[name].partition(":")
        return cast(type[Extractor], getattr(importlib.import_module(module), attribute))


CLIP_EXTRACTORS = Registry("clip extractor")
CLIP_EXTRACTORS.register("i3d", "extractors.i3d:I3DExtractor")
CLIP_EXTRACTORS.register("r2plus1d", "extractors.r2plus1d:R2Plus1DExtractor")
CLIP_EXTRACTORS.register("resnet3d", "extractors.resnet3d:ResNet3DExtractor")
CLIP_EXTRACTORS.register("torchvision:mc3_18", "extractors.torchvision_video:MC318")
CLIP_EXTRACTORS.register("torchvision:mvit_v1_b", "extractors.torchvision_video:MViTV1B")
CLIP_EXTRACTORS.register("torchvision:mvit_v2_s", "extractors.torchvision_video:MViTV2S")
CLIP_EXTRACTORS.register("torchvision:r2plus1d_18", "extractors.torchvision_video:R2Plus1D18")
CLIP_EXTRACTORS.register("torchvision:r3d_18", "extractors.torchvision_video:R3D18")
CLIP_EXTRACTORS.register("torchvision:s3d", "extractors.torchvision_video:S3DExtractor")
CLIP_EXTRACTORS.register("torchvision:swin3d_b", "extractors.torchvision_video:Swin3DB")
CLIP_EXTRACTORS.register("torchvision:swin3d_s", "extractors.torchvision_video:Swin3DS")
CLIP_EXTRACTORS.register("torchvision:swin3d_t", "extractors.torchvision_video:Swin3DT")

FRAME_EXTRACTORS = Registry("frame extractor")
FRAME_EXTRACTORS.register("detectron2", "extractors.detectron2_rcnn:Detectron2Extractor")
FRAME_EXTRACTORS.register("faster_rcnn", "extractors.faster_rcnn:FasterRCNNExtractor")
FRAME_EXTRACTORS.register("given_boxes", "extractors.given_boxes:GivenBoxesExtractor")


def parse_options(extractor: type[Extractor], architecture: Mapping[str, Any]) -> Any:
    """Architecture options as the extractor's `Options`, defaults filled in.

    Raises:
        ValueError: if an option is unknown, of the wrong type, or out of range.
    """
    allowed = {f.name for f in fields(extractor.Options)}
    hints = get_type_hints(extractor.Options)
    for option, value in architecture.items():
        if option not in allowed:
            raise ValueError(
                f"got architecture option {option!r} for {extractor.name}, "
                f"expected one of {', '.join(sorted(allowed))}"
            )
        hint = hints[option]
        if type(value) is int and float in (hint, *get_args(hint)):
            continue
        # bool is an int to isinstance, but `depth: true` is a mistake
        if not isinstance(value, hint) or type(value) is bool:
            raise ValueError(
                f"got {value!r} for {extractor.name} option {option!r}, "
                f"expected {getattr(hint, '__name__', hint)}"
            )
    return extractor.Options(**architecture)


def extractor_settings(
    registry: Registry, name: str, architecture: Mapping[str, Any], precision: str = "float32"
) -> dict[str, Any]:
    """What decides an extractor's numbers, without building it or reading weights.

    Args:
        registry: `CLIP_EXTRACTORS` or `FRAME_EXTRACTORS`.
        name: a registered name.
        architecture: options; those left out appear with their defaults.
        precision: in which the network runs, one of `PRECISIONS`.

    Returns:
        Plain JSON values: name, version, architecture, preprocessing and precision.
    """
    extractor = registry.resolve(name)
    return extractor.settings(parse_options(extractor, architecture), precision=precision)


def create_clip_extractor(
    name: str,
    *,
    architecture: Mapping[str, Any],
    weights: Path | None,
    seed: int | None,
    frames: int,
    size_px: int,
    dtype: str = "float16",
    device: str = "cpu",
    precision: str = "float32",
    outputs: Sequence[str] = ("map",),
    compile: bool = False,
) -> ClipExtractor:
    """Build a clip extractor.

    Args:
        name: a name of `CLIP_EXTRACTORS`.
        architecture: its options.
        weights: checkpoint file; exactly one of `weights` and `seed` must be given.
        seed: seed of random weights.
        frames: T of the clips it will be given.
        size_px: their height and width.
        dtype: of what is stored.
        device: where to run.
        precision: in which to run, one of `PRECISIONS`.
        outputs: one or more of "map", "pooled" and "logits".
        compile: whether to compile the network first.

    Raises:
        ValueError: if a name, option, size or the checkpoint is wrong.
    """
    extractor: Any = CLIP_EXTRACTORS.resolve(name)
    built: ClipExtractor = extractor(
        parse_options(extractor, architecture),
        weights=weights,
        seed=seed,
        frames=frames,
        size_px=size_px,
        dtype=dtype,
        device=device,
        precision=precision,
        outputs=outputs,
        compile=compile,
    )
    return built


def create_frame_extractor(
    name: str,
    *,
    architecture: Mapping[str, Any],
    weights: Path | None,
    seed: int | None,
    top_k: int,
    given: bool = False,
    dtype: str = "float16",
    device: str = "cpu",
    precision: str = "float32",
    compile: bool = False,
) -> FrameExtractor:
    """Build a frame extractor; arguments as `create_clip_extractor`, and two more.

    Args:
        top_k: objects per frame.
        given: boxes come with the frames; the detector describes these and finds none.

    Raises:
        ValueError: if a name, option, size or the checkpoint is wrong.
    """
    extractor: Any = FRAME_EXTRACTORS.resolve(name)
    built: FrameExtractor = extractor(
        parse_options(extractor, architecture),
        weights=weights,
        seed=seed,
        top_k=top_k,
        given=given,
        dtype=dtype,
        device=device,
        precision=precision,
        compile=compile,
    )
    return built
