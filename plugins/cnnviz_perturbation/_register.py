"""Announces the perturbation methods."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the perturbation methods."""
    return [
        ExplainerSpec(
            name="occlusion",
            target="cnnviz_perturbation.occlusion:Occlusion",
            summary="Drop of the score when a window of the picture is covered",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
            ),
            aliases=("occlusion-sensitivity",),
            cost="1 forward a position of the window",
        ),
        ExplainerSpec(
            name="rise",
            target="cnnviz_perturbation.rise:RISE",
            summary="Mean score of the picture under random smooth masks that show a pixel",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Petsiuk, Das & Saenko, RISE: Randomized input sampling for explanation of "
                "black-box models, BMVC 2018",
            ),
            aliases=("randomized-input-sampling",),
            cost="1 forward a mask, 4000 by default; fewer with a tolerance",
        ),
        ExplainerSpec(
            name="sobol",
            target="cnnviz_perturbation.sobol:Sobol",
            summary="Each cell's part in the variance of the score under random masks",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Fel et al., Look at the variance! Efficient black-box explanations with "
                "Sobol-based sensitivity analysis, NeurIPS 2021",
                "Jansen, Analysis of variance designs for model output, Computer Physics "
                "Communications 117, 1999",
            ),
            aliases=("sobol-attribution-method", "sobol-indices"),
            cost="samples x (cells + 2) forwards; fewer with a tolerance",
        ),
        ExplainerSpec(
            name="hsic",
            target="cnnviz_perturbation.hsic:HSIC",
            summary="Dependence of the score on each cell's presence: Hilbert-Schmidt criterion",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Novello et al., Making sense of dependence: efficient black-box explanations "
                "using dependence measure, NeurIPS 2022",
            ),
            aliases=("hsic-attribution-method",),
            cost="1 forward a sample (1500), fewer with a tolerance",
        ),
        ExplainerSpec(
            name="lime",
            target="cnnviz_perturbation.lime:LIME",
            summary="Coefficients of a linear model of the score, of which segments are shown",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Ribeiro, Singh & Guestrin, 'Why should I trust you?': Explaining the predictions "
                "of any classifier, KDD 2016",
            ),
            aliases=("lime-image",),
            cost="1 forward a sample (1000), fewer with a tolerance",
        ),
        ExplainerSpec(
            name="kernel-shap",
            target="cnnviz_perturbation.kernel_shap:KernelSHAP",
            summary="Shapley values of segments, by a regression on sampled coalitions",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Lundberg & Lee, A unified approach to interpreting model predictions, "
                "NeurIPS 2017",
                "Covert & Lee, Improving KernelSHAP: practical Shapley value estimation using "
                "linear regression, AISTATS 2021",
            ),
            aliases=("kernel-explainer", "shap"),
            cost="1 forward a coalition (1000), fewer with a tolerance",
        ),
        ExplainerSpec(
            name="shapley-values",
            target="cnnviz_perturbation.shapley:ShapleyValues",
            summary="Shapley values of up to 16 segments, by scoring every coalition",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Shapley, A value for n-person games, Contributions to the Theory of Games II, "
                "1953",
                "Lundberg & Lee, A unified approach to interpreting model predictions, "
                "NeurIPS 2017",
            ),
            aliases=("exact-shapley", "shapley"),
            cost="1 forward a coalition, 2^K of K segments (256)",
        ),
        ExplainerSpec(
            name="hierarchical-occlusion",
            target="cnnviz_perturbation.hierarchical_occlusion:HierarchicalOcclusion",
            summary="Owen values: the score shared among halves of the picture, and their halves",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Owen, Values of games with a priori unions, Mathematical Economics and Game "
                "Theory, 1977",
                "Lundberg & Lee, A unified approach to interpreting model predictions, "
                "NeurIPS 2017",
            ),
            aliases=("partition-shap", "owen-values"),
            cost="samples forwards (500), at most",
        ),
        ExplainerSpec(
            name="minimal-sufficient-region",
            target="cnnviz_perturbation.minimal_region:MinimalSufficientRegion",
            summary="The cells that alone keep the answer, with the fill everywhere else",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Carter et al., What made you do this? Understanding black-box decisions with "
                "sufficient input subsets, AISTATS 2019",
                "Dabkowski & Gal, Real time image saliency for black box classifiers, NeurIPS 2017",
            ),
            aliases=("sufficient-input-subset", "smallest-sufficient-region"),
            cost="1 forward a remaining cell, each round: at most 2090 of 8 x 8 cells",
        ),
        ExplainerSpec(
            name="counterfactual-region",
            target="cnnviz_perturbation.counterfactual_region:CounterfactualRegion",
            summary="The cells without which the answer changes",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Dabkowski & Gal, Real time image saliency for black box classifiers, NeurIPS 2017",
                "Fong & Vedaldi, Interpretable explanations of black boxes by meaningful "
                "perturbation, ICCV 2017",
            ),
            aliases=("smallest-destroying-region",),
            cost="1 forward a remaining cell, for each removed: at most 4170 of 8 x 8 cells",
        ),
        ExplainerSpec(
            name="meaningful-perturbation",
            target="cnnviz_perturbation.meaningful_perturbation:MeaningfulPerturbation",
            summary="Smallest smooth region whose removal takes the score away, found by gradients",
            family="perturbation",
            needs=frozenset({"gradient"}),
            references=(
                "Fong & Vedaldi, Interpretable explanations of black boxes by meaningful "
                "perturbation, ICCV 2017",
            ),
            aliases=("mask-perturbation", "meaningful-perturbations"),
            cost="1 forward, 1 backward a step",
        ),
        ExplainerSpec(
            name="extremal-perturbation",
            target="cnnviz_perturbation.extremal_perturbation:ExtremalPerturbation",
            summary="Smooth region of a given area whose sight excites the network most",
            family="perturbation",
            needs=frozenset({"gradient"}),
            references=(
                "Fong, Patrick & Vedaldi, Understanding deep networks via extremal "
                "perturbations and smooth masks, ICCV 2019",
            ),
            aliases=("extremal-perturbations", "extremal-mask"),
            cost="1 forward, 1 backward a step and area",
        ),
        ExplainerSpec(
            name="xrai",
            target="cnnviz_perturbation.xrai:XRAI",
            summary="Segments in the order of the attribution that they hold for their area",
            family="perturbation",
            needs=frozenset({"gradient"}),
            references=(
                "Kapishnikov et al., XRAI: better attributions through regions, ICCV 2019",
            ),
            cost="2 x 50 gradients, and a segmentation at six scales",
        ),
    ]
