"""Finding the scores that a network's final softmax or sigmoid was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from cnnviz_torch.arrays import version_of

__all__ = ["Head", "HeadFinder"]

_ACTIVATIONS = {
    "softmax": "softmax",
    "log_softmax": "softmax",
    "sigmoid": "sigmoid",
    "special_expit": "sigmoid",
    "log_sigmoid": "sigmoid",
}
# What may follow the activation: changes of shape, type and place, not of value.
_HANDING_ON = frozenset(
    {
        "alias",
        "clone",
        "contiguous",
        "cpu",
        "cuda",
        "detach",
        "double",
        "flatten",
        "float",
        "movedim",
        "permute",
        "reshape",
        "squeeze",
        "to",
        "transpose",
        "unsqueeze",
        "view",
    }
)


@dataclass(frozen=True)
class Head:
    """The activation at a network's end.

    Attributes
    ----------
    activation : str
        "softmax" or "sigmoid".
    axes : int
        How many axes its scores have.
    axis : int
        Which of them counts the classes.
    classes : int
        How many there are.
    """

    activation: str
    axes: int
    axis: int
    classes: int


@dataclass(frozen=True)
class _Followed:
    """The result of an activation, or what became of it."""

    value: torch.Tensor
    version: int
    logits: torch.Tensor
    head: Head


class HeadFinder(TorchFunctionMode):
    """While it is active, notes what activations are given, and follows their results.

    Parameters
    ----------
    known : Head, optional
        The head that was found before: other activations are not followed, so their inputs are
        free to go.
    """

    def __init__(self, known: Head | None = None) -> None:
        super().__init__()
        self._known = known
        self._followed: dict[int, _Followed] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").split(".")[0].strip("_")
        if name in _ACTIVATIONS:
            return self._activation(_ACTIVATIONS[name], func, args, kwargs)
        result = func(*args, **kwargs)
        if name in _HANDING_ON and args and id(args[0]) in self._followed:
            before = self._followed[id(args[0])]
            if before.value is args[0] and isinstance(result, torch.Tensor):
                if name != "detach":
                    before = replace(before, logits=func(before.logits, *args[1:], **kwargs))
                self._follow(before, result)
        return result

    def _activation(self, activation: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call an activation, and keep what it was given."""
        scores = args[0] if args else kwargs.get("input")
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        head = _head(activation, scores, dim) if isinstance(scores, torch.Tensor) else None
        if head is None or self._known not in (None, head):
            return func(*args, **kwargs)
        logits = scores.clone()  # the activation may be in place
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self._follow(_Followed(result, 0, logits, head), result)
        return result

    def _follow(self, followed: _Followed, value: torch.Tensor) -> None:
        """Remember a value that holds the result of an activation."""
        followed = replace(followed, value=value, version=version_of(value))
        self._followed[id(value)] = followed

    def find(self, output: torch.Tensor) -> tuple[Head, torch.Tensor] | None:
        """Find the activation that an output is the result of.

        Parameters
        ----------
        output : Tensor
            What the network returned.

        Returns
        -------
        (Head, Tensor) or None
            The head, and the scores that it was given in the output's shape; None where the output
            is not what an activation gave.
        """
        found = self._followed.get(id(output))
        same = found is not None and found.value is output and found.version == version_of(output)
        return (found.head, found.logits) if same else None


def _head(activation: str, scores: torch.Tensor, dim: int | None) -> Head | None:
    """Describe an activation that may be the one at the network's end: one over classes."""
    axes = scores.ndim
    if activation == "sigmoid":
        axis = 1
    elif dim is None:  # as torch reads it
        axis = 0 if axes in (0, 1, 3) else 1
    else:
        axis = dim % max(axes, 1)
    over_classes = axes >= 2 and (axis == 1 or axis == axes - 1 == 2)
    return Head(activation, axes, axis, scores.shape[axis]) if over_classes else None
