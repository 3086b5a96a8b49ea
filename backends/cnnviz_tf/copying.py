"""Variables that stand for a network's own: a copy runs the same graph and reads these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cnnviz_core.checks import no_variable
from cnnviz_core.model import Array, as_float
from cnnviz_tf.parameters import laid_out, weights_of

__all__ = ["StandIns"]


class StandIns:
    """Copies of all variables of a network's layers.

    So whatever a layer's code is, it need not be built again: neither classes without a
    configuration nor layers that keep Python objects are in the way.

    Parameters
    ----------
    layers : iterable of keras.Layer
        The network and all layers inside it; none is changed.
    originals : StandIns, optional
        What stands for their variables already, where the network is a copy itself.
    """

    def __init__(self, layers: Iterable[Any], originals: StandIns | None = None) -> None:
        # By the identity of their resources, which have no equality; kept alive beside the copy.
        self._copies: dict[int, tuple[Any, tf.Variable]] = {}
        for variable in _variables(layers):
            if id(variable.handle) not in self._copies:
                value = variable if originals is None else originals._copy_of(variable)
                copy = tf.Variable(value.numpy(), trainable=False)
                self._copies[id(variable.handle)] = (variable.handle, copy)

    def stand_in(self, captured: Any) -> Any:
        """Give what a graph of the copy captures in the place of what the network's captured.

        Parameters
        ----------
        captured : tf.Tensor
            A variable's resource, or any other tensor.

        Returns
        -------
        tf.Tensor
            The resource of the variable that stands for that one; any other tensor as it is.
        """
        known = self._copies.get(id(captured))
        return captured if known is None else known[1].handle

    def arrays_of(self, layer: Any) -> Mapping[str, Array]:
        """Give what `cnnviz_tf.parameters.arrays_of` gives of a layer, in the copy.

        Parameters
        ----------
        layer : keras.Layer
            One of the network's.

        Returns
        -------
        dict of str to ndarray
            Copies.
        """
        views = laid_out(layer, self._values_of(layer))
        return {name: np.array(view, order="C") for name, view in views.items()}

    def write(self, layer: Any, arrays: Mapping[str, Array], name: str) -> None:
        """Write arrays to what stands for a layer's variables.

        Parameters
        ----------
        layer : keras.Layer
            One of the network's.
        arrays : mapping of str to ndarray
            Some of those that `arrays_of` gives, in their shapes.
        name : str
            The layer's name, for the message.

        Raises
        ------
        ArrayError
            If an array is no variable's.
        """
        values = self._values_of(layer)
        views = laid_out(layer, values)
        for key, array in arrays.items():
            if not any(np.may_share_memory(views[key], own) for own in values.values()):
                raise no_variable(name, key)
            views[key][...] = array
        for weight, value in zip(weights_of(layer).values(), values.values(), strict=True):
            copy = self._copy_of(weight)
            copy.assign(tf.cast(value, copy.dtype))

    def _values_of(self, layer: Any) -> dict[str, Array]:
        """Give the values of a layer's variables in the copy, to be written to."""
        return {
            name: np.array(as_float(self._copy_of(weight).numpy()), order="C")
            for name, weight in weights_of(layer).items()
        }

    def _copy_of(self, variable: Any) -> tf.Variable:
        """Give what stands for a variable."""
        return self._copies[id(variable.handle)][1]


def _variables(layers: Iterable[Any]) -> Iterator[Any]:
    """Go through the variables that layers have, those among them that Keras does not know of."""
    for layer in layers:
        yield from layer.variables
        yield from (value for value in vars(layer).values() if isinstance(value, tf.Variable))
