"""A network's program, and what the network itself gave for some samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from cnnviz_core.blended import Batch
from cnnviz_core.model import LOGITS, OUTPUT, Array
from cnnviz_torch.capture import Action, watching
from cnnviz_torch.network import Network
from cnnviz_torch.program.feeding import fed, running
from cnnviz_torch.program.program import Program, Size, Unrunnable, generalised
from cnnviz_torch.program.tape import Tape, Taping, Untaped
from cnnviz_torch.trace import Structure

__all__ = ["Trial", "noted"]

# The sizes of the batches that are noted, and one of which nothing was noted.  Some networks treat
# single samples otherwise; of these, two other sizes may still have the same operations.
_SIZES: Final = ((1, 2, 3), (2, 3, 1))
# How far values may be off, as a share of the largest: rounding of another order of sums.
_CLOSE: Final = {torch.float32: 1e-5, torch.float64: 1e-12}
_ROUGH: Final = frozenset({torch.float16, torch.bfloat16})


@dataclass(frozen=True)
class Trial:
    """Samples, and what a network gives for them.

    Attributes
    ----------
    samples : mapping of str to ndarray (n, ...)
        Different ones, by the name of the input.
    ends : mapping of str to Tensor (n, ...)
        The network's `OUTPUT` and `LOGITS`.
    unseen : int
        How many samples the network was never run on at a time.
    """

    samples: Mapping[str, Array]
    ends: Mapping[str, torch.Tensor]
    unseen: int

    def first(self, n: int) -> dict[str, Array]:
        """Give a batch of these samples.

        Parameters
        ----------
        n : int
            How many; beyond those that there are, they are repeated.

        Returns
        -------
        dict of str to ndarray (n, ...)
        """
        return {name: array[np.arange(n) % len(array)] for name, array in self.samples.items()}

    def passed(self, network: Network, program: Program, n: int) -> bool:
        """Tell whether a program gives what the network gives.

        Parameters
        ----------
        network : Network
            The network.
        program : Program
            The program.
        n : int
            How many samples to try it on at a time.

        Returns
        -------
        bool
        """
        arrays = self.first(n)
        with running(network, arrays), torch.no_grad():
            try:
                slots = {program.marks[node] for node in self.ends}
                found = program.run(fed(network, program, arrays), slots, n)
            except Unrunnable:
                return False
        at = torch.arange(n) % len(next(iter(self.samples.values())))
        return all(
            _is_close(found[program.marks[node]], value[at.to(value.device)])
            for node, value in self.ends.items()
        )


def noted(
    network: Network, structure: Structure, arrays: Mapping[str, Batch]
) -> tuple[Program, Trial]:
    """Note a network's operations.

    Parameters
    ----------
    network : Network
        The network; it is run on a few samples.
    structure : Structure
        What is known of it.
    arrays : mapping of str to ndarray
        A sample.

    Returns
    -------
    Program
        With what is constant computed.
    Trial
        To try it, and what is made of it.

    Raises
    ------
    Untaped
        If the operations differ from input to input, cannot be repeated, or let the samples of a
        batch influence each other.
    """
    problem = ""
    for small, large, unseen in _SIZES:
        samples = {name: _samples(array, large) for name, array in arrays.items()}
        fewer = {name: array[large - small :] for name, array in samples.items()}
        (one, some), (two, ends) = (_taped(network, structure, x) for x in (fewer, samples))
        if not _ROUGH.isdisjoint(one.dtypes.values()):
            raise Untaped("in half precision another order of sums makes a difference")
        try:
            program = generalised(one, two, (small, large)).tidied()
        except Untaped as said:
            problem = str(said)
            continue
        if not {OUTPUT, LOGITS} <= program.marks.keys():
            raise Untaped("what it returns does not depend on its input")
        for node, value in ends.items():
            shape = program.shapes[program.marks[node]]
            if not shape or shape[0] != Size(1):
                raise Untaped("what it returns has not one row for each sample")
            if not _is_close(some[node], value[large - small :]):
                raise Untaped("the samples of a batch influence each other")
        return program, Trial(samples, ends, unseen)
    raise Untaped(problem)


def _samples(array: Batch, n: int) -> Array:
    """Make different samples of one, so that what depends on the input shows."""
    first = np.asarray(array[:1])
    height = 0.1 * (np.abs(first).max() or 1)
    wave = height * np.cos(np.arange(first.size, dtype=first.dtype)).reshape(first.shape)
    rows = [first * first.dtype.type(1 - k / (n + 1)) + k * wave for k in range(n)]
    return np.concatenate(rows).astype(first.dtype)


def _taped(
    network: Network, structure: Structure, arrays: Mapping[str, Array]
) -> tuple[Tape, dict[str, torch.Tensor]]:
    """Run the network, and note its operations; gives what it returned, too."""
    tensors = network.tensors(arrays)
    taping = Taping(tensors)

    def mark(node: str) -> Action:
        return lambda value: taping.handed_on(node, value)

    watches = [network.watch(structure, node, mark(node)) for node in structure.layers]
    with network.isolated(arrays), torch.no_grad(), watching(watches):
        try:
            with taping.noting():
                ends = network.run(tensors, structure)
        except Exception as error:  # the network's own, for samples that are not the user's
            raise Untaped(f"it fails: {error}") from None
    for node, value in ends.items():
        taping.mark(node, value)
    return taping.finished(), {node: value.clone() for node, value in ends.items()}


def _is_close(found: torch.Tensor, value: torch.Tensor) -> bool:
    """Tell whether two values are the same but for rounding."""
    if found.shape != value.shape or found.dtype != value.dtype:
        return False
    error = (found - value).abs().max()
    return bool(error <= _CLOSE[value.dtype] * value.abs().max())
