"""The TensorFlow backend passes the conformance kit."""

from __future__ import annotations

from cnnviz_core.testing.backend import BackendConformance
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap


class TestTensorFlow(BackendConformance):
    tried_layers = 2

    def build(self, net):
        return wrap(build(net))
