"""Announces the class activation maps."""

from __future__ import annotations

from cnnviz_cam._activations import ACTIVATIONS
from cnnviz_cam._perturbing import PERTURBING
from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the class activation maps."""
    return [
        ExplainerSpec(
            name="cam",
            target="cnnviz_cam.cam:CAM",
            summary="Class activation map of a network that ends in pooling and one linear layer",
            family="cam",
            needs=frozenset({"capture", "parameters"}),
            references=(
                "Zhou et al., Learning deep features for discriminative localization, CVPR 2016",
            ),
            aliases=("class-activation-map",),
        ),
        ExplainerSpec(
            name="grad-cam",
            target="cnnviz_cam.grad_cam:GradCAM",
            summary="Feature maps weighted by the mean gradient of the score",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Selvaraju et al., Grad-CAM: visual explanations from deep networks via "
                "gradient-based localization, ICCV 2017",
            ),
            aliases=("gradcam",),
        ),
        *ACTIVATIONS,
        *PERTURBING,
    ]
