"""The small networks on which backends and explainers are tested.

Each has random weights from a seed, an input that is not square, and something that backends get
wrong: in-place and reused rectifiers, uneven padding, skip connections, grouped convolutions, two
inputs, a head with a softmax, signals, volumes, tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.netspec import NetSpec, Op

__all__ = ["NETS", "random_input"]

SAME = ((1, 1), (1, 1))


class _Weights:
    """Draws a network's arrays, scaled so that signals keep their size."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.arrays: dict[str, Array] = {}

    def conv(
        self, layer: str, size: int, c_in: int, c_out: int, bias: bool = True, axes: int = 2
    ) -> None:
        scale = np.sqrt(2 / (size**axes * c_in))
        self.arrays[f"{layer}.weight"] = self._normal(*(size,) * axes, c_in, c_out) * scale
        if bias:
            self.arrays[f"{layer}.bias"] = self._normal(c_out) * 0.1

    def linear(self, layer: str, c_in: int, c_out: int) -> None:
        self.arrays[f"{layer}.weight"] = self._normal(c_in, c_out) * np.sqrt(1 / c_in)
        self.arrays[f"{layer}.bias"] = self._normal(c_out) * 0.1

    def norm(self, layer: str, channels: int, statistics: bool = True) -> None:
        self.arrays[f"{layer}.scale"] = self._rng.uniform(0.5, 1.5, channels)
        self.arrays[f"{layer}.shift"] = self._normal(channels) * 0.2
        if not statistics:
            return
        self.arrays[f"{layer}.mean"] = self._normal(channels) * 0.2
        self.arrays[f"{layer}.variance"] = self._rng.uniform(0.5, 1.5, channels)

    def _normal(self, *shape: int) -> Array:
        return self._rng.normal(size=shape)


