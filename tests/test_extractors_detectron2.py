"""The adapter against the real package; skipped where detectron2 is not installed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extractors.base import GivenBoxes
from extractors.detectron2_config import Detectron2Options, load_config
from extractors.detectron2_rcnn import Detectron2Extractor, build_detector
from extractors.registry import FRAME_EXTRACTORS, extractor_settings
from extractors.weights import save_checkpoint, seeded_init

detectron2 = pytest.importorskip("detectron2", exc_type=ImportError)
ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
TOP_K = 5

YAML = """
_BASE_: {zoo}/{base}
MODEL:
  {mask}
  RPN: {{POST_NMS_TOPK_TEST: 40}}
  ROI_HEADS: {{NUM_CLASSES: 7}}
INPUT: {{MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160, FORMAT: {input_format}}}
TEST: {{DETECTIONS_PER_IMAGE: 4}}
"""
LAZY = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L, LazyConfig
from omegaconf import OmegaConf

model = LazyConfig.load("{zoo}/common/models/{base}").model
model.proposal_generator.post_nms_topk = (40, 40)
model.roi_heads.num_classes = 7
dataloader = OmegaConf.create()
dataloader.test = dict(
    mapper=dict(augmentations=[L(T.ResizeShortestEdge)(short_edge_length=96, max_size=160)])
)
"""
X101 = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml"
CONFIGS: dict[str, tuple[str, str, str]] = {
    "R50-FPN": ("yaml", "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "BGR"),
    "X101-FPN": ("yaml", X101, "BGR"),
    "R50-C4": ("yaml", "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", "RGB"),
    "mask": ("yaml", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "RGB"),
    "lazy": ("py", "mask_rcnn_fpn.py", "BGR"),
    "lazy-C4": ("py", "mask_rcnn_c4.py", "BGR"),
    "lazy-cascade": ("py", "cascade_rcnn.py", "BGR"),
}


@dataclass
class Case:
    """A config file, weights that tell boxes apart, and detectron2's own network with them."""

    config: Path
    weights: Path
    model: Any
    input_format: str

    def extractor(self, *, given: bool = False, **options: Any) -> Detectron2Extractor:
        return Detectron2Extractor(
            Detectron2Options(config=str(self.config), **options),
            weights=self.weights,
            seed=None,
            top_k=TOP_K,
            dtype="float32",
            given=given,
        )

    def inputs(self, values: np.ndarray) -> dict[str, Any]:
        """One frame, prepared as detectron2's DefaultPredictor does."""
        from detectron2.data import transforms as T

        image = values if self.input_format == "RGB" else values[:, :, ::-1]
        resized = T.ResizeShortestEdge([96, 96], 160).get_transform(image).apply_image(image)
        pixels = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        return {"image": pixels, "height": values.shape[0], "width": values.shape[1]}

    def predict(self, values: np.ndarray) -> Any:
        with torch.no_grad():
            return self.model([self.inputs(values)])[0]["instances"]

    def features(self, values: np.ndarray, native: Tensor) -> tuple[Tensor, Tensor]:
        """The network's pooled bins and the hidden layer at boxes (n, 4) of the native frame."""
        from detectron2.structures import Boxes

        with torch.no_grad():
            images = self.model.preprocess_image([self.inputs(values)])
            maps = self.model.backbone(images.tensor)
            boxes = Boxes(native.clone())
            height, width = images.image_sizes[0]
            boxes.scale(width / values.shape[1], height / values.shape[0])
            heads = self.model.roi_heads
            if hasattr(heads, "res5"):
                bins = heads.pooler([maps[f] for f in heads.in_features], [boxes])
                return bins, heads.res5(bins).mean(dim=[2, 3])
            bins = heads.box_pooler([maps[f] for f in heads.box_in_features], [boxes])
            head = heads.box_head
            return bins, (head[-1] if isinstance(head, nn.ModuleList) else head)(bins)


def frame(height: int, width: int, seed: int) -> np.ndarray:
    """Coarse random blocks: structure at the size of objects."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
    return np.ascontiguousarray(blocks[rows][:, columns])


# The large ones take 10 to 20 seconds each.
NAMES = [
    pytest.param(name, marks=() if name in ("R50-FPN", "lazy") else pytest.mark.slow)
    for name in CONFIGS
]
FRAMES = [frame(120, 160, 0), frame(90, 200, 1), frame(210, 130, 2)]


def enliven(model: Any, images: list[dict[str, Any]]) -> None:
    """Give an untrained network unit activations and a classifier that prefers some boxes."""
    from detectron2.layers import FrozenBatchNorm2d

    def calibrate(module: Any, inputs: tuple[Tensor, ...]) -> None:
        module.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        module.running_var.copy_(inputs[0].var(dim=(0, 2, 3)) + 1e-3)

    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [module.register_forward_pre_hook(calibrate) for module in norms]
    with torch.no_grad():
        model(images[:1])
        for hook in hooks:
            hook.remove()
        predictor = model.roi_heads.box_predictor
        generator = torch.Generator().manual_seed(1)
        for part in predictor if isinstance(predictor, nn.ModuleList) else [predictor]:
            part.cls_score.weight.normal_(0, 0.2, generator=generator)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def make(name: str) -> Case:
        kind, base, input_format = CONFIGS[name]
        folder = tmp_path_factory.mktemp("detectron2")
        config = folder / f"config.{kind}"
        text = {"yaml": YAML, "py": LAZY}[kind]
        mask = f"MASK_ON: {name == 'mask'}"
        config.write_text(text.format(zoo=ZOO, base=base, mask=mask, input_format=input_format))
        made = Case(config, folder / "weights.pth", build_theirs(config), input_format)
        enliven(made.model, [made.inputs(FRAMES[0])])
        # As detectron2's trainer writes it, with constants of older versions.
        state = {**made.model.state_dict(), "pixel_mean": torch.zeros(3, 1, 1)}
        torch.save({"model": state, "iteration": 7}, made.weights)
        return made

    return make


def build_theirs(config: Path) -> Any:
    """The network as detectron2 itself builds it, masks and all."""
    load_config(Detectron2Options(config=str(config)))  # imports the package in silence
    from detectron2.config import LazyConfig, get_cfg, instantiate
    from detectron2.modeling import build_model

    if config.suffix == ".py":
        return seeded_init(lambda: instantiate(LazyConfig.load(str(config)).model), 0).eval()
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE = "cpu"
    return seeded_init(lambda: build_model(cfg), 0).eval()


@pytest.mark.parametrize("name", NAMES)
def test_boxes_scores_and_features_are_detectron2s(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    net = made.extractor()
    assert not getattr(net.network.roi_heads, "mask_on", False), "nobody reads masks"
    for values in FRAMES:
        expected = made.predict(values)
        n = min(len(expected), TOP_K)
        assert n >= 4, "the network must find something"
        row = net([values])
        # Four are kept by the yaml configs; the extractor keeps K.
        assert row["count"].tolist()[0] in (n, TOP_K)
        boxes = expected.pred_boxes.tensor[:n]
        np.testing.assert_allclose(row["boxes_xyxy_px"][0, :n], boxes, atol=1e-3)
        np.testing.assert_allclose(row["scores"][0, :n], expected.scores[:n], atol=1e-5)
        assert row["classes"][0, :n].tolist() == expected.pred_classes[:n].tolist()
        assert (np.diff(row["scores"][0]) <= 0).all()
        bins, _ = made.features(values, boxes)
        pooled = bins.flatten(2).max(dim=2).values
        np.testing.assert_allclose(row["features"][0, :n], pooled, rtol=1e-3, atol=1e-4)
        assert row["frame_size_px"].tolist() == [[values.shape[1], values.shape[0]]]


@pytest.mark.parametrize("name", NAMES)
def test_features_of_given_boxes_are_detectron2s(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    boxes = np.array([[3, 5, 90, 80], [20.5, 10.25, 44, 61], [0, 0, 130, 90]], np.float32)
    given = GivenBoxes(boxes, np.array([0.9, 0.6, 0.3], np.float32), np.arange(3, dtype=np.int32))
    pooled, hidden = made.extractor(given=True), made.extractor(given=True, features="box_head")
    for values in FRAMES:
        bins, head = made.features(values, torch.from_numpy(boxes))
        row, deep = pooled([values], [given]), hidden([values], [given])
        expected = bins.amax(dim=(2, 3))
        np.testing.assert_allclose(row["features"][0, :3], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(deep["features"][0, :3], head, rtol=1e-3, atol=1e-4)
        assert row["boxes_xyxy_px"][0, :3].tolist() == boxes.tolist()
        assert row["count"].tolist() == [3]
        assert row["classes"].tolist() == [[0, 1, 2, 0, 0]]


def test_the_default_predictor_agrees(case: Callable[[str], Case]) -> None:
    """detectron2's own way from a picture and a checkpoint file to boxes."""
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    made = case("R50-FPN")
    cfg = get_cfg()
    cfg.merge_from_file(str(made.config))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(made.weights)
    expected = DefaultPredictor(cfg)(FRAMES[1][:, :, ::-1])["instances"]
    row = made.extractor()([FRAMES[1]])
    n = len(expected)
    assert n == 4
    np.testing.assert_allclose(row["boxes_xyxy_px"][0, :n], expected.pred_boxes.tensor, atol=1e-3)
    np.testing.assert_allclose(row["scores"][0, :n], expected.scores, atol=1e-5)


def test_rows_do_not_depend_on_neighbours_or_order(case: Callable[[str], Case]) -> None:
    net = case("R50-FPN").extractor()
    frames = [FRAMES[0], FRAMES[1], frame(120, 160, 5), FRAMES[2], frame(120, 160, 6)]
    batches = []
    net.network.backbone.register_forward_pre_hook(
        lambda module, inputs: batches.append(len(inputs[0]))
    )
    together = net(frames)
    assert batches == [1] * 5  # on a CPU, so that rows are the same to the bit
    assert (together["count"] >= 4).all()
    for index, values in enumerate(frames):
        for name, alone in net([values]).items():
            assert np.array_equal(together[name][index], alone[0]), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("features", ["roi_max", "box_head"])
def test_no_detections_give_zeros(case: Callable[[str], Case], name: str, features: str) -> None:
    row = case(name).extractor(score_threshold=1.0, features=features)(FRAMES[:2])
    assert row["count"].tolist() == [0, 0]
    for output in ("features", "boxes_xyxy_px", "scores", "classes"):
        assert not row[output].any()


def test_frames_without_and_with_too_many_boxes(case: Callable[[str], Case]) -> None:
    def boxes(n: int) -> GivenBoxes:
        corners = np.array([[i, i, 40 + i, 50 + i] for i in range(n)], np.float32).reshape(n, 4)
        scores = np.arange(n, dtype=np.float32) / 10
        return GivenBoxes(corners, scores, np.arange(n, dtype=np.int32))

    row = case("R50-FPN").extractor(given=True)([FRAMES[0]] * 2, [boxes(0), boxes(7)])
    assert row["count"].tolist() == [0, TOP_K]
    assert row["classes"].tolist() == [[0] * TOP_K, [6, 5, 4, 3, 2]]
    assert not row["features"][0].any()
    assert row["features"][1].any(axis=1).all()


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ([30, 10, 20, 40], "inverted or empty"),
        ([float("nan"), 10, 20, 40], "not finite"),
        ([160, 10, 170, 40], "outside the 160×120 frame"),
    ],
)
def test_wrong_given_boxes_are_named(
    case: Callable[[str], Case], box: list[float], problem: str
) -> None:
    given = GivenBoxes(np.array([box], np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    with pytest.raises(ValueError, match=rf"got box 0 of frame 0: \[.*which is {problem}"):
        case("R50-FPN").extractor(given=True)([FRAMES[0]], [given])


def test_frames_of_a_pixel_and_strips(case: Callable[[str], Case]) -> None:
    net = case("R50-FPN").extractor()
    assert net([frame(1, 1, 0)])["frame_size_px"].tolist() == [[1, 1]]
    net([frame(1, 64, 0)])
    with pytest.raises(ValueError, match=r"got frame 0 of 65×1 px"):
        net([frame(1, 65, 0)])


@pytest.mark.parametrize(
    "name", ["R50-FPN", "lazy", pytest.param("lazy-cascade", marks=pytest.mark.slow)]
)
def test_options_reach_the_network_and_the_key(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    options: dict[str, Any] = {
        "num_classes": 3,
        "score_threshold": 0,
        "nms_threshold": 0.25,
        "min_size_px": 64,
        "max_size_px": 99,
    }
    net = Detectron2Extractor(
        Detectron2Options(config=str(made.config), **options), weights=None, seed=0, top_k=9
    )
    predictor = net.network.roi_heads.box_predictor
    for part in predictor if isinstance(predictor, nn.ModuleList) else [predictor]:
        assert part.cls_score.out_features == 4
        assert (part.test_score_thresh, part.test_nms_thresh) == (0, 0.25)
        assert part.test_topk_per_image >= 9
    seen = []
    net.network.backbone.register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape[2:]))
    )
    net([FRAMES[0], FRAMES[1]])
    assert seen == [(64, 96), (64, 128)]  # 64×85 and 45×99, padded to multiples of 32

    def key(**changes: Any) -> str:
        architecture = {"config": str(made.config), **changes}
        return json.dumps(extractor_settings(FRAME_EXTRACTORS, "detectron2", architecture))

    changes = [{option: value} for option, value in options.items()] + [{"features": "box_head"}]
    keys = [key(), *(key(**change) for change in changes)]
    assert len(set(keys)) == len(keys)
    assert key(num_classes=7) == key()


