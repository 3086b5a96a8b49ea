"""What tf-keras-vis does."""

from __future__ import annotations

from functools import partial
from typing import Any

from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.model_modifiers import ExtractIntermediateLayer, ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from benchmarks.case import CLASS, Case, Way, Ways

_CAMS = {
    "grad-cam": Gradcam,
    "grad-cam++": GradcamPlusPlus,
    "layer-cam": Layercam,
    "score-cam": Scorecam,
}


def ways(case: Case) -> Ways:
    """Give what tf-keras-vis does with a case; see `benchmarks.case.Ways`."""
    looks = {"penultimate_layer": case.layer}
    cams = {method: partial(_way, case, kind, **looks) for method, kind in _CAMS.items()}
    draws = {"smooth_samples": 25, "smooth_noise": 0.15}
    return {
        **cams,
        "classes": lambda: _classes(case),
        "saliency": partial(_way, case, Saliency),
        "smoothgrad": partial(_way, case, Saliency, **draws),
        "maximisation": lambda: _maximisation(case),
    }


def _way(case: Case, kind: Any, **settings: Any) -> Way:
    """Give one of its methods."""
    method = kind(case.native, model_modifier=ReplaceToLinear(), clone=True)
    score = CategoricalScore([CLASS] * len(case.x))
    return lambda: method(score, case.x, **settings)


def _classes(case: Case) -> Way:
    """Give Grad-CAM for several classes of one picture, one after the other."""
    method = Gradcam(case.native, model_modifier=ReplaceToLinear(), clone=True)
    scores = [CategoricalScore(k) for k in case.classes]
    return lambda: [method(score, case.x, penultimate_layer=case.layer) for score in scores]


def _maximisation(case: Case) -> Way:
    """Give its ascent for one channel."""
    method = ActivationMaximization(case.native, ExtractIntermediateLayer(case.middle), clone=True)
    return lambda: method(lambda value: value[..., 0], steps=case.work.steps)
