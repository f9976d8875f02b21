"""torchvision's video classification models as clip extractors, with their own preprocessing.

Resize, crop, mean and std come from the entry of each model's default weights; nothing is
downloaded. Pixels are resized with antialiasing, like everywhere here; torchvision's transforms do
without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torchvision.models import get_model_weights, video

from extractors.base import Preprocessing
from extractors.clip_network import ClipNetwork
from extractors.geometry import Geometry
from extractors.torchvision_networks import S3D, MViT, Swin3D, TorchvisionNetwork, VideoResNet

_PREFIX = "torchvision:"


@dataclass(frozen=True)
class TorchvisionOptions:
    """Architecture options in a configuration.

    Attributes:
        num_classes: rows of the checkpoint's classifier; only logits need it.
    """

    num_classes: int = 400

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"got num_classes {self.num_classes}, expected 1 or more")


class TorchvisionExtractor(ClipNetwork):
    """A torchvision video model as a clip extractor, named `torchvision:` and its builder.

    Attributes:
        family: the class that runs it.
    """

    VERSION = 1
    Options: ClassVar[type[TorchvisionOptions]] = TorchvisionOptions
    family: ClassVar[type[TorchvisionNetwork]]

    def __init_subclass__(cls) -> None:
        if "family" in vars(cls):
            cls.replaceable = (cls.family.last,)

    @classmethod
    def build(cls, options: TorchvisionOptions, num_classes: int | None) -> TorchvisionNetwork:
        return cls.family(getattr(video, cls.name.removeprefix(_PREFIX))(weights=None), num_classes)

    @classmethod
    def preprocessing(cls, options: TorchvisionOptions) -> Preprocessing:
        weights: Any = get_model_weights(cls.name.removeprefix(_PREFIX)).DEFAULT
        published = weights.transforms()
        height, *width = published.resize_size  # one number: the shorter side
        resize = (height, *width) if width else height
        crop, _ = published.crop_size
        return Preprocessing(
            tuple(published.mean), tuple(published.std), str(weights), Geometry(resize, crop)
        )


class R3D18(TorchvisionExtractor):
    name = "torchvision:r3d_18"
    family = VideoResNet


class MC318(TorchvisionExtractor):
    name = "torchvision:mc3_18"
    family = VideoResNet


class R2Plus1D18(TorchvisionExtractor):
    name = "torchvision:r2plus1d_18"
    family = VideoResNet


class S3DExtractor(TorchvisionExtractor):
    name = "torchvision:s3d"
    family = S3D


class MViTV1B(TorchvisionExtractor):
    name = "torchvision:mvit_v1_b"
    family = MViT


class MViTV2S(TorchvisionExtractor):
    name = "torchvision:mvit_v2_s"
    family = MViT


class Swin3DT(TorchvisionExtractor):
    name = "torchvision:swin3d_t"
    family = Swin3D


class Swin3DS(TorchvisionExtractor):
    name = "torchvision:swin3d_s"
    family = Swin3D


class Swin3DB(TorchvisionExtractor):
    name = "torchvision:swin3d_b"
    family = Swin3D