def plain(seed: int = 0) -> NetSpec:
    """Two convolutions, global average pooling, one linear layer: what CAM asks for."""
    w = _Weights(seed)
    w.conv("conv1", 3, 3, 6)
    w.conv("conv2", 3, 6, 8)
    w.linear("fc", 8, 5)
    return NetSpec(
        {"image": (12, 9, 3)},
        (
            Op("conv1", "conv", ("image",), attrs={"padding": SAME}),
            Op("relu1", "relu", ("conv1",)),
            Op("pool1", "maxpool", ("relu1",), attrs={"window": (2, 2), "stride": (2, 2)}),
            Op("conv2", "conv", ("pool1",), attrs={"padding": SAME}),
            Op("relu2", "relu", ("conv2",)),
            Op("gap", "gap", ("relu2",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "plain",
    )


def strided(seed: int = 1) -> NetSpec:
    """Strides, uneven padding, dilation, overlapping pools, ReLU6, a flattened head."""
    w = _Weights(seed)
    w.conv("conv1", 3, 3, 6)
    w.conv("conv2", 3, 6, 6)
    w.arrays["conv1.weight"] *= 3  # so that some values reach the 6 of ReLU6
    w.linear("fc1", 3 * 2 * 6, 7)
    w.linear("fc2", 7, 4)
    return NetSpec(
        {"image": (17, 14, 3)},
        (
            Op(
                "conv1",
                "conv",
                ("image",),
                attrs={"stride": (2, 2), "padding": ((0, 1), (1, 0))},
            ),
            Op("relu1", "relu6", ("conv1",)),
            Op(
                "pool1",
                "maxpool",
                ("relu1",),
                attrs={"window": (3, 3), "stride": (1, 1), "padding": ((1, 0), (0, 1))},
            ),
            Op(
                "conv2",
                "conv",
                ("pool1",),
                attrs={"padding": ((2, 1), (1, 2)), "dilation": (2, 2)},
            ),
            Op("relu2", "relu", ("conv2",)),
            Op("pool2", "avgpool", ("relu2",), attrs={"window": (2, 2), "stride": (2, 2)}),
            Op("flat", "flatten", ("pool2",)),
            Op("fc1", "linear", ("flat",)),
            Op("relu3", "relu", ("fc1",)),
            Op("fc2", "linear", ("relu3",)),
        ),
        w.arrays,
        "strided",
    )


def residual(seed: int = 2) -> NetSpec:
    """Skip connections, batch norm, and one in-place rectifier called four times."""
    w = _Weights(seed)
    w.conv("stem", 3, 3, 8, bias=False)
    w.norm("bn0", 8)
    for block in (1, 2):
        for part in ("a", "b"):
            w.conv(f"conv{block}{part}", 3, 8, 8, bias=False)
            w.norm(f"bn{block}{part}", 8)
    w.linear("fc", 8, 5)
    ops = [
        Op("stem", "conv", ("image",), attrs={"padding": SAME, "stride": (2, 2)}),
        Op("bn0", "batchnorm", ("stem",)),
        Op("r0", "relu", ("bn0",), layer="relu", attrs={"inplace": True}),
    ]
    last = "r0"
    for block in (1, 2):
        a, b = f"{block}a", f"{block}b"
        ops += [
            Op(f"conv{a}", "conv", (last,), attrs={"padding": SAME}),
            Op(f"bn{a}", "batchnorm", (f"conv{a}",)),
            Op(f"r{a}", "relu", (f"bn{a}",), layer=f"relu{a}", attrs={"inplace": True}),
            Op(f"conv{b}", "conv", (f"r{a}",), attrs={"padding": SAME}),
            Op(f"bn{b}", "batchnorm", (f"conv{b}",)),
            Op(f"add{block}", "add", (f"bn{b}", last)),
            Op(f"r{block}", "relu", (f"add{block}",), layer="relu", attrs={"inplace": True}),
        ]
        last = f"r{block}"
    ops += [Op("gap", "gap", (last,)), Op("fc", "linear", ("gap",))]
    return NetSpec({"image": (11, 14, 3)}, tuple(ops), w.arrays, "residual")


def depthwise(seed: int = 3) -> NetSpec:
    """An inverted residual: 1x1, depthwise with a stride, grouped, ReLU6, batch norm."""
    w = _Weights(seed)
    w.conv("expand", 1, 3, 12, bias=False)
    w.norm("bn1", 12)
    w.conv("depthwise", 3, 1, 12, bias=False)
    w.norm("bn2", 12)
    w.conv("project", 1, 12, 6, bias=False)
    w.norm("bn3", 6)
    w.conv("grouped", 3, 3, 8)
    w.linear("fc", 8, 4)
    return NetSpec(
        {"image": (10, 13, 3)},
        (
            Op("expand", "conv", ("image",)),
            Op("bn1", "batchnorm", ("expand",), attrs={"epsilon": 1e-3}),
            Op("relu1", "relu6", ("bn1",), attrs={"inplace": True}),
            Op(
                "depthwise",
                "conv",
                ("relu1",),
                attrs={"groups": 12, "stride": (2, 2), "padding": ((0, 1), (0, 1))},
            ),
            Op("bn2", "batchnorm", ("depthwise",)),
            Op("relu2", "relu6", ("bn2",)),
            Op("project", "conv", ("relu2",)),
            Op("bn3", "batchnorm", ("project",)),
            Op("grouped", "conv", ("bn3",), attrs={"groups": 2, "padding": SAME}),
            Op("relu3", "relu", ("grouped",)),
            Op("gap", "gap", ("relu3",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "depthwise",
    )


def branches(seed: int = 4) -> NetSpec:
    """Two branches of different kernels, concatenated, with leaky rectifiers."""
    w = _Weights(seed)
    w.conv("stem", 3, 3, 6)
    w.conv("left", 1, 6, 4)
    w.conv("right", 3, 6, 4)
    w.linear("fc", 8, 3)
    return NetSpec(
        {"image": (9, 11, 3)},
        (
            Op("stem", "conv", ("image",), attrs={"padding": SAME}),
            Op("relu0", "leaky_relu", ("stem",), attrs={"slope": 0.125}),
            Op("left", "conv", ("relu0",)),
            Op("right", "conv", ("relu0",), attrs={"padding": SAME}),
            Op("relu_left", "relu", ("left",), attrs={"functional": True}),
            Op("relu_right", "relu", ("right",), attrs={"functional": True, "inplace": True}),
            Op("concat", "concat", ("relu_left", "relu_right")),
            Op("gap", "gap", ("concat",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "branches",
    )


def softmax_head(seed: int = 5) -> NetSpec:
    """`plain` with a softmax at its end."""
    net = plain(seed)
    return NetSpec(
        net.inputs, (*net.ops, Op("softmax", "softmax", ("fc",))), net.parameters, "softmax_head"
    )


def sigmoid_head(seed: int = 6) -> NetSpec:
    """`plain` with a sigmoid at its end."""
    net = plain(seed)
    return NetSpec(
        net.inputs, (*net.ops, Op("sigmoid", "sigmoid", ("fc",))), net.parameters, "sigmoid_head"
    )


def two_inputs(seed: int = 7) -> NetSpec:
    """A picture and a vector, joined before the head."""
    w = _Weights(seed)
    w.conv("conv", 3, 3, 6)
    w.linear("embed", 4, 6)
    w.linear("fc", 12, 5)
    return NetSpec(
        {"image": (8, 10, 3), "vector": (4,)},
        (
            Op("conv", "conv", ("image",), attrs={"padding": SAME}),
            Op("relu1", "relu", ("conv",)),
            Op("gap", "gap", ("relu1",)),
            Op("embed", "linear", ("vector",)),
            Op("relu2", "relu", ("embed",)),
            Op("concat", "concat", ("gap", "relu2")),
            Op("fc", "linear", ("concat",)),
        ),
        w.arrays,
        "two_inputs",
    )


def smooth(seed: int = 8) -> NetSpec:
    """A network without any rectifier: a ReLU rule would change nothing."""
    w = _Weights(seed)
    w.conv("conv1", 3, 3, 4)
    w.conv("conv2", 3, 4, 4)
    w.linear("fc", 4, 3)
    return NetSpec(
        {"image": (8, 7, 3)},
        (
            Op("conv1", "conv", ("image",), attrs={"padding": SAME}),
            Op("pool", "avgpool", ("conv1",), attrs={"window": (2, 2), "stride": (2, 2)}),
            Op("conv2", "conv", ("pool",), attrs={"padding": SAME}),
            Op("gap", "gap", ("conv2",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "smooth",
    )


def signal(seed: int = 9) -> NetSpec:
    """A network on signals: a stride, uneven padding, dilation, groups, batch norm, pools."""
    w = _Weights(seed)
    w.conv("conv1", 5, 3, 6, bias=False, axes=1)
    w.norm("bn1", 6)
    w.conv("conv2", 3, 3, 8, axes=1)
    w.conv("conv3", 3, 8, 8, axes=1)
    w.linear("fc", 8, 5)
    return NetSpec(
        {"signal": (41, 3)},
        (
            Op("conv1", "conv", ("signal",), attrs={"stride": (2,), "padding": ((2, 1),)}),
            Op("bn1", "batchnorm", ("conv1",)),
            Op("relu1", "relu", ("bn1",), attrs={"inplace": True}),
            Op(
                "pool1",
                "maxpool",
                ("relu1",),
                attrs={"window": (3,), "stride": (2,), "padding": ((0, 1),)},
            ),
            Op(
                "conv2",
                "conv",
                ("pool1",),
                attrs={"padding": ((1, 2),), "dilation": (2,), "groups": 2},
            ),
            Op("relu2", "relu", ("conv2",)),
            Op("pool2", "avgpool", ("relu2",), attrs={"window": (2,), "stride": (1,)}),
            Op("conv3", "conv", ("pool2",), attrs={"padding": ((1, 1),)}),
            Op("relu3", "relu", ("conv3",)),
            Op("gap", "gap", ("relu3",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "signal",
    )


def volume(seed: int = 10) -> NetSpec:
    """A network on volumes, whose axes are all treated differently.

    It has no pools but the last: TensorFlow has none for volumes in double precision.
    """
    w = _Weights(seed)
    w.conv("conv1", 3, 2, 4, bias=False, axes=3)
    w.norm("bn1", 4)
    w.conv("conv2", 2, 4, 6, axes=3)
    w.conv("conv3", 2, 6, 6, axes=3)
    w.linear("fc", 6, 4)
    return NetSpec(
        {"volume": (7, 8, 6, 2)},
        (
            Op(
                "conv1",
                "conv",
                ("volume",),
                attrs={"stride": (1, 2, 1), "padding": ((1, 1), (0, 1), (1, 0))},
            ),
            Op("bn1", "batchnorm", ("conv1",)),
            Op("relu1", "relu", ("bn1",)),
            Op(
                "conv2",
                "conv",
                ("relu1",),
                attrs={"padding": ((1, 0), (0, 1), (1, 1)), "dilation": (1, 1, 2)},
            ),
            Op("relu2", "relu", ("conv2",)),
            Op(
                "conv3",
                "conv",
                ("relu2",),
                attrs={"stride": (2, 1, 2), "padding": ((1, 1), (0, 0), (0, 0))},
            ),
            Op("relu3", "relu", ("conv3",)),
            Op("gap", "gap", ("relu3",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "volume",
    )


def swish(seed: int = 11) -> NetSpec:
    """A residual network that is smooth and not linear: SiLU in the place of rectifiers."""
    w = _Weights(seed)
    w.conv("conv1", 3, 3, 6)
    w.conv("conv2", 3, 6, 6)
    w.conv("conv3", 3, 6, 6, bias=False)
    w.norm("bn3", 6)
    w.linear("fc", 6, 4)
    return NetSpec(
        {"image": (9, 11, 3)},
        (
            Op("conv1", "conv", ("image",), attrs={"padding": SAME}),
            Op("silu1", "silu", ("conv1",)),
            Op("pool1", "avgpool", ("silu1",)),
            Op("conv2", "conv", ("pool1",), attrs={"padding": SAME}),
            Op("silu2", "silu", ("conv2",)),
            Op("conv3", "conv", ("silu2",), attrs={"padding": SAME}),
            Op("bn3", "batchnorm", ("conv3",)),
            Op("add", "add", ("bn3", "pool1")),
            Op("silu3", "silu", ("add",)),
            Op("gap", "gap", ("silu3",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "swish",
    )


def tokens(seed: int = 12) -> NetSpec:
    """Patches as tokens, with layer norm and a residual block: a transformer less its attention."""
    w = _Weights(seed)
    w.conv("patches", 3, 3, 8)
    w.norm("norm1", 8, statistics=False)
    w.linear("expand", 8, 12)
    w.linear("project", 12, 8)
    w.norm("norm2", 8, statistics=False)
    w.linear("fc", 8, 5)
    return NetSpec(
        {"image": (12, 9, 3)},
        (
            Op("patches", "conv", ("image",), attrs={"stride": (3, 3)}),
            Op("tokens", "tokens", ("patches",)),
            Op("norm1", "layernorm", ("tokens",)),
            Op("expand", "linear", ("norm1",)),
            Op("relu", "relu", ("expand",)),
            Op("project", "linear", ("relu",)),
            Op("add", "add", ("project", "tokens")),
            Op("norm2", "layernorm", ("add",)),
            Op("gap", "gap", ("norm2",)),
            Op("fc", "linear", ("gap",)),
        ),
        w.arrays,
        "tokens",
    )


NETS: dict[str, Callable[..., NetSpec]] = {
    net.__name__: net
    for net in (
        plain,
        strided,
        residual,
        depthwise,
        branches,
        softmax_head,
        sigmoid_head,
        two_inputs,
        smooth,
        signal,
        volume,
        swish,
        tokens,
    )
}
"""Every network, by name; each takes a seed."""


def random_input(net: NetSpec, n: int = 2, seed: int = 0) -> dict[str, Array]:
    """Draw a batch for a network.

    Parameters
    ----------
    net : NetSpec
        The network.
    n : int
        How many samples.
    seed : int
        For NumPy's generator.

    Returns
    -------
    dict of str to ndarray (n, ...)
        Standard normal, float32, one array for each input.
    """
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in net.inputs.items()
    }