@pytest.mark.parametrize("name", ["R50-FPN", "lazy"])
def test_the_key_has_the_configs_content_and_not_its_place(
    case: Callable[[str], Case], name: str, tmp_path: Path
) -> None:
    made = case(name)

    def settings(path: Path) -> dict[str, Any]:
        found = extractor_settings(FRAME_EXTRACTORS, "detectron2", {"config": str(path)})
        text = json.dumps(found)
        assert str(made.config.parent) not in text
        assert dict(json.loads(text)) == found
        return found

    moved = tmp_path / f"elsewhere{made.config.suffix}"
    moved.write_text("# of no consequence\n" + made.config.read_text())
    assert settings(moved) == settings(made.config)
    moved.write_text(
        made.config.read_text()
        .replace("MIN_SIZE_TEST: 96", "MIN_SIZE_TEST: 97")
        .replace("length=96", "length=97")
    )
    assert settings(moved) != settings(made.config)
    assert settings(moved)["library"] == f"detectron2 {detectron2.__version__}"


def test_a_change_in_a_base_file_changes_the_key(tmp_path: Path) -> None:
    base, config = tmp_path / "base.yaml", tmp_path / "config.yaml"
    config.write_text("_BASE_: base.yaml\n")
    found = []
    for depth in (50, 101):
        base.write_text(f"_BASE_: {ZOO}/Base-RCNN-FPN.yaml\nMODEL: {{RESNETS: {{DEPTH: {depth}}}}}")
        found.append(extractor_settings(FRAME_EXTRACTORS, "detectron2", {"config": str(config)}))
    assert found[0] != found[1]


