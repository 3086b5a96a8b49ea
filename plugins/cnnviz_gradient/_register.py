"""Announces the gradient methods."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the gradient methods."""
    return [
        ExplainerSpec(
            name="saliency",
            target="cnnviz_gradient.saliency:Saliency",
            summary="Gradient of the score with respect to the picture",
            family="gradient",
            needs=frozenset({"gradient"}),
            references=(
                "Simonyan et al., Deep inside convolutional networks: visualising image "
                "classification models and saliency maps, 2014",
            ),
            aliases=("gradient", "vanilla-gradient"),
        ),
        ExplainerSpec(
            name="guided-backprop",
            target="cnnviz_gradient.guided_backprop:GuidedBackprop",
            summary="Gradient of which rectifiers let only the positive part pass",
            family="gradient",
            needs=frozenset({"gradient", "rule:relu"}),
            references=(
                "Springenberg et al., Striving for simplicity: the all convolutional net, 2015",
            ),
            aliases=("guided-backpropagation",),
        ),
        ExplainerSpec(
            name="deconvnet",
            target="cnnviz_gradient.deconvnet:Deconvnet",
            summary="The score projected to the picture through a deconvolutional network",
            family="gradient",
            needs=frozenset({"gradient", "rule:relu"}),
            references=(
                "Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
            ),
            aliases=("deconvolution", "deconv"),
        ),
        ExplainerSpec(
            name="guided-grad-cam",
            target="cnnviz_gradient.guided_grad_cam:GuidedGradCAM",
            summary="Guided backpropagation, kept where Grad-CAM is positive",
            family="gradient",
            needs=frozenset({"capture", "gradient", "rule:relu"}),
            references=(
                "Selvaraju et al., Grad-CAM: visual explanations from deep networks via "
                "gradient-based localization, ICCV 2017",
            ),
            aliases=("guided-gradcam",),
        ),
    ]
