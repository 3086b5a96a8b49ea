"""Whether the derivative of what a network computes is that of the operations it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz_core.model import LOGITS, Array
from cnnviz_torch.capture import watching
from cnnviz_torch.graph import bottom_up, is_opaque
from cnnviz_torch.network import Network
from cnnviz_torch.program.feeding import fed, running
from cnnviz_torch.program.program import Program, Unrunnable
from cnnviz_torch.trace import Structure

__all__ = ["differentiates"]

# How far gradients may be off, in the norm: a rectifier near zero may open or close.
_NEAR: Final = 5e-2
# What lets a network's own code have its way with a gradient.
_INTERFERING: Final = frozenset({"register_hook", "register_post_accumulate_grad_hook"})


def differentiates(
    network: Network, structure: Structure, program: Program, arrays: Mapping[str, Array]
) -> bool:
    """Tell whether a program's gradients are the network's.

    They are not where the network has functions with derivatives of their own, hooks on gradients,
    or parts that it does not record; nor where an operation has no derivative.

    Parameters
    ----------
    network : Network
        The network.
    structure : Structure
        What is known of it.
    program : Program
        Its operations.
    arrays : mapping of str to ndarray
        An input to try both on.

    Returns
    -------
    bool
    """
    expected = _of_network(network, structure, arrays)
    found = None if expected is None else _of_program(network, program, arrays)
    if expected is None or found is None:
        return False
    return all(
        bool((a - b).norm() <= _NEAR * b.norm()) for a, b in zip(found, expected, strict=True)
    )


def _of_network(
    network: Network, structure: Structure, arrays: Mapping[str, Array]
) -> list[torch.Tensor] | None:
    """Compute a gradient at the network's inputs; None where its own code takes a hand in it."""
    leaves = {name: t.requires_grad_() for name, t in network.tensors(arrays).items()}
    values: list[torch.Tensor] = []
    watches = [network.watch(structure, node, values.append) for node in structure.layers]
    own = _Own()
    with network.isolated(arrays), network.minding_memory(arrays), torch.enable_grad():
        try:
            fed = {name: leaf.clone() for name, leaf in leaves.items()}  # may be overwritten
            with watching(watches), own.noted():
                ends = network.run(fed, structure)
            roots = [v.grad_fn for v in (*values, *ends.values()) if v.grad_fn is not None]
            if own.found or any(map(_is_theirs, bottom_up(roots))):
                return None
            return _gradients(ends[LOGITS], leaves.values())
        except RuntimeError:  # an operation has no derivative, or refuses to be recorded
            return None


def _of_program(
    network: Network, program: Program, arrays: Mapping[str, Array]
) -> list[torch.Tensor] | None:
    """Compute the same by the program."""
    slot = program.marks[LOGITS]
    with running(network, arrays), torch.enable_grad():
        given = fed(network, program, arrays)
        leaves = {s: t.detach().requires_grad_() for s, t in given.items()}
        n = len(next(iter(arrays.values())))
        try:
            return _gradients(program.run(leaves, [slot], n)[slot], leaves.values())
        except (RuntimeError, Unrunnable):
            return None


def _gradients(root: torch.Tensor, leaves: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Differentiate the logits by the inputs."""
    seed = root.detach().cos()
    return list(torch.autograd.grad(root, list(leaves), seed, materialize_grads=True))


def _is_theirs(node: Any) -> bool:
    """Tell whether what autograd recorded is no operation of torch's."""
    return is_opaque(node) or node.name().endswith("BackwardHookFunctionBackward")


class _Own:
    """Notes what a network's own code does about its gradients.

    Attributes
    ----------
    found : bool
        Whether it does anything.
    """

    def __init__(self) -> None:
        self.found = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note it in this block."""
        with _Unrecorded(self), _Calls(self):
            yield


class _Unrecorded(TorchDispatchMode):
    """Notes operations that run while recording is switched off."""

    def __init__(self, own: _Own) -> None:
        super().__init__()
        self._own = own

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to keep its compiler away, for which it would load it: slowly."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._own.found |= not torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Notes hooks on gradients, and looks at what autograd recorded, which may get hooks."""

    def __init__(self, own: _Own) -> None:
        super().__init__()
        self._own = own

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        looks = getattr(func, "__self__", None) is torch.Tensor.grad_fn
        self._own.found |= looks or getattr(func, "__name__", "") in _INTERFERING
        return func(*args, **(kwargs or {}))