def test_the_model_zoo_is_looked_up_by_name() -> None:
    config = load_config(Detectron2Options())
    assert config.settings["MODEL"]["RESNETS"]["WIDTH_PER_GROUP"] == 8
    assert (config.min_size_px, config.max_size_px, config.input_format) == (800, 1333, "BGR")
    pixels = Detectron2Extractor.preprocessing(Detectron2Options())
    np.testing.assert_allclose(pixels.mean, [0.485, 0.456, 0.406], atol=1e-6)
    np.testing.assert_allclose(pixels.std, [58.395 / 255, 57.12 / 255, 57.375 / 255], atol=1e-6)
    with pytest.raises(
        ValueError, match=r"got detectron2 config 'COCO/x\.yaml', expected a file, or"
    ):
        load_config(Detectron2Options(config="COCO/x.yaml"))


def test_proposals_from_elsewhere_want_given_boxes() -> None:
    options = Detectron2Options(config="COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml")
    with pytest.raises(ValueError, match="which finds no boxes of its own; give boxes"):
        Detectron2Extractor(options, weights=None, seed=0, top_k=3)
    assert Detectron2Extractor(options, weights=None, seed=0, top_k=3, given=True).needs_boxes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "MODEL: {NO_SUCH: 1}", "Non-existent config key: MODEL.NO_SUCH"),
        ("a.yaml", "MODEL: {WEIGHTS: !!python/object/apply:os.getcwd []}", "could not determine"),
        ("a.yaml", "MODEL: [", "cannot use the detectron2 config"),
        ("a.py", "raise RuntimeError('no such thing')", "no such thing"),
        ("a.py", "model = ", "has syntax error"),
        ("a.py", "train = 1", "cannot use the detectron2 config"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_config(Detectron2Options(config=str(tmp_path / name)))


def test_other_networks_are_refused() -> None:
    config = load_config(Detectron2Options(config="COCO-Detection/rpn_R_50_FPN_1x.yaml"))
    with pytest.raises(
        ValueError, match="got a ProposalNetwork with NoneType, expected a detectron2 c"
    ):
        build_detector(config, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("ROI_HEADS: {NAME: OfAnotherProject}", "KeyError: .*OfAnotherProject"),
        ("RESNETS: {DEPTH: 51}", "KeyError: 51"),
        ("PIXEL_MEAN: [1.0]", r"AssertionError: tensor\("),
    ],
)
def test_networks_that_cannot_be_built(tmp_path: Path, changes: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"_BASE_: {ZOO}/Base-RCNN-FPN.yaml\nMODEL: {{{changes}}}")
    config = load_config(Detectron2Options(config=str(tmp_path / "a.yaml")))
    with pytest.raises(ValueError, match=rf"cannot build this config's network: {message}"):
        build_detector(config, 5)


