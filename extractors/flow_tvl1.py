"""TV-L1 optical flow as OpenCV's contributed modules compute it.

"A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007. Guesses: grey is OpenCV's
own weighting of red, green and blue; every option has OpenCV's default. With these the iteration
stops early where the camera moves, and fields come out too small: docs/conventions.md has figures.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from extractors.flow import FlowEstimator, Frames
from extractors.transforms import FLOW_BOUND_PX

__all__ = ["TVL1Flow", "TVL1Options"]

INSTALL = "pip install opencv-contrib-python-headless"

_DISTRIBUTIONS = ("opencv-contrib-python-headless", "opencv-contrib-python", "opencv")


@dataclass(frozen=True)
class TVL1Options:
    """OpenCV's parameters by its own names; `lambda_` weighs the data term."""

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_filtering: int = 5

    def __post_init__(self) -> None:
        wrong = {
            name: value
            for name, value in asdict(self).items()
            if value < 0 or (value == 0 and name not in ("epsilon", "gamma"))
        }
        if wrong or self.scale_step >= 1 or self.median_filtering not in (1, 3, 5):
            got = wrong or {
                "scale_step": self.scale_step,
                "median_filtering": self.median_filtering,
            }
            raise ValueError(
                f"got {got} for tvl1, expected numbers above 0 (epsilon and gamma may be 0), "
                "scale_step below 1 and median_filtering 1, 3 or 5"
            )


class TVL1Flow(FlowEstimator):
    """TV-L1 on grey frames; pairs are spread over threads, each pair runs in one.

    OpenCV's own threads are switched off for the process: they would only contend.

    Args:
        options: of the method.
        bound_px: flow is clipped to ±this.
        num_threads: pairs at a time.

    Raises:
        ValueError: OpenCV's contributed modules are not installed.
    """

    name: ClassVar[str] = "tvl1"
    VERSION: ClassVar[int] = 1
    Options: ClassVar[type[Any]] = TVL1Options
    needs_weights: ClassVar[bool] = False

    def __init__(
        self, options: TVL1Options, *, bound_px: float = FLOW_BOUND_PX, num_threads: int = 1
    ) -> None:
        super().__init__(bound_px=bound_px)
        if num_threads < 1:
            raise ValueError(f"got num_threads {num_threads}, expected 1 or more")
        self._cv2 = _opencv()
        self._cv2.setNumThreads(1)
        self._options = options
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tvl1")

    @classmethod
    def library(cls) -> str:
        """Name and version of OpenCV."""
        for name in _DISTRIBUTIONS:
            try:
                return f"opencv {version(name)}"
            except PackageNotFoundError:
                continue
        return f"opencv {_opencv().__version__}"

    def _estimate(self, first: Frames, second: Frames) -> list[NDArray[np.float32]]:
        return list(self._pool.map(self._pair, first, second))

    def _pair(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        solver = _solver(self._cv2, self._options)  # it holds buffers, so each pair has its own
        field: NDArray[np.float32] = solver.calc(self._grey(first), self._grey(second), None)
        return field

    def _grey(self, frame: NDArray[np.uint8]) -> Any:
        return self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY)


def _solver(cv2: ModuleType, options: TVL1Options) -> Any:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    solver.setTau(options.tau)
    solver.setLambda(options.lambda_)
    solver.setTheta(options.theta)
    solver.setScalesNumber(options.nscales)
    solver.setWarpingsNumber(options.warps)
    solver.setEpsilon(options.epsilon)
    solver.setInnerIterations(options.inner_iterations)
    solver.setOuterIterations(options.outer_iterations)
    solver.setScaleStep(options.scale_step)
    solver.setGamma(options.gamma)
    solver.setMedianFiltering(options.median_filtering)
    return solver


def _opencv() -> ModuleType:
    try:
        import cv2

        _ = cv2.optflow
    except (ImportError, AttributeError) as error:
        got = "OpenCV is not installed" if isinstance(error, ImportError) else "it lacks optflow"
        raise ValueError(
            f"flow method tvl1 needs OpenCV with its contributed modules, and {got}: {INSTALL}"
        ) from error
    return cv2
