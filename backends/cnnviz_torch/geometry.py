"""Which places the operations that autograd recorded read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import torch
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from cnnviz_core.sketch import PLAIN, Shape, Sketch, Unclear, Value
from cnnviz_core.spatial import Bins, Border, Geometry, Reading, Resized, Transposed, Window
from cnnviz_torch.graph import bottom_up, operation_name, shape_of

__all__ = ["geometry_of"]

_POINTWISE: Final = frozenset(
    {
        "Abs",
        "Add",
        "Addcdiv",
        "Addcmul",
        "Alias",
        "Atan",
        "Celu",
        "ChannelShuffle",
        "Clamp",
        "ClampMax",
        "ClampMin",
        "Clone",
        "Cos",
        "Div",
        "Elu",
        "Erf",
        "Erfc",
        "Exp",
        "Expm1",
        "Gelu",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "LeakyRelu",
        "Lerp",
        "Log",
        "Log1P",
        "LogSigmoid",
        "LogSigmoidForward",
        "Logaddexp",
        "Maximum",
        "Minimum",
        "Mish",
        "Mul",
        "NanToNum",
        "NativeChannelShuffle",
        "NativeDropout",
        "Neg",
        "Pow",
        "Prelu",
        "PreluKernel",
        "Reciprocal",
        "Relu",
        "Rsqrt",
        "Rsub",
        "Selu",
        "Sigmoid",
        "Silu",
        "Sin",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Sqrt",
        "Square",
        "Sub",
        "Tanh",
        "Threshold",
        "ToCopy",
        "Where",
    }
)
_REDUCING: Final = frozenset(
    {
        "Amax",
        "Amin",
        "LinalgVectorNorm",
        "Logsumexp",
        "Max",
        "Mean",
        "Min",
        "Norm",
        "Prod",
        "Std",
        "StdMean",
        "Sum",
        "Var",
        "VarMean",
    }
)
_METHODS: Final[Mapping[str, Literal["nearest", "linear", "cubic"]]] = {
    "Nearest": "nearest",
    "NearestExact": "nearest",
    "Linear": "linear",
    "Bilinear": "linear",
    "Trilinear": "linear",
    "Bicubic": "cubic",
}
_BORDERS: Final[Mapping[str, Border]] = {"Reflection": "reflect", "Replication": "edge"}
_FACTORS: Final = {"Mm": 0, "Bmm": 0, "Linear": 0, "Addmm": 1, "Baddbmm": 1}
"""Of products of matrices, where the first factor stands among what they take."""


def geometry_of(
    leaf: torch.Tensor, channels_first: bool, edges: Mapping[str, GradientEdge]
) -> Geometry:
    """Tell which places the operations between an input and some values read.

    Parameters
    ----------
    leaf : Tensor
        The input, a leaf of the recorded graph.
    channels_first : bool
        Whether it has the channels on the second axis.
    edges : mapping of str to GradientEdge
        Where the values of the nodes that are asked for come from.

    Returns
    -------
    Geometry
        With the nodes that depend on the input.
    """
    sketch, value = Sketch.of_input(tuple(leaf.shape), channels_first=channels_first)
    end = get_gradient_edge(leaf).node
    values: dict[Node, Sequence[Value]] = {end: [value]}

    def result(node: Node | None, k: int) -> Value | None:
        return values[node][k] if node is not None and values[node] else None

    for node in bottom_up((edge.node for edge in edges.values()), [end]):
        given = [result(child, k) for child, k in node.next_functions]
        values[node] = _results(sketch, node, given) if any(given) else []
    return sketch.geometry(
        {name: result(edge.node, edge.output_nr) for name, edge in edges.items()}
    )


def _results(sketch: Sketch, node: Node, given: Sequence[Value | None]) -> Sequence[Value]:
    """Add an operation's steps, and give its results."""
    name = operation_name(node)
    operation = _Operation(sketch, node, name, given)
    try:
        return operation.results()
    except Unclear:
        return [sketch.unclear(operation.values, shape, name) for shape in operation.shapes]


