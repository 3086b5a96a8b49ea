"""Networks on TensorFlow, and what tf-keras-vis and xplique do with them, where installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from peers import optional

from cnnviz_tf.model import wrap

if TYPE_CHECKING:
    from blackbox import Work

xplique = optional("xplique.attributions")

LAYER = "out_relu"
Peers = dict[str, tuple[str, Callable[[], object]]]


def network(x: np.ndarray, index: int) -> tuple[Any, str, Callable[[], object], Peers, str]:
    """Give the network behind the protocol, its layer, a plain forward pass, and the peers."""
    net = masked_networks()["mobilenet_v2"]()
    return wrap(net), LAYER, plain_pass(net, x), gradients(net, x, index), title("MobileNetV2")


def title(what: str) -> str:
    """Say what was measured, and on what."""
    return f"{what}, TensorFlow {tf.__version__}; the unit is a traced forward pass"


def plain_pass(net: keras.Model, x: np.ndarray) -> Callable[[], object]:
    """Give a traced forward pass of a batch."""
    traced, tensor = tf.function(net), tf.constant(x)
    return lambda: traced(tensor, training=False)


def gradients(net: keras.Model, x: np.ndarray, index: int) -> Peers:
    """Give the methods of tf-keras-vis."""
    if optional("tf_keras_vis") is None:
        return {}
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    score = CategoricalScore(index)

    def made(kind: Any, **options: Any) -> Callable[[], object]:
        tool = kind(net, model_modifier=ReplaceToLinear(), clone=True)
        return lambda: tool(score, x, **options)

    ways = {
        "grad-cam": made(Gradcam, penultimate_layer=LAYER),
        "grad-cam++": made(GradcamPlusPlus, penultimate_layer=LAYER),
        "layer-cam": made(Layercam, penultimate_layer=LAYER),
        "score-cam": made(Scorecam, penultimate_layer=LAYER),
        "saliency": made(Saliency),
        "smoothgrad": made(Saliency, smooth_samples=25, smooth_noise=0.15),
    }
    return {method: ("tf-keras-vis", run) for method, run in ways.items()}


def nothing() -> keras.Model:
    """Make a network that costs nothing: scores of one pixel."""
    x = keras.Input((224, 224, 3))
    return keras.Model(x, keras.layers.Dense(1000)(x[:, 0, 0]))


def small() -> keras.Model:
    """Make two convolutions with steps of two, and a linear layer."""
    return keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            keras.layers.Conv2D(16, 3, 2, activation="relu"),
            keras.layers.Conv2D(32, 3, 2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1000),
        ]
    )


def masked_networks() -> Mapping[str, Callable[[], keras.Model]]:
    """Give what makes each network on which black-box methods are timed, "nothing" among them."""

    def seeded(make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        def made() -> keras.Model:
            keras.utils.set_random_seed(0)
            return make()

        return made

    return {
        "nothing": seeded(nothing),
        "small": seeded(small),
        "mobilenet_v2": seeded(lambda: keras.applications.MobileNetV2((224, 224, 3), weights=None)),
    }


def masked(net: keras.Model, x: np.ndarray, index: int, work: Work) -> Peers:
    """Give xplique's black-box methods, for as much work as ours."""
    if xplique is None:
        return {}
    one_hot = np.eye(1000, dtype=np.float32)[[index]]
    blocks = work.blocks.astype(np.int32)
    size, samples = work.batch_size, work.samples
    segmented = {
        "map_to_interpret_space": lambda x: blocks,
        "nb_samples": samples,
        "ref_value": np.zeros(3),
    }
    methods = {
        "occlusion": xplique.Occlusion(net, size, patch_size=work.window, patch_stride=work.stride),
        "rise": xplique.Rise(net, size, nb_samples=samples),
        "lime": xplique.Lime(net, size, **segmented),
        "kernel-shap": xplique.KernelShap(net, size, **segmented),
        "sobol": xplique.SobolAttributionMethod(net, 8, work.designs, batch_size=size),
        "hsic": xplique.HsicAttributionMethod(net, 7, samples, batch_size=size),
    }

    def way(method: Any) -> Callable[[], object]:
        return lambda: method.explain(x, one_hot)

    return {name: ("xplique", way(method)) for name, method in methods.items()}
