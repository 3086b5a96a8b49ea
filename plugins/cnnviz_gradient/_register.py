"""Announces the gradient methods."""

from __future__ import annotations

from typing import Final

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec

GRADIENT: Final = frozenset({"gradient"})


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the gradient methods."""
    return [
        ExplainerSpec(
            name="saliency",
            target="cnnviz_gradient.saliency:Saliency",
            summary="Gradient of the score with respect to the picture",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Simonyan et al., Deep inside convolutional networks: visualising image "
                "classification models and saliency maps, 2014",
            ),
            aliases=("gradient", "vanilla-gradient", "vanilla-gradients", "gradient-saliency"),
            cost="1 forward, 1 backward",
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
            cost="1 forward, 1 backward",
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
            cost="1 forward, 1 backward",
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
            cost="2 forward, 2 backward",
        ),
        ExplainerSpec(
            name="gradient-x-input",
            target="cnnviz_gradient.gradient_x_input:GradientXInput",
            summary="Gradient of the score, times the picture",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Shrikumar et al., Not just a black box: learning important features through "
                "propagating activation differences, 2016",
            ),
            aliases=(
                "input-x-gradient",
                "gradient-times-input",
                "gradient-input",
                "gradients-inputs",
            ),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="smoothgrad",
            target="cnnviz_gradient.smoothgrad:SmoothGrad",
            summary="Mean of the gradients at noisy copies of the picture",
            family="gradient",
            needs=GRADIENT,
            references=("Smilkov et al., SmoothGrad: removing noise by adding noise, 2017",),
            aliases=("smooth-grad",),
            cost="1 forward, 1 backward a noisy copy",
        ),
        ExplainerSpec(
            name="smoothgrad-squared",
            target="cnnviz_gradient.smoothgrad_squared:SmoothGradSquared",
            summary="Mean of the squared gradients at noisy copies of the picture",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Hooker et al., A benchmark for interpretability methods in deep neural networks, "
                "NeurIPS 2019",
            ),
            aliases=("squaregrad", "smoothgrad-sq", "smooth-grad-squared"),
            cost="1 forward, 1 backward a noisy copy",
        ),
        ExplainerSpec(
            name="vargrad",
            target="cnnviz_gradient.vargrad:VarGrad",
            summary="Variance of the gradients at noisy copies of the picture",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Adebayo et al., Local explanation methods for deep neural networks lack "
                "sensitivity to parameter values, 2018",
            ),
            aliases=("var-grad",),
            cost="1 forward, 1 backward a noisy copy",
        ),
        ExplainerSpec(
            name="integrated-gradients",
            target="cnnviz_gradient.integrated_gradients:IntegratedGradients",
            summary="Gradients integrated along the straight line from a baseline to the picture",
            family="gradient",
            needs=GRADIENT,
            references=("Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017",),
            aliases=("ig",),
            cost="1 forward, 1 backward a step",
        ),
        ExplainerSpec(
            name="blur-integrated-gradients",
            target="cnnviz_gradient.blur_integrated_gradients:BlurIntegratedGradients",
            summary="Gradients integrated from the strongly blurred picture to the picture",
            family="gradient",
            needs=GRADIENT,
            references=("Xu et al., Attribution in scale and space, CVPR 2020",),
            aliases=("blur-ig",),
            cost="1 forward, 1 backward a step",
        ),
        ExplainerSpec(
            name="guided-integrated-gradients",
            target="cnnviz_gradient.guided_integrated_gradients:GuidedIntegratedGradients",
            summary="Gradients integrated along a path that moves first where they are small",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Kapishnikov et al., Guided integrated gradients: an adaptive path method for "
                "removing noise, CVPR 2021",
            ),
            aliases=("guided-ig",),
            cost="1 forward, 1 backward a step, in turn",
        ),
        ExplainerSpec(
            name="expected-gradients",
            target="cnnviz_gradient.expected_gradients:ExpectedGradients",
            summary="Integrated gradients, expected over random baselines",
            family="gradient",
            needs=GRADIENT,
            references=(
                "Erion et al., Improving performance of deep learning models with axiomatic "
                "attribution priors and expected gradients, Nature Machine Intelligence, 2021",
            ),
            aliases=("gradient-shap", "gradientshap"),
            cost="2 forward, 1 backward a draw",
        ),
    ]
