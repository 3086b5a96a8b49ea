"""Excitation backpropagation, and its contrastive form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import TargetError, UnknownLayerError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.layers import AUTO, auto_layer, layers_of
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target, cotangent_of, target_node
from cnnviz_relevance.composites import contrastive_excitation, excitation
from cnnviz_relevance.relevance import Unknown, grid_layer, handed_down, passing

__all__ = ["ContrastiveExcitationBackprop", "ExcitationBackprop"]

POSITIVE = Presentation(sign="positive")

_NOISE = 20
"""Up to so many rounding errors a contrast is none."""


@dataclass(frozen=True)
class ExcitationBackprop:
    """Where a layer's winning neurons are, if a class is to win at the top.

    A network is read as a chain of contests: given the winner of a layer, each neuron of the layer
    below wins with the probability that is its share in what excited it, ``x_j w_ij`` for positive
    weights.  The map is the marginal winning probability of a layer's positions, summed over
    channels; it adds up to 1, or to less where nothing excited a winner.

    It starts with all probability on the class; of another score, on what raises it, in proportion
    to the positive part of its gradient.

    Parameters
    ----------
    layer : str
        Where to end; "auto" is the last layer with a spatial grid.
    unknown : {"refuse", "gradient"}
        What to do at an operation that is no contest, such as a softmax or a layer normalisation
        inside the network: refuse, or have the gradient pass there and note it.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, section 3.2;
    International Journal of Computer Vision 126, 2018.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    unknown: Annotated[
        Unknown, Help("refuse operations without a rule, or have the gradient pass there")
    ] = "refuse"

    needs: ClassVar[frozenset[str]] = excitation().needs | {"capture", "gradient"}

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw probability (N, h, w) at the layer's size, in [0, 1].

        Raises
        ------
        TargetError
            If nothing raises a target's score.
        RuleError
            If the network has an operation on the way that is no contest.
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        rule = passing(excitation(), self.unknown)
        layer = grid_layer(model, self.layer, x)
        return handed_down(model, x, targets, rule, _winners(targets), layer, POSITIVE)


@dataclass(frozen=True)
class ContrastiveExcitationBackprop:
    """Excitation backpropagation for a class, less that for its opposite.

    The opposite of a class is an output whose weights are negated: it wins by what speaks against
    the class, and takes away what speaks for every class alike.  The raw difference of the two
    marginal winning probabilities adds up to zero; its positive part is shown.

    Parameters
    ----------
    layer : str
        Where to end; "auto" is the last layer with a spatial grid before the last convolution or
        dense layer, whose weights are negated.  Where that is a convolution of single positions,
        at each of which the two probabilities are equal, it is the last one before a convolution
        with a wider window.
    unknown : {"refuse", "gradient"}
        As of `ExcitationBackprop`.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, section 3.3.
    """

    layer: Annotated[
        str,
        Help("layer to look at; auto is the last one with a grid before the classifier"),
    ] = AUTO
    unknown: Annotated[
        Unknown, Help("refuse operations without a rule, or have the gradient pass there")
    ] = "refuse"

    needs: ClassVar[frozenset[str]] = contrastive_excitation().needs | {"capture", "gradient"}

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw difference (N, h, w) at the layer's size, in [-1, 1], before its positive
            part is taken.

        Raises
        ------
        TargetError
            If nothing raises a target's score.
        RuleError
            If the network has an operation on the way that is no contest.
        UnknownLayerError
            If the layer does not exist, has no spatial grid, is not before the last convolution or
            dense layer, or the two probabilities are equal at each of its positions.
        """
        rule = passing(contrastive_excitation(), self.unknown)
        layer = self._layer(model, x, target_node(targets))
        maps = handed_down(model, x, targets, rule, _winners(targets), layer, POSITIVE)
        noise = _NOISE * len(x) * np.finfo(maps.raw.dtype).eps
        if not maps.notes and np.abs(maps.raw).sum() <= noise:
            raise UnknownLayerError(
                f"the contrast vanishes at every position of layer {layer.name!r}: between it and "
                "the score, each position is classified by itself",
                "a layer before a convolution or pool with a wider window, or a dense layer",
                "use layer='auto' or an earlier layer, or excitation-backprop, which needs no "
                "contrast",
            )
        return maps

    def _layer(self, model: Model, x: Array, of: str) -> LayerInfo:
        """Find the layer, before that whose weights are negated."""
        layers = layers_of(model, x)
        before = _before_the_last_weights(layers, of)
        if self.layer == AUTO:
            return _auto(model, x, layers, before, of)
        layer = grid_layer(model, self.layer, x)
        if layer.name not in before:
            last = list(layers)[len(before)]
            raise UnknownLayerError(
                f"layer {layer.name!r} is not before {last!r}, whose weights are negated for the "
                "contrast",
                f"a layer before {last!r}",
                "use layer='auto', or excitation-backprop, which needs no contrast",
            )
        return layer


def _winners(targets: Sequence[Target]) -> Callable[[Array], Array]:
    """Give the function from the value at the targets' node to the probability of winning there."""
    gradient = cotangent_of(targets)

    def winners(value: Array) -> Array:
        raising = np.maximum(gradient(value), 0)
        total = raising.sum(axis=tuple(range(1, raising.ndim)), keepdims=True)
        if not (total > 0).all():
            target = targets[int(np.argmin(total.ravel()))]
            raise TargetError(
                f"nothing raises the score of {target}: its gradient is positive nowhere",
                "a score that some neuron raises, and so can win",
                "explain a class, or the negative of this score",
            )
        return raising / total

    return winners


def _auto(
    model: Model,
    x: Array,
    layers: Mapping[str, LayerInfo],
    before: Mapping[str, LayerInfo],
    of: str,
) -> LayerInfo:
    """Find the last layer with a grid of which the score reads more than single positions."""
    last = auto_layer(before)
    names = list(layers)
    if not _classifies_positions(model, layers[names[len(before)]]):
        return last
    while any(info.kind == "conv" for info in before.values()):
        before = _before_the_last_weights(before, of)
        wider = layers[names[len(before)]]
        if not _classifies_positions(model, wider):
            read = (
                info
                for info in reversed(before.values())
                if info.grid and _depends(model, x, wider.name, info.name)
            )
            return next(read, last)
    return last  # there is no wider window, and the contrast will be seen to vanish


def _classifies_positions(model: Model, layer: LayerInfo) -> bool:
    """Tell whether a layer is a convolution of single positions, as far as the model shows it."""
    if layer.kind != "conv" or "parameters" not in model.capabilities:
        return False
    weight = model.parameters(layer.path).get("weight")
    return weight is not None and all(size == 1 for size in weight.shape[:-2])


def _depends(model: Model, x: Array, of: str, wrt: str) -> bool:
    """Tell whether a layer depends on another: an earlier one may be of a branch beside it."""
    try:
        model.pullback(x[:1], np.ones_like, of=of, wrt=(wrt,))
    except UnknownLayerError:
        return False
    return True


def _before_the_last_weights(layers: Mapping[str, LayerInfo], of: str) -> dict[str, LayerInfo]:
    """Give the layers that end before the last convolution or dense layer up to a node."""
    names = list(layers)
    names = names[: names.index(of) + 1] if of in layers else names
    weighted = [i for i, name in enumerate(names) if layers[name].kind in ("conv", "linear")]
    end = weighted[-1] if weighted else len(names)
    return {name: layers[name] for name in names[:end]}
