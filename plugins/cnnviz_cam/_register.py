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
            cost="1 forward",
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
            aliases=("gradcam", "layer-grad-cam"),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="grad-cam++",
            target="cnnviz_cam.grad_cam_plus_plus:GradCAMPlusPlus",
            summary="Feature maps weighted by a mean of the positive gradients, equation 19 of its "
            "paper",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Chattopadhay et al., Grad-CAM++: generalized gradient-based visual explanations "
                "for deep convolutional networks, WACV 2018",
            ),
            aliases=("grad-cam-pp",),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="xgrad-cam",
            target="cnnviz_cam.xgrad_cam:XGradCAM",
            summary="Feature maps weighted by the gradient, averaged where the features are",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Fu et al., Axiom-based Grad-CAM: towards accurate visualization and explanation "
                "of CNNs, BMVC 2020",
            ),
            aliases=("axiom-based-grad-cam",),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="hires-cam",
            target="cnnviz_cam.hires_cam:HiResCAM",
            summary="Feature maps times the gradient of the score, position by position",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Draelos & Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of "
                "convolutional neural networks, 2020",
            ),
            aliases=("high-resolution-cam",),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="layer-cam",
            target="cnnviz_cam.layer_cam:LayerCAM",
            summary="Feature maps times the positive gradients, position by position",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Jiang et al., LayerCAM: exploring hierarchical class activation maps for "
                "localization, IEEE Transactions on Image Processing 30, 2021",
            ),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="grad-cam-elementwise",
            target="cnnviz_cam.grad_cam_elementwise:GradCAMElementwise",
            summary="The positive part of feature maps times the gradient, position by position",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=("Gildenblat et al., PyTorch library for CAM methods, 2021",),
            aliases=("elementwise-grad-cam",),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="counterfactual-grad-cam",
            target="cnnviz_cam.counterfactual_grad_cam:CounterfactualGradCAM",
            summary="Grad-CAM of the negated score: what speaks against the target",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Selvaraju et al., Grad-CAM: visual explanations from deep networks via "
                "gradient-based localization, ICCV 2017, section 3.3",
            ),
            aliases=("grad-cam-counterfactual", "negative-grad-cam"),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="finer-cam",
            target="cnnviz_cam.finer_cam:FinerCAM",
            summary="Grad-CAM of a class's score less a share of those of the classes most like it",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Zhang et al., Finer-CAM: spotting the difference reveals finer details for visual "
                "explanation, CVPR 2025",
            ),
            cost="1 forward, 1 backward",
        ),
        ExplainerSpec(
            name="smooth-grad-cam++",
            target="cnnviz_cam.smooth_grad_cam_plus_plus:SmoothGradCAMPlusPlus",
            summary="Grad-CAM++ with its derivatives averaged over noisy copies",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=(
                "Omeiza et al., Smooth Grad-CAM++: an enhanced inference level visualization "
                "technique for deep convolutional neural network models, 2019",
            ),
            aliases=("smooth-grad-cam-pp",),
            cost="1 forward, 1 backward a noisy copy",
        ),
        ExplainerSpec(
            name="shapley-cam",
            target="cnnviz_cam.shapley_cam:ShapleyCAM",
            summary="Feature maps weighted by the gradient less half of the curvature along them",
            family="cam",
            needs=frozenset({"capture", "gradient", "curvature"}),
            references=("Cai, CAMs as Shapley value-based explainers, The Visual Computer, 2025",),
            cost="3 forward, 3 backward, at most",
        ),
        *ACTIVATIONS,
        *PERTURBING,
    ]
