"""Where in a Keras model a layer is."""

from __future__ import annotations

from cnnviz_tf.accepts import keras_of
from cnnviz_tf.capture import layer_paths

__all__ = ["path_of"]


def path_of(native: object, layer: object) -> str | None:
    """Find the path of a layer inside a network.

    Parameters
    ----------
    native : object
        A Keras model or layer, or any other network that this backend takes.
    layer : object
        A layer.

    Returns
    -------
    str or None
        As `cnnviz_core.model.LayerInfo.path` has it.  None where it is no layer of this network:
        the network itself, a layer of another one, or any where the network is not of Keras.
    """
    if keras_of(native) is None:
        return None
    return next((path for path, known in layer_paths(native).items() if known is layer), None)
