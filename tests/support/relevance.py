"""What tests of relevance methods share, and the rules of relevance written plainly."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.layer_matrices import divided

EPSILON = 1e-6
LOW, HIGH = np.array([-6.0, -5.0, -5.5]), np.array([5.0, 6.0, 5.5])
SEEDS = st.integers(0, 10_000)


def case(net, n=2, seed=5, dtype="float64"):
    """Make the reference model of a network, by name or itself, and draw a batch for it."""
    net = NETS[net]() if isinstance(net, str) else net
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


def explain(method, model, x, targets, **params):
    """Run a method by its name."""
    return get_registry().explainer(method, **params).explain(model, x, targets)


def total(maps):
    """Give the sum of each sample's relevance."""
    return maps.raw.reshape(len(maps.raw), -1).sum(1)


def split(contributions, bias, relevance, epsilon=EPSILON):
    """Split relevance in proportion to contributions (outputs, inputs)."""
    z = contributions.sum(1) + bias
    return contributions.T @ divided(relevance, z + epsilon * np.where(z >= 0, 1, -1))


def by_epsilon(layers, op, x, relevance, epsilon=EPSILON):
    """Split among all contributions."""
    return split(layers.matrix(op) * x, layers.bias(op), relevance, epsilon)


def by_sign(alpha, beta):
    """Give the step that splits among contributions of either sign on its own."""

    def step(layers, op, x, relevance):
        c, b = layers.matrix(op) * x, layers.bias(op)
        up = split(np.maximum(c, 0), np.maximum(b, 0), relevance)
        down = split(np.minimum(c, 0), np.minimum(b, 0), relevance)
        return alpha * up - beta * down

    return step


def by_gamma(gamma):
    """Give the step that favours contributions of the result's own sign."""

    def step(layers, op, x, relevance):
        c, b = layers.matrix(op) * x, layers.bias(op)
        above = layers.values[op.name].ravel() > 0
        up, up_bias = (v + gamma * np.maximum(v, 0) for v in (c, b))
        down, down_bias = (v + gamma * np.minimum(v, 0) for v in (c, b))
        return split(up, up_bias, np.where(above, relevance, 0)) + split(
            down, down_bias, np.where(above, 0, relevance)
        )

    return step


def by_box(layers, op, x, relevance):
    """Split among what inputs contribute beyond their bounds."""
    w = layers.matrix(op)
    pixels = layers.values[op.inputs[0]]
    low, high = (np.broadcast_to(end, pixels.shape).ravel() for end in (LOW, HIGH))
    return split(w * x - np.maximum(w, 0) * low - np.minimum(w, 0) * high, 0, relevance)


def by_squares(layers, op, x, relevance):
    """Split in proportion to squared weights."""
    return split(layers.matrix(op) ** 2, layers.bias(op) ** 2, relevance)


def evenly(layers, op, x, relevance):
    """Split evenly among all that a result reads."""
    return split(layers.matrix(op, np.ones_like), 0, relevance)


def lrp_0(layers, op, x, relevance):
    """Split among all contributions, without a stabiliser."""
    return by_epsilon(layers, op, x, relevance, 0)


Z_PLUS, TWO_ONE = by_sign(1, 0), by_sign(2, 1)

PLAINLY = {
    "epsilon-plus": (Z_PLUS, by_epsilon, None),
    "epsilon-plus-flat": (Z_PLUS, by_epsilon, evenly),
    "epsilon-gamma-box": (by_gamma(0.25), by_epsilon, by_box),
    "epsilon-alpha2-beta1": (TWO_ONE, by_epsilon, None),
    "epsilon-alpha2-beta1-flat": (TWO_ONE, by_epsilon, evenly),
    "lrp-0": (lrp_0, lrp_0, None),
    "epsilon": (by_epsilon, by_epsilon, None),
    "gamma": (by_gamma(0.25), by_gamma(0.25), None),
    "alpha2-beta1": (TWO_ONE, TWO_ONE, None),
    "z-plus": (Z_PLUS, Z_PLUS, None),
    "w-square": (by_squares, by_squares, None),
    "flat": (evenly, evenly, None),
}
"""Of each composite the step of convolutions, of dense layers, and of the first layer."""


def relevances(layers, relevance, conv, linear, first):
    """Give the relevance of every value of a chain."""
    found = {layers.ops[-1].name: relevance}
    for op in reversed(layers.ops):
        x = layers.values[op.inputs[0]].ravel()
        shared = lrp_0 if conv is lrp_0 else by_epsilon
        steps = {"conv": conv, "linear": linear, "gap": shared, "avgpool": shared}
        if first and op is layers.ops[0]:
            steps["conv"] = first
        step = steps.get(op.kind)
        relevance = step(layers, op, x, relevance) if step else layers.matrix(op).T @ relevance
        found[op.inputs[0]] = relevance
    return {name: given.reshape(layers.values[name].shape) for name, given in found.items()}
