"""Every built-in explainer passes the checks for explainers, on NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pytest

from cnnviz_core.explainer import Maps
from cnnviz_core.parameters import Help
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import cotangent_of
from cnnviz_core.testing.explainers import CHECKS, parametrize_with_checks
from support.methods import bearable

# With its defaults a method may ask a network thousands of times, and the checks learn no more.
BUILT_IN = [get_registry().explainer(name, **bearable(name)) for name in get_registry().explainers]


@parametrize_with_checks(BUILT_IN)
def test_built_in(explainer, check):
    check(explainer)


NAMES = {
    "cam",
    "grad-cam",
    "grad-cam++",
    "xgrad-cam",
    "layer-cam",
    "hires-cam",
    "grad-cam-elementwise",
    "score-cam",
    "ss-cam",
    "is-cam",
    "ablation-cam",
    "eigen-cam",
    "eigen-grad-cam",
    "kpca-cam",
    "fem",
    "smooth-grad-cam++",
    "finer-cam",
    "shapley-cam",
    "full-grad",
    "deep-feature-factorisation",
    "counterfactual-grad-cam",
    "layer-fusion",
    "random-cam",
    "centre-gaussian",
    "saliency",
    "gradient-x-input",
    "smoothgrad",
    "smoothgrad-squared",
    "vargrad",
    "integrated-gradients",
    "blur-integrated-gradients",
    "guided-integrated-gradients",
    "expected-gradients",
    "guided-backprop",
    "deconvnet",
    "guided-grad-cam",
    "occlusion",
    "noise-tunnel",
    "test-time-augmentation",
    "eigen-smoothing",
    "gaussian-smoothing",
    "lrp",
    "excitation-backprop",
    "contrastive-excitation-backprop",
    "deep-taylor",
    "rise",
    "sobol",
    "hsic",
    "lime",
    "kernel-shap",
    "shapley-values",
    "hierarchical-occlusion",
    "minimal-sufficient-region",
    "counterfactual-region",
    "xrai",
    "meaningful-perturbation",
    "extremal-perturbation",
}

SPELT = {
    "gradcam": "grad-cam",
    "LayerGradCam": "grad-cam",
    "GradCAMPP": "grad-cam++",
    "GradCAMpp": "grad-cam++",
    "GradientSaliency": "saliency",
    "GradientInput": "gradient-x-input",
    "GradientsInputs": "gradient-x-input",
    "GradCAMPlusPlus": "grad-cam++",
    "gradcam++": "grad-cam++",
    "SmoothGradCAMpp": "smooth-grad-cam++",
    "XGradCAM": "xgrad-cam",
    "LayerCAM": "layer-cam",
    "HiResCAM": "hires-cam",
    "GradCAMElementWise": "grad-cam-elementwise",
    "ScoreCAM": "score-cam",
    "SSCAM": "ss-cam",
    "ISCAM": "is-cam",
    "AblationCAM": "ablation-cam",
    "EigenCAM": "eigen-cam",
    "EigenGradCAM": "eigen-grad-cam",
    "KPCA_CAM": "kpca-cam",
    "FinerCAM": "finer-cam",
    "ShapleyCAM": "shapley-cam",
    "FullGrad": "full-grad",
    "DeepFeatureFactorization": "deep-feature-factorisation",
    "RandomCAM": "random-cam",
    "Saliency": "saliency",
    "VanillaGradients": "saliency",
    "InputXGradient": "gradient-x-input",
    "SmoothGrad": "smoothgrad",
    "SquareGrad": "smoothgrad-squared",
    "VarGrad": "vargrad",
    "IntegratedGradients": "integrated-gradients",
    "GuidedIG": "guided-integrated-gradients",
    "BlurIG": "blur-integrated-gradients",
    "GradientShap": "expected-gradients",
    "GuidedBackprop": "guided-backprop",
    "Deconvolution": "deconvnet",
    "DeconvNet": "deconvnet",
    "GuidedGradCam": "guided-grad-cam",
    "Occlusion": "occlusion",
    "OcclusionSensitivity": "occlusion",
    "NoiseTunnel": "noise-tunnel",
    "TTA": "test-time-augmentation",
}
"""The names of the same methods in other libraries."""


def test_they_are_all_there():
    assert set(get_registry().explainers) >= NAMES


@pytest.mark.parametrize("spelt", SPELT)
def test_a_method_is_found_by_the_name_it_has_elsewhere(spelt):
    assert get_registry().spec(spelt).name == SPELT[spelt]


@pytest.mark.parametrize("name", list(get_registry().explainers))
def test_what_is_announced_is_what_the_class_says(name):
    spec, explainer = get_registry().spec(name), get_registry().explainer(name)
    assert spec.needs == explainer.needs
    assert spec.class_agnostic == bool(getattr(explainer, "class_agnostic", False))
    assert spec.cost
    assert spec.summary[0].isupper()
    assert not spec.summary.endswith(".")
    assert spec.references or spec.family in ("control", "wrapper")
    assert "References" in (type(explainer).__doc__ or "") or spec.family == "control"


@dataclass(frozen=True)
class Faulty:
    """A gradient that can be broken in one way at a time."""

    fault: Annotated[str, Help("what is wrong with it")] = ""
    layer: Annotated[str, Help("unused")] = "auto"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})
    calls: ClassVar[list[int]] = []

    def explain(self, model, x, targets):
        if self.fault == "needs":
            model.parameters("conv1")
        if self.fault == "writes":
            x += 1
        if self.fault == "one target":
            targets = [targets[0]] * len(x)
        if self.fault == "ignores the target":
            back = model.pullback(x, np.ones_like)
        else:
            back = model.pullback(x, cotangent_of(targets))
        raw = back.gradients["@input"]
        if self.fault == "random":
            self.calls.append(1)
            raw = raw + len(self.calls)
        if self.fault == "mixes samples":
            raw = raw - raw.mean(0)
        if self.fault == "nan":
            raw = raw * np.nan
        if self.fault == "drops a sample":
            raw = raw[:-1] if len(raw) > 1 else raw
        return Maps(raw=raw)


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("needs", "check_declares_its_needs"),
        ("writes", "check_leaves_its_input_alone"),
        ("one target", "check_batch_equals_single_samples"),
        ("ignores the target", "check_targets_matter"),
        ("random", "check_is_deterministic"),
        ("mixes samples", "check_batch_equals_single_samples"),
        ("nan", "check_result"),
        ("drops a sample", "check_result"),
        ("", "check_wrong_layer_is_reported"),
    ],
)
def test_each_fault_is_caught(fault, caught_by):
    check = next(c for c in CHECKS if c.__name__ == caught_by)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        check(replace(Faulty(), fault=fault))
    assert caught.type.__name__ in ("AssertionError", "MissingCapabilityError", "ValueError")
