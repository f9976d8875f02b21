"""Flow methods by name. A method's module is imported only when its name is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extractors.flow import FlowEstimator
from extractors.registry import Registry, parse_options
from extractors.transforms import FLOW_BOUND_PX

__all__ = ["FLOW_ESTIMATORS", "create_flow_estimator", "flow_settings", "needs_weights"]

FLOW_ESTIMATORS = Registry("flow method")
FLOW_ESTIMATORS.register("raft", "extractors.flow_raft:RAFTFlow")
FLOW_ESTIMATORS.register("tvl1", "extractors.flow_tvl1:TVL1Flow")


def needs_weights(method: str) -> bool:
    """Whether a method is a network.

    Raises:
        ValueError: if the name is unknown.
    """
    estimator: Any = FLOW_ESTIMATORS.resolve(method)
    return bool(estimator.needs_weights)


def flow_settings(
    method: str, options: Mapping[str, Any], *, bound_px: float, precision: str = "float32"
) -> dict[str, Any]:
    """What decides a method's numbers, without building it or reading weights.

    Raises:
        ValueError: if the name or an option is wrong, or its library is not installed.
    """
    estimator: Any = FLOW_ESTIMATORS.resolve(method)
    settings: dict[str, Any] = estimator.settings(
        parse_options(estimator, options), bound_px=bound_px, precision=precision
    )
    return settings


def create_flow_estimator(
    method: str,
    *,
    options: Mapping[str, Any],
    weights: Path | None = None,
    seed: int | None = None,
    bound_px: float = FLOW_BOUND_PX,
    batch_size: int = 8,
    num_threads: int = 1,
    device: str = "cpu",
    precision: str = "float32",
) -> FlowEstimator:
    """Build a flow estimator.

    Args:
        method: a name of `FLOW_ESTIMATORS`.
        options: the method's; those left out have their defaults.
        weights: checkpoint file of a network; it needs exactly one of `weights` and `seed`.
        seed: seed of random weights of a network.
        bound_px: flow is clipped to ±this.
        batch_size: pairs at a time, of networks.
        num_threads: pairs at a time, of other methods.
        device: where a network runs; other methods run on the CPU.
        precision: of a network.

    Raises:
        ValueError: if a name, an option or the checkpoint is wrong, or a library is absent.
    """
    estimator: Any = FLOW_ESTIMATORS.resolve(method)
    parsed = parse_options(estimator, options)
    built: FlowEstimator
    if estimator.needs_weights:
        built = estimator(
            parsed,
            weights=weights,
            seed=seed,
            bound_px=bound_px,
            batch_size=batch_size,
            device=device,
            precision=precision,
        )
    elif weights is not None or seed is not None:
        raise ValueError(f"got weights or a seed for flow method {method}, which has none")
    else:
        built = estimator(parsed, bound_px=bound_px, num_threads=num_threads)
    return built
