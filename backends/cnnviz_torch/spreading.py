"""Equal samples of a batch computed once up to a layer, and as often as they occur behind it.

One picture explained for many targets is a batch of equal rows.  Where all of a network goes
through a layer's value, what lies before the layer is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from cnnviz_core.blended import Batch, Blended
from cnnviz_core.errors import ArrayError
from cnnviz_core.fast import fast_paths
from cnnviz_core.layers import find_layer, is_special
from cnnviz_core.model import Array
from cnnviz_core.repeated import repeated_rows
from cnnviz_torch.capture import Watch, watching
from cnnviz_torch.network import Network, is_memory_error
from cnnviz_torch.trace import Structure

__all__ = ["Spread", "spread_at"]

_CLOSE: Final = {torch.float32: 1e-5, torch.float64: 1e-12}
"""How far values may be off, as a share of the largest: rounding of another batch."""

Ends = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Spread:
    """The distinct rows of a batch, and the layer from which on all rows are there.

    Attributes
    ----------
    network : Network
    structure : Structure
    node : str
        The layer.
    arrays : mapping of str to ndarray (D, ...)
        The distinct rows.
    first : ndarray (D,) of int
        Where in the batch each of them is first.
    row_of : ndarray (N,) of int
        For each row of the batch the distinct one.
    """

    network: Network
    structure: Structure
    node: str
    arrays: Mapping[str, Array]
    first: Array
    row_of: Array

    @property
    def watch(self) -> Watch:
        """What hands on a row of the layer's value for each row of the batch, not to write to.

        It is a copy, which perhaps is one row in memory.
        """
        return self._handing_on(self.row_of, copy=False)

    def gives(self, values: Mapping[str, torch.Tensor | Array]) -> bool:
        """Tell whether values have a row for each row of the batch."""
        return all(len(value) == len(self.row_of) for value in values.values())

    def is_sound(self, ends: Ends | None = None) -> bool:
        """Tell whether the network does the same for few rows as for many.

        Its code may read the size of a batch before the layer and use it behind.  So each layer is
        tried once: one more row goes through all of the network, and must give the same.

        Parameters
        ----------
        ends : mapping of str to Tensor, optional
            The output and logits that were found for the batch.

        Returns
        -------
        bool
        """
        known = self.network.spreading
        if self.node not in known:
            more = np.append(np.arange(len(self.first)), 0)
            with torch.no_grad():
                if ends is None:
                    found = self._run(self.arrays, [self._handing_on(more)])
                elif self.gives(ends):
                    found = {node: value[self.first[more]] for node, value in ends.items()}
                else:
                    return known.setdefault(self.node, False)
                right = self._run({name: array[more] for name, array in self.arrays.items()}, [])
            known[self.node] = all(_same(found[node], right[node]) for node in right)
        return known[self.node]

    def reject(self, error: Exception) -> None:
        """Note that the layer cannot be treated so, as the network raises what it would not.

        A lack of memory, and a replacement that does not fit, are no fault of it.
        """
        if not is_memory_error(error) and not isinstance(error, ArrayError):
            self.network.spreading[self.node] = False

    def _run(self, arrays: Mapping[str, Array], watches: Sequence[Watch]) -> Ends:
        """Run the network on some rows."""
        with watching(watches):
            return self.network.run(self.network.tensors(arrays), self.structure)

    def _handing_on(self, rows: Array, copy: bool = True) -> Watch:
        """Say what is done at the layer."""

        def act(value: torch.Tensor) -> torch.Tensor:
            if len(value) != len(self.first):
                raise ValueError("the layer's value has no row for each sample")
            if len(value) == 1 and not copy:
                return value.clone().expand(len(rows), *value.shape[1:])
            return value.index_select(0, torch.from_numpy(rows).to(value.device))

        return self.network.watch(self.structure, self.node, act)


def spread_at(
    network: Network, structure: Structure, arrays: Mapping[str, Batch], nodes: Sequence[str]
) -> Spread | None:
    """Find out whether equal rows of a batch may be computed once, up to a layer.

    Parameters
    ----------
    network : Network
        The network.
    structure : Structure
        What is known of it.
    arrays : mapping of str to (ndarray or Blended)
        The batch.
    nodes : sequence of str
        The layers that are asked about.

    Returns
    -------
    Spread or None
        None where there are no equal rows, or several layers, or the layer is passed by.
    """
    if len(nodes) != 1 or is_special(nodes[0]) or len(arrays) != 1:
        return None
    if not structure.cuts or not fast_paths():
        return None
    node = find_layer(structure.layers, nodes[0]).name
    ((name, batch),) = arrays.items()
    if node not in structure.cuts or isinstance(batch, Blended):
        return None
    if not network.takes_any_batch or not network.spreading.get(node, True):
        return None
    first, row_of = repeated_rows(batch)
    if len(first) == len(batch):
        return None
    return Spread(network, structure, node, {name: batch[first]}, first, row_of)


def _same(found: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether values are the same, but for rounding."""
    if found.shape != right.shape:
        return False
    error = (found - right).abs().max()
    return bool(error <= _CLOSE.get(right.dtype, 1e-2) * right.abs().max())
