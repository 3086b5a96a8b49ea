"""MobileNetV2 on TensorFlow, and what tf-keras-vis does with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from cnnviz_tf.model import wrap

LAYER = "out_relu"


def network(x: np.ndarray, index: int) -> tuple[Any, str, Callable[[], object], dict, str]:
    """Give the network behind the protocol, its layer, a plain forward pass, and the peers."""
    keras.utils.set_random_seed(0)
    net = keras.applications.MobileNetV2((224, 224, 3), weights=None)
    traced = tf.function(net)
    tensor = tf.constant(x)
    score = CategoricalScore(index)

    def made(kind: Any, **options: Any) -> Callable[[], object]:
        tool = kind(net, model_modifier=ReplaceToLinear(), clone=True)
        return lambda: tool(score, x, **options)

    peers = {
        method: ("tf-keras-vis", run)
        for method, run in {
            "grad-cam": made(Gradcam, penultimate_layer=LAYER),
            "grad-cam++": made(GradcamPlusPlus, penultimate_layer=LAYER),
            "layer-cam": made(Layercam, penultimate_layer=LAYER),
            "score-cam": made(Scorecam, penultimate_layer=LAYER),
            "saliency": made(Saliency),
            "smoothgrad": made(Saliency, smooth_samples=25, smooth_noise=0.15),
        }.items()
    }
    title = f"MobileNetV2, TensorFlow {tf.__version__}; the unit is a traced forward pass"
    return wrap(net), LAYER, lambda: traced(tensor, training=False), peers, title
