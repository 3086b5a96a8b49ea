"""Running a network, and knowing what it takes, calls and returns."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from cnnviz_core.blended import Batch, Blended
from cnnviz_core.checks import check_inputs, out_of_memory
from cnnviz_core.errors import ArrayError, UnknownLayerError, UnsupportedModelError
from cnnviz_core.layers import find_layer
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, InputInfo, Inputs, input_node
from cnnviz_torch.arrays import to_tensor
from cnnviz_torch.blending import blended
from cnnviz_torch.capture import Action, Watch
from cnnviz_torch.inputs import (
    ChannelsLast,
    Output,
    Shape,
    reference_tensor,
    select,
    stem_checked,
    takes_names,
)
from cnnviz_torch.isolation import caller_of, isolated, random_states
from cnnviz_torch.logits import HeadFinder
from cnnviz_torch.trace import Structure, trace

__all__ = ["Network", "is_memory_error"]

# What has no class of its own: the CPU's memory, and that of Apple's devices.
_NO_MEMORY: Final = re.compile("DefaultCPUAllocator|backend out of memory")


class Network:
    """A network, with what is known of it.

    Parameters
    ----------
    module : nn.Module
        The user's own.
    inputs : mapping of str to InputInfo
        What it takes, as far as that is known.
    output : str, int, callable or None
        Which of several outputs is the main one.
    activation : str or None
        What turns the scores into probabilities; None to find it.
    batch : int or None
        The only batch size that it takes; None for any.

    Attributes
    ----------
    spreading : dict of str to bool
        Of the layers that were tried, whether equal samples may be computed once up to there; see
        `cnnviz_torch.spreading`.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Mapping[str, InputInfo],
        output: Output = None,
        activation: str | None = None,
        batch: int | None = None,
    ) -> None:
        self.module = module
        self.inputs = dict(inputs)
        self._output = output
        self._activation = activation
        self._batch = batch
        self.spreading: dict[str, bool] = {}
        self._caller = caller_of(module)
        self._by_name = takes_names(module, inputs)
        self._channels_last: set[str] = set()
        self._random = True  # until a run has shown that it draws no random numbers
        self._structure: Structure | None = None
        self._lock = threading.RLock()

    def twin(self, module: nn.Module) -> Network:
        """Say of a copy of the network's module what is known of the network.

        Parameters
        ----------
        module : nn.Module
            The copy.

        Returns
        -------
        Network
        """
        twin = Network(module, self.inputs, self._output, self._activation, self._batch)
        with self._lock:
            twin._channels_last = set(self._channels_last)
            twin._random = self._random
            twin._structure = self._structure
        return twin

    @property
    def activation(self) -> str:
        """What turns the logits into probabilities; "softmax" as long as no input was seen."""
        if self._activation is not None:
            return self._activation
        seen = self._structure is not None or self._example() is not None
        head = self.structure().head if seen else None
        return "softmax" if head is None else head.activation

    def checked(self, x: Inputs) -> dict[str, Batch]:
        """Check an input, and give it by name; see `cnnviz_core.checks.check_inputs`."""
        arrays = check_inputs(self.inputs, x, blended=True)
        n = len(next(iter(arrays.values())))
        if self._batch not in (None, n):
            raise ArrayError(
                f"a batch of {n} was given to a program exported for batches of {self._batch}",
                f"{self._batch} samples at a time",
                "export it with dynamic_shapes for the batch axis (torch.export.Dim)",
            )
        return arrays

    def sample(self, x: Inputs | None = None) -> dict[str, Batch]:
        """Give one sample of an input, or one of the declared shape.

        Parameters
        ----------
        x : ndarray (N, ...), or mapping of str to ndarray, optional
            An input.

        Returns
        -------
        dict of str to ndarray (1, ...)
            By the name of the input; of a program for batches of one size, a batch.

        Raises
        ------
        ArrayError
            If `x` does not fit, or is not given and no shape is declared.
        """
        arrays = self._example() if x is None else self.checked(x)
        if arrays is None:
            raise ArrayError(
                "the sizes of the network's layers depend on its input, whose shape is not known",
                "an input, or its shape",
                "pass a picture, or wrap the network with input_shape=(H, W, C)",
            )
        return {name: array[: self._batch or 1] for name, array in arrays.items()}

    def tensors(self, arrays: Mapping[str, Batch]) -> dict[str, torch.Tensor]:
        """Copy an input to the network's device and type; what is described is made there."""
        like = reference_tensor(self.module)
        tensors = {}
        for name, batch in arrays.items():
            make = blended if isinstance(batch, Blended) else to_tensor
            first = batch.ndim > 2 and not self.takes_channels_last(name)
            tensors[name] = make(batch, like, channels_first=first)
        return tensors

    @property
    def takes_any_batch(self) -> bool:
        """Whether batches may be of any size."""
        return self._batch is None

    def takes_channels_last(self, name: str) -> bool:
        """Tell whether the network itself takes an input with the channels on the last axis."""
        return name in self._channels_last

    @contextmanager
    def isolated(self, arrays: Mapping[str, Batch]) -> Iterator[None]:
        """Let the network be run without changing it.

        Parameters
        ----------
        arrays : mapping of str to (ndarray or Blended)
            The input that it will be run on.

        Yields
        ------
        None

        Raises
        ------
        OutOfMemoryError
            Inside, where torch runs out of memory.
        """
        with self.minding_memory(arrays), isolated(self.module, random=self._random):
            yield

    @contextmanager
    def minding_memory(self, arrays: Mapping[str, Batch]) -> Iterator[None]:
        """Say which input it was where torch runs out of memory.

        Parameters
        ----------
        arrays : mapping of str to (ndarray or Blended)
            The input.

        Yields
        ------
        None

        Raises
        ------
        OutOfMemoryError
            In the place of torch's own.
        """
        try:
            yield
        except RuntimeError as error:
            if is_memory_error(error):
                raise out_of_memory(arrays, str(error)) from error
            raise

    def run(self, tensors: Mapping[str, Any], structure: Structure) -> dict[str, torch.Tensor]:
        """Run the network.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            The inputs; the network may overwrite them.
        structure : Structure
            What is known of it.

        Returns
        -------
        dict of str to Tensor
            Its `OUTPUT` and its `LOGITS`.
        """
        if structure.head is None:
            output = self._call(tensors)
            return {OUTPUT: output, LOGITS: output}
        with HeadFinder(structure.head) as finder:
            output = self._call(tensors)
        found = finder.find(output)
        if found is None:
            raise UnsupportedModelError(
                f"the network ended in a {structure.head.activation} before, and not this time",
                "a network that goes the same way for every input",
                "wrap the part before the activation",
            )
        return {OUTPUT: output, LOGITS: found[1]}

    def _call(self, tensors: Mapping[str, Any]) -> torch.Tensor:
        """Call the network, and pick its main output."""
        returned = self._caller(**tensors) if self._by_name else self._caller(*tensors.values())
        return select(returned, self._output)

    def watch(self, structure: Structure, node: str, action: Action) -> Watch:
        """Say at which call of which module an action is to be done."""
        found = structure.nodes[find_layer(structure.layers, node).name]
        return self.module.get_submodule(found.module), found.call, action

    def input_of(self, node: str) -> str:
        """Give the name of the input that a node stands for."""
        names = list(self.inputs)
        name = names[0] if node == INPUT else node.removeprefix(f"{INPUT}:")
        if name not in names:
            raise UnknownLayerError(
                f"{node!r} is not an input of the network",
                f"{INPUT!r}, or '{INPUT}:' and one of {', '.join(names)}",
                "name one of these, or a layer",
            )
        return name

    def structure(self, arrays: Mapping[str, Batch] | None = None) -> Structure:
        """Give what a forward pass shows of the network; the first time, this takes one.

        Parameters
        ----------
        arrays : mapping of str to (ndarray or Blended), optional
            An input, of which the first sample is taken where the shape was not declared.

        Returns
        -------
        Structure

        Raises
        ------
        ArrayError
            If there is neither a declared shape nor an input.
        """
        with self._lock:
            if self._structure is None:
                example = self._example() or arrays
                if example is None:
                    raise ArrayError(
                        "the network's layers are not known before it has seen an input",
                        "the shape of its input",
                        "wrap it with input_shape=(H, W, C), or run forward once",
                    )
                n = self._batch or 1
                self._structure = self._trace({k: array[:n] for k, array in example.items()})
            return self._structure

    def _example(self) -> dict[str, Array] | None:
        """Make an input of the declared shape; None where it is not wholly known."""
        shapes = {name: info.shape for name, info in self.inputs.items()}
        if any(shape is None or None in shape for shape in shapes.values()):
            return None
        n = self._batch or 1
        return {k: np.zeros((n, *shape), self.inputs[k].dtype) for k, shape in shapes.items()}

    def _trace(self, arrays: Mapping[str, Batch]) -> Structure:
        """Run the network to see its structure, and whether it draws random numbers."""
        tensors = self.tensors(arrays)
        axes = max(tensor.ndim for tensor in tensors.values())

        def check(name: str, shape: Shape) -> None:
            if self.inputs[name].shape is None:
                self.inputs[name] = replace(self.inputs[name], shape=shape)
                check_inputs(self.inputs, arrays)

        last = self._channels_last
        first = not any(tensors[name].ndim == axes for name in last)
        try:
            with (
                self.isolated(arrays),
                torch.no_grad(),
                stem_checked(self.module, tensors, check, last),
            ):
                before = random_states(self.module)
                found = trace(self.module, lambda: self._call(tensors), tensors, first)
                self._random = not all(map(torch.equal, before, random_states(self.module)))
        except ChannelsLast as said:
            last.add(said.name)
            return self._trace(arrays)
        nodes = [INPUT, *map(input_node, self.inputs)]
        found = replace(
            found, channels_last=frozenset(node for node in nodes if self.input_of(node) in last)
        )
        if found.head is not None and self._activation not in (None, found.head.activation):
            return found.headless()
        return found


def is_memory_error(error: Exception) -> bool:
    """Tell whether it was for want of memory that torch raised an error."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))
