"""Deep Taylor decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_core.bounds import End, bounds_of
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target
from cnnviz_relevance import composites
from cnnviz_relevance.relevance import Unknown, handed_down, of_score, passing

__all__ = ["DeepTaylor"]


@dataclass(frozen=True)
class DeepTaylor:
    """The score, expanded neuron by neuron about a point where the neuron is silent.

    The first terms of the expansions say how much each input made of a neuron's relevance.  With
    inputs ``x`` that a rectifier made, an input's share is ``x_i w+_ij`` of their sum; with pixels
    between bounds ``l`` and ``h`` it is ``x_i w_ij - l_i w+_ij - h_i w-_ij``; with inputs of which
    nothing is known it is ``w_ij ** 2``.  Shares are never negative, so a positive score becomes a
    map that is positive everywhere.  It adds up to the score, less what neurons have that owe it to
    their bias alone: many in networks of depthwise convolutions.

    Parameters
    ----------
    low, high : float, ndarray (C,), or None
        The least and the greatest value that the input can have, for all channels or for each, in
        the network's own value range.  None is what the picture's preprocessing makes of black and
        white; where none is known, the shares are those of inputs of which nothing is known.
    unknown : {"refuse", "gradient"}
        What to do at an operation without such an expansion, such as a softmax or a layer
        normalisation inside the network: refuse, or have the gradient pass there and note it.

    References
    ----------
    Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
    Pattern Recognition 2017, sections 4.1 and 4.2.
    """

    low: Annotated[End, Help("least value of the input; none is that of black, if known")] = None
    high: Annotated[End, Help("greatest value of the input; none is that of white, if known")] = (
        None
    )
    unknown: Annotated[
        Unknown, Help("refuse operations without a rule, or have the gradient pass there")
    ] = "refuse"

    needs: ClassVar[frozenset[str]] = composites.deep_taylor().needs | {"gradient"}

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
            With the raw relevance of the shape of `x`, whose sum over the channels shows; of a
            score below zero it is negative, and nothing shows.

        Raises
        ------
        ParameterError
            If only one bound is given, or bounds that do not fit the input.
        RuleError
            If the network has an operation on the way that cannot be expanded.
        """
        bounds = bounds_of(self.low, self.high, x.shape[-1])
        rule = passing(composites.deep_taylor(bounds), self.unknown)
        shown = Presentation(sign="positive", reduce="sum")
        return handed_down(model, x, targets, rule, of_score(targets), None, shown)
