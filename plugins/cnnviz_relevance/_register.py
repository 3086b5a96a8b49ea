"""Announces the methods that hand relevance down, and the rules by which they do."""

from __future__ import annotations

from typing import Final

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.rules import RULE_KINDS
from cnnviz_core.specs import ExplainerSpec, RuleSpec

RELEVANCE: Final = frozenset({"gradient", *(f"rule:{kind}" for kind in RULE_KINDS)})
COST: Final = "1 forward, about 2 backward"

BACH: Final = (
    "Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise "
    "relevance propagation, PLOS ONE 2015"
)
MONTAVON_TAYLOR: Final = (
    "Montavon et al., Explaining nonlinear classification decisions with deep Taylor "
    "decomposition, Pattern Recognition 2017"
)
MONTAVON_OVERVIEW: Final = (
    "Montavon et al., Layer-wise relevance propagation: an overview, Explainable AI, 2019"
)
LAPUSCHKIN: Final = (
    "Lapuschkin et al., Unmasking Clever Hans predictors and assessing what machines really learn, "
    "Nature Communications 2019"
)
KOHLBRENNER: Final = (
    "Kohlbrenner et al., Towards best practice in explaining neural network decisions with LRP, "
    "IJCNN 2020"
)
ANDERS: Final = (
    "Anders et al., Software for dataset-wide XAI: from local explanations to global insights with "
    "Zennit, CoRelAy, and ViRelAy, 2021"
)
ZHANG: Final = "Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016"


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the methods that hand relevance down."""
    return [
        ExplainerSpec(
            name="lrp",
            target="cnnviz_relevance.lrp:LRP",
            summary="The score, handed down layer by layer to what it is made of",
            family="relevance",
            needs=RELEVANCE,
            references=(BACH, MONTAVON_OVERVIEW),
            aliases=("layer-wise-relevance-propagation", "layerwise-relevance-propagation"),
            cost=COST,
        ),
        ExplainerSpec(
            name="deep-taylor",
            target="cnnviz_relevance.deep_taylor:DeepTaylor",
            summary="The score, expanded neuron by neuron about a point where the neuron is silent",
            family="relevance",
            needs=RELEVANCE,
            references=(MONTAVON_TAYLOR,),
            aliases=("dtd", "deep-taylor-decomposition"),
            cost=COST,
        ),
        ExplainerSpec(
            name="excitation-backprop",
            target="cnnviz_relevance.excitation:ExcitationBackprop",
            summary="Where a layer's winning neurons are, if the class wins at the top",
            family="relevance",
            needs=RELEVANCE | {"capture"},
            references=(ZHANG,),
            aliases=("excitation-backpropagation", "marginal-winning-probability", "mwp", "ebp"),
            cost=COST,
        ),
        ExplainerSpec(
            name="contrastive-excitation-backprop",
            target="cnnviz_relevance.excitation:ContrastiveExcitationBackprop",
            summary="Where neurons win for the class rather than for its opposite",
            family="relevance",
            needs=RELEVANCE | {"capture"},
            references=(ZHANG,),
            aliases=(
                "contrastive-excitation-backpropagation",
                "contrastive-marginal-winning-probability",
                "contrastive-mwp",
                "c-mwp",
                "c-ebp",
            ),
            cost=COST,
        ),
    ]


@hookimpl
def cnnviz_rules() -> list[RuleSpec]:
    """Announce the composites and the pure rules of layer-wise relevance propagation."""

    def rule(name: str, summary: str, *references: str, aliases: tuple[str, ...] = ()) -> RuleSpec:
        target = f"cnnviz_relevance.composites:{name.replace('-', '_')}"
        return RuleSpec(name, target, summary, references, aliases)

    return [
        rule(
            "epsilon-plus",
            "Positive contributions at convolutions, epsilon at dense layers",
            KOHLBRENNER,
            ANDERS,
        ),
        rule(
            "epsilon-plus-flat",
            "Epsilon-plus, evenly to what the first layer reads",
            LAPUSCHKIN,
            KOHLBRENNER,
        ),
        rule(
            "epsilon-gamma-box",
            "Gamma at convolutions, epsilon at dense layers, the box of the picture's values",
            MONTAVON_OVERVIEW,
        ),
        rule(
            "epsilon-alpha2-beta1",
            "Alpha 2, beta 1 at convolutions, epsilon at dense layers",
            KOHLBRENNER,
        ),
        rule(
            "epsilon-alpha2-beta1-flat",
            "Epsilon-alpha2-beta1, evenly to what the first layer reads",
            LAPUSCHKIN,
            KOHLBRENNER,
        ),
        rule("lrp-0", "All contributions, at every layer", BACH, aliases=("lrp-z",)),
        rule("epsilon", "All contributions, stabilised, at every layer", BACH),
        rule("gamma", "Favours contributions of the result's own sign", MONTAVON_OVERVIEW),
        rule("alpha2-beta1", "Twice the positive contributions less the negative ones", BACH),
        rule(
            "z-plus",
            "Positive contributions, at every layer",
            MONTAVON_TAYLOR,
            aliases=("alpha1-beta0",),
        ),
        rule("w-square", "In proportion to squared weights, whatever the values", MONTAVON_TAYLOR),
        rule("flat", "Evenly to all that a layer reads", LAPUSCHKIN),
    ]
