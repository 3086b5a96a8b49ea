"""Layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from cnnviz_core.bounds import End, bounds_of
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import BackwardRule
from cnnviz_core.targets import Target
from cnnviz_relevance.relevance import Unknown, grid_layer, handed_down, of_score, passing

__all__ = ["LRP"]

PICTURE: Final = "input"
"""The name that stands for the picture in the place of a layer's."""


@dataclass(frozen=True)
class LRP:
    """The score, handed down layer by layer to what it is made of.

    What arrives at a neuron is split among the neurons that it reads, by shares of which the rule
    of its layer decides; so the sum over a layer's neurons stays the score, but for what the rule
    gives to biases and to stabilisers, and for what neurons have to which no input contributed.  It
    starts as the score's gradient times the value that is scored, which for a class is the class's
    score before the softmax.

    Parameters
    ----------
    composite : str
        Which rule is for which layer: the name of a rule of relevance, as plugins announce them.
    epsilon : float or None
        The stabiliser of the composite's epsilon rules; None is the composite's own.
    gamma : float or None
        By how much the composite's gamma rules favour contributions of the result's own sign; None
        is the composite's own.
    low, high : float, ndarray (C,), or None
        The least and the greatest value that the input can have, for all channels or for each, in
        the network's own value range; only composites with a rule for bounded inputs, such as
        "epsilon-gamma-box", read them.  None is what the picture's preprocessing makes of black
        and white.
    bias : bool
        Whether biases take their share of the relevance, which then no input gets.
    layer : str
        Where to end: "input" is the picture, any other name a layer with a spatial grid.
    unknown : {"refuse", "gradient"}
        What to do at an operation for which the composite has no rule, such as a softmax or a layer
        normalisation inside the network: refuse, or have the gradient pass there and note it.

    References
    ----------
    Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise
    relevance propagation", PLOS ONE 2015, equation 2; Montavon et al., "Layer-wise relevance
    propagation: an overview", 2019.
    """

    composite: Annotated[str, Help("which rule is for which layer, by name")] = "epsilon-plus"
    epsilon: Annotated[
        float | None, Range(0), Help("stabiliser of epsilon rules; none is the composite's own")
    ] = None
    gamma: Annotated[
        float | None,
        Range(0),
        Help("how much gamma rules favour the result's sign; none is the composite's own"),
    ] = None
    low: Annotated[
        End, Help("least value of the input, for rules that read it; none is that of black")
    ] = None
    high: Annotated[
        End, Help("greatest value of the input, for rules that read it; none is that of white")
    ] = None
    bias: Annotated[bool, Help("whether biases take a share of the relevance")] = True
    layer: Annotated[str, Help("layer to end at; input is the picture")] = PICTURE
    unknown: Annotated[
        Unknown, Help("refuse operations without a rule, or have the gradient pass there")
    ] = "refuse"

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have."""
        inner = frozenset() if self.layer == PICTURE else frozenset({"capture"})
        return self._rule().needs | inner | {"gradient"}

    @property
    def needs_bounds(self) -> bool:
        """Whether the composite reads `low` and `high`."""
        return self._rule().needs_bounds

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw relevance of the shape of `x`, whose sum over the channels shows, or at a
            layer (N, h, w), summed over its channels; signed.

        Raises
        ------
        UnknownMethodError
            If there is no such composite.
        ParameterError
            If the composite takes no `epsilon` or `gamma`, needs bounds that are not known, or is
            a rule of gradients.
        RuleError
            If the network has an operation on the way for which the composite has no rule.
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        rule = self._bounded(x.shape[-1])
        layer = None if self.layer == PICTURE else grid_layer(model, self.layer, x)
        shown = Presentation(sign="signed", reduce="sum")
        return handed_down(model, x, targets, rule, of_score(targets), layer, shown)

    def _rule(self) -> BackwardRule:
        """Make the rule of the composite and its options."""
        options = {"epsilon": self.epsilon, "gamma": self.gamma}
        given = {name: value for name, value in options.items() if value is not None}
        rule = get_registry().rule(self.composite, **given)
        if not rule.conserves:
            raise ParameterError(
                f"composite={self.composite!r} is a rule of gradients",
                "a rule of relevance, which splits what arrives among a layer's inputs",
                f"use one of {', '.join(get_registry().rules)}",
            )
        return passing(rule if self.bias else rule.without_bias(), self.unknown)

    def _bounded(self, channels: int) -> BackwardRule:
        """Make the rule with the input's bounds, if it reads them."""
        rule = self._rule()
        if not rule.needs_bounds:
            return rule
        bounds = bounds_of(self.low, self.high, channels)
        if bounds is None and rule.bounds is None:
            raise ParameterError(
                f"composite={self.composite!r} needs the least and the greatest value of the input",
                "a preprocessing that is known, or low and high",
                "pass low= and high=, what black and white pixels are for the network",
            )
        return rule if bounds is None else rule.bounded(*bounds)
