"""A network as data: a graph of operations and the arrays they use.

One `NetSpec` is built as a network of any framework (each backend has a ``build``), or run by the
NumPy reference model.  The conformance kit and the embedded demo are made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from cnnviz_core.errors import ModelSourceError, ParameterError
from cnnviz_core.model import Array

__all__ = ["KINDS", "NetSpec", "Op"]

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "conv": "conv",
        "linear": "linear",
        "relu": "relu",
        "relu6": "relu",
        "leaky_relu": "relu",
        "maxpool": "pool",
        "avgpool": "pool",
        "gap": "pool",
        "batchnorm": "norm",
        "layernorm": "norm",
        "add": "add",
        "concat": "concat",
        "flatten": "reshape",
        "tokens": "reshape",
        "softmax": "activation",
        "sigmoid": "activation",
        "silu": "activation",
    }
)
"""The kinds of operation, each with its `LayerInfo.kind`."""

_WITH_WEIGHT = ("conv", "linear")
_SLIDING = ("conv", "maxpool", "avgpool")


@dataclass(frozen=True)
class Op:
    """One operation of a network.

    Attributes
    ----------
    name : str
        The name of its result, unique in the network.
    kind : str
        One of `KINDS`.
    inputs : tuple of str
        The results (or network inputs) that it takes.
    layer : str
        The layer that it calls; several operations may call one layer.  The same as `name` if left
        empty.
    attrs : mapping of str to value
        ``conv``: stride, padding, dilation, groups.  ``maxpool``, ``avgpool``: window, stride,
        padding (max-pool only; padded positions never win).  ``batchnorm``, ``layernorm``: epsilon.
        ``leaky_relu``: slope.  Rectifiers: inplace (the framework is to overwrite its input where
        it can), functional (no layer of its own; a plain function call).

        Stride, dilation and window have one entry for each axis of the grid, padding a pair (before
        and after).  A network fills in those that are left out: no stride, padding or dilation; a
        window of 2 along every axis, which moves by its own size.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    layer: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ParameterError(
                f"operation {self.name!r} is of the unknown kind {self.kind!r}",
                f"one of {', '.join(KINDS)}",
                "describe it by the known kinds",
            )
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "layer", self.layer or self.name)
        object.__setattr__(self, "attrs", _attrs(self))

    def __deepcopy__(self, memo: object) -> Op:
        """Return itself: nothing in it can be changed."""
        return self


