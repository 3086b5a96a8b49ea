"""A torch network made of a `NetSpec`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import ParameterError
from cnnviz_core.model import Array
from cnnviz_core.netspec import NetSpec, Op

__all__ = ["SpecNetwork", "build"]


class Add(nn.Module):
    """Adds up."""

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return sum(given[1:], given[0])


class Concat(nn.Module):
    """Puts channels side by side."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Return all channels."""
        return torch.cat(given, self.axis)


class Flatten(nn.Flatten):
    """Flattens in the order (..., C), as channels-last frameworks do."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return one row for each sample."""
        return super().forward(given.movedim(self.axis, -1))


class Tokens(nn.Flatten):
    """Makes a token of each position: (N, C, ...grid) becomes (N, positions, C)."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return one row of channels for each position."""
        return super().forward(given).transpose(1, 2)


class GlobalAveragePool(nn.Module):
    """Averages over the positions."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return one value for each channel."""
        channels = self.axis % given.ndim
        return given.mean([axis for axis in range(1, given.ndim) if axis != channels])


class _Padded:
    """A convolution that may pad each side differently."""

    def __init__(self, *args: Any, padding: Sequence[tuple[int, int]], **kwargs: Any) -> None:
        even = all(before == after for before, after in padding)
        within = tuple(before for before, _ in padding) if even else 0
        super().__init__(*args, padding=within, **kwargs)
        self.sides = () if even else _sides(padding)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the convolution of the padded values."""
        return super().forward(F.pad(given, self.sides) if self.sides else given)


class PaddedConv1d(_Padded, nn.Conv1d):
    """A convolution of signals that may pad each end differently."""


class PaddedConv2d(_Padded, nn.Conv2d):
    """A convolution of pictures that may pad each side differently."""


class PaddedConv3d(_Padded, nn.Conv3d):
    """A convolution of volumes that may pad each side differently."""


class _PaddedPool:
    """A max-pool that may pad each side differently; padded positions never win."""

    def __init__(self, *args: Any, padding: Sequence[tuple[int, int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sides = _sides(padding) if any(map(any, padding)) else ()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the greatest values of the padded windows."""
        padded = F.pad(given, self.sides, value=-torch.inf) if self.sides else given
        return super().forward(padded)


class PaddedMaxPool1d(_PaddedPool, nn.MaxPool1d):
    """A max-pool of signals that may pad each end differently."""


class PaddedMaxPool2d(_PaddedPool, nn.MaxPool2d):
    """A max-pool of pictures that may pad each side differently."""


class PaddedMaxPool3d(_PaddedPool, nn.MaxPool3d):
    """A max-pool of volumes that may pad each side differently."""


class _Positionwise:
    """A layer on the channels of each position, where they are on the second axis."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the new channels, on the second axis."""
        return super().forward(given.movedim(1, -1)).movedim(-1, 1)


class PositionwiseLinear(_Positionwise, nn.Linear):
    """A linear layer on the channels of each position."""


class PositionwiseLayerNorm(_Positionwise, nn.LayerNorm):
    """A layer normalisation of the channels of each position."""


