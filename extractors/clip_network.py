"""The clip extractor for any 3-D network: normalise, run once, store map, pooled vector or logits.

A network family is a subclass that says how to build its network; all the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import ClipExtractor, OutputSpec, check_dtype
from extractors.inference import (
    Stored,
    check_precision,
    clips_at_once,
    is_out_of_memory,
    memory_format_3d,
    network_inference,
    resolve_device,
)
from extractors.transforms import normalize_clip
from extractors.weights import MisfitError, create_network, fits, seeded_init

CLIP_OUTPUTS = ("map", "pooled", "logits")


class Network3D(nn.Module):
    """What a 3-D network offers: its map before pooling, how large that is, and what follows it.

    `pool_map` and `classify` both start from the map, so that one pass gives all three. Pooling is
    the mean, and the classifier a module `fc` on it, unless a subclass says otherwise. A network
    whose classifier sees more than the map gives that in `forward_hidden`, and all three start
    from there.
    """

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) float → (B, C', T', H', W')."""

    @abstractmethod
    def map_shape(self, frames: int, size_px: int) -> tuple[int, int, int, int]:
        """(T', H', W', C') for square clips of this size."""

    def forward_hidden(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) float → what the other methods start from, here the map."""
        return self.forward_features(x)

    def hidden_map(self, hidden: Tensor) -> Tensor:
        """What `forward_hidden` gives → (B, C', T', H', W')."""
        return hidden

    def pool_map(self, maps: Tensor) -> Tensor:
        """(B, C', T', H', W') → (B, C')."""
        return maps.mean(dim=(2, 3, 4))

    def classify(self, maps: Tensor) -> Tensor:
        """(B, C', T', H', W') → (B, num_classes) logits.

        Raises:
            ValueError: if the network was built without a classifier.
        """
        classifier: nn.Module | None = getattr(self, "fc", None)
        if classifier is None:
            raise ValueError("this network has no classifier; build it with num_classes")
        return classifier(self.pool_map(maps))

    def forward_pooled(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C')."""
        return self.pool_map(self.forward_hidden(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, num_classes) logits; see `classify`."""
        return self.classify(self.forward_hidden(x))


class PendingClips:
    """A batch on the device, in the parts that it ran in; see `ClipExtractor.launch`."""

    def __init__(self, parts: Sequence[Mapping[str, Stored]], count: int) -> None:
        self._parts = parts
        self._count = count

    def collect(self) -> dict[str, NDArray[Any]]:
        arrays = {name: [part[name].array() for part in self._parts] for name in self._parts[0]}
        return {
            name: (values[0] if len(values) == 1 else np.concatenate(values))[: self._count]
            for name, values in arrays.items()
        }


class ClipNetwork(ClipExtractor):
    """A 3-D network as a clip extractor.

    Args:
        options: an instance of the class's `Options`.
        weights: checkpoint file, or None with a seed.
        seed: seed of random weights, or None with a file.
        frames: T of the clips.
        size_px: height and width of the clips.
        dtype: of what is stored.
        device: "cpu", "cuda" or "cuda:N".
        precision: in which the map is computed, one of `PRECISIONS`; pooling and classifier always
            run in float32.
        outputs: which of `CLIP_OUTPUTS`; one forward pass gives them all. Logits need the option
            `num_classes`, and a checkpoint whose classifier fits.
        compile: whether to compile the network, which takes a minute or more before the first
            batch. Results agree within 1e-4 of their magnitude.

    Raises:
        ValueError: if a setting is out of range, or the file does not fit the options.

    Attributes:
        replaceable: the classifier's submodules, which a checkpoint may lack or have otherwise.
        alternatives: values of options that are tried on a checkpoint that does not fit.
    """

    replaceable: ClassVar[tuple[str, ...]] = ("fc",)
    alternatives: ClassVar[Mapping[str, Sequence[Any]]] = {}

    def __init__(
        self,
        options: Any,
        *,
        weights: str | Path | None,
        seed: int | None,
        frames: int,
        size_px: int,
        dtype: str = "float16",
        device: str = "cpu",
        precision: str = "float32",
        outputs: Sequence[str] = ("map",),
        compile: bool = False,
    ) -> None:
        if frames < 1 or size_px < 1:
            raise ValueError(f"got {frames} frames of {size_px} px, expected 1 or more of each")
        check_dtype(dtype)
        self.device = resolve_device(device)
        check_precision(precision, self.device)
        num_classes = self._num_classes(options, outputs)
        try:
            network = create_network(
                lambda: self.build(options, num_classes),
                weights=weights,
                seed=seed,
                replaceable=self.replaceable if num_classes is None else (),
            )
        except MisfitError as error:
            raise ValueError(f"{error}{self._advice(options, error.state)}") from error
        self._layout = memory_format_3d(precision, self.device)
        self.network = _laid_out(network.to(self.device).eval(), self._layout)
        self.frames = frames
        self.size_px = size_px
        self._dtype = dtype
        self._precision = precision
        self._pixels = self.preprocessing(options)
        self.channels = len(self._pixels.mean)
        self.outputs = self._specs(outputs, num_classes)
        self._compiled = compile
        self._forward = self.network.forward_hidden
        if compile:
            self._forward = torch.compile(self._forward)

    @classmethod
    @abstractmethod
    def build(cls, options: Any, num_classes: int | None) -> Network3D:
        """The bare network: without a classifier for None, else with one of `num_classes`."""

    def __call__(self, clips: Tensor) -> dict[str, NDArray[Any]]:
        return self.launch(clips).collect()

    def launch(self, clips: Tensor) -> PendingClips:
        self._check(clips)
        size = clips_at_once(self.device) or max(1, len(clips))
        return PendingClips([self._run(part) for part in _parts(clips, size)], len(clips))

    def _run(self, clips: Tensor) -> dict[str, Stored]:
        with network_inference(self._precision, self.device):
            hidden = self._hidden(clips)
        with network_inference("float32", self.device):
            return {name: Stored(self._output(name, hidden), self._dtype) for name in self.outputs}

    def _hidden(self, clips: Tensor) -> Tensor:
        if self.device.type == "cuda" and not clips.is_cuda:
            clips = clips.pin_memory()  # only from there does a copy run beside the device's work
        clips = clips.to(self.device, non_blocking=True)
        mean, std = self._pixels.mean, self._pixels.std
        try:
            # Normalised inside the call: a name for it here would keep it for the whole pass.
            return self._forward(normalize_clip(clips, mean, std, memory_format=self._layout))
        except RuntimeError as error:
            if not self._compiled or is_out_of_memory(error):
                raise
            raise RuntimeError(
                f"the compiled {self.name} failed: {error}. Set compile to false to run without"
            ) from error

    def _output(self, name: str, hidden: Tensor) -> Tensor:
        if name == "map":
            maps = self.network.hidden_map(hidden)  # (B, C', T', H', W')
            return maps.permute(0, 2, 3, 4, 1)
        wide = hidden.float()
        return self.network.pool_map(wide) if name == "pooled" else self.network.classify(wide)

    def _check(self, clips: Tensor) -> None:
        shape = (self.frames, self.size_px, self.size_px, self.channels)
        dtypes = (torch.uint8, torch.float32) if self.channels == 2 else (torch.uint8,)
        if clips.ndim != 5 or clips.shape[1:] != shape or clips.dtype not in dtypes:
            raise ValueError(
                f"got clips of shape {tuple(clips.shape)} and dtype {clips.dtype}, "
                f"expected (B, {', '.join(map(str, shape))}) "
                f"{' or '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)}"
            )

    def _advice(self, options: Any, state: Mapping[str, Tensor]) -> str:
        """Other options with which a checkpoint would fit, in words; empty if none do."""
        for values in product(*self.alternatives.values()):
            found = dict(zip(self.alternatives, values, strict=True))
            other = replace(options, **found)
            if other == options:
                continue
            with torch.device("meta"):
                network = seeded_init(partial(self.build, other, None), 0)
            if fits(network, state, replaceable=self.replaceable):
                return f"; it fits {', '.join(f'{k}: {v}' for k, v in found.items())}"
        return ""

    def _num_classes(self, options: Any, outputs: Sequence[str]) -> int | None:
        """How many classes the classifier has, None if nobody asks for one."""
        if not outputs or len(set(outputs)) != len(outputs) or not set(outputs) <= {*CLIP_OUTPUTS}:
            raise ValueError(
                f"got outputs {list(outputs)}, expected one or more of {', '.join(CLIP_OUTPUTS)}, "
                "each once"
            )
        if "logits" not in outputs:
            return None
        num_classes: int | None = getattr(options, "num_classes", None)
        if num_classes is None:
            raise ValueError(
                f"got output 'logits' of {self.name} without a classifier, expected the network's "
                "option num_classes; set it to the number of the checkpoint's classes"
            )
        return num_classes

    def _specs(self, outputs: Sequence[str], num_classes: int | None) -> dict[str, OutputSpec]:
        """In the order of `CLIP_OUTPUTS`."""
        shape = self.network.map_shape(self.frames, self.size_px)
        axes = ("time", "y", "x", "channel")
        kinds = {
            "map": (axes, shape, "space-time map before global pooling"),
            "pooled": (axes[3:], shape[3:], "the map, pooled over time and space"),
            "logits": (("class",), (num_classes or 1,), "scores of the classes, before softmax"),
        }
        return {
            name: OutputSpec(dims, sizes, self._dtype, "", words)
            for name, (dims, sizes, words) in kinds.items()
            if name in outputs
        }


def _parts(clips: Tensor, size: int) -> Iterator[Tensor]:
    """The clips by this many; what is missing from the last part is made up with its first clip."""
    for part in clips.split(size):
        spare = -len(part) % size
        yield torch.cat([part, part[:1].expand(spare, *part.shape[1:])]) if spare else part


def _laid_out(network: Network3D, layout: torch.memory_format) -> Network3D:
    """The network with its 3-D kernels in this layout; `Module.to` would fail on 2-D kernels."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network
