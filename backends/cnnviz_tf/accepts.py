"""Which objects the TensorFlow backend takes; imports no framework."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["accepts", "is_saved_model", "keras_of"]


def accepts(native: object) -> bool:
    """Tell whether an object is a network of Keras or TensorFlow.

    Keras models are taken whatever engine they run on, so that `cnnviz_tf.model.wrap` can say what
    is wrong with the others.

    Parameters
    ----------
    native : object
        Anything.

    Returns
    -------
    bool
        True for layers and models of Keras and tf_keras, ``tf.Module``, and what
        ``tf.saved_model.load`` and ``tf.function`` give.
    """
    if keras_of(native) is not None:
        return True
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return False
    kinds = tf.types.experimental
    return isinstance(
        native, (tf.Module, kinds.PolymorphicFunction, kinds.ConcreteFunction)
    ) or is_saved_model(native)


def keras_of(native: object) -> Any | None:
    """Give the Keras (keras or tf_keras) that an object is a layer of, without importing any.

    Parameters
    ----------
    native : object
        Anything.

    Returns
    -------
    module or None
    """
    for name in ("keras", "tf_keras"):
        keras = sys.modules.get(name)
        if keras is not None and isinstance(native, keras.layers.Layer):
            return keras
    return None


def is_saved_model(native: object) -> bool:
    """Tell whether ``tf.saved_model.load`` gave an object.

    Parameters
    ----------
    native : object
        Anything.

    Returns
    -------
    bool
    """
    ours = type(native).__module__.startswith("tensorflow.")
    return ours and isinstance(getattr(native, "signatures", None), Mapping)
