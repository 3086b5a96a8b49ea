"""Announces the wrappers: methods that are made of other methods."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec

_GILDENBLAT = "Gildenblat et al., PyTorch library for CAM methods, 2021"


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the wrappers, with the needs of the methods that they wrap by default."""
    needs = frozenset({"capture", "gradient"})
    return [
        ExplainerSpec(
            name="noise-tunnel",
            target="cnnviz_wrapper.noise_tunnel:NoiseTunnel",
            summary="Mean, mean square or variance of a method's results on noisy copies",
            family="wrapper",
            needs=needs,
            references=(
                "Smilkov et al., SmoothGrad: removing noise by adding noise, 2017",
                "Adebayo et al., Local explanation methods for deep neural networks lack "
                "sensitivity to parameter values, ICLR workshop 2018",
            ),
            cost="25 times the method's",
        ),
        ExplainerSpec(
            name="test-time-augmentation",
            target="cnnviz_wrapper.augmentation:Augmentation",
            summary="Mean of a method's results on mirrored and scaled copies, mapped back",
            family="wrapper",
            needs=needs,
            references=(_GILDENBLAT,),
            aliases=("tta", "aug-smooth"),
            cost="6 times the method's",
        ),
        ExplainerSpec(
            name="eigen-smoothing",
            target="cnnviz_wrapper.eigen_smoothing:EigenSmoothing",
            summary="First principal component of the terms that a method's map is the sum of",
            family="wrapper",
            needs=needs,
            references=(
                _GILDENBLAT,
                "Muhammad & Yeasin, Eigen-CAM: class activation map using principal components, "
                "IJCNN 2020",
            ),
            aliases=("eigen-smooth",),
            cost="the method's",
        ),
        ExplainerSpec(
            name="gaussian-smoothing",
            target="cnnviz_wrapper.gaussian_smoothing:GaussianSmoothing",
            summary="A method's map, smoothed by a Gaussian so that grains become regions",
            family="wrapper",
            needs=needs,
            references=(
                "Fong et al., Understanding deep networks via extremal perturbations and smooth "
                "masks, ICCV 2019",
            ),
            cost="the method's",
        ),
        ExplainerSpec(
            name="layer-fusion",
            target="cnnviz_wrapper.layer_fusion:LayerFusion",
            summary="A method's maps at several layers, scaled and fused into one",
            family="wrapper",
            needs=needs,
            references=(
                "Jiang et al., LayerCAM: exploring hierarchical class activation maps for "
                "localization, IEEE Transactions on Image Processing 30, 2021",
            ),
            aliases=("multi-scale-layer-cam", "fused-layers"),
            cost="the method's at each of 3 layers",
        ),
    ]
