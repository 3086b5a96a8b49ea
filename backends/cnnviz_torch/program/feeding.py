"""How arrays come to a program: the inputs, and where and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from cnnviz_core.blended import Batch, Blended
from cnnviz_torch.arrays import to_tensor
from cnnviz_torch.blending import blended
from cnnviz_torch.inputs import reference_tensor
from cnnviz_torch.network import Network
from cnnviz_torch.program.program import Program

__all__ = ["as_tensor", "device_of", "fed", "running"]


def device_of(network: Network) -> torch.device:
    """Tell where a network takes its inputs.

    Parameters
    ----------
    network : Network
        The network.

    Returns
    -------
    torch.device
    """
    like = reference_tensor(network.module)
    return torch.device("cpu") if like is None else like.device


def fed(network: Network, program: Program, arrays: Mapping[str, Batch]) -> dict[int, torch.Tensor]:
    """Copy an input to the slots of a program.

    Parameters
    ----------
    network : Network
        Of which it is the program.
    program : Program
        The program.
    arrays : mapping of str to (ndarray or Blended)
        By the name of the input.

    Returns
    -------
    dict of int to Tensor
    """
    given = {}
    for name, slot in program.inputs.items():
        like = torch.empty(0, dtype=program.dtypes[slot], device=device_of(network))
        first = arrays[name].ndim > 2 and not network.takes_channels_last(name)
        given[slot] = as_tensor(arrays[name], like, first)
    return given


def as_tensor(batch: Batch, like: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Copy a batch; in memory it has its channels last, whatever the order of its axes.

    Parameters
    ----------
    batch : ndarray (N, ..., C) or Blended
        The batch.
    like : Tensor
        Whose type and device to take.
    channels_first : bool
        Whether to move the last axis to the second place.

    Returns
    -------
    Tensor
        Of its own memory.
    """
    make: Callable[..., torch.Tensor] = blended if isinstance(batch, Blended) else to_tensor
    made = make(batch, like, channels_first=False)
    return made.movedim(-1, 1) if channels_first else made


@contextmanager
def running(network: Network, arrays: Mapping[str, Batch]) -> Iterator[None]:
    """Let operations be what they were when they were noted.

    Parameters
    ----------
    network : Network
        Of which it is the program.
    arrays : mapping of str to (ndarray or Blended)
        What it will be run on.

    Raises
    ------
    OutOfMemoryError
        Inside, where torch runs out of memory.
    """
    with (
        network.minding_memory(arrays),
        torch.inference_mode(False),
        torch.autocast(device_of(network).type, enabled=False),
    ):
        yield
