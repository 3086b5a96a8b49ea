"""Copying a network, with other arrays in some of its modules."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from cnnviz_core.checks import no_room_for_a_copy, no_variable
from cnnviz_core.errors import UnsupportedModelError
from cnnviz_core.model import Array
from cnnviz_torch.layers import tensors_of
from cnnviz_torch.trace import named_layers

__all__ = ["copied"]

# The graphs of an exported program, and what refers to them, hold tensors that cannot be copied.
_ONLY_READ: Final = ("graph", "input_placeholders", "meta")


def copied(network: nn.Module, arrays: Mapping[str, Mapping[str, Array]]) -> nn.Module:
    """Copy a network, and write arrays into the copy.

    Parameters
    ----------
    network : nn.Module
        The network; it is not changed.
    arrays : mapping of str to mapping of str to ndarray
        For some layers, as `cnnviz_torch.trace.named_layers` names them, some of the arrays that
        `cnnviz_torch.layers.arrays_of` gives, of its shapes.  Of what a parametrization computes,
        the result is written, and the parametrization ends.

    Returns
    -------
    nn.Module
        It shares no memory with the network.

    Raises
    ------
    ArrayError
        If an array is no tensor of the module.
    OutOfMemoryError
        If the memory does not suffice.
    UnsupportedModelError
        If the network cannot be copied.
    """
    twin = _copy(network)
    for name, _, module in list(named_layers(twin)):
        if arrays.get(name):
            _write(module, arrays[name], name)
    return twin


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network and everything in it."""
    memo = {
        id(part): part
        for module in network.modules()
        if type(module).__module__ == "torch.export.unflatten"
        for part in (vars(module).get(name) for name in _ONLY_READ)
    }
    try:
        # What was made in inference mode is copied to ordinary tensors.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # Of torch itself, where a program that it exported is copied.
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            return copy.deepcopy(network, memo)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise no_room_for_a_copy(str(error)) from error
    except Exception as error:  # whatever a user's own attributes raise
        raise UnsupportedModelError(
            f"the network cannot be copied ({type(error).__name__}: {error})",
            "a network that copy.deepcopy can copy",
            "keep open files, locks and results of its own calls out of its attributes, or give "
            "its class a __deepcopy__",
        ) from error


def _write(module: nn.Module, arrays: Mapping[str, Array], layer: str) -> None:
    """Write arrays into a module of a copy."""
    if parametrize.is_parametrized(module):
        _end_parametrizations(module)
    tensors = tensors_of(module)
    with torch.no_grad():
        for name, array in arrays.items():
            if name not in tensors:
                raise no_variable(layer, name)
            tensor = tensors[name]
            values = torch.from_numpy(np.require(array, requirements=["C", "W"]))
            tensor.copy_(values.reshape(tensor.shape))


def _end_parametrizations(module: nn.Module) -> None:
    """Let a module of a copy keep the parameters that it has computed so far.

    torch's own way takes them from the module's class, which it shares with the original.
    """
    computing: nn.Module = module.parametrizations.eval()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        values = {name: getattr(module, name).clone() for name, _ in computing.named_children()}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))