class SpecNetwork(nn.Module):
    """A network that computes what a `NetSpec` says.

    Parameters
    ----------
    net : NetSpec
        The network as data.

    Attributes
    ----------
    input_shapes : dict of str to tuple of int
        Each input's shape without the batch axis, channels last.
    """

    def __init__(self, net: NetSpec) -> None:
        super().__init__()
        self.input_shapes = dict(net.inputs)
        self._ops = net.ops
        self._inplace = _overwriting(net)
        shapes, tokens = net.shapes(), _tokens(net)
        layers = {op.layer: op for op in net.ops if not op.attrs.get("functional")}
        for layer, op in layers.items():
            arrays = net.of_layer(layer)
            *outer, name = layer.split(".")
            parent: nn.Module = self
            for part in outer:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            axis = -1 if op.inputs[0] in tokens else 1
            module = _module(op, shapes[op.inputs[0]], axis, arrays, layer in self._inplace)
            parent.add_module(name, module)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Parameters
        ----------
        *inputs : Tensor (N, C, ...grid)
            One for each of `input_shapes`, in this order.

        Returns
        -------
        Tensor
            The last operation's result.
        """
        values = dict(zip(self.input_shapes, inputs, strict=True))
        for op in self._ops:
            given = [values[name] for name in op.inputs]
            if op.attrs.get("functional"):
                values[op.name] = _rectify(op, given[0], op.layer in self._inplace)
            else:
                values[op.name] = self.get_submodule(op.layer)(*given)
        return values[self._ops[-1].name]


def build(net: NetSpec, dtype: str = "float32") -> SpecNetwork:
    """Make a network of a `NetSpec`.

    Parameters
    ----------
    net : NetSpec
        The network as data.  A layer's name with dots is a path of nested modules.
    dtype : {"float32", "float64"}
        The type in which it computes.

    Returns
    -------
    SpecNetwork
        In evaluation mode; every layer of `net` is a module of its name, but functional rectifiers.

    Raises
    ------
    ParameterError
        If the type is another.
    """
    if dtype not in ("float32", "float64"):
        raise ParameterError(f"dtype is {dtype!r}", "'float32' or 'float64'", "pass one of these")
    with torch.random.fork_rng([]):  # modules draw values for the arrays that are put in below
        network = SpecNetwork(net).to(getattr(torch, dtype)).eval()
    for layer in dict.fromkeys(op.layer for op in net.ops):
        arrays = net.of_layer(layer)
        if arrays:
            tensors = {_NAMES.get(k, k): torch.from_numpy(_native(v)) for k, v in arrays.items()}
            network.get_submodule(layer).load_state_dict(tensors, strict=False)
    return network


_NAMES = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}


def _native(array: Array) -> Array:
    """Give an array as torch has it: the channels that a weight makes come first."""
    if array.ndim == 1:
        return np.array(array)
    return np.array(array.transpose(-1, -2, *range(array.ndim - 2)), order="C")


def _overwriting(net: NetSpec) -> set[str]:
    """Name the layers that may overwrite what they are given: nothing else reads it."""
    readers = Counter(name for op in net.ops for name in op.inputs)
    asked = {op.layer for op in net.ops if op.attrs.get("inplace")}
    shared = {op.layer for op in net.ops if readers[op.inputs[0]] > 1 or op.inputs[0] in net.inputs}
    return asked - shared


def _rectify(op: Op, given: torch.Tensor, inplace: bool) -> torch.Tensor:
    """Call a rectifier that is no layer."""
    if op.kind == "leaky_relu":
        return F.leaky_relu(given, op.attrs["slope"], inplace)
    return {"relu": F.relu, "relu6": F.relu6}[op.kind](given, inplace)


def _tokens(net: NetSpec) -> set[str]:
    """Name the results that are tokens, which have their channels on the last axis."""
    shapes, tokens = net.shapes(), set()
    for op in net.ops:
        kept = op.inputs[0] in tokens and len(shapes[op.name]) == 2
        if kept and op.kind in _OF_GRIDS:
            raise ParameterError(
                f"operation {op.name!r} of {net.name!r} slides over tokens",
                "a grid, or operations on each token by itself",
                "put it before the grid becomes tokens",
            )
        if kept or op.kind == "tokens":
            tokens.add(op.name)
    return tokens


_OF_GRIDS = ("avgpool", "batchnorm", "conv", "maxpool")
_CONVOLUTIONS = (PaddedConv1d, PaddedConv2d, PaddedConv3d)
_MAX_POOLS = (PaddedMaxPool1d, PaddedMaxPool2d, PaddedMaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _module(
    op: Op, shape: tuple[int, ...], axis: int, arrays: Mapping[str, Array], inplace: bool
) -> nn.Module:
    """Make an operation's module.

    `shape` is that of its first input, channels last; `axis` is where torch has these channels.
    """
    attrs, axes = op.attrs, len(shape) - 1
    weight = arrays["weight"].shape if "weight" in arrays else ()
    as_torch = axes == 0 or axis == -1
    match op.kind:
        case "conv":
            return _CONVOLUTIONS[axes - 1](
                weight[-2] * attrs["groups"],
                weight[-1],
                weight[:-2],
                attrs["stride"],
                dilation=attrs["dilation"],
                groups=attrs["groups"],
                bias="bias" in arrays,
                padding=attrs["padding"],
            )
        case "linear":
            linear = nn.Linear if as_torch else PositionwiseLinear
            return linear(*weight, bias="bias" in arrays)
        case "batchnorm":
            return _BATCH_NORMS[axes](shape[-1], eps=attrs["epsilon"])
        case "layernorm":
            norm = nn.LayerNorm if as_torch else PositionwiseLayerNorm
            return norm(shape[-1], eps=attrs["epsilon"])
        case "maxpool":
            pool = _MAX_POOLS[axes - 1]
            return pool(attrs["window"], attrs["stride"], padding=attrs["padding"])
        case "avgpool":
            return _AVERAGE_POOLS[axes - 1](attrs["window"], attrs["stride"])
        case "leaky_relu":
            return nn.LeakyReLU(attrs["slope"], inplace)
        case "relu" | "relu6":
            return {"relu": nn.ReLU, "relu6": nn.ReLU6}[op.kind](inplace)
        case "softmax":
            return nn.Softmax(dim=axis)
        case "concat" | "flatten" | "gap":
            return {"concat": Concat, "flatten": Flatten, "gap": GlobalAveragePool}[op.kind](axis)
        case kind:
            return _SIMPLE[kind]()


_SIMPLE: dict[str, type[nn.Module]] = {
    "add": Add,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "tokens": Tokens,
}


def _sides(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Give a padding in torch's order: the last axis first."""
    return tuple(n for side in reversed(padding) for n in side)
