"""Networks built alike in both frameworks are randomised alike, and fall alike.

A copy with other arrays is compared with a network that was built with them by the conformance
kit; here it is the cascade of random weights, whose draws must not depend on the framework.
"""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_cam.centre_gaussian import CentreGaussian
from cnnviz_cam.grad_cam import GradCAM
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_gradient.gradient_x_input import GradientXInput
from cnnviz_metrics.sanity import SanityCheck, cascade, randomised_parts

BACKENDS = {"torch": cnnviz_torch, "tensorflow": cnnviz_tf}


def models(name, dtype="float64"):
    """Give a network in both frameworks and in NumPy."""
    net = NETS[name]()
    built = {
        framework: backend.model.wrap(backend.build.build(net, dtype=dtype))
        for framework, backend in BACKENDS.items()
    }
    return {**built, "numpy": ReferenceModel(net, dtype)}


def batch(model, explainer, name):
    """Explain two pictures."""
    x = random_input(NETS[name](), 2, seed=8)["image"].astype(np.float64)
    targets = (ClassScore(1), ClassScore(0))
    maps = explainer.explain(model, x, targets)
    return Explained(model, explainer, x, maps, (Annotation(), Annotation()), seed=3)


@pytest.mark.parametrize("name", ["residual", "depthwise", "branches", "volume", "tokens"])
def test_the_cascade_is_the_same(name, near):
    x = next(iter(random_input(NETS[name](), 2, seed=8).values())).astype(np.float64)
    found, known = {}, models(name)
    parts = randomised_parts(known["numpy"], x)
    for framework, model in known.items():
        # Branches that do not depend on each other may come in any order.
        order = sorted if name == "branches" else list
        assert order(randomised_parts(model, x)) == order(parts)
        copies = cascade(model, parts, seed=3)
        found[framework] = np.stack([copy.forward(x).logits for copy in copies])
    expected = found.pop("numpy")
    for logits in found.values():
        near("logits of randomised copies", logits, expected, 1e-6)


@pytest.mark.parametrize(
    ("name", "explainer", "order"),
    [
        ("residual", GradientXInput(), "cascade"),
        ("residual", GradCAM(), "independent"),
        ("residual", CentreGaussian(), "cascade"),
        ("depthwise", GradCAM(), "cascade"),
        ("branches", GradientXInput(), "cascade"),
    ],
)
def test_the_sanity_check_is_the_same(name, explainer, order, near):
    metric = SanityCheck(order, parts=3)
    records = {
        framework: metric.measure(batch(model, explainer, name))
        for framework, model in models(name).items()
    }
    expected = records.pop("numpy")
    for record in records.values():
        for key, values in record.items():
            near(f"{key} after randomisation", values, expected[key], 1e-6)
            if isinstance(explainer, CentreGaussian):
                np.testing.assert_allclose(values, 1, rtol=1e-12)
