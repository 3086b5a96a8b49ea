"""What is published of the networks of keras.applications: their preprocessing and classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_tf.accepts import keras_of

__all__ = ["describe"]

_CLASSES: Final = 1000
_MODES: Final = {
    "caffe": {"scale": 1.0, "mean": (103.939, 116.779, 123.68), "channels": "BGR"},
    "tf": {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0)},
    "torch": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "inside": {"scale": 1.0, "mean": (0.0, 0.0, 0.0)},
}
"""The modes of keras.applications' ``preprocess_input``; "inside": done by the network itself."""


@dataclass(frozen=True)
class _Family:
    """Networks that share a way of preprocessing.

    Attributes
    ----------
    name : str
        A pattern for the names that keras.applications gives them.
    mode : str
        A key of `_MODES`.
    size : int
        The input's height and width, where the network takes any.
    layers : tuple of str
        Endings of layer names that all of them have.
    """

    name: str
    mode: str
    size: int
    layers: tuple[str, ...]


_FAMILIES: Final = (
    _Family(r"vgg(16|19)", "caffe", 224, ("block5_conv3", "fc2", "predictions")),
    _Family(r"resnet(50|101|152)", "caffe", 224, ("conv1_relu", "conv5_block3_out", "predictions")),
    _Family(r"resnet(50|101|152)v2", "tf", 224, ("conv5_block3_out", "post_bn", "predictions")),
    _Family(r"mobilenet_\d\.\d\d_\w+", "tf", 224, ("conv_dw_13", "conv_preds", "predictions")),
    _Family(
        r"mobilenetv2_\d\.\d\d_\w+", "tf", 224, ("block_16_project", "out_relu", "predictions")
    ),
    _Family(r"MobileNetV3(Small|Large)", "inside", 224, ("expanded_conv_project", "logits")),
    _Family(r"inception_v3", "tf", 299, ("mixed10", "predictions")),
    _Family(r"inception_resnet_v2", "tf", 299, ("mixed_7a", "conv_7b", "predictions")),
    _Family(r"xception", "tf", 299, ("block14_sepconv2", "predictions")),
    _Family(r"densenet(121|169|201)", "torch", 224, ("conv1_conv", "pool4_conv", "predictions")),
    _Family(r"nasnet_mobile", "tf", 224, ("stem_conv1", "normal_concat_12", "predictions")),
    _Family(r"nasnet_large", "tf", 331, ("stem_conv1", "normal_concat_18", "predictions")),
    _Family(r"efficientnetb[0-7]", "inside", 224, ("block7a_project_conv", "top_conv")),
    _Family(r"efficientnetv2-(b[0-3]|s|m|l)", "inside", 224, ("stem_conv", "top_conv")),
    _Family(r"convnext_\w+", "inside", 224, ("_stem", "_head_layernorm", "_head_dense")),
)


def describe(native: object) -> Described:
    """Find out what is published of a network.

    Parameters
    ----------
    native : object
        A network of TensorFlow or Keras.

    Returns
    -------
    Described
        With preprocessing and labels for a network of keras.applications with its 1000 classes;
        with neither for any other, also for one that only bears such a name.
    """
    name = str(getattr(native, "name", "") or type(native).__name__)
    family = _family(native)
    if family is None:
        return Described(native, name=name)
    height, width = native.input_shape[1:3]  # type: ignore[attr-defined]
    preprocessing = Preprocessing(
        size=(height or family.size, width or family.size),
        **{"std": (1.0, 1.0, 1.0), **_MODES[family.mode]},
    )
    return Described(native, preprocessing, "imagenet-1k", name)


def _family(native: Any) -> _Family | None:
    """Recognise a network by its name, its classes and its layers."""
    if keras_of(native) is None:
        return None
    found = [family for family in _FAMILIES if re.fullmatch(family.name, native.name)]
    if not found:
        return None
    try:
        takes, gives = native.input_shape, native.output_shape
    except AttributeError:  # a model that does not know its shapes
        return None
    if not (isinstance(takes, tuple) and len(takes) == 4 and takes[-1] == 3):
        return None
    if not (isinstance(gives, tuple) and len(gives) == 2 and gives[-1] == _CLASSES):
        return None
    family, names = found[0], [layer.name for layer in native.layers]
    if not all(any(name.endswith(ending) for name in names) for ending in family.layers):
        return None
    if family.mode == "inside" and not _preprocesses(native):
        return None
    return family


def _preprocesses(native: Any) -> bool:
    """Tell whether a network begins with the layers that preprocess its input."""
    kinds = {type(layer).__name__ for layer in native.layers[:3]}
    return bool(kinds & {"Rescaling", "Normalization"})
