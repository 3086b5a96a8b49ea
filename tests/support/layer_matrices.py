"""The operations of a reference network, written out as matrices."""

from __future__ import annotations

from itertools import product

import numpy as np

from cnnviz_core.testing.reference import ReferenceModel


def convolution(op, weight, shape):
    """Give the matrix (outputs, inputs) of a convolution, one pair of positions after the other."""
    size = shape[:-1]
    *window, c_in, c_out = weight.shape
    groups = op.attrs["groups"]
    grid = [
        (n + sum(pad) - d * (k - 1) - 1) // s + 1
        for n, pad, d, k, s in zip(
            size, op.attrs["padding"], op.attrs["dilation"], window, op.attrs["stride"], strict=True
        )
    ]
    matrix = np.zeros((*grid, c_out, *shape))
    block = np.zeros((*window, c_out, c_in * groups))
    for group in range(groups):
        ins = slice(group * c_in, (group + 1) * c_in)
        outs = slice(group * c_out // groups, (group + 1) * c_out // groups)
        block[..., outs, ins] = np.moveaxis(weight[..., outs], -1, -2)
    for at in product(*map(range, grid)):
        for place in product(*map(range, window)):
            read = tuple(
                i * s + k * d - pad[0]
                for i, k, s, d, pad in zip(
                    at,
                    place,
                    op.attrs["stride"],
                    op.attrs["dilation"],
                    op.attrs["padding"],
                    strict=True,
                )
            )
            if all(0 <= i < n for i, n in zip(read, size, strict=True)):
                matrix[(*at, slice(None), *read)] += block[place]
    return matrix.reshape(np.prod(matrix.shape[: len(grid) + 1]), -1)


def pool(op, x, value, average):
    """Give the matrix of a pool: of its winners, or of an average."""
    size, channels = x.shape[:-1], x.shape[-1]
    window = size if op.kind == "gap" else op.attrs["window"]
    stride = window if op.kind == "gap" else op.attrs["stride"]
    pads = op.attrs.get("padding", ((0, 0),) * len(size))
    matrix = np.zeros((*value.reshape(-1, channels).shape, *x.shape))
    grid = [1] * len(size) if op.kind == "gap" else value.shape[:-1]
    for row, at in enumerate(product(*map(range, grid))):
        seen = [
            place
            for place in product(
                *(
                    range(i * s - p[0], i * s - p[0] + k)
                    for i, s, p, k in zip(at, stride, pads, window, strict=True)
                )
            )
            if all(0 <= i < n for i, n in zip(place, size, strict=True))
        ]
        for c in range(channels):
            if average:
                for place in seen:
                    matrix[(row, c, *place, c)] = 1 / len(seen)
            else:
                matrix[(row, c, *max(seen, key=lambda place, c=c: x[(*place, c)]), c)] = 1
    return matrix.reshape(value.size, x.size)


class Layers:
    """The operations of a network that is a chain, on one sample: matrices, biases and values."""

    def __init__(self, net, x, biases=True):
        model = ReferenceModel(net, "float64")
        end = net.ops[-1].kind == "softmax"
        self.ops = net.ops[: len(net.ops) - end]
        trace = model.forward(x[None], capture=[net.node(op) for op in self.ops])
        self.values = {op.name: trace[net.node(op)][0] for op in self.ops}
        self.values[next(iter(net.inputs))] = x
        self.net, self.biases = net, biases

    def matrix(self, op, make=lambda weight: weight):
        """Give an operation's matrix, of weights that are changed first."""
        x, value = self.values[op.inputs[0]], self.values[op.name]
        if op.kind == "conv":
            return convolution(op, make(self.net.parameters[f"{op.layer}.weight"]), x.shape)
        if op.kind == "linear":
            return make(self.net.parameters[f"{op.layer}.weight"]).T
        if op.kind in ("maxpool", "avgpool", "gap"):
            return pool(op, x, value, op.kind != "maxpool")
        return np.eye(x.size)

    def bias(self, op):
        """Give the bias of every output, or zeros if biases are to take nothing."""
        bias = self.net.parameters.get(f"{op.layer}.bias", 0.0) if self.biases else 0.0
        return np.broadcast_to(bias, self.values[op.name].shape).ravel()


def divided(relevance, z):
    """Divide, where there is something to divide by."""
    return np.divide(relevance, z, out=np.zeros_like(relevance), where=z != 0)
