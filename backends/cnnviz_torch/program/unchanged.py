"""Noticing that a network is no longer what it was."""

from __future__ import annotations

from torch import nn

from cnnviz_torch.arrays import version_of

__all__ = ["Unchanged"]


class Unchanged:
    """Tells whether a network's layers, parameters and buffers are those that it had.

    What is written through ``.data`` is not seen, as torch does not count it.

    Parameters
    ----------
    network : nn.Module
        The network, as it is now.
    """

    def __init__(self, network: nn.Module) -> None:
        self._held = [
            (part, name, value)
            for module in network.modules()
            for part in (module._modules, module._parameters, module._buffers)
            for name, value in part.items()
        ]
        self._tensors = [
            (tensor, tensor.data_ptr(), version_of(tensor))
            for tensor in (*network.parameters(), *network.buffers())
            if not tensor.is_sparse
        ]

    def holds(self) -> bool:
        """Tell it.

        Returns
        -------
        bool
        """
        return all(part.get(name) is value for part, name, value in self._held) and all(
            tensor.data_ptr() == place and version_of(tensor) == version
            for tensor, place, version in self._tensors
        )
