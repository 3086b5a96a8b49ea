"""Rules of relevance, made of steps by the kind and the place of a layer.

A composite is what the literature calls a rule that takes different steps at different layers.
Those of the literature on layer-wise relevance propagation are announced to the registry, by whose
names `cnnviz_relevance.lrp.LRP` takes them; the others are those of methods of their own.

References
----------
The composites, and what their names say: Kohlbrenner et al., "Towards best practice in explaining
neural network decisions with LRP", IJCNN 2020; Montavon et al., "Layer-wise relevance propagation:
an overview", 2019, sections 10.2 and 10.3; Anders et al., "Software for dataset-wide XAI: from
local explanations to global insights with Zennit, CoRelAy, and ViRelAy", 2021.
"""

from __future__ import annotations

from dataclasses import replace

from cnnviz_core import steps
from cnnviz_core.bounds import Bounds
from cnnviz_core.rules import BackwardRule, relevance_rule
from cnnviz_core.steps import NEGATIVE, POSITIVE, STABILISER, LinearStep, Share, Slopes, Term

__all__ = [
    "alpha2_beta1",
    "contrastive_excitation",
    "deep_taylor",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation",
    "flat",
    "gamma",
    "lrp_0",
    "w_square",
    "z_plus",
]

_EXCITED = steps.without_bias(steps.z_plus(epsilon=0))
"""Positive contributions."""

_OPPOSITE = Share(
    (
        Term(POSITIVE, Slopes(positive=0, negative=-1), bias=None),
        Term(NEGATIVE, Slopes(positive=-1, negative=0), bias=None),
    ),
    factor=-1,
)
"""Those that would be positive if all weights were negated, to be taken away."""

_CONTRAST = LinearStep((*_EXCITED.shares, _OPPOSITE), epsilon=0)


def epsilon_plus(*, epsilon: float = STABILISER) -> BackwardRule:
    """Positive contributions at convolutions, all at dense layers.

    Parameters
    ----------
    epsilon : float
        That of dense layers.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("epsilon-plus", steps.z_plus(), steps.epsilon(epsilon))


def epsilon_plus_flat(*, epsilon: float = STABILISER) -> BackwardRule:
    """`epsilon_plus`, of which the first layer hands its relevance evenly to all that it reads.

    Parameters
    ----------
    epsilon : float
        That of dense layers.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule(
        "epsilon-plus-flat", steps.z_plus(), steps.epsilon(epsilon), first=steps.flat()
    )


def epsilon_gamma_box(*, epsilon: float = STABILISER, gamma: float = 0.25) -> BackwardRule:
    """Favour contributions of the result's sign at convolutions, and mind the picture's bounds.

    Parameters
    ----------
    epsilon : float
        That of dense layers.
    gamma : float
        That of convolutions.

    Returns
    -------
    BackwardRule
        It needs bounds; the first layer takes the step of the box where it is a convolution.
    """
    rule = relevance_rule("epsilon-gamma-box", steps.gamma(gamma), steps.epsilon(epsilon))
    return replace(rule, first={"conv": steps.z_box()})


def epsilon_alpha2_beta1(*, epsilon: float = STABILISER) -> BackwardRule:
    """Twice the positive contributions less the negative ones at convolutions, all at dense layers.

    Parameters
    ----------
    epsilon : float
        That of dense layers.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("epsilon-alpha2-beta1", steps.alpha_beta(2, 1), steps.epsilon(epsilon))


def epsilon_alpha2_beta1_flat(*, epsilon: float = STABILISER) -> BackwardRule:
    """`epsilon_alpha2_beta1`, of which the first layer hands its relevance evenly to what it reads.

    Parameters
    ----------
    epsilon : float
        That of dense layers.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule(
        "epsilon-alpha2-beta1-flat",
        steps.alpha_beta(2, 1),
        steps.epsilon(epsilon),
        first=steps.flat(),
    )


def lrp_0() -> BackwardRule:
    """All contributions, at every layer, with nothing to keep denominators away from zero.

    Of a network of convolutions, dense layers, rectifiers, pools and sums this is gradient times
    input; biases keep their share of the relevance.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("lrp-0", steps.epsilon(0), shared=steps.epsilon(0))


def epsilon(*, epsilon: float = STABILISER) -> BackwardRule:
    """All contributions, at every layer.

    Parameters
    ----------
    epsilon : float
        Takes relevance away where contributions cancel out.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("epsilon", steps.epsilon(epsilon))


def gamma(*, gamma: float = 0.25) -> BackwardRule:
    """Favour contributions of the result's own sign, at every layer.

    Parameters
    ----------
    gamma : float
        How much: they count ``1 + gamma`` fold.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("gamma", steps.gamma(gamma))


def alpha2_beta1() -> BackwardRule:
    """Twice the positive contributions less the negative ones, at every layer.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("alpha2-beta1", steps.alpha_beta(2, 1))


def z_plus() -> BackwardRule:
    """Positive contributions, at every layer.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("z-plus", steps.z_plus())


def w_square() -> BackwardRule:
    """In proportion to squared weights, at every layer, whatever the values.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("w-square", steps.w_square())


def flat() -> BackwardRule:
    """Evenly to all that a layer reads, at every layer.

    Returns
    -------
    BackwardRule
    """
    return relevance_rule("flat", steps.flat())


def deep_taylor(bounds: Bounds | None = None) -> BackwardRule:
    """Deep Taylor decomposition: each neuron's relevance, expanded about a root near its inputs.

    Behind a rectifier inputs are not negative, which gives the positive contributions.  A sum
    before a rectifier is a neuron of weights 1.

    Parameters
    ----------
    bounds : pair of tuples of float, optional
        The least and the greatest values of the network's input, one for each channel or one for
        all; without them roots are searched for among all real values.  So they are at a dense
        layer that reads the input, unless all channels have the same bounds: nobody knows in which
        order it reads them.

    Returns
    -------
    BackwardRule
        Biases get no relevance.

    References
    ----------
    Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
    Pattern Recognition 2017, sections 4.1 and 4.2.
    """
    box, free = steps.z_box(), steps.w_square()
    alike = bounds is not None and all(len(end) == 1 for end in bounds)
    rule = replace(
        relevance_rule("deep-taylor", steps.z_plus(), shared=steps.z_plus()),
        first={"conv": free if bounds is None else box, "linear": box if alike else free},
    )
    return replace(rule.without_bias(), bounds=bounds)


def excitation() -> BackwardRule:
    """Marginal winning probability: the winner's probability goes to what excited it.

    With ``p_i`` the probability of a neuron, an input ``x_j`` of its layer gets
    ``sum_i p_i x_j w+_ij / sum_k x_k w+_ik``, where ``w+`` are the positive weights.  Negative
    inputs, of which the paper has none, excite where they meet negative weights.

    Returns
    -------
    BackwardRule
        Without biases and without a stabiliser, also at sums and averages.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, section 3.2.
    """
    return relevance_rule("excitation", _EXCITED, shared=_EXCITED)


def contrastive_excitation() -> BackwardRule:
    """Marginal winning probability, less that of the neuron which says the opposite.

    The opposite of an output is one whose weights are negated.  Below it, both are handed down by
    the same shares, so that their difference takes one pass.

    Returns
    -------
    BackwardRule
        `excitation` but at the last layer, where relevance adds up to zero.

    References
    ----------
    Zhang et al., ECCV 2016, section 3.3.
    """
    return relevance_rule("contrastive excitation", _EXCITED, last=_CONTRAST, shared=_EXCITED)