@dataclass
class _Operation:
    """One operation that was recorded.

    Attributes
    ----------
    sketch : Sketch
        Where its steps are added.
    node : Node
        What autograd kept of it.
    name : str
        Such as "Convolution".
    given : sequence of (Value or None)
        What it takes; None for what does not depend on the input.
    """

    sketch: Sketch
    node: Any
    name: str
    given: Sequence[Value | None]

    @property
    def values(self) -> list[Value]:
        """What it takes that depends on the input."""
        return [value for value in self.given if value is not None]

    @property
    def x(self) -> Value:
        """The first of these."""
        return self.values[0]

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of its results."""
        return [tuple(metadata.shape) for metadata in self.node._input_metadata]

    @property
    def shape(self) -> Shape:
        """The shape of its first result."""
        return self.shapes[0]

    def saved(self, name: str, default: Any = None) -> Any:
        """Read what autograd kept under a name; it keeps negative numbers as unsigned ones."""
        value = getattr(self.node, f"_saved_{name}", default)
        if isinstance(value, tuple):
            return tuple(map(_signed, value))
        return _signed(value)

    def dim(self, name: str = "dim", axes: int | None = None) -> int:
        """Read which axis it is about."""
        return int(self.saved(name) % (axes or len(self.x.shape)))

    def results(self) -> Sequence[Value]:
        """Give its results; raises `Unclear` where it is not known what it reads."""
        name = self.name
        if name in _POINTWISE:
            return [self.sketch.pointwise(self.values, self.shape, name)]
        if name in _REDUCING:
            return self._reduced()
        if name in _FACTORS:
            return self._product()
        if name.startswith("ScaledDotProduct"):
            return self._attention()
        if name in ("Cat", "Stack"):
            return self._cat() if name == "Cat" else self._stack()
        if len(self.values) > 1:
            raise Unclear  # a kernel or a scale is made of the input
        if match := re.fullmatch(r"Upsample([A-Z][a-zA-Z]*?)(\d)D", name):
            return self._resized(match[1], int(match[2]))
        if match := re.fullmatch(r"(Reflection|Replication)Pad\dD", name):
            return self._padded(self.saved("padding"), _BORDERS[match[1]])
        if match := re.fullmatch(r"Adaptive(?:Max|Avg)Pool(\d)D", name):
            return self._binned(int(match[1]))
        if re.fullmatch(r"(Max|Avg)Pool\dD(WithIndices)?", name):
            return self._pooled()
        if name not in _HANDLERS:
            raise Unclear
        return _HANDLERS[name](self)

    # ---------------------------------------------------------------- normalisations

    def layer_norm(self) -> Sequence[Value]:
        """A layer norm, over the last axes."""
        axes = len(self.shape)
        dims = range(axes - len(self.saved("normalized_shape")), axes)
        return [self.sketch.normalised(self.x, dims, self.name)]

    def batch_norm(self) -> Sequence[Value]:
        """A batch norm, by what was seen in training or by this very input."""
        dims = range(2, len(self.shape)) if self.saved("training") else ()
        return [self.sketch.normalised(self.x, dims, self.name)]

    def group_norm(self) -> Sequence[Value]:
        """A group norm, over all places."""
        return [self.sketch.normalised(self.x, range(2, len(self.shape)), self.name)]

    def along(self) -> Sequence[Value]:
        """An operation along one axis: a softmax."""
        return [self.sketch.along(self.x, self.dim(), self.name)]

    # ---------------------------------------------------------------- other shapes

    def permute(self) -> Sequence[Value]:
        """Axes in another order."""
        axes = len(self.shape)
        return [self.sketch.permuted(self.x, [dim % axes for dim in self.saved("dims")])]

    def transpose(self) -> Sequence[Value]:
        """Two axes exchanged."""
        order = list(range(len(self.shape)))
        a, b = (self.saved(name, k) % len(order) for k, name in enumerate(("dim0", "dim1")))
        order[a], order[b] = order[b], order[a]
        return [self.sketch.permuted(self.x, order)]

    def unsqueeze(self) -> Sequence[Value]:
        """One more axis."""
        return [self.sketch.inserted(self.x, self.dim(axes=len(self.shape)))]

    def expand(self) -> Sequence[Value]:
        """Repetition along axes with one position."""
        return [self.sketch.expanded(self.x, self.shape)]

    def view(self) -> Sequence[Value]:
        """Another shape."""
        return [self.sketch.reshaped(self.x, self.shape)]

    def slice(self) -> Sequence[Value]:
        """A part of an axis."""
        dim, start = self.dim(), self.saved("start") or 0
        n = self.x.shape[dim]
        start = min(max(start + n * (start < 0), 0), n)
        return [self.sketch.cut(self.x, dim, start, self.shape[dim], self.saved("step"), self.name)]

    def select(self) -> Sequence[Value]:
        """One position of an axis."""
        dim = self.dim()
        index = self.saved("index") % self.x.shape[dim]
        return [self.sketch.dropped(self.sketch.cut(self.x, dim, index, 1, 1, self.name), dim)]

    def split(self) -> Sequence[Value]:
        """The parts of an axis."""
        dim, start, parts = self.dim(), 0, []
        for shape in self.shapes:
            parts.append(self.sketch.cut(self.x, dim, start, shape[dim], 1, self.name))
            start += shape[dim]
        return parts

    def unbind(self) -> Sequence[Value]:
        """The positions of an axis."""
        dim = self.dim()
        parts = [self.sketch.cut(self.x, dim, k, 1, 1, self.name) for k in range(len(self.shapes))]
        return [self.sketch.dropped(part, dim) for part in parts]

    def _cat(self) -> Sequence[Value]:
        """Tensors one behind the other."""
        dim = self.dim()
        sizes = [
            None if child is None else shape_of(child, k)[dim]
            for child, k in self.node.next_functions
        ]
        if sizes.count(None) > 1:
            raise Unclear
        rest = self.shape[dim] - sum(size or 0 for size in sizes)
        known = [rest if size is None else size for size in sizes]
        parts = [(value, sum(known[:k])) for k, value in enumerate(self.given) if value is not None]
        return [self.sketch.joined(parts, dim, self.shape, self.name)]

    def _stack(self) -> Sequence[Value]:
        """Tensors side by side along a new axis."""
        dim = self.dim(axes=len(self.shape))
        values = [self.sketch.inserted(value, dim, self.shape[dim]) for value in self.values]
        return [self.sketch.pointwise(values, self.shape, self.name)]

    # ---------------------------------------------------------------- other places

    def _last(self, make: Callable[[int], Reading], axes: int) -> dict[int, Reading]:
        """Give a reading for each of the last axes."""
        return {len(self.shape) - axes + k: make(k) for k in range(axes)}

    def convolution(self) -> Sequence[Value]:
        """A convolution, or a transposed one."""
        if self.given[0] is None:
            raise Unclear  # its kernel is made of the input
        size = self.saved("weight").shape[2:]
        stride, dilation = self.saved("stride"), self.saved("dilation")
        padding, kind = self.saved("padding"), Transposed if self.saved("transposed") else Window
        along = self._last(lambda k: kind(size[k], stride[k], dilation[k], padding[k]), len(size))
        channels = len(self.shape) - len(size) - 1
        return [self.sketch.read(self.given[0], "conv", along, self.shape, self.name, channels)]

    def _pooled(self) -> Sequence[Value]:
        """A pool."""
        size, padding = self.saved("kernel_size"), self.saved("padding")
        stride = self.saved("stride") or size
        dilation = self.saved("dilation", (1,) * len(size))
        along = self._last(lambda k: Window(size[k], stride[k], dilation[k], padding[k]), len(size))
        return [self.sketch.read(self.x, "pool", along, self.shape, self.name)] * len(self.shapes)

    def _binned(self, axes: int) -> Sequence[Value]:
        """An adaptive pool."""
        dims = range(len(self.shape) - axes, len(self.shape))
        if all(self.shape[dim] == 1 for dim in dims):
            pooled = self.sketch.reduced(self.x, dims, self.shape, self.name)
        else:
            along = self._last(lambda _: Bins(), axes)
            pooled = self.sketch.read(self.x, "pool", along, self.shape, self.name)
        return [pooled] * len(self.shapes)

    def _resized(self, name: str, axes: int) -> Sequence[Value]:
        """A resizing."""
        if name not in _METHODS:
            raise Unclear
        x, first, method = self.x, len(self.shape) - axes, _METHODS[name]
        corners = self.saved("align_corners", False)
        scales = ["scales"] if axes == 1 else [f"scales_{axis}" for axis in "dhw"[-axes:]]

        def reading(k: int) -> Reading:
            n, size, scale = x.shape[first + k], self.shape[first + k], self.saved(scales[k])
            if corners:
                return Resized(method, Fraction(n - 1, max(size - 1, 1)), Fraction(0))
            ratio = Fraction(n, size) if scale is None else 1 / Fraction(scale)
            return Resized(method, ratio, Fraction(0 if name == "Nearest" else 1, 2))

        return [self.sketch.read(x, "resize", self._last(reading, axes), self.shape, self.name)]

    def _padded(self, padding: Sequence[int], border: Border) -> Sequence[Value]:
        """A padding, given from the last axis on."""
        last = len(self.shape) - 1
        along = {
            last - k: Window(before=padding[2 * k], border=border) for k in range(len(padding) // 2)
        }
        return [self.sketch.read(self.x, "pad", along, self.shape, self.name)]

    def constant_pad(self) -> Sequence[Value]:
        """A padding with a constant."""
        return self._padded(self.saved("pad"), "nothing")

    def roll(self) -> Sequence[Value]:
        """Places pushed along an axis, and in again at its other end."""
        dims = [dim % len(self.shape) for dim in self.saved("dims")]
        if not dims:
            raise Unclear
        along = {
            dim: Window(before=shift, border="wrap")
            for dim, shift in zip(dims, self.saved("shifts"), strict=True)
        }
        return [self.sketch.read(self.x, "pad", along, self.shape, self.name)]

    def pixel_shuffle(self) -> Sequence[Value]:
        """Places made of channels."""
        scale = Fraction(1, self.saved("upscale_factor"))
        along = self._last(lambda _: Resized("nearest", scale, Fraction(0)), 2)
        return [self.sketch.read(self.x, "resize", along, self.shape, self.name)]

    def pixel_unshuffle(self) -> Sequence[Value]:
        """Channels made of places."""
        size = self.saved("downscale_factor")
        along = self._last(lambda _: Window(size, size), 2)
        return [self.sketch.read(self.x, "pool", along, self.shape, self.name)]

    # ---------------------------------------------------------------- mixing places

    def _reduced(self) -> Sequence[Value]:
        """A mean, or another reduction, over some axes or all."""
        axes = len(self.x.shape)
        dims = self.saved("dim")
        dims = (dims,) if isinstance(dims, int) else dims or range(axes)
        dims = [dim % axes for dim in dims]
        return [self.sketch.reduced(self.x, dims, shape, self.name) for shape in self.shapes]

    def _product(self) -> Sequence[Value]:
        """A product of matrices, or of many at once."""
        place = _FACTORS[self.name]
        first, second = self.given[place : place + 2]
        if any(value is not None for value in (*self.given[:place], *self.given[place + 2 :])):
            raise Unclear  # what is added to it is made of the input
        return [self.sketch.contracted(first, second, self.shape, self.name)]

    def _attention(self) -> Sequence[Value]:
        """Attention: the places of the first tensor ask all places of the others."""
        first = self.given[0]
        if first is None:
            raise Unclear
        layout = (*first.layout[:-1], PLAIN)
        value = self.sketch.mixed(self.values, layout, self.shape, self.name)
        return [value] * len(self.shapes)


_HANDLERS: Final[Mapping[str, Callable[[_Operation], Sequence[Value]]]] = {
    "ConstantPadNd": _Operation.constant_pad,
    "Convolution": _Operation.convolution,
    "CudnnBatchNorm": _Operation.batch_norm,
    "Expand": _Operation.expand,
    "LogSoftmax": _Operation.along,
    "NativeBatchNorm": _Operation.batch_norm,
    "NativeGroupNorm": _Operation.group_norm,
    "NativeLayerNorm": _Operation.layer_norm,
    "Permute": _Operation.permute,
    "PixelShuffle": _Operation.pixel_shuffle,
    "PixelUnshuffle": _Operation.pixel_unshuffle,
    "ReshapeAlias": _Operation.view,
    "Roll": _Operation.roll,
    "Select": _Operation.select,
    "Slice": _Operation.slice,
    "Softmax": _Operation.along,
    "Split": _Operation.split,
    "SplitWithSizes": _Operation.split,
    "Squeeze": _Operation.view,
    "T": _Operation.transpose,
    "Transpose": _Operation.transpose,
    "Unbind": _Operation.unbind,
    "UnsafeView": _Operation.view,
    "Unsqueeze": _Operation.unsqueeze,
    "View": _Operation.view,
}


def _signed(value: Any) -> Any:
    """Give a number back its sign."""
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value
