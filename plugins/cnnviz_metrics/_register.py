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
PETSIUK: Final = (
    "Petsiuk, Das & Saenko, RISE: randomized input sampling for explanation of black-box models, "
    "BMVC 2018"
)
CHATTOPADHAY: Final = "Chattopadhay et al., Grad-CAM++, WACV 2018"
OPTI_CAM: Final = "Zhang et al., Opti-CAM: optimizing saliency maps for interpretability, 2023"
GILDENBLAT: Final = "Gildenblat et al., PyTorch library for CAM methods, 2021"
RONG: Final = (
    "Rong et al., A consistent and efficient evaluation strategy for attribution methods, ICML 2022"
)
BHATT: Final = (
    "Bhatt, Weller & Moura, Evaluating and aggregating feature-based model explanations, IJCAI 2020"
)
FEL: Final = "Fel et al., Xplique: a deep learning explainability toolbox, 2022"
ANCONA: Final = (
    "Ancona et al., Towards better understanding of gradient-based attribution methods for deep "
    "neural networks, ICLR 2018"
)
YEH: Final = "Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019"
CHALASANI: Final = (
    "Chalasani et al., Concise explanations of neural networks using adversarial training, ICML "
    "2020"
)
NGUYEN: Final = "Nguyen & Martínez, On quantitative aspects of model interpretability, 2020"
ADEBAYO: Final = "Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018"


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
        MetricSpec(
            name="deletion",
            target="cnnviz_metrics.deletion:Deletion",
            summary="How soon the probability falls as the pixels go that a map ranks highest",
            family="faithfulness",
            higher_is_better=False,
            references=(PETSIUK,),
            aliases=("deletion-auc", "rise-deletion"),
            cost="29 forwards",
        ),
        MetricSpec(
            name="insertion",
            target="cnnviz_metrics.insertion:Insertion",
            summary="How soon the probability rises as the pixels come that a map ranks highest",
            family="faithfulness",
            higher_is_better=True,
            references=(PETSIUK,),
            aliases=("insertion-auc", "rise-insertion"),
            cost="29 forwards",
        ),
        MetricSpec(
            name="average-drop",
            target="cnnviz_metrics.confidence:AverageDrop",
            summary="Mean share of the confidence lost where a picture is shown by its map alone",
            family="faithfulness",
            higher_is_better=False,
            references=(CHATTOPADHAY, WANG),
            aliases=("average-drop-percentage",),
            cost="2 forwards",
        ),
        MetricSpec(
            name="average-increase",
            target="cnnviz_metrics.confidence:AverageIncrease",
            summary="Share of the pictures with more confidence where their map alone is shown",
            family="faithfulness",
            higher_is_better=True,
            references=(CHATTOPADHAY, WANG),
            aliases=("increase-in-confidence",),
            cost="2 forwards",
        ),
        MetricSpec(
            name="average-gain",
            target="cnnviz_metrics.confidence:AverageGain",
            summary="Mean share of what is missing to certainty gained by the map alone",
            family="faithfulness",
            higher_is_better=True,
            references=(OPTI_CAM,),
            cost="2 forwards",
        ),
        MetricSpec(
            name="drop-in-confidence",
            target="cnnviz_metrics.confidence:DropInConfidence",
            summary="Mean confidence lost where the map alone is shown, undivided",
            family="faithfulness",
            higher_is_better=False,
            references=(GILDENBLAT,),
            cost="2 forwards",
        ),
        MetricSpec(
            name="road",
            target="cnnviz_metrics.road:ROAD",
            summary="How much sooner a class is lost if the highest pixels are imputed first",
            family="faithfulness",
            higher_is_better=True,
            references=(RONG,),
            aliases=("remove-and-debias",),
            cost="18 forwards, 18 sparse systems",
        ),
        MetricSpec(
            name="mu-fidelity",
            target="cnnviz_metrics.mu_fidelity:MuFidelity",
            summary="Correlation of what random subsets are given with what their removal costs",
            family="faithfulness",
            higher_is_better=True,
            references=(BHATT, FEL),
            aliases=("fidelity-correlation", "faithfulness-correlation"),
            cost="200 forwards",
        ),
        MetricSpec(
            name="sensitivity-n",
            target="cnnviz_metrics.sensitivity_n:SensitivityN",
            summary="Correlation of what n cells are given with what their removal costs",
            family="faithfulness",
            higher_is_better=True,
            references=(ANCONA,),
            cost="400 forwards",
        ),
        MetricSpec(
            name="infidelity",
            target="cnnviz_metrics.infidelity:Infidelity",
            summary="How far a map is from telling what a change of the picture does to the score",
            family="faithfulness",
            higher_is_better=False,
            references=(YEH,),
            cost="101 forwards",
        ),
        MetricSpec(
            name="max-sensitivity",
            target="cnnviz_metrics.sensitivity:MaxSensitivity",
            summary="How much a map changes when the picture changes a little",
            family="robustness",
            higher_is_better=False,
            references=(YEH,),
            aliases=("sensitivity-max", "sensitivity"),
            cost="10 explanations",
        ),
        MetricSpec(
            name="complexity",
            target="cnnviz_metrics.complexity:Complexity",
            summary="Entropy of the shares that the pixels have in a map",
            family="complexity",
            higher_is_better=False,
            references=(BHATT,),
            aliases=("entropy",),
        ),
        MetricSpec(
            name="sparseness",
            target="cnnviz_metrics.complexity:Sparseness",
            summary="Gini index of the magnitudes of a map's pixels",
            family="complexity",
            higher_is_better=True,
            references=(CHALASANI,),
            aliases=("gini-index", "gini"),
        ),
        MetricSpec(
            name="effective-complexity",
            target="cnnviz_metrics.complexity:EffectiveComplexity",
            summary="Share of the pixels whose magnitude is not small beside the greatest",
            family="complexity",
            higher_is_better=False,
            references=(NGUYEN,),
        ),
        MetricSpec(
            name="sanity-check",
            target="cnnviz_metrics.sanity:SanityCheck",
            summary="Likeness of a map to that on copies of the network with random weights",
            family="sanity",
            higher_is_better=False,
            needs=frozenset({"copy", "parameters"}),
            references=(ADEBAYO,),
            aliases=("model-randomisation", "model-randomization", "cascading-randomisation"),
            cost="10 explanations",
        ),
    ]
