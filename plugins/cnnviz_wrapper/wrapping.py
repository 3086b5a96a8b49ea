"""What all methods that are made of another method have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Annotated, Any, TypeAlias

import numpy as np

from cnnviz_core.bounds import ENDS, End, asks_for_bounds
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Explainer, Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Target

__all__ = ["Copy", "Wrapper", "explain_copies"]

Copy: TypeAlias = tuple[Array, Sequence[Target]]
"""A changed copy of a batch (N, ...), and what is asked of it: a target for each sample."""


@dataclass(frozen=True)
class Wrapper:
    """A method that is made of another one, the inner method.

    What it needs of a model, and whether its map depends on the target, is as with the inner
    method.

    Parameters
    ----------
    of : str
        The inner method: its name, or its name and parameters, "occlusion(window=48, stride=16)".
        It may be a wrapper itself.
    layer : str
        The layer that the inner method looks at, if it looks at one.
    batch_size : int
        How many samples go through the network at once.
    low, high : float, ndarray (C,), or None
        The least and the greatest values of the network's input, for an inner method that asks for
        them; by default those that the preprocessing tells.
    """

    of: Annotated[str, Help("the method, with its parameters if need be: occlusion(window=48)")] = (
        "grad-cam"
    )
    layer: Annotated[str, Help("layer that the method looks at; auto is the method's default")] = (
        AUTO
    )
    batch_size: Annotated[int, Range(1), Help("samples that go through the network at once")] = 16
    low: Annotated[End, Help("least value of the input, if the method asks for it")] = None
    high: Annotated[End, Help("greatest value of the input, if the method asks for it")] = None

    @property
    def inner(self) -> Explainer:
        """The inner method, with its parameters.

        Raises
        ------
        UnknownMethodError
            If there is no such method.
        ParameterError
            If its parameters do not fit, or a layer is given and it looks at none.
        """
        return self.inner_at(self.layer)

    def inner_at(self, layer: str) -> Explainer:
        """Make the inner method.

        Parameters
        ----------
        layer : str
            The layer that it looks at; "auto" leaves that to the method.

        Returns
        -------
        Explainer

        Raises
        ------
        UnknownMethodError
            If there is no such method.
        ParameterError
            If its parameters do not fit, or a layer is given and it looks at none.
        """
        if self.of.count("(") > 1:
            raise ParameterError(
                f"of={self.of!r} has parentheses within parentheses",
                "a method's name, or its name and parameters in one pair of parentheses",
                "leave the innermost method's parameters at their defaults",
            )
        # "auto" leaves the layer to the method, whose own default may be another word.
        where = {} if layer == AUTO else {"layer": layer}
        made: Any = get_registry().configured(self.of, **where, batch_size=self.batch_size)
        inner: Explainer = made
        if layer != AUTO and not looks_at_a_layer(inner):
            raise ParameterError(
                f"layer={layer!r} was given, and {self.of} looks at no layer",
                "a layer only for a method that looks at one",
                "leave layer out, or wrap another method, such as grad-cam",
            )
        if layer != AUTO and made.layer != layer:
            raise ParameterError(
                f"layer={layer!r} was given, and of={self.of!r} names another",
                "the layer in one place",
                "leave it out of the parentheses",
            )
        return self._told(inner)

    def _told(self, inner: Explainer) -> Explainer:
        """Tell the inner method the bounds of the input, if it asks."""
        told = {end: getattr(self, end) for end in ENDS if getattr(self, end) is not None}
        if told and not asks_for_bounds(inner):
            raise ParameterError(
                f"{' and '.join(told)} given, and {self.of} does not ask for bounds",
                "bounds only for a method that asks for them",
                "leave them out, or give them in one place",
            )
        made: Any = inner
        bounded: Explainer = replace(made, **told) if told else inner
        return bounded

    @property
    def needs_bounds(self) -> bool:
        """Whether the inner method asks for the bounds of the input."""
        return asks_for_bounds(self.inner)

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have: those that the inner method needs."""
        return self.inner.needs

    @property
    def class_agnostic(self) -> bool:
        """Whether the maps are the same for every target, as the inner method's are."""
        return bool(getattr(self.inner, "class_agnostic", False))


def looks_at_a_layer(explainer: Explainer) -> bool:
    """Tell whether a method has a parameter `layer`.

    Parameters
    ----------
    explainer : Explainer
        The method.

    Returns
    -------
    bool
    """
    made: Any = explainer
    return any(field.name == "layer" for field in fields(made))


def explain_copies(
    inner: Explainer,
    model: Model,
    copies: Iterable[Copy],
    *,
    samples: int,
    total: int,
    batch_size: int,
    what: str,
) -> Iterator[Maps]:
    """Explain many changed copies of a batch, in bounded memory.

    Parameters
    ----------
    inner : Explainer
        The method.
    model : Model
        The network.
    copies : iterable of (ndarray (N, ...), targets)
        Taken as they are needed.
    samples : int
        How many samples a copy holds, N.
    total : int
        How many copies there are, for the progress.
    batch_size : int
        How many samples are explained at once; at least one copy is.
    what : str
        What to call the work in the progress.

    Yields
    ------
    Maps
        For each copy its raw result, and how it is shown.
    """
    at_once = max(1, batch_size // samples)
    stream, done = iter(copies), 0
    while chunk := list(islice(stream, at_once)):
        x = chunk[0][0] if len(chunk) == 1 else np.concatenate([copy for copy, _ in chunk])
        maps = inner.explain(model, x, [target for _, asked in chunk for target in asked])
        done += len(chunk)
        advance(what, done, total)
        for raw in np.split(maps.raw, len(chunk)):
            yield Maps(raw=raw, layer=maps.layer, presentation=maps.presentation, notes=maps.notes)
