"""detectron2's configs: found, read, changed by options, and written down for the key.

A ``.yaml`` config is data: Python tags in it are refused. A LazyConfig, ``.py``, is code, and
reading it runs it: that is how detectron2 means it, so use only such files as you would run.

Guesses where a config is silent:
- a LazyConfig whose test loader has no ResizeShortestEdge wants frames of 800 to 1333 px, and one
  whose model names no input format wants BGR, as all of detectron2's own models do.
- masks and key points, which no head reads, are left out of the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from extractors.objects import FEATURES, check_choice, check_detector_numbers

INSTALL = (
    "install it with 'conda install -c conda-forge detectron2', or for the PyTorch that is there "
    'with "pip install \'setuptools>=70.1,<81\'" and then "pip install --no-build-isolation '
    "'git+https://github.com/facebookresearch/detectron2.git'\""
)
MIN_SIZE_PX, MAX_SIZE_PX = 800, 1333
# Where the files of LazyConfigs are imported under, with a random number behind it.
_LOADER = "detectron2._cfg_loader"


@dataclass(frozen=True)
class Detectron2Options:
    """Which detector, and what of it.

    Attributes:
        config: a yaml or LazyConfig file, or the name of one in detectron2's model zoo.
        num_classes: of the checkpoint, background not counted; None takes the config's, as do the
            others.
        features: "roi_max", RoIAlign max-pooled (the papers), or "box_head", the hidden layer the
            detector classifies from.
        score_threshold: detections below it are dropped.
        nms_threshold: overlap above which the weaker of two boxes of a class is dropped.
        min_size_px, max_size_px: shorter side that frames are resized to, unless the longer one
            would exceed its limit.
    """

    config: str = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml"
    num_classes: int | None = None
    features: str = "roi_max"
    score_threshold: float | None = None
    nms_threshold: float | None = None
    min_size_px: int | None = None
    max_size_px: int | None = None

    def __post_init__(self) -> None:
        if not self.config.endswith((".yaml", ".yml", ".py")):
            raise ValueError(f"got config {self.config!r}, expected a .yaml or LazyConfig .py file")
        check_choice("features", self.features, FEATURES)
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"got num_classes={self.num_classes}, expected 1 or more")
        check_detector_numbers(
            self.score_threshold, self.nms_threshold, self.min_size_px, self.max_size_px
        )


@dataclass(frozen=True)
class DetectorConfig:
    """A config with the options' changes in it.

    Attributes:
        settings: all that decides the detector's numbers, as JSON values.
        build: makes the network, with random weights, on the CPU.
        input_format: "RGB" or "BGR".
        pixel_mean, pixel_std: in this order of channels, on the 0..255 scale.
        min_size_px: shorter side of the resized frame; 0 leaves frames as they are.
        max_size_px: limit of its longer side.
        version: of detectron2.
    """

    settings: dict[str, Any]
    build: Callable[[], Any]
    input_format: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    min_size_px: int
    max_size_px: int
    version: str


def load_config(options: Detectron2Options) -> DetectorConfig:
    """Read a config file and apply the options.

    Raises:
        ValueError: if detectron2 is not installed, or the config is not there, cannot be read, or
            has values that cannot be written down.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # detectron2 is older than what it imports
        try:
            import detectron2
            import detectron2.config
            import detectron2.modeling
            import torch

            # Its anchors leave out the indexing; torch says so once, and here nobody hears it.
            torch.meshgrid(torch.zeros(1), torch.zeros(1))
        except ImportError as error:
            raise ValueError(
                f"the detector detectron2 wants the package of that name ({error}); {INSTALL}"
            ) from error
        path = _find(options.config, Path(detectron2.__file__).parent / "model_zoo" / "configs")
        read = _read_lazy if path.suffix == ".py" else _read_yaml
        try:
            config = read(path, options, detectron2)
        except Exception as error:  # a LazyConfig is code and can fail in any way
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"cannot use the detectron2 config {path}: {reason}") from error
    if config.input_format not in ("RGB", "BGR"):
        raise ValueError(f"got input format {config.input_format} in {path}, expected RGB or BGR")
    return config


def _find(name: str, zoo: Path) -> Path:
    for path in (Path(name).expanduser(), zoo / name):
        if path.is_file():
            return path
    raise ValueError(
        f"got detectron2 config {name!r}, expected a file, or a name in detectron2's model zoo "
        f"({zoo}) such as COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml"
    )


