"""Announces the metrics of maps."""

from __future__ import annotations

from typing import Final

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import MetricSpec

CHOE: Final = (
    "Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020"
)
CHOE_PROTOCOL: Final = (
    "Choe et al., Evaluation for weakly supervised object localization: protocol, metrics, and "
    "datasets, 2020"
)
RUSSAKOVSKY: Final = (
    "Russakovsky et al., ImageNet large scale visual recognition challenge, International Journal "
    "of Computer Vision 2015"
)
ZHANG: Final = (
    "Zhang et al., Top-down neural attention by excitation backprop, International Journal of "
    "Computer Vision 2018"
)
ZHOU: Final = "Zhou et al., Learning deep features for discriminative localization, CVPR 2016"
SELVARAJU: Final = "Selvaraju et al., Grad-CAM, ICCV 2017"
WANG: Final = (
    "Wang et al., Score-CAM: score-weighted visual explanations for convolutional neural "
    "networks, CVPR workshops 2020"
)
CHEFER: Final = (
    "Chefer et al., Transformer interpretability beyond attention visualization, CVPR 2021"
)
EVERINGHAM: Final = (
    "Everingham et al., The PASCAL visual object classes challenge: a retrospective, International "
    "Journal of Computer Vision 2015"
)


@hookimpl
def cnnviz_metrics() -> list[MetricSpec]:
    """Announce the metrics of maps."""
    return [
        MetricSpec(
            name="max-box-acc",
            target="cnnviz_metrics.max_box_acc:MaxBoxAcc",
            summary="Share of right boxes at the threshold that suits the data set best",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"boxes"}),
            references=(CHOE,),
            aliases=("maxboxacc",),
        ),
        MetricSpec(
            name="max-box-acc-v2",
            target="cnnviz_metrics.max_box_acc:MaxBoxAccV2",
            summary="Share of pictures with a right box at the best threshold, for three overlaps",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"boxes"}),
            references=(CHOE_PROTOCOL,),
            aliases=("maxboxaccv2",),
        ),
        MetricSpec(
            name="pxap",
            target="cnnviz_metrics.pxap:PxAP",
            summary="Average precision of the pixels of all pictures",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"mask"}),
            references=(CHOE,),
            aliases=("pixel-average-precision",),
        ),
        MetricSpec(
            name="box-accuracy",
            target="cnnviz_metrics.boxes:BoxAccuracy",
            summary="Share of pictures in which the box that a fixed rule gives is right",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"boxes"}),
            references=(ZHOU, SELVARAJU),
            aliases=("corloc", "gt-known-localisation", "box-iou"),
        ),
        MetricSpec(
            name="localisation-error",
            target="cnnviz_metrics.localisation_error:LocalisationError",
            summary="Share of pictures of which no guess has both the right class and a right box",
            family="localisation",
            higher_is_better=False,
            asks=frozenset({"boxes", "label"}),
            references=(RUSSAKOVSKY, SELVARAJU),
            aliases=("localization-error", "top-1-localisation-error", "top-5-localisation-error"),
            cost="1 forward; one map more where another class was explained",
        ),
        MetricSpec(
            name="pointing-game",
            target="cnnviz_metrics.pointing:PointingGame",
            summary="Share of maps whose highest point lies on the object",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"boxes or mask"}),
            references=(ZHANG,),
            aliases=("pointing",),
        ),
        MetricSpec(
            name="energy-pointing-game",
            target="cnnviz_metrics.pointing:EnergyPointingGame",
            summary="Share of a map's energy that lies on the object",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"boxes or mask"}),
            references=(WANG,),
            aliases=("energy-based-pointing-game", "relevance-mass"),
        ),
        MetricSpec(
            name="segmentation-iou",
            target="cnnviz_metrics.segmentation:SegmentationIoU",
            summary="Overlap of what lies above a threshold in a map with the object's mask",
            family="localisation",
            higher_is_better=True,
            asks=frozenset({"mask"}),
            references=(EVERINGHAM, CHEFER),
            aliases=("map-iou", "segmentation"),
        ),
    ]
