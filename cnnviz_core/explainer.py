"""The ``Explainer`` protocol, what an explainer returns, and how that becomes a map to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from cnnviz_core import maps as map_maths
from cnnviz_core.errors import ArrayError, MissingCapabilityError
from cnnviz_core.model import Array, Model
from cnnviz_core.targets import Target

__all__ = ["Explainer", "Maps", "Presentation", "missing_needs", "passes_of", "present", "require"]

Sign = Literal["positive", "absolute", "signed", "relative"]


@dataclass(frozen=True)
class Presentation:
    """How a method's raw numbers become one map for each sample.

    Attributes
    ----------
    sign : {"positive", "absolute", "signed", "relative"}
        Keep the positive part (class activation maps), the magnitude, or the sign; or show by how
        much each place exceeds the map's least one, where only differences within a map mean
        something (RISE).
    reduce : str
        How (N, H, W, C) is reduced over its channels: see `cnnviz_core.maps.reduce_channels`.
    upsample : {"bilinear", "bicubic", "nearest"}
        How a map of the layer's grid is brought to the input's size.
    """

    sign: Sign = "positive"
    reduce: str = "max-abs"
    upsample: Literal["bilinear", "bicubic", "nearest"] = "bilinear"


@dataclass(frozen=True)
class Maps:
    """What an explainer returns for a batch.

    Attributes
    ----------
    raw : ndarray
        The method's own result, signed and not normalised: (N, h, w) at a layer's size, or
        (N, H, W, C) for methods that attribute to input values; of signals and volumes likewise
        (N, ...grid) or (N, ...size, C).
    scores : ndarray (N,), or None
        The targets' scores on the samples.
    targets : tuple of Target
        The targets, resolved: `Predicted` has become the class that was predicted.
    layer : str or None
        The layer that was looked at.
    presentation : Presentation
        How the method's authors show it.
    extras : mapping of str to ndarray
        Whatever else the method has to say, one entry for each sample.
    terms : callable or None
        Gives the terms (N, ...grid, K) of which `raw` is the sum over the last axis, for methods
        that weight K feature maps; made only when asked for.
    notes : tuple of str
        What a reader of the maps must know, a line each: such as an operation that the method
        could only pass by makeshift.
    """

    raw: Array
    scores: Array | None = None
    targets: tuple[Target, ...] = ()
    layer: str | None = None
    presentation: Presentation = Presentation()
    extras: Mapping[str, Any] = field(default_factory=dict)
    terms: Callable[[], Array] | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if np.ndim(self.raw) not in (2, 3, 4, 5):
            raise ArrayError(
                f"an explainer returned a raw result of the shape {np.shape(self.raw)}",
                "(N, ...grid), as (N, h, w), or (N, ...size, C), as (N, H, W, C)",
                "report it to the explainer's author",
            )
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "extras", MappingProxyType(dict(self.extras)))


@runtime_checkable
class Explainer(Protocol):
    """A method: a frozen dataclass whose fields are its parameters.

    Two further attributes are optional.  ``class_agnostic = True`` says that the maps are the same
    for every target.  A method ``passes(model, x) -> int`` says beforehand how much work one sample
    takes; `passes_of` asks it, and says what is counted.

    Attributes
    ----------
    needs : frozenset of str
        The capabilities that a model must have (`Model.capabilities`).
    """

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have; of most explainers a ``ClassVar``."""
        ...

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C), (N, L, C) or (N, D, H, W, C)
            The batch, in the network's own value range.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
        """
        ...


def present(
    raw: Array, size: tuple[int, ...], presentation: Presentation
) -> tuple[Array, list[str]]:
    """Make one map for each sample of a method's raw numbers.

    The channels are reduced first, then the sign is treated at the method's own resolution, and the
    map is resized last.  Nothing is normalised.

    Parameters
    ----------
    raw : ndarray (N, ...grid) or (N, ...size, C)
        A method's own result.
    size : tuple of int
        The maps' size, (height, width) for pictures.  An axis more in `raw` is that of channels.
    presentation : Presentation
        How.

    Returns
    -------
    maps : ndarray (N, ...size)
    status : list of str
        For each sample "ok", "all-zero", "all-negative" (a map of which only the positive part is
        shown has none) or "non-finite".

    Raises
    ------
    ArrayError
        If the result has another number of axes.
    """
    if raw.ndim not in (len(size) + 1, len(size) + 2):
        raise ArrayError(
            f"a raw result of the shape {raw.shape} was given for maps of the size {tuple(size)}",
            f"{len(size) + 1} axes, or {len(size) + 2} with channels",
            "report it to the explainer's author",
        )
    channels = raw.ndim == len(size) + 2
    flat = map_maths.reduce_channels(raw, presentation.reduce) if channels else raw
    if presentation.sign == "positive":
        shown = map_maths.relu(flat)
    elif presentation.sign == "absolute":
        shown = np.abs(flat)
    elif presentation.sign == "relative":
        flat = shown = flat - flat.min(axis=tuple(range(1, flat.ndim)), keepdims=True)
    else:
        shown = flat
    status = map_maths.map_status(flat, shown)
    if shown.shape[1:] != tuple(size):
        shown = map_maths.resize(shown, size, presentation.upsample)
    return shown, status


def passes_of(explainer: Explainer, model: Model, x: Array) -> int:
    """Say beforehand how much work a method has with one sample.

    The unit is a forward pass of one sample.  A backward pass counts as two, whatever its rule: a
    sample that goes through `Model.forward` counts 1, through `Model.pullback` 3, and through
    `CurvedModel.curvature` 6, which is a pullback and its derivative.  Samples that the method
    makes, such as masked or noisy copies, count like any other; what is not done by the network
    does not count.  The number may depend on the samples' size, never on how many there are; where
    it depends on what is in a sample, the first one speaks for all.

    Parameters
    ----------
    explainer : Explainer
        The method.
    model : Model
        The network.
    x : ndarray (N, ...)
        The batch to be explained.

    Returns
    -------
    int
        What the method's own ``passes`` says: the most that it can be where the work depends on the
        sample, or may end early.  Of a method without ``passes``, one forward pass, with a backward
        pass where it needs the gradient.
    """
    passes = getattr(explainer, "passes", None)
    if passes is None:
        return 3 if "gradient" in explainer.needs else 1
    return int(passes(model, x))


def missing_needs(needs: frozenset[str], model: Model) -> list[str]:
    """List what a method needs and a model lacks.

    Parameters
    ----------
    needs : frozenset of str
        What the method needs.
    model : Model
        The network.

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted(needs - model.capabilities)


def require(needs: frozenset[str], model: Model, method: str, runnable: Sequence[str] = ()) -> None:
    """Check that a model offers what a method needs.

    Parameters
    ----------
    needs : frozenset of str
        What the method needs.
    model : Model
        The network.
    method : str
        The method's name.
    runnable : sequence of str
        Methods that this model can run, for the message.

    Raises
    ------
    MissingCapabilityError
        If something is missing.
    """
    missing = missing_needs(needs, model)
    if missing:
        raise MissingCapabilityError(
            f"{method} needs {', '.join(missing)}, and this {model.framework} model offers "
            f"{', '.join(sorted(model.capabilities)) or 'nothing but its output'}",
            f"a model that offers {', '.join(sorted(needs))}",
            f"use one of {', '.join(runnable)}"
            if runnable
            else "pass the network itself instead of an exported copy",
        )
