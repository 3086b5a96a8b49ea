"""The derivative of a vector-Jacobian product in a direction: a backward pass through one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from cnnviz_core.errors import UnsupportedModelError
from cnnviz_torch.graph import Node, operations

__all__ = ["bent", "twice_differentiable"]

# What torch says of operations without a second derivative.
_REFUSED = re.compile(r"not implemented|twice|double.?backward|second.?order", re.IGNORECASE)

_lock = threading.Lock()
_plain: list[ExitStack | None] = []


def bent(
    root: torch.Tensor,
    leaf: torch.Tensor,
    cotangent: torch.Tensor,
    direction: torch.Tensor,
    nodes: Iterable[Node],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Differentiate twice.

    Parameters
    ----------
    root : Tensor
        The value that is differentiated; it depends on `leaf`.
    leaf : Tensor
        What it is differentiated with respect to.
    cotangent : Tensor
        Of the shape of `root`; held fixed.
    direction : Tensor
        Of the shape of `leaf`.
    nodes : iterable of Node
        The operations between them.

    Returns
    -------
    gradient, tangent, bend : Tensor
        ``J^T cotangent``, ``J direction``, and the derivative of the first along `direction`.

    Raises
    ------
    UnsupportedModelError
        If an operation on the way has no second derivative.

    Notes
    -----
    The gradient is linear in the cotangent, so the derivative of its product with the direction
    by the cotangent is ``J direction``: one backward pass through the backward pass gives both.
    """
    cotangent.requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(
            root, leaf, cotangent, create_graph=True, materialize_grads=True
        )
        if not gradient.requires_grad:
            tangent, bend = torch.zeros_like(root), torch.zeros_like(leaf)
        else:
            tangent, bend = torch.autograd.grad(
                gradient, (cotangent, leaf), direction, materialize_grads=True
            )
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not _REFUSED.search(str(error)):
            raise
        raise _without_second(str(error).splitlines()[0]) from error
    # A user's own function may leave autograd's graph on its way back.  Of those that say so it
    # keeps a node, but no edge by which it would notice; of the others the numbers tell.
    once = any(node.name().endswith("Error") for node in operations(gradient))
    own = any(isinstance(node, BackwardCFunction) for node in nodes)
    if once or (own and not _adjoint(gradient, direction, cotangent, tangent)):
        raise _without_second("the backward of an autograd.Function leaves the recorded graph")
    return gradient, tangent, bend


def _adjoint(
    gradient: torch.Tensor, direction: torch.Tensor, cotangent: torch.Tensor, tangent: torch.Tensor
) -> bool:
    """Tell whether ``<J^T c, v>`` is ``<c, J v>`` up to rounding."""

    def terms(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.detach().cpu().double() * b.detach().cpu().double()

    one, two = terms(gradient, direction), terms(cotangent, tangent)
    bound = torch.finfo(gradient.dtype).eps ** 0.6 * (one.abs().sum() + two.abs().sum())
    return not bool((one.sum() - two.sum()).abs() > bound)  # of what is NaN no more is known


def _without_second(what: str) -> UnsupportedModelError:
    """Say that there is no second derivative."""
    return UnsupportedModelError(
        f"an operation of the network has no second derivative in torch: {what}",
        "operations that torch can differentiate twice",
        "use a method of first derivatives, or a layer behind that operation",
    )


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let a network compute what torch differentiates once only in ways that it can do twice.

    These are attention, of which the fused forms have no second derivative, and hardsigmoid.  The
    form of attention is one choice for the whole process.
    """
    with _lock:
        _plain.append(None if _plain else _attention())
    try:
        with _Spelt():
            yield
    finally:
        with _lock:
            if len(_plain) == 1 and _plain[0] is not None:
                _plain[0].close()
            _plain.pop()


def _attention() -> ExitStack:
    """Have attention computed by plain operations, until this is closed."""
    stack = ExitStack()
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack


class _Spelt(TorchFunctionMode):
    """While it is active, a hardsigmoid is a ReLU6, shifted and scaled, as it is defined."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").split(".")[0]
        if name not in ("hardsigmoid", "hardsigmoid_"):
            return func(*args, **kwargs)
        x, *rest = (*args, *kwargs.values())
        value = torch.nn.functional.relu6(x + 3) / 6
        return x.copy_(value) if name.endswith("_") or any(rest) else value
