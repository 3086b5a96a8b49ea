"""Looking at layers' values while a network runs: forward hooks that live for one call."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from cnnviz_torch.arrays import main_tensor, substitute

__all__ = ["Action", "Watch", "hooked", "watching"]

Action: TypeAlias = Callable[[torch.Tensor], torch.Tensor | None]
"""What to do with a value: look at it, or return what is to be handed on in its place."""
Watch: TypeAlias = tuple[nn.Module, int, Action]
"""A module, which of its calls (from 0), and what to do with the value that this call returns."""


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Add a forward hook to modules that fires in this thread only, and remove it.

    Parameters
    ----------
    modules : iterable of nn.Module
        Where to add it.
    hook : callable
        Of (module, args, output), as for ``register_forward_hook``.

    Yields
    ------
    None
    """
    thread = threading.get_ident()

    def guarded(module: nn.Module, args: Any, output: Any) -> Any:
        return hook(module, args, output) if threading.get_ident() == thread else None

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(guarded))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watching(watches: Iterable[Watch]) -> Iterator[None]:
    """Have actions done on the values of certain calls of certain modules.

    Parameters
    ----------
    watches : iterable of (nn.Module, int, callable)
        A module, which of its calls (from 0), and what to do with the first floating-point tensor
        that this call returns.  Several actions at one call see each other's results.

    Yields
    ------
    None
    """
    wanted: dict[nn.Module, dict[int, list[Action]]] = {}
    for module, call, action in watches:
        wanted.setdefault(module, {}).setdefault(call, []).append(action)
    calls: dict[nn.Module, int] = defaultdict(int)

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        call = calls[module]
        calls[module] += 1
        value = first = main_tensor(output)
        if first is None or call not in wanted[module]:
            return None
        for action in wanted[module][call]:
            result = action(value)
            value = value if result is None else result
        return None if value is first else substitute(output, first, value)

    with hooked(wanted, hook):
        yield
