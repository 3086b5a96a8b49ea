"""Reading an objective as a person writes it: "layer:476", "tabby", "0.5*layer:3 - boxer"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cnnviz_core.errors import TargetError, UnknownClassError, UnknownLayerError
from cnnviz_core.labels import find_class
from cnnviz_core.layers import resolve_layer
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.targets import ClassScore, Target
from cnnviz_features.synthesis.objectives import Channel, Energy, Objective, neuron

__all__ = ["read_objective"]

_SIGN: Final = re.compile(r"\s+([+-])\s+")
_WEIGHT: Final = re.compile(r"(?P<weight>\d+(?:\.\d*)?|\.\d+)\s*\*\s*(?P<rest>.+)", re.DOTALL)
_CHANNEL: Final = re.compile(r"(?P<channel>\d+)(?:@(?P<at>.+))?")
_PLACE: Final = re.compile(r"(?P<row>\d+)\s*,\s*(?P<column>\d+)")
_FORMS: Final = (
    '"layer:476" for a channel, "layer:476@7,7" or "layer:476@middle" for a neuron, a class\'s '
    'name or number, or sums of these such as "0.5*layer:3 - class:tabby"'
)


def read_objective(
    text: str, model: Model, x: Array, labels: Sequence[str] | None = None
) -> Objective:
    """Read an objective as a person writes it.

    ``"layer:476"`` is the mean of a channel, ``"layer:476@7,7"`` its neuron in row 7 and column 7,
    ``"layer:476@middle"`` that in the middle of the grid; ``"class:tabby"``, ``"tabby"`` and
    ``"281"`` are a class's score; a layer's name alone is its mean square.  Terms are joined by
    `` + `` and `` - `` with spaces around them; each may have a weight, as in ``"0.5*layer:3"``,
    and the first a minus, as in ``"-layer:476"``.  A class whose whole name is the text comes
    first.

    Parameters
    ----------
    text : str
        What was written.
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        An input that it takes.
    labels : sequence of str, optional
        The names of the classes.

    Returns
    -------
    Objective
        Called as the text.

    Raises
    ------
    TargetError
        If the text cannot be read, or a channel or position is out of range.
    UnknownClassError
        If no class bears a name.
    UnknownLayerError
        If there is no such layer.
    """
    text = text.strip()
    if text in (labels or ()):
        return Objective.of(ClassScore(find_class(text, labels)), text)
    first, *rest = _SIGN.split(text)
    signs = [-1 if first.startswith("-") else 1, *(-1 if s == "-" else 1 for s in rest[::2])]
    terms = [first.lstrip("+-"), *rest[1::2]]
    return Objective(
        tuple(
            _term(sign, term.strip(), text, model, x, labels)
            for sign, term in zip(signs, terms, strict=True)
        ),
        name=text,
    )


def _term(
    sign: int, term: str, text: str, model: Model, x: Array, labels: Sequence[str] | None
) -> tuple[float, Target]:
    """Read one term: its weight and its target."""
    weighted = _WEIGHT.fullmatch(term)
    weight = sign * (float(weighted["weight"]) if weighted else 1.0)
    term = weighted["rest"].strip() if weighted else term
    if not term:
        raise TargetError(f"{text!r} has an empty term", _FORMS, "name what to excite")
    before, colon, after = term.rpartition(":")
    if not colon:
        return weight, _class_or_layer(term, model, x, labels)
    if before.strip().casefold() == "class":
        return weight, ClassScore(find_class(after, labels))
    channel = _CHANNEL.fullmatch(after.strip())
    if channel is None:
        raise TargetError(f"{after!r} of {term!r} is no channel", _FORMS, "give its number")
    info = resolve_layer(model, before.strip(), x)
    return weight, _of_layer(info, int(channel["channel"]), channel["at"])


def _class_or_layer(term: str, model: Model, x: Array, labels: Sequence[str] | None) -> Target:
    """Read a term without a colon: a class, or else a whole layer."""
    try:
        return ClassScore(find_class(term, labels))
    except TargetError as no_class:
        try:
            return Energy(resolve_layer(model, term, x).name)
        except UnknownLayerError as no_layer:
            raise UnknownClassError(
                f"{term!r} is neither a class nor a layer: {no_class.problem}",
                _FORMS,
                f"{no_class.remedy}; or {no_layer.remedy}",
            ) from None


def _of_layer(info: LayerInfo, channel: int, at: str | None) -> Target:
    """Make the target of a channel, or of one neuron of it."""
    n = info.shape[-1]
    if channel >= n:
        raise TargetError(
            f"layer {info.name!r} has no channel {channel}",
            f"a channel from 0 to {n - 1}",
            "count the channels from 0",
        )
    if at is None:
        return Channel(info.name, channel)
    if at.strip() == "middle":
        return neuron(info, channel)
    place = _PLACE.fullmatch(at.strip())
    if place is None:
        raise TargetError(
            f"{at!r} is no position", "row,column such as 7,7, or middle", "count from 0"
        )
    return neuron(info, channel, (int(place["row"]), int(place["column"])))