def test_weights_of_other_classes_are_refused(case: Callable[[str], Case]) -> None:
    with pytest.raises(ValueError, match=r"cls_score\.weight \(got \(8, 1024\), expected \(4,"):
        case("R50-FPN").extractor(num_classes=3)


def test_a_pickle_of_the_model_zoo_does_as_well(
    case: Callable[[str], Case], tmp_path: Path
) -> None:
    """In the zoo's form, with the constants of older versions; detectron2 reads the same of it."""
    from detectron2.checkpoint import DetectionCheckpointer

    made = case("R50-FPN")
    arrays = {name: values.numpy() for name, values in made.model.state_dict().items()}
    anchors = "proposal_generator.anchor_generator.cell_anchors.0"
    old = {"pixel_mean": np.zeros((3, 1, 1), "f4"), anchors: np.zeros((3, 4), "f4")}
    path = tmp_path / "model_final.pkl"
    with path.open("wb") as file:
        pickle.dump({"model": {**arrays, **old}, "__author__": "Detectron2 Model Zoo"}, file)
    theirs = build_theirs(made.config)
    DetectionCheckpointer(theirs).load(str(path))
    expected = Case(made.config, path, theirs, "BGR").predict(FRAMES[0])
    row = Case(made.config, path, None, "BGR").extractor()([FRAMES[0]])
    n = len(expected)
    assert n == 4
    np.testing.assert_allclose(row["scores"][0, :n], expected.scores, atol=1e-5)
    np.testing.assert_allclose(row["boxes_xyxy_px"][0, :n], expected.pred_boxes.tensor, atol=1e-3)


def test_safetensors_do_as_well(case: Callable[[str], Case], tmp_path: Path) -> None:
    made = case("R50-FPN")
    save_checkpoint(tmp_path / "weights.safetensors", made.model)
    other = Case(made.config, tmp_path / "weights.safetensors", None, "BGR")
    ours, theirs = other.extractor()([FRAMES[0]]), made.extractor()([FRAMES[0]])
    assert np.array_equal(ours["features"], theirs["features"])