def _attrs(op: Op) -> Mapping[str, Any]:
    """Fill in the defaults that do not depend on the grid, and make tuples of JSON's lists."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value

    given = {**_DEFAULTS.get(op.kind, {}), **op.attrs}
    return MappingProxyType({key: frozen(value) for key, value in given.items()})


_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "conv": {"groups": 1},
    "batchnorm": {"epsilon": 1e-5},
    "layernorm": {"epsilon": 1e-5},
    "relu": {"inplace": False, "functional": False},
    "relu6": {"inplace": False, "functional": False},
    "leaky_relu": {"inplace": False, "functional": False, "slope": 0.01},
}


def _along_axes(op: Op, axes: int) -> dict[str, Any]:
    """Give what a sliding operation leaves unsaid, for a grid of so many axes."""
    ones, no_padding = (1,) * axes, ((0, 0),) * axes
    if op.kind == "conv":
        return {"stride": ones, "padding": no_padding, "dilation": ones}
    window = op.attrs.get("window", (2,) * axes)
    padding = {"padding": no_padding} if op.kind == "maxpool" else {}
    return {"window": window, "stride": window, **padding}


@dataclass(frozen=True)
class NetSpec:
    """A network: inputs, operations in order of computation, and arrays.

    Attributes
    ----------
    inputs : mapping of str to tuple of int
        Each input's shape without the batch axis, channels last: (L, C) of signals, (H, W, C) of
        pictures, (D, H, W, C) of volumes, (C,) of vectors.
    ops : tuple of Op
        In an order in which they can be computed; the last one's result is the output.
    parameters : mapping of str to ndarray
        ``"<layer>.weight"``: (...kernel, C_in / groups, C_out) of a convolution, (C_in, C_out) of a
        linear layer; ``"<layer>.bias"``: (C_out,), may be absent; ``"<layer>.scale"``, ``.shift``,
        ``.mean``, ``.variance``: (C,) of a batch normalisation; the first two of a layer
        normalisation.
    name : str
        What to call it.
    meta : mapping of str to JSON value
        Whatever else belongs to it: labels, preprocessing, how it was trained.
    """

    inputs: Mapping[str, tuple[int, ...]]
    ops: tuple[Op, ...]
    parameters: Mapping[str, Array]
    name: str = "net"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "inputs",
            MappingProxyType({k: tuple(v) for k, v in self.inputs.items()}),
        )
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        known, ops = dict(self.inputs), []
        for op in self.ops:
            missing = [name for name in op.inputs if name not in known]
            if missing or op.name in known:
                raise ParameterError(
                    f"operation {op.name!r} of {self.name!r} "
                    + (f"takes the unknown {missing}" if missing else "is named twice"),
                    "operations in an order in which they can be computed, each name once",
                    "reorder or rename the operations",
                )
            if op.kind in _WITH_WEIGHT and f"{op.layer}.weight" not in self.parameters:
                raise ParameterError(
                    f"layer {op.layer!r} of {self.name!r} has no weight",
                    f"an array {op.layer + '.weight'!r} among the parameters",
                    "add it",
                )
            given = [known[name] for name in op.inputs]
            ops.append(self._completed(op, given[0]))
            known[op.name] = self._shape(ops[-1], given)
        object.__setattr__(self, "ops", tuple(ops))

    def _completed(self, op: Op, shape: tuple[int, ...]) -> Op:
        """Fill in what depends on the grid of an operation's input, and check what was given."""
        if op.kind not in _SLIDING:
            return op
        axes = len(shape) - 1
        attrs = {**_along_axes(op, axes), **op.attrs}
        lengths = {key: len(value) for key, value in attrs.items() if isinstance(value, tuple)}
        if op.kind == "conv":
            lengths["the weight's kernel"] = self.parameters[f"{op.layer}.weight"].ndim - 2
        wrong = next((key for key, n in lengths.items() if n != axes), None)
        if wrong is not None:
            raise ParameterError(
                f"{wrong} of operation {op.name!r} of {self.name!r} is for {lengths[wrong]} axes, "
                f"and its input has the shape {shape}",
                f"{axes} axes, the channels not counted",
                "give one entry for each axis of the grid",
            )
        return replace(op, attrs=attrs)

    @property
    def output(self) -> str:
        """The name of the last operation's result."""
        return self.ops[-1].name

    def of_layer(self, layer: str) -> dict[str, Array]:
        """Return the arrays of one layer.

        Parameters
        ----------
        layer : str
            A layer's name.

        Returns
        -------
        dict of str to ndarray
            By their short names: "weight", "bias", ...
        """
        prefix = f"{layer}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.parameters.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }

    def node(self, op: Op) -> str:
        """Name the `Model` node of an operation: the layer, with ``@k`` where it is called often.

        Parameters
        ----------
        op : Op
            One of `ops`.

        Returns
        -------
        str
        """
        calls = [other.name for other in self.ops if other.layer == op.layer]
        return op.layer if len(calls) == 1 else f"{op.layer}@{calls.index(op.name)}"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Work out every result's shape without the batch axis, channels last.

        Returns
        -------
        dict of str to tuple of int
            For every input and every operation.
        """
        shapes: dict[str, tuple[int, ...]] = dict(self.inputs)
        for op in self.ops:
            shapes[op.name] = self._shape(op, [shapes[name] for name in op.inputs])
        return shapes

    def grids(self) -> dict[str, tuple[int, ...] | None]:
        """Work out every result's spatial positions, those that tokens stand for among them.

        Returns
        -------
        dict of str to (tuple of int or None)
            For every input and every operation; None where it has no grid.
        """
        shapes = self.shapes()
        grids = {name: shapes[name][:-1] or None for name in self.inputs}
        for op in self.ops:
            grid = shapes[op.name][:-1] or None
            kept = grid is not None and op.kind not in _SLIDING
            grids[op.name] = grids[op.inputs[0]] if kept else grid
        return grids

    def _shape(self, op: Op, given: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Work out one operation's shape from its inputs' shapes."""
        first = given[0]
        match op.kind:
            case "conv" | "maxpool" | "avgpool":
                conv = op.kind == "conv"
                weight = self.parameters[f"{op.layer}.weight"] if conv else None
                window = weight.shape[:-2] if weight is not None else op.attrs["window"]
                dilation = op.attrs.get("dilation", (1,) * len(window))
                padding = op.attrs.get("padding", ((0, 0),) * len(window))
                grid = tuple(
                    (n + sum(p) - d * (k - 1) - 1) // s + 1
                    for n, p, d, k, s in zip(
                        first[:-1],
                        padding,
                        dilation,
                        window,
                        op.attrs["stride"],
                        strict=True,
                    )
                )
                return (*grid, weight.shape[-1] if weight is not None else first[-1])
            case "linear":
                return (*first[:-1], self.parameters[f"{op.layer}.weight"].shape[-1])
            case "gap":
                return first[-1:]
            case "flatten":
                return (math.prod(first),)
            case "tokens":
                return (math.prod(first[:-1]), first[-1])
            case "concat":
                return (*first[:-1], sum(shape[-1] for shape in given))
            case _:
                return first

    def save(self, path: str | Path) -> None:
        """Write the network to one npz file, without pickle.

        Parameters
        ----------
        path : str or Path
            Where to write.
        """
        graph = {
            "name": self.name,
            "inputs": {k: list(v) for k, v in self.inputs.items()},
            "ops": [_as_json(op) for op in self.ops],
            "meta": dict(self.meta),
        }
        with open(path, "wb") as file:
            arrays: dict[str, Any] = {"netspec": json.dumps(graph), **self.parameters}
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> NetSpec:
        """Read a network that `save` wrote.

        Parameters
        ----------
        path : str or Path
            An npz file.

        Returns
        -------
        NetSpec

        Raises
        ------
        ModelSourceError
            If the file holds no such network.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                graph = json.loads(str(file["netspec"]))
                parameters = {key: file[key] for key in file.files if key != "netspec"}
            ops = tuple(Op(**op) for op in graph.pop("ops"))
            return cls(ops=ops, parameters=parameters, **graph)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ModelSourceError(
                f"{str(path)!r} holds no network ({type(error).__name__}: {error})",
                "an npz file that NetSpec.save wrote",
                "write it with NetSpec.save",
            ) from error


def _as_json(op: Op) -> dict[str, Any]:
    """Give an operation as JSON values."""
    return {
        "name": op.name,
        "kind": op.kind,
        "inputs": list(op.inputs),
        "layer": op.layer,
        "attrs": dict(op.attrs),
    }
