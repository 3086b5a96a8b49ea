"""A torch network made of a `NetSpec`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Return all channels."""
        return torch.cat(given, 1)


class Flatten(nn.Flatten):
    """Flattens in the order (H, W, C), as channels-last frameworks do."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return one row for each sample."""
        return given.movedim(1, -1).flatten(1)


class GlobalAveragePool2d(nn.Module):
    """Averages over the spatial positions."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return one value for each channel."""
        return given.mean((2, 3))


class PaddedConv2d(nn.Conv2d):
    """A convolution that may pad each side differently."""

    def __init__(self, *args: Any, sides: tuple[int, int, int, int], **kwargs: Any) -> None:
        left, right, top, bottom = sides
        even = left == right and top == bottom
        super().__init__(*args, padding=(top, left) if even else 0, **kwargs)
        self.sides = (0, 0, 0, 0) if even else sides

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the convolution of the padded picture."""
        return super().forward(F.pad(given, self.sides) if any(self.sides) else given)


class PaddedMaxPool2d(nn.MaxPool2d):
    """A max-pool that may pad each side differently; padded positions never win."""

    def __init__(self, *args: Any, sides: tuple[int, int, int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sides = sides

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the greatest values of the padded picture."""
        padded = F.pad(given, self.sides, value=-torch.inf) if any(self.sides) else given
        return super().forward(padded)


class PositionwiseLinear(nn.Linear):
    """A linear layer on the channels of each position."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the new channels, on the second axis."""
        return super().forward(given.movedim(1, -1)).movedim(-1, 1)


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
        shapes = net.shapes()
        layers = {op.layer: op for op in net.ops if not op.attrs.get("functional")}
        for layer, op in layers.items():
            arrays = net.of_layer(layer)
            *outer, name = layer.split(".")
            parent: nn.Module = self
            for part in outer:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            module = _module(op, shapes[op.inputs[0]], arrays, layer in self._inplace)
            parent.add_module(name, module)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Parameters
        ----------
        *inputs : Tensor (N, C, H, W)
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


def _module(
    op: Op, shape: tuple[int, ...], arrays: Mapping[str, Array], inplace: bool
) -> nn.Module:
    """Make an operation's module; `shape` is that of its first input, channels last."""
    attrs = op.attrs
    weight = arrays["weight"].shape if "weight" in arrays else ()
    match op.kind:
        case "conv":
            return PaddedConv2d(
                weight[-2] * attrs["groups"],
                weight[-1],
                weight[:-2],
                attrs["stride"],
                dilation=attrs["dilation"],
                groups=attrs["groups"],
                bias="bias" in arrays,
                sides=_sides(attrs["padding"]),
            )
        case "linear":
            linear = nn.Linear if len(shape) == 1 else PositionwiseLinear
            return linear(*weight, bias="bias" in arrays)
        case "batchnorm":
            norm = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
            return norm(shape[-1], eps=attrs["epsilon"])
        case "maxpool":
            return PaddedMaxPool2d(attrs["window"], attrs["stride"], sides=_sides(attrs["padding"]))
        case "avgpool":
            return nn.AvgPool2d(attrs["window"], attrs["stride"])
        case "leaky_relu":
            return nn.LeakyReLU(attrs["slope"], inplace)
        case "relu" | "relu6":
            return {"relu": nn.ReLU, "relu6": nn.ReLU6}[op.kind](inplace)
        case "softmax":
            return nn.Softmax(dim=1)
        case kind:
            return _SIMPLE[kind]()


_SIMPLE: dict[str, type[nn.Module]] = {
    "add": Add,
    "concat": Concat,
    "flatten": Flatten,
    "gap": GlobalAveragePool2d,
    "sigmoid": nn.Sigmoid,
}


def _sides(padding: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int, int]:
    """Give a padding in torch's order: left, right, top, bottom."""
    return (*padding[1], *padding[0])
