"""Where in a network a module is."""

from __future__ import annotations

from torch import nn

from cnnviz_torch.model import unwrapped
from cnnviz_torch.trace import named_layers

__all__ = ["path_of"]


def path_of(native: object, layer: object) -> str | None:
    """Find the path of a layer inside a network.

    Parameters
    ----------
    native : nn.Module or torch.export.ExportedProgram
        The network; compiled and data-parallel ones are looked into.
    layer : object
        One of its modules, perhaps compiled or data-parallel itself.

    Returns
    -------
    str or None
        As `cnnviz_core.model.LayerInfo.path` has it; of a module that stands in several places the
        first.  None where it is no layer of this network: the network itself, a module of another
        one, or of an exported program, whose layers are its own.
    """
    if not isinstance(native, nn.Module) or not isinstance(layer, nn.Module):
        return None
    paths = {module: path for path, _, module in named_layers(unwrapped(native))}
    return paths.get(layer, paths.get(unwrapped(layer)))
