"""What the extraction benchmarks share: networks, effort, the rate of matrix products, children."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from extractors.base import ClipExtractor
from extractors.clip_network import ClipNetwork, Network3D
from extractors.inference import network_inference
from extractors.registry import CLIP_EXTRACTORS, create_clip_extractor, parse_options

RATE_FPS = 60
CLIP_EVERY_SECONDS = 2.5  # a clip of the papers lasts 2.13 s


@dataclass(frozen=True)
class Backbone:
    """A network and the clips it takes; those of the papers all span 128 frames."""

    name: str
    network: str
    options: Mapping[str, Any]
    frames: int
    stride: int
    size_px: int

    def create(self, device: str, precision: str) -> ClipExtractor:
        """The extractor with random weights."""
        return create_clip_extractor(
            self.network,
            architecture=self.options,
            weights=None,
            seed=0,
            frames=self.frames,
            size_px=self.size_px,
            device=device,
            precision=precision,
        )

    @cached_property
    def flop_per_clip(self) -> int:
        """Of convolutions and matrix products, a multiply-add being two."""
        extractor: type[ClipNetwork] = CLIP_EXTRACTORS.resolve(self.network)  # type: ignore[assignment]
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = extractor.build(parse_options(extractor, self.options), None).eval()
            network.forward_features(torch.empty(1, 3, self.frames, self.size_px, self.size_px))
        return int(counter.get_total_flops())


PAPER = (
    Backbone("resnet50_3d", "resnet3d", {"depth": 50}, 64, 2, 256),
    Backbone("i3d_rgb", "i3d", {"modality": "rgb"}, 64, 2, 256),
    Backbone("r2plus1d_34", "r2plus1d", {"depth": 34}, 32, 4, 128),
)
SMALL = (
    Backbone("resnet50_3d", "resnet3d", {"depth": 10, "width": 4}, 8, 2, 32),
    Backbone("i3d_rgb", "i3d", {"modality": "rgb", "width": 4}, 8, 2, 32),
    Backbone("r2plus1d_34", "r2plus1d", {"depth": 18, "width": 4}, 8, 4, 32),
)
# For what is about videos: 64 frames at a stride of 2 through hardly any network.
TINY = Backbone("tiny", "resnet3d", {"depth": 10, "width": 4}, 64, 2, 80)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        backbones: networks.
        turns: how often everybody has a turn.
        videos, clips: of an end-to-end run, and clips per video.
        batch_size: of an end-to-end run and of a bare forward pass.
        decode_turns: for what needs no network.
        large_clips: of the video in full HD.
        small_video_px, large_video_px: width and height.
        long_seconds, short_seconds: of the videos whose memory is compared.
        gemm_sides: of square matrices.
    """

    backbones: tuple[Backbone, ...] = PAPER
    turns: int = 3
    videos: int = 4
    clips: int = 4
    batch_size: int = 2
    decode_turns: int = 5
    large_clips: int = 2
    small_video_px: tuple[int, int] = (456, 256)
    large_video_px: tuple[int, int] = (1920, 1080)
    long_seconds: int = 3600
    short_seconds: int = 300
    gemm_sides: tuple[int, ...] = (1024, 2048, 4096)

    @property
    def is_quick(self) -> bool:
        return self.backbones is SMALL


FULL = Effort()
# A GPU takes as long for these as two cores for one.
FULL_CUDA = Effort(videos=16, clips=8, batch_size=8, gemm_sides=(4096, 8192, 16384))
QUICK = Effort(SMALL, 1, 1, 3, 2, 1, 1, (114, 64), (192, 108), 80, 40, (128, 256))


@dataclass
class BareForward:
    """A network on clips that lie in memory, normalised, in a given layout."""

    network: Network3D
    clips: Tensor  # (B, 3, T, H, W) float32
    precision: str
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = self.clips.device

    def seconds_per_clip(self, layout: torch.memory_format) -> float:
        """Seconds of one batch per clip."""
        self.network.to(memory_format=layout)
        clips = self.clips.contiguous(memory_format=layout)
        with network_inference(self.precision, self.device):
            if self.device.type == "cuda":
                self.network.forward_features(clips)  # cuDNN tries its algorithms
            return timed(lambda: self.network.forward_features(clips), self.device) / len(clips)


def bare_forward(backbone: Backbone, batch_size: int, device: str, precision: str) -> BareForward:
    """A network with random weights and random clips for it."""
    network: Network3D = backbone.create(device, precision).network  # type: ignore[attr-defined]
    side = backbone.size_px
    clips = torch.randn(batch_size, 3, backbone.frames, side, side, device=device)
    return BareForward(network, clips, precision)


def gemm_flop_per_second(sides: tuple[int, ...], device: str, dtype: torch.dtype) -> float:
    """The most that square matrix products reach."""
    rates = []
    for side in sides:
        a, b = torch.randn(2, side, side, device=device, dtype=dtype)
        torch.mm(a, b)
        seconds = timed(lambda a=a, b=b: torch.mm(a, b), torch.device(device))
        rates.append(2 * side**3 / seconds)
    return max(rates)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes, to its end on the device."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def run_child(module: str, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Call `answer(**request)` of a module beside this one for each request in a fresh process."""
    code = (
        f"import json, sys, {module} as module; "
        "print(json.dumps([module.answer(**each) for each in json.loads(sys.argv[1])]))"
    )
    command = [sys.executable, "-c", code, json.dumps(requests)]
    folder = Path(__file__).parent
    ended = subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE)
    return list(json.loads(ended.stdout))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
