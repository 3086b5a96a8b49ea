"""The ``Explainer`` protocol, what an explainer returns, and how that becomes a map to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from cnnviz_core import maps as map_maths
from cnnviz_core.errors import ArrayError, MissingCapabilityError
from cnnviz_core.model import Array, Model
from cnnviz_core.targets import Target

__all__ = ["Explainer", "Maps", "Presentation", "missing_needs", "present", "require"]

Sign = Literal["positive", "absolute", "signed"]


@dataclass(frozen=True)
class Presentation:
    """How a method's raw numbers become one map for each sample.

    Attributes
    ----------
    sign : {"positive", "absolute", "signed"}
        Keep the positive part (class activation maps), the magnitude, or the sign.
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
        (N, H, W, C) for methods that attribute to input values.
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
    """

    raw: Array
    scores: Array | None = None
    targets: tuple[Target, ...] = ()
    layer: str | None = None
    presentation: Presentation = Presentation()
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.ndim(self.raw) not in (3, 4):
            raise ArrayError(
                f"an explainer returned a raw result of the shape {np.shape(self.raw)}",
                "(N, h, w), or (N, H, W, C)",
                "report it to the explainer's author",
            )
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "extras", MappingProxyType(dict(self.extras)))


@runtime_checkable
class Explainer(Protocol):
    """A method: a frozen dataclass whose fields are its parameters.

    Attributes
    ----------
    needs : frozenset of str
        The capabilities that a model must have (`Model.capabilities`).
    """

    needs: ClassVar[frozenset[str]]

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch, in the network's own value range.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
        """
        ...


def present(
    raw: Array, size: tuple[int, int], presentation: Presentation
) -> tuple[Array, list[str]]:
    """Make one map for each sample of a method's raw numbers.

    The channels are reduced first, then the sign is treated at the method's own resolution, and the
    map is resized last.  Nothing is normalised.

    Parameters
    ----------
    raw : ndarray (N, h, w) or (N, H, W, C)
        A method's own result.
    size : tuple of int
        (height, width) of the maps.
    presentation : Presentation
        How.

    Returns
    -------
    maps : ndarray (N, height, width)
    status : list of str
        For each sample "ok", "all-zero", "all-negative" (a map of which only the positive part is
        shown has none) or "non-finite".
    """
    flat = map_maths.reduce_channels(raw, presentation.reduce) if raw.ndim == 4 else raw
    if presentation.sign == "positive":
        shown = map_maths.relu(flat)
    elif presentation.sign == "absolute":
        shown = np.abs(flat)
    else:
        shown = flat
    status = map_maths.map_status(flat, shown)
    if shown.shape[1:] != tuple(size):
        shown = map_maths.resize(shown, size, presentation.upsample)
    return shown, status


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
