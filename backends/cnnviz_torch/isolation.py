"""Running a network so that nothing of it is changed, whatever happens on the way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["caller_of", "isolated", "random_states"]

_lock = threading.Lock()
# What was set by someone who is still running: several threads may look at one network, and the
# last one to leave restores what the first one found.
_training: dict[int, tuple[nn.Module, Any, int]] = {}
_eager: list[Any] = []
_one_at_a_time = threading.RLock()


@contextmanager
def isolated(network: nn.Module, *, random: bool) -> Iterator[None]:
    """Let a network be run in evaluation mode, and restore everything afterwards.

    Parameters
    ----------
    network : nn.Module
        Its modules' training flags are cleared one by one (``train()`` and ``eval()`` may be
        overridden) and restored.
    random : bool
        Whether the network draws random numbers, so that the generators' states are to be restored.

    Yields
    ------
    None
        In this block, inference mode is off, and nothing that ``torch.compile`` made is used: it
        would skip hooks added after it was compiled.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if random:
            stack.enter_context(_same_random_state(network))
        stack.enter_context(_without_compiled_code())
        stack.enter_context(_evaluating(network))
        yield


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Clear the training flags, and restore each."""
    held: list[int] = []
    try:
        with _lock:
            for module in network.modules():
                key = id(module)
                if key in _training:
                    _, flag, users = _training[key]
                elif module.training:
                    flag, users = module.training, 0
                    module.training = False
                else:
                    continue
                _training[key] = (module, flag, users + 1)
                held.append(key)
        yield
    finally:
        with _lock:
            for key in held:
                module, flag, users = _training.pop(key)
                if users > 1:
                    _training[key] = (module, flag, users - 1)
                else:
                    module.training = flag


@contextmanager
def _without_compiled_code() -> Iterator[None]:
    """Let ``torch.compile``'s products run their original code."""
    if "torch._dynamo" not in sys.modules:  # nothing can have been compiled; importing it is slow
        yield
        return
    with _lock:
        # The stance is one for the whole process, and is set as soon as the object is made.
        _eager.append(None if _eager else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            if len(_eager) == 1:
                _eager[0].__exit__(None, None, None)
                _eager.clear()
            else:
                _eager.pop()


@contextmanager
def _same_random_state(network: nn.Module) -> Iterator[None]:
    """Restore the states of the random generators that the network may draw from."""
    saved = [(put, get()) for get, put in _generators(network)]
    try:
        yield
    finally:
        for put, state in saved:
            put(state)


def random_states(network: nn.Module) -> list[torch.Tensor]:
    """Read the states of the random generators that a network may draw from.

    Parameters
    ----------
    network : nn.Module
        The network.

    Returns
    -------
    list of Tensor
        Of the CPU's generator and of those of the devices that hold its parameters.
    """
    return [get() for get, _ in _generators(network)]


def _generators(network: nn.Module) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    """Give how to read and how to write the state of each generator."""
    yield torch.get_rng_state, torch.set_rng_state
    for device in {parameter.device for parameter in network.parameters()}:
        if device.type == "mps":  # of which there is one
            yield torch.mps.get_rng_state, torch.mps.set_rng_state
        elif device.type != "cpu":
            module = torch.get_device_module(device)
            yield (
                partial(module.get_rng_state, device),
                partial(module.set_rng_state, device=device),
            )


def caller_of(network: nn.Module) -> Callable[..., Any]:
    """Find how to call a network so that its calculation can be recorded.

    Parameters
    ----------
    network : nn.Module
        A network, perhaps one whose parameters were made in inference mode (autograd refuses to
        save these) or one that counts its calls.

    Returns
    -------
    callable
        Called as the network is.
    """
    tensors = (*network.named_parameters(), *network.named_buffers())
    frozen = {name: tensor for name, tensor in tensors if tensor.is_inference()}
    if frozen:

        def call(*args: Any, **kwargs: Any) -> Any:
            # Puts the clones into the modules for the length of the call, so one thread at a time.
            with _one_at_a_time:
                clones = {name: tensor.clone() for name, tensor in frozen.items()}
                return torch.func.functional_call(network, clones, args, kwargs)

        return call
    if type(network).__module__ == "torch.export.unflatten":

        def call_alone(*args: Any, **kwargs: Any) -> Any:
            # An unflattened program keeps, in its modules, which of their calls comes next.
            with _one_at_a_time:
                return network(*args, **kwargs)

        return call_alone
    return network
