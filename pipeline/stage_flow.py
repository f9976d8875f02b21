"""Optical flow of a clip stage: what it adds to the key, where its frames are from, who makes it.

A network over two channels needs flow, one over three refuses it. Official flow is a source of its
own beside the videos; flow that is computed is a step between decoding and the network.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from extractors.base import ClipExtractor
from extractors.geometry import Geometry
from extractors.registry import CLIP_EXTRACTORS, parse_options
from pipeline.config_base import NetworkConfig
from pipeline.config_flow import FlowConfig
from pipeline.errors import ConfigError
from pipeline.keys import stage_key

if TYPE_CHECKING:  # they load torch, which a stage without computed flow does not need
    from extractors.flow_clips import FlowClips

__all__ = [
    "FLOW_SOURCE",
    "check_flow",
    "computed_flow_settings",
    "flow_source",
    "with_computed_flow",
]

Settings = dict[str, Any]

FLOW_SOURCE = "\0flow"  # no video_id holds it

# Stages with the same flow share what is computed, as long as one of them is in use.
_SHARED: WeakValueDictionary[str, FlowClips] = WeakValueDictionary()


def flow_source(video_id: str) -> str:
    """The source of a video's official flow."""
    return video_id + FLOW_SOURCE


def check_flow(flow: FlowConfig | None, network: NetworkConfig, stage: str) -> None:
    """Hold a network's channels against what it is to be given.

    Raises:
        ConfigError: flow for a network over RGB, none for one over flow, or weights that a method
            needs or does not have.
    """
    try:
        extractor = CLIP_EXTRACTORS.resolve(network.name)
        channels = len(extractor.preprocessing(parse_options(extractor, network.options)).mean)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"stages.{stage}.network: {error}") from error
    if flow is None and channels == 2:
        raise ConfigError(
            f"stages.{stage}.flow: got none for network {network.name} with 2 channels, expected "
            "a method (folders, raft, tvl1), or a network over RGB"
        )
    if flow is None:
        return
    if channels != 2:
        raise ConfigError(
            f"stages.{stage}.flow: got method {flow.method} for network {network.name} with "
            f"{channels} channels, expected 2 (for i3d, the option modality: flow); leave flow out "
            "for RGB"
        )
    from extractors.flow_registry import needs_weights

    try:
        weighted = flow.computed and needs_weights(flow.method)
    except ValueError as error:
        raise ConfigError(f"stages.{stage}.flow.method: {error}, or folders") from error
    if weighted != (flow.weights is not None):
        expected = "a checkpoint file, or random with weights_seed" if weighted else "none"
        raise ConfigError(
            f"stages.{stage}.flow.weights: got {flow.weights or 'none'} for method {flow.method}, "
            f"expected {expected}"
        )


def computed_flow_settings(
    flow: FlowConfig, weights: Settings | None, geometry: Geometry, stage: str
) -> Settings:
    """What decides the numbers of computed flow, given the frames.

    Raises:
        ConfigError: unknown method or option, or its library is not installed.
    """
    from extractors.flow_registry import flow_settings

    try:
        method = flow_settings(
            flow.method, flow.options, bound_px=flow.bound_px, precision=flow.precision
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"stages.{stage}.flow: {error}") from error
    return {
        **method,
        "weights": weights,
        "span": flow.span,
        "frames": Geometry(flow.short_side_px).settings,
        "field": {**geometry.settings, "method": "bilinear antialiased float32, values kept"},
    }


def with_computed_flow(
    network: ClipExtractor, flow: FlowConfig, settings: Settings, geometry: Geometry, device: str
) -> ClipExtractor:
    """The network, taking clips of RGB frames.

    Raises:
        ValueError: the checkpoint does not fit, or a library is not installed.
    """
    from extractors.flow_clips import FlowClipExtractor, FlowClips
    from extractors.flow_registry import create_flow_estimator

    key = f"{stage_key(settings)}@{device}"
    clips = _SHARED.get(key)
    if clips is None:
        estimator = create_flow_estimator(
            flow.method,
            options=flow.options,
            weights=flow.checkpoint,
            seed=flow.weights_seed,
            bound_px=flow.bound_px,
            batch_size=flow.batch_size,
            num_threads=os.cpu_count() or 1,
            device=device,
            precision=flow.precision,
        )
        clips = FlowClips(estimator, geometry=geometry, span=flow.span)
        _SHARED[key] = clips
    return FlowClipExtractor(network, clips)