def _read_yaml(path: Path, options: Detectron2Options, library: Any) -> DetectorConfig:
    cfg = library.config.get_cfg()
    cfg.merge_from_file(str(path), allow_unsafe=False)
    scores, overlaps = options.score_threshold, options.nms_threshold
    changes = {
        "MODEL.ROI_HEADS.NUM_CLASSES": options.num_classes,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": None if scores is None else float(scores),
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": None if overlaps is None else float(overlaps),
        "INPUT.MIN_SIZE_TEST": options.min_size_px,
        "INPUT.MAX_SIZE_TEST": options.max_size_px,
        "MODEL.MASK_ON": False,
        "MODEL.KEYPOINT_ON": False,
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
    }
    for key, value in changes.items():
        if value is not None:
            cfg.merge_from_list([key, value])
    frame = {"min_size": cfg.INPUT.MIN_SIZE_TEST, "max_size": cfg.INPUT.MAX_SIZE_TEST}
    settings = {
        "MODEL": describe(dict(cfg.MODEL), "MODEL"),
        "detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }
    return DetectorConfig(
        settings={**settings, "frame": frame, "input_format": cfg.INPUT.FORMAT},
        build=partial(library.modeling.build_model, cfg),
        input_format=cfg.INPUT.FORMAT,
        pixel_mean=tuple(cfg.MODEL.PIXEL_MEAN),
        pixel_std=tuple(cfg.MODEL.PIXEL_STD),
        min_size_px=frame["min_size"],
        max_size_px=frame["max_size"],
        version=str(library.__version__),
    )


def _read_lazy(path: Path, options: Detectron2Options, library: Any) -> DetectorConfig:
    from omegaconf import OmegaConf

    cfg = library.config.LazyConfig.load(str(path))
    heads = cfg.model.roi_heads
    for name in [name for name in heads if str(name).startswith(("mask_", "keypoint_"))]:
        heads.pop(name)
    if options.num_classes is not None:
        heads.num_classes = options.num_classes
    for predictor in heads.get("box_predictors") or [heads.box_predictor]:  # several: a cascade
        if options.score_threshold is not None:
            predictor.test_score_thresh = float(options.score_threshold)
        if options.nms_threshold is not None:
            predictor.test_nms_thresh = float(options.nms_threshold)
    min_size_px, max_size_px = _lazy_limits(cfg, OmegaConf)
    frame = {
        "min_size": min_size_px if options.min_size_px is None else options.min_size_px,
        "max_size": max_size_px if options.max_size_px is None else options.max_size_px,
    }
    model = OmegaConf.to_container(cfg.model, resolve=True)
    input_format = model.get("input_format") or "BGR"
    return DetectorConfig(
        settings={
            "model": describe(model, "model"),
            "frame": frame,
            "input_format": input_format,
        },
        build=partial(library.config.instantiate, cfg.model),
        input_format=input_format,
        pixel_mean=tuple(model["pixel_mean"]),
        pixel_std=tuple(model["pixel_std"]),
        min_size_px=frame["min_size"],
        max_size_px=frame["max_size"],
        version=str(library.__version__),
    )


def _lazy_limits(cfg: Any, omegaconf: Any) -> tuple[int, int]:
    """Limits of the frame that the test loader resizes to."""
    steps = omegaconf.select(cfg, "dataloader.test.mapper.augmentations") or ()
    for step in steps:
        target = step.get("_target_")
        if str(getattr(target, "__name__", target)).endswith("ResizeShortestEdge"):
            short = step["short_edge_length"]
            limits = {short} if isinstance(short, int) else set(short)
            if len(limits) != 1:
                raise ValueError(f"got short_edge_length {short} at test time, expected one number")
            return int(limits.pop()), int(step.get("max_size", MAX_SIZE_PX))
    return MIN_SIZE_PX, MAX_SIZE_PX


def describe(value: Any, where: str) -> Any:
    """A resolved config as JSON values: what is called is written by its import name.

    Raises:
        ValueError: for a value that another process could not tell from another one, such as a
            function defined in the config itself; ``where`` names it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): describe(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, Sequence):
        return [describe(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, partial):
        parts = {"partial": value.func, "args": value.args, "keywords": value.keywords}
        return describe(parts, where)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    if module is None or module.startswith(_LOADER) or "<" in name:
        raise ValueError(
            f"got {value!r} at {where}, which no key can name; expected numbers, words, and "
            "functions and classes of importable modules"
        )
    return f"{module}.{name}"
