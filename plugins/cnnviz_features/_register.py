"""Announces the inspectors."""

from __future__ import annotations

from typing import Final

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import InspectorSpec

_CAPTURE: Final = frozenset({"capture"})
_ASCENT: Final = frozenset({"capture", "gradient"})
_ZEILER: Final = "Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014"
_SIMONYAN: Final = (
    "Simonyan et al., Deep inside convolutional networks: visualising image classification models "
    "and saliency maps, ICLR workshop 2014"
)
_OLAH: Final = "Olah et al., Feature visualization, Distill 2017"


@hookimpl
def cnnviz_inspectors() -> list[InspectorSpec]:
    """Announce the inspectors, in the order in which a newcomer would try them."""
    return [
        InspectorSpec(
            name="filters",
            target="cnnviz_features.filters:Filters",
            summary="The kernels of a convolution, those that see the picture in its colours",
            needs=frozenset({"parameters"}),
            shown="nothing",
            references=(
                "Krizhevsky et al., ImageNet classification with deep convolutional neural "
                "networks, NeurIPS 2012",
            ),
            aliases=("kernels", "first-layer-filters", "weights"),
            cost="no forward",
        ),
        InspectorSpec(
            name="features",
            target="cnnviz_features.features:FeatureMaps",
            summary="The feature maps of a layer for a picture, the most active first",
            needs=_CAPTURE,
            shown="pictures",
            references=(_ZEILER,),
            aliases=("feature-maps", "activations", "layer-outputs"),
            cost="1 forward a picture",
        ),
        InspectorSpec(
            name="receptive-fields",
            target="cnnviz_features.receptive_fields:ReceptiveFields",
            summary="How much of the picture each layer sees: size, stride and offset",
            needs=frozenset({"geometry"}),
            shown="pictures or nothing",
            references=(
                "Araujo et al., Computing receptive fields of convolutional neural networks, "
                "Distill 2019",
            ),
            aliases=("receptive-field", "rf"),
            cost="1 forward",
        ),
        InspectorSpec(
            name="projections",
            target="cnnviz_features.projections:Projections",
            summary="What excites a channel most in a folder of pictures, projected to pixels",
            needs=frozenset({"capture", "gradient", "rule:relu"}),
            shown="pictures",
            references=(_ZEILER,),
            aliases=("deconvnet-projections", "top-activations", "strongest-activations"),
            cost="1 forward a picture, 1 backward a projection",
        ),
        InspectorSpec(
            name="maximisation",
            target="cnnviz_features.maximisation:Maximisation",
            summary="A picture made to excite a neuron, a channel, a direction or a class",
            needs=_ASCENT,
            shown="pictures or nothing",
            targeted=True,
            references=(
                "Erhan et al., Visualizing higher-layer features of a deep network, 2009",
                _OLAH,
            ),
            aliases=(
                "activation-maximisation",
                "activation-maximization",
                "maximization",
                "maximise",
                "maximize",
                "feature-visualisation",
                "feature-visualization",
                "lucid",
                "lucent",
            ),
            cost="1 forward, 1 backward a step",
        ),
        InspectorSpec(
            name="class-model",
            target="cnnviz_features.class_model:ClassModel",
            summary="The picture that scores highest for a class, under an L2 penalty",
            needs=_ASCENT,
            shown="nothing",
            targeted=True,
            references=(_SIMONYAN,),
            aliases=("class-model-image", "class-model-visualisation"),
            cost="1 forward, 1 backward a step",
        ),
        InspectorSpec(
            name="inversion",
            target="cnnviz_features.inversion:Inversion",
            summary="A picture made anew from what a layer keeps of it",
            needs=_ASCENT,
            shown="pictures",
            references=(
                "Mahendran & Vedaldi, Understanding deep image representations by inverting them, "
                "CVPR 2015",
            ),
            aliases=("feature-inversion", "invert", "reconstruction"),
            cost="1 forward, 1 backward a step",
        ),
        InspectorSpec(
            name="dream",
            target="cnnviz_features.dream:Dream",
            summary="DeepDream: a picture in which the network sees more of what it sees",
            needs=_ASCENT,
            shown="pictures or nothing",
            targeted=True,
            references=(
                "Mordvintsev et al., Inceptionism: going deeper into neural networks, Google "
                "Research blog 2015",
            ),
            aliases=("deepdream", "deep-dream", "inceptionism"),
            cost="1 forward, 1 backward a tile and step",
        ),
        InspectorSpec(
            name="invariance",
            target="cnnviz_features.invariance:Invariance",
            summary="How features and probability change as a picture moves, turns or grows",
            needs=_CAPTURE,
            shown="pictures",
            targeted=True,
            references=(_ZEILER,),
            aliases=("feature-invariance", "equivariance"),
            cost="1 forward a step",
        ),
        InspectorSpec(
            name="occlusion-analysis",
            target="cnnviz_features.occlusion_analysis:OcclusionAnalysis",
            summary="What the network says, and how its strongest feature fares, as a patch covers",
            needs=_CAPTURE,
            shown="pictures",
            targeted=True,
            references=(_ZEILER,),
            aliases=("occlusion-study",),
            cost="1 forward a position",
        ),
        InspectorSpec(
            name="errors",
            target="cnnviz_features.errors:Errors",
            summary="The worst mistakes on labelled pictures, with the maps that explain them",
            needs=frozenset(),
            shown="labelled pictures",
            references=(),
            aliases=("error-analysis", "mistakes", "confusion"),
            cost="1 forward a picture, 2 explanations a mistake",
        ),
    ]
