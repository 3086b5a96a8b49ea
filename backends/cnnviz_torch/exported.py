"""Programs exported by ``torch.export``."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from cnnviz_torch.inputs import Shape

__all__ = ["exported_inputs", "unflattened"]


def unflattened(program: torch.export.ExportedProgram) -> nn.Module:
    """Make a network with the layers that a program was exported from.

    Hooks do not fire on ``program.module()``, which has no layers.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program.

    Returns
    -------
    nn.Module
    """
    with warnings.catch_warnings():  # torch copies its own deprecated class
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
        return torch.export.unflatten(program)


def exported_inputs(program: Any) -> tuple[dict[str, Shape], int | None]:
    """Say what an exported program takes.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program.

    Returns
    -------
    shapes : dict of str to tuple
        Of every input, without the batch axis, channels last; None for any size.
    batch : int or None
        The one batch size that it was exported for; None for any.
    """
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    sizes = {
        name: [n if isinstance(n, int) else None for n in values[name].shape]
        for name in program.graph_signature.user_inputs
        if isinstance(values.get(name), torch.Tensor)
    }
    shapes = {name: (*n[2:], *n[1:2]) for name, n in sizes.items()}
    return shapes, next(iter(sizes.values()))[0]
