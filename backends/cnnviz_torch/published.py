"""What the publishers of torchvision and timm say of their networks: preprocessing and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_torch.model import unwrapped

__all__ = ["IMAGENET_CLASSES", "describe", "timm_preprocessing"]

IMAGENET_CLASSES: Final = 1000

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_STANDARD = Preprocessing(size=(224, 224), resize=256, mean=_MEAN, std=_STD)
_OF_TORCHVISION: Final[dict[str, Preprocessing]] = {
    **dict.fromkeys(
        (
            "AlexNet",
            "DenseNet",
            "GoogLeNet",
            "MNASNet",
            "MobileNetV2",
            "MobileNetV3",
            "RegNet",
            "ResNet",
            "ShuffleNetV2",
            "SqueezeNet",
            "VGG",
        ),
        _STANDARD,
    ),
    "Inception3": Preprocessing(size=(299, 299), resize=342, mean=_MEAN, std=_STD),
}
"""By the class; a class is left out whose weights were trained at different sizes."""


def describe(native: object) -> Described:
    """Find the published preprocessing and class names of a network of torchvision or timm.

    Parameters
    ----------
    native : object
        A network.

    Returns
    -------
    Described
        `preprocessing` and `labels` are None where they are not known, as for a network with
        another number of classes than ImageNet-1k: it was trained by someone else.
    """
    network = unwrapped(native) if isinstance(native, nn.Module) else native
    cls = type(network)
    if cls.__module__.startswith("torchvision.models.") and _classes(network) == IMAGENET_CLASSES:
        preprocessing = _OF_TORCHVISION.get(cls.__name__)
        if cls.__name__ == "VisionTransformer" and network.image_size == 224:
            preprocessing = _STANDARD
        return Described(native, preprocessing, "imagenet-1k", cls.__name__)
    if cls.__module__.startswith("timm."):
        config = _as_mapping(getattr(network, "pretrained_cfg", None))
        classes = getattr(network, "num_classes", None)
        if classes == config.get("num_classes"):
            labels = "imagenet-1k" if classes == IMAGENET_CLASSES else None
            name = config.get("architecture") or cls.__name__
            return Described(native, timm_preprocessing(config), labels, name)
    return Described(native, name=cls.__name__)


def _classes(network: nn.Module) -> int | None:
    """Count the classes of a network that ends in a linear layer or a convolution."""
    heads = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return heads[-1].weight.shape[0] if heads else None


def _as_mapping(config: Any) -> Mapping[str, Any]:
    """Give timm's configuration, a dict or a dataclass, as a mapping."""
    if config is None or isinstance(config, Mapping):
        return config or {}
    return vars(config)


def timm_preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
    """Read timm's configuration of a network.

    Parameters
    ----------
    config : mapping
        A ``pretrained_cfg``: input_size (C, H, W), crop_pct, crop_mode, interpolation, mean, std.

    Returns
    -------
    Preprocessing or None
        None where it is not of a kind that `Preprocessing` can say.
    """
    _, height, width = config.get("input_size") or (0, 0, 0)
    mode = config.get("crop_mode") or "center"
    interpolation = config.get("interpolation") or "bilinear"
    if interpolation == "random":  # what it was trained with; timm evaluates with bilinear
        interpolation = "bilinear"
    scaled = [math.floor(n / (config.get("crop_pct") or 1)) for n in (height, width)]
    if mode == "squash":
        resize: int | tuple[int, int] = (scaled[0], scaled[1])
    elif mode == "center" and height == width:
        resize = scaled[0]
    else:
        return None
    if not height or interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
        return None
    return Preprocessing(
        size=(height, width),
        resize=resize,
        interpolation=interpolation,
        mean=tuple(config.get("mean") or _MEAN),
        std=tuple(config.get("std") or _STD),
    )
