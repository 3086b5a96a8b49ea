"""Grad-CAM at the last layer on TensorFlow: cnnviz beside tf-keras-vis.

Run ``python benchmarks/grad_cam_tf.py``; it needs tf-keras-vis.  The networks have random weights:
the cost does not depend on them.  The unit is one traced forward pass, ``tf.function(model)``,
which is several times faster than an eager one; that is shown too.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from interleaved import measure, show
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_tf.model import wrap

LAYERS = {"MobileNetV2": "out_relu", "ResNet50": "conv5_block3_out", "VGG16": "block5_conv3"}


def ways_of(network: str, batch: int) -> dict[str, Callable[[], object]]:
    """Give the ways of making one batch's maps for class 281."""
    keras.utils.set_random_seed(0)
    net = getattr(keras.applications, network)(weights=None)
    x = np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype(np.float32)
    tensor = tf.constant(x)
    explainer = get_registry().explainer("grad-cam", layer=LAYERS[network])
    model = wrap(net)
    traced = tf.function(lambda t: net(t, training=False))
    peer = Gradcam(net, model_modifier=ReplaceToLinear(), clone=True)
    score = CategoricalScore([281] * batch)
    return {
        "traced forward": lambda: traced(tensor).numpy(),
        "eager forward": lambda: net(tensor, training=False).numpy(),
        "cnnviz": lambda: explainer.explain(model, x, [ClassScore(281)] * batch),
        "tf-keras-vis": lambda: peer(score, x, penultimate_layer=LAYERS[network]),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {n: measure(ways_of(n, options.batch), options.rounds) for n in options.networks}
    show(
        f"Grad-CAM, last layer, 224 x 224, batch {options.batch}, TensorFlow {tf.__version__}",
        results,
        "traced forward",
    )


if __name__ == "__main__":
    main()
