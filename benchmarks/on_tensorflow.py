"""Networks on TensorFlow, where TensorFlow puts them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import cnnviz
from benchmarks import memory
from benchmarks.case import Case, picture
from benchmarks.work import Work

_LAYERS = {
    "nothing": ("", ""),
    "small": ("relu3", "relu2"),
    "mobilenet_v2": ("out_relu", "block_14_add"),
    "resnet50": ("conv5_block3_out", "conv4_block6_out"),
    "densenet121": ("relu", "pool4_pool"),
    "vgg16": ("block5_conv3", "block4_conv3"),
}
"""Of each network the layer for class activation maps, and one in the middle."""

_PUBLISHED = {
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "densenet121": "DenseNet121",
    "vgg16": "VGG16",
}


class TensorFlowRoom:
    """TensorFlow with its device; see `benchmarks.room.Room`."""

    framework = "tensorflow"
    version = str(tf.__version__)

    def __init__(self) -> None:
        gpus = tf.config.list_physical_devices("GPU")
        self._on_gpu = bool(gpus)
        named = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        self.device = named.get("device_name", "GPU") if gpus else "CPU"

    def networks(self) -> tuple[str, ...]:
        """Name the networks that there are."""
        return tuple(_LAYERS)

    def case(self, network: str, work: Work, batch: int = 1) -> Case:
        """Make a network and a batch; see `Room.case`."""
        net = _network(network, work.side)
        x = picture(batch, work.side)
        tensor = tf.constant(x)
        traced = tf.function(net)
        wrapped = cnnviz.wrap(net, name=network)

        def forward() -> object:
            return traced(tensor, training=False).numpy()

        return Case(network, net, wrapped, *_LAYERS[network], x, tensor, forward, work)

    def clock(self) -> float:
        """Tell the time; what is timed gives arrays, so that the device is done; see `Room`."""
        return time.perf_counter() if self._on_gpu else time.process_time()

    def growth(self, run: Callable[[], Any]) -> float:
        """Tell how much memory something takes; see `Room.growth`."""
        if not self._on_gpu:
            return memory.growth(run)
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        run()
        return (tf.config.experimental.get_memory_info("GPU:0")["peak"] - before) / 2**20


def _nothing(side: int) -> keras.Model:
    """Make a network that costs nothing: scores of one pixel."""
    x = keras.Input((side, side, 3))
    return keras.Model(x, keras.layers.Dense(1000)(x[:, 0, 0]))


def _small(side: int) -> keras.Model:
    """Make three convolutions, and a linear layer."""
    layers = keras.layers
    x = value = keras.Input((side, side, 3))
    for layer in (
        layers.Conv2D(16, 3, 2, "same", name="conv1"),
        layers.BatchNormalization(name="norm1"),
        layers.ReLU(name="relu1"),
        layers.Conv2D(32, 3, 2, "same", name="conv2"),
        layers.BatchNormalization(name="norm2"),
        layers.ReLU(name="relu2"),
        layers.Conv2D(32, 3, 1, "same", name="conv3"),
        layers.ReLU(name="relu3"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(1000, name="scores"),
    ):
        value = layer(value)
    return keras.Model(x, value)


def _network(name: str, side: int) -> keras.Model:
    """Make a network, with the same weights each time."""
    keras.utils.set_random_seed(0)
    own = {"nothing": _nothing, "small": _small}
    if name in own:
        return own[name](side)
    shape = (side, side, 3)
    return getattr(keras.applications, _PUBLISHED[name])(input_shape=shape, weights=None)
