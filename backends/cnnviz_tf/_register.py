"""Announces the TensorFlow backend; imports no framework."""

from __future__ import annotations

from collections.abc import Iterable

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import BackendSpec

__all__ = ["cnnviz_backends"]


@hookimpl
def cnnviz_backends() -> Iterable[BackendSpec]:
    """Announce the backend for TensorFlow and Keras."""
    return [
        BackendSpec(
            name="tensorflow",
            wrap="cnnviz_tf.model:wrap",
            packages=("tensorflow", "keras", "tf_keras"),
            accepts="cnnviz_tf.accepts:accepts",
            describe="cnnviz_tf.published:describe",
            sources={"keras": "cnnviz_tf.sources:load_application"},
            suffixes={
                ".keras": "cnnviz_tf.sources:load_keras_file",
                ".h5": "cnnviz_tf.sources:load_keras_file",
                "saved_model.pb": "cnnviz_tf.sources:load_saved_model",
            },
            extra="tf",
            build="cnnviz_tf.build:build",
            path_of="cnnviz_tf.paths:path_of",
            pooled="cnnviz_tf.heads:pooled",
            fitted="cnnviz_tf.heads:fitted",
        )
    ]
