"""Which places the operations of a traced graph read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import tensorflow as tf

from cnnviz_core.sketch import PLAIN, Shape, Sketch, Unclear, Value
from cnnviz_core.spatial import Border, Geometry, Kind, Reading, Resized, Transposed, Window

__all__ = ["Measure", "geometry_of"]

Measure = Callable[[list[tf.Tensor], list[tf.Tensor]], tuple[list[Any], list[Any]]]
"""Gives the shapes of some tensors and the values of others, in one run of the network."""

_POINTWISE: Final = frozenset(
    {
        "Abs",
        "Add",
        "AddN",
        "AddV2",
        "BiasAdd",
        "Cast",
        "Ceil",
        "CheckNumerics",
        "ClipByValue",
        "Div",
        "DivNoNan",
        "Elu",
        "EnsureShape",
        "Equal",
        "Erf",
        "Erfc",
        "Exp",
        "Expm1",
        "Floor",
        "Greater",
        "GreaterEqual",
        "Identity",
        "LRN",
        "LeakyRelu",
        "Less",
        "LessEqual",
        "Log",
        "Log1p",
        "LogicalAnd",
        "LogicalNot",
        "LogicalOr",
        "Maximum",
        "Minimum",
        "Mul",
        "MulNoNan",
        "Neg",
        "NotEqual",
        "Pow",
        "PreventGradient",
        "RealDiv",
        "Reciprocal",
        "Relu",
        "Relu6",
        "Round",
        "Rsqrt",
        "Select",
        "SelectV2",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Square",
        "SquaredDifference",
        "StopGradient",
        "Sub",
        "Tanh",
    }
)
_REDUCING: Final = frozenset({"EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum"})
_SEVERAL: Final = frozenset({"BatchMatMulV2", "ConcatV2", "Einsum", "MatMul", "Pack"})
"""Operations, beside those on each value, that may take several things made of the input."""
_SHAPES: Final = frozenset({"OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"})
"""Operations that tell of a tensor what does not depend on its values."""


def geometry_of(
    source: tf.Tensor, shape: Shape, tensors: Mapping[str, tf.Tensor], measure: Measure
) -> Geometry:
    """Tell which places the operations between an input and some tensors read.

    Parameters
    ----------
    source : tf.Tensor
        The input's placeholder.
    shape : tuple of int
        The input's shape, with the batch.
    tensors : mapping of str to tf.Tensor
        The values of the nodes that are asked for.
    measure : callable
        Runs the network, where its graph alone does not tell the sizes.

    Returns
    -------
    Geometry
        With the nodes that depend on the input.
    """
    sketch, value = Sketch.of_input(shape, channels_first=False)
    values: dict[Any, Value] = {source.ref(): value}
    ops = _dependent(source, tensors.values())
    facts = _facts(ops, measure)
    blocks: dict[Any, Shape] = {}
    for op in ops:
        given = [values.get(tensor.ref()) for tensor in op.inputs]
        results = _results(_Operation(sketch, op, given, facts, blocks))
        made = zip(op.outputs, results, strict=True)
        values |= {tensor.ref(): result for tensor, result in made if result is not None}
    return sketch.geometry({name: values.get(tensor.ref()) for name, tensor in tensors.items()})


def _dependent(source: tf.Tensor, tops: Iterable[tf.Tensor]) -> list[tf.Operation]:
    """List the operations between an input and tensors, every one behind those before it."""
    order: list[tf.Operation] = []
    seen = {source.op}
    waiting = [(tensor.op, False) for tensor in tops]
    while waiting:
        op, ready = waiting.pop()
        if ready:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            waiting.append((op, True))
            waiting += [(tensor.op, False) for tensor in op.inputs]
    reached = {source.ref()}
    dependent = []
    for op in order:
        if op.type not in _SHAPES and any(tensor.ref() in reached for tensor in op.inputs):
            reached.update(tensor.ref() for tensor in op.outputs)
            dependent.append(op)
    return dependent


@dataclass(frozen=True)
class _Facts:
    """The shapes of tensors, and the values of numbers such as paddings."""

    shapes: Mapping[Any, Shape]
    numbers: Mapping[Any, Sequence[int]]


def _facts(ops: Sequence[tf.Operation], measure: Measure) -> _Facts:
    """Find out the shapes of what operations take and give, and the numbers that they take."""
    made = {tensor.ref() for op in ops for tensor in op.outputs}
    shapes: dict[Any, Any] = {}
    numbers: dict[Any, Any] = {}
    for op in ops:
        for tensor in (*op.inputs, *op.outputs):
            if tensor.dtype in (tf.int32, tf.int64) and tensor.ref() not in made:
                numbers[tensor.ref()] = tf.get_static_value(tensor)
            elif tensor.dtype not in (tf.resource, tf.variant):
                known = tensor.shape.is_fully_defined()
                shapes[tensor.ref()] = tuple(tensor.shape) if known else None
    unknown = [[ref for ref in facts if facts[ref] is None] for facts in (shapes, numbers)]
    found = measure(*([ref.deref() for ref in refs] for refs in unknown))
    for facts, refs, values in zip((shapes, numbers), unknown, found, strict=True):
        facts |= dict(zip(refs, values, strict=True))
    return _Facts(
        {ref: tuple(int(n) for n in shape) for ref, shape in shapes.items()},
        {ref: [int(n) for n in np.ravel(values)] for ref, values in numbers.items()},
    )


def _results(operation: _Operation) -> Sequence[Value | None]:
    """Add an operation's steps, and give its results."""
    try:
        if operation.blocked and operation.op.type not in _BLOCKED:
            raise Unclear
        return operation.results()
    except Unclear:
        return [
            operation.sketch.unclear(operation.values, shape, operation.op.type)
            for shape in operation.shapes
        ]


@dataclass
class _Operation:
    """One operation of a graph.

    Attributes
    ----------
    sketch : Sketch
        Where its steps are added.
    op : tf.Operation
    given : sequence of (Value or None)
        What it takes; None for what does not depend on the input.
    facts : _Facts
        What is known of the graph's tensors.
    blocks : dict
        Into how many parts along each axis a tensor was dealt out to the batch.  Its `Value` is as
        if it had not been.
    """

    sketch: Sketch
    op: Any
    given: Sequence[Value | None]
    facts: _Facts
    blocks: dict[Any, Shape]

    @property
    def name(self) -> str:
        """What the operation is."""
        return str(self.op.type)

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
        return [self.facts.shapes[tensor.ref()] for tensor in self.op.outputs]

    @property
    def shape(self) -> Shape:
        """The shape of its first result."""
        return self.shapes[0]

    @property
    def blocked(self) -> bool:
        """Whether what it takes was dealt out to the batch."""
        return any(tensor.ref() in self.blocks for tensor in self.op.inputs)

    def attr(self, name: str) -> Any:
        """Read an attribute."""
        value = self.op.get_attr(name)
        return value.decode() if isinstance(value, bytes) else value

    def numbers(self, k: int) -> Sequence[int]:
        """Read numbers that it takes."""
        return self.facts.numbers[self.op.inputs[k].ref()]

    def shape_of(self, k: int) -> Shape:
        """Give the shape of something that it takes."""
        return self.facts.shapes[self.op.inputs[k].ref()]

    def results(self) -> Sequence[Value | None]:
        """Give its results; raises `Unclear` where it is not known what it reads."""
        if self.name in _POINTWISE:
            return [self.sketch.pointwise(self.values, self.shape, self.name)]
        if self.name == "IdentityN":
            return self.given
        if len(self.values) > 1 and self.name not in _SEVERAL:
            raise Unclear  # a kernel or a scale is made of the input
        if self.name in _REDUCING:
            return self._reduced()
        if self.name not in _HANDLERS:
            raise Unclear
        return _HANDLERS[self.name](self)

    # ---------------------------------------------------------------- the same places

    def batch_norm(self) -> Sequence[Value | None]:
        """A batch norm, by what was seen in training or by this very input."""
        dims = self._places() if self.attr("is_training") else ()
        value = self.sketch.normalised(self.x, dims, self.name)
        return [value, *[None] * (len(self.shapes) - 1)]

    def softmax(self) -> Sequence[Value]:
        """A softmax, along the last axis."""
        return [self.sketch.along(self.x, len(self.shape) - 1, self.name)]

    # ---------------------------------------------------------------- other shapes

    def reshape(self) -> Sequence[Value]:
        """Another shape."""
        return [self.sketch.reshaped(self.x, self.shape)]

    def expand_dims(self) -> Sequence[Value]:
        """One more axis."""
        dim = self.numbers(1)[0] % len(self.shape)
        if self.blocked:
            block = self._block
            self._keep((*block[:dim], 1, *block[dim:]))
        return [self.sketch.inserted(self.x, dim)]

    def squeeze(self) -> Sequence[Value]:
        """Without axes that have one position."""
        x, axes = self.x, len(self.x.shape)
        dims = [dim % axes for dim in self.attr("squeeze_dims")]
        dims = dims or [dim for dim in range(axes) if x.shape[dim] == 1]
        if self.blocked:
            self._keep(tuple(d for dim, d in enumerate(self._block) if dim not in dims))
        for dim in sorted(dims, reverse=True):
            x = self.sketch.dropped(x, dim)
        return [x]

    def transpose(self) -> Sequence[Value]:
        """Axes in another order."""
        return [self.sketch.permuted(self.x, self.numbers(1))]

    def broadcast(self) -> Sequence[Value]:
        """Repetition along axes with one position."""
        return [self.sketch.expanded(self.x, self.shape)]

    def tile(self) -> Sequence[Value]:
        """Repetition along any axes."""
        x = self.x
        if all(n in (1, m) for n, m in zip(x.shape, self.shape, strict=True)):
            return self.broadcast()
        along = {
            dim: Window(border="wrap")
            for dim, times in enumerate(self.numbers(1))
            if times > 1 and not x.layout[dim].plain
        }
        return [self.sketch.read(x, "pad", along, self.shape, self.name)]

    def gather(self) -> Sequence[Value]:
        """Chosen positions of an axis that has nothing to do with places."""
        dim = self.numbers(2)[0] % len(self.x.shape)
        if self.given[0] is None or not self.x.layout[dim].plain or self.attr("batch_dims"):
            raise Unclear
        new = len(self.shape) - len(self.x.shape) + 1
        layout = (*self.x.layout[:dim], *(PLAIN,) * new, *self.x.layout[dim + 1 :])
        return [Value(self.x.step, self.shape, layout)]

    def slice(self) -> Sequence[Value]:
        """A part of some axes."""
        x = self.x
        for dim, start in enumerate(self.numbers(1)):
            x = self.sketch.cut(x, dim, start, self.shape[dim], 1, self.name)
        return [x]

    def strided_slice(self) -> Sequence[Value]:
        """What Python's square brackets take."""
        x, dim = self.x, 0
        begins, ends, strides = (self.numbers(k) for k in (1, 2, 3))
        masks = {
            name: self.attr(f"{name}_mask")
            for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
        }

        def masked(name: str, k: int) -> bool:
            return bool(masks[name] >> k & 1)

        for k, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
            if masked("ellipsis", k):
                behind = sum(not masked("new_axis", j) for j in range(k + 1, len(begins)))
                dim = len(x.shape) - behind
            elif masked("new_axis", k):
                x, dim = self.sketch.inserted(x, dim), dim + 1
            elif masked("shrink_axis", k):
                x = self.sketch.cut(x, dim, begin % x.shape[dim], 1, 1, self.name)
                x = self.sketch.dropped(x, dim)
            else:
                if stride < 1:
                    raise Unclear
                whole = slice(
                    None if masked("begin", k) else begin, None if masked("end", k) else end, stride
                )
                taken = range(x.shape[dim])[whole]
                x = self.sketch.cut(x, dim, taken.start, len(taken), stride, self.name)
                dim += 1
        return [x]

    def split(self) -> Sequence[Value]:
        """The parts of an axis."""
        dim = self.numbers(0 if self.name == "Split" else 2)[0] % len(self.shape)
        start, parts = 0, []
        for shape in self.shapes:
            parts.append(self.sketch.cut(self.x, dim, start, shape[dim], 1, self.name))
            start += shape[dim]
        return parts

    def unpack(self) -> Sequence[Value]:
        """The positions of an axis."""
        dim = self.attr("axis") % len(self.x.shape)
        parts = [self.sketch.cut(self.x, dim, k, 1, 1, self.name) for k in range(len(self.shapes))]
        return [self.sketch.dropped(part, dim) for part in parts]

    def pack(self) -> Sequence[Value]:
        """Tensors side by side along a new axis."""
        dim = self.attr("axis") % len(self.shape)
        values = [self.sketch.inserted(value, dim, self.shape[dim]) for value in self.values]
        return [self.sketch.pointwise(values, self.shape, self.name)]

    def concat(self) -> Sequence[Value]:
        """Tensors one behind the other."""
        last = len(self.given) - 1
        dim = self.numbers(last)[0] % len(self.shape)
        sizes = [self.shape_of(k)[dim] for k in range(last)]
        parts = [
            (value, sum(sizes[:k]))
            for k, value in enumerate(self.given[:last])
            if value is not None
        ]
        return [self.sketch.joined(parts, dim, self.shape, self.name)]

    # ---------------------------------------------------------------- sliding over places

    def _places(self) -> range:
        """Give the axes of places of an operation that knows where its channels are."""
        first = self.attr("data_format").startswith("NC")
        axes = len(self.shape)
        return range(2, axes) if first else range(1, axes - 1)

    def _before(self, dim: int, n: int, out: int, size: int, stride: int, dilation: int) -> int:
        """Give the padding at the beginning of an axis of `n` positions, from which `out` come."""
        padding = self.attr("padding")
        if padding == "EXPLICIT":
            return int(self.attr("explicit_paddings")[2 * dim])
        extent = (out - 1) * stride + (size - 1) * dilation + 1
        return max(extent - n, 0) // 2 if padding == "SAME" else 0

    def _slid(self, x: Value, kind: Kind, size: Sequence[int], dilation: Sequence[int]) -> Value:
        """Slide a window over places."""
        stride, along = self.attr("strides"), {}
        dims = self._places()
        for dim, k in zip(dims, size, strict=True):
            n, out = x.shape[dim], self.shape[dim]
            before = self._before(dim, n, out, k, stride[dim], dilation[dim])
            along[dim] = Window(k, stride[dim], dilation[dim], before)
        channels = ({*range(1, len(self.shape))} - {*dims}).pop() if kind == "conv" else None
        return self.sketch.read(x, kind, along, self.shape, self.name, channels)

    def convolution(self) -> Sequence[Value]:
        """A convolution."""
        if self.given[0] is None:
            raise Unclear
        size = self.shape_of(1)[:-2]
        if self.blocked:
            return [self._dealt_out(size)]
        return [self._slid(self.x, "conv", size, self.attr("dilations"))]

    @property
    def _block(self) -> Shape:
        """Into how many parts along each axis what it takes was dealt out."""
        return self.blocks[self.op.inputs[0].ref()]

    def _keep(self, block: Shape) -> None:
        """Note into how many parts along each axis its result is dealt out."""
        self.blocks[self.op.outputs[0].ref()] = block

    def _dealt_out(self, size: Shape) -> Value:
        """A dilated convolution, as a plain one of what was dealt out to the batch."""
        x, block = self.x, self._block
        if self.attr("padding") != "VALID" or set(self.attr("strides")) != {1}:
            raise Unclear
        along = {dim: Window(n, 1, block[dim]) for dim, n in enumerate(size, 1)}
        places = (n * d for n, d in zip(self.shape[1:-1], block[1:-1], strict=True))
        self._keep(block)
        shape = (x.shape[0], *places, self.shape[-1])
        return self.sketch.read(x, "conv", along, shape, self.name, len(shape) - 1)

    def deal_out(self) -> Sequence[Value]:
        """Places dealt out to the batch in turn, so that a plain convolution is a dilated one."""
        block, padding = self.numbers(1), self.numbers(2)
        along = {1 + k: Window(before=padding[2 * k]) for k in range(len(block))}
        parts = (1, *block, *(1,) * (len(self.shape) - 1 - len(block)))
        places = (n * d for n, d in zip(self.shape[1:], parts[1:], strict=True))
        self._keep(parts)
        shape = (self.x.shape[0], *places)
        return [self.sketch.read(self.x, "pad", along, shape, self.name)]

    def collect(self) -> Sequence[Value]:
        """Places collected from the batch again."""
        block, crops = self.numbers(1), self.numbers(2)
        if not self.blocked or self._block[1 : 1 + len(block)] != tuple(block):
            raise Unclear
        along = {1 + k: Window(before=-crops[2 * k]) for k in range(len(block))}
        return [self.sketch.read(self.x, "crop", along, self.shape, self.name)]

    def transposed(self) -> Sequence[Value]:
        """A transposed convolution."""
        x = self.given[2]
        if x is None:
            raise Unclear
        size, stride, dilation = self.shape_of(1)[:-2], self.attr("strides"), self.attr("dilations")
        along: dict[int, Reading] = {}
        for dim, k in zip(self._places(), size, strict=True):
            s, d = stride[dim], dilation[dim]
            before = self._before(dim, self.shape[dim], x.shape[dim], k, s, d)
            along[dim] = Transposed(k, s, d, before)
        channels = len(x.shape) - 1 if self._places()[0] == 1 else 1
        return [self.sketch.read(x, "conv", along, self.shape, self.name, channels)]

    def pool(self) -> Sequence[Value]:
        """A pool."""
        window = self.attr("ksize")
        size = [window[dim] for dim in self._places()]
        return [self._slid(self.x, "pool", size, (1,) * len(window))]

    def pad(self) -> Sequence[Value]:
        """A padding."""
        borders: dict[str, Border] = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}
        border = borders[self.attr("mode")] if self.name == "MirrorPad" else "nothing"
        padding = self.numbers(1)
        along: dict[int, Reading] = {
            dim: Window(before=padding[2 * dim], border=border)
            for dim in range(len(self.shape))
            if self.shape[dim] != self.x.shape[dim]
        }
        return [self.sketch.read(self.x, "pad", along, self.shape, self.name)]

    def resize(self) -> Sequence[Value]:
        """A resizing."""
        corners, halves = self.attr("align_corners"), self.attr("half_pixel_centers")
        shift = Fraction(int(halves), 2)
        along: dict[int, Reading] = {}
        for dim in (1, 2):
            n, size = self.x.shape[dim], self.shape[dim]
            aligned = corners and size > 1
            scale = Fraction(n - 1, size - 1) if aligned else Fraction(n, size)
            match self.name:
                case "ResizeNearestNeighbor":
                    along[dim] = Resized("round" if aligned else "nearest", scale, shift)
                case "ResizeBilinear":
                    along[dim] = Resized("linear", scale, shift)
                case _:
                    along[dim] = Resized("cubic", scale, shift)
        return [self.sketch.read(self.x, "resize", along, self.shape, self.name)]

    def depth_to_space(self) -> Sequence[Value]:
        """Places made of channels."""
        scale = Fraction(1, self.attr("block_size"))
        along = {dim: Resized("nearest", scale, Fraction(0)) for dim in self._places()}
        return [self.sketch.read(self.x, "resize", along, self.shape, self.name)]

    def space_to_depth(self) -> Sequence[Value]:
        """Channels made of places."""
        size = self.attr("block_size")
        along = {dim: Window(size, size) for dim in self._places()}
        return [self.sketch.read(self.x, "pool", along, self.shape, self.name)]

    # ---------------------------------------------------------------- mixing places

    def _reduced(self) -> Sequence[Value]:
        """A mean, or another reduction, over some axes."""
        dims = [dim % len(self.x.shape) for dim in self.numbers(1)]
        return [self.sketch.reduced(self.x, dims, self.shape, self.name)]

    def product(self) -> Sequence[Value]:
        """A product of matrices, or of many at once."""
        names = ("transpose_a", "transpose_b") if self.name == "MatMul" else ("adj_x", "adj_y")
        factors = []
        for value, name in zip(self.given, names, strict=True):
            if value is not None and self.attr(name):
                axes = len(value.shape)
                value = self.sketch.permuted(value, [*range(axes - 2), axes - 1, axes - 2])
            factors.append(value)
        return [self.sketch.contracted(*factors, self.shape, self.name)]

    def einsum(self) -> Sequence[Value]:
        """Any product of tensors, in Einstein's notation."""
        equation = self.attr("equation")
        takes, gives = equation.split("->")
        labels = takes.split(",")
        if "." in equation or any(len(set(label)) < len(label) for label in labels):
            raise Unclear
        x = self.x
        own = labels[self.given.index(x)]
        layout = [x.layout[own.index(c)] if c in own else PLAIN for c in gives]
        if len(self.values) > 1:
            apart: set[int] = set()
            for c in (c for c in gives if all(c in label for label in labels)):
                axes = {
                    value.layout[label.index(c)]
                    for value, label in zip(self.values, labels, strict=True)
                }
                apart.update(axes.pop().spatial if len(axes) == 1 else ())
            grid = self.sketch.steps[x.step].grid
            mixed = set(range(len(grid))) - apart
            steps = [value.step for value in self.values]
            step = self.sketch.mix(steps, mixed, keep=grid, operation=self.name)
        else:
            summed = [dim for dim, c in enumerate(own) if c not in gives]
            step = self.sketch.mix([x.step], x.spatial(summed), operation=self.name)
        return [Value(step, self.shape, tuple(layout))]


_HANDLERS: Final[Mapping[str, Callable[[_Operation], Sequence[Value | None]]]] = {
    "AvgPool": _Operation.pool,
    "AvgPool3D": _Operation.pool,
    "BatchMatMulV2": _Operation.product,
    "BatchToSpaceND": _Operation.collect,
    "BroadcastTo": _Operation.broadcast,
    "ConcatV2": _Operation.concat,
    "Conv2D": _Operation.convolution,
    "Conv2DBackpropInput": _Operation.transposed,
    "Conv3D": _Operation.convolution,
    "Conv3DBackpropInputV2": _Operation.transposed,
    "DepthToSpace": _Operation.depth_to_space,
    "DepthwiseConv2dNative": _Operation.convolution,
    "Einsum": _Operation.einsum,
    "ExpandDims": _Operation.expand_dims,
    "FusedBatchNormV3": _Operation.batch_norm,
    "GatherV2": _Operation.gather,
    "LogSoftmax": _Operation.softmax,
    "MatMul": _Operation.product,
    "MaxPool": _Operation.pool,
    "MaxPool3D": _Operation.pool,
    "MirrorPad": _Operation.pad,
    "Pack": _Operation.pack,
    "Pad": _Operation.pad,
    "PadV2": _Operation.pad,
    "Reshape": _Operation.reshape,
    "ResizeBicubic": _Operation.resize,
    "ResizeBilinear": _Operation.resize,
    "ResizeNearestNeighbor": _Operation.resize,
    "Slice": _Operation.slice,
    "Softmax": _Operation.softmax,
    "SpaceToBatchND": _Operation.deal_out,
    "SpaceToDepth": _Operation.space_to_depth,
    "Split": _Operation.split,
    "SplitV": _Operation.split,
    "Squeeze": _Operation.squeeze,
    "StridedSlice": _Operation.strided_slice,
    "Tile": _Operation.tile,
    "Transpose": _Operation.transpose,
    "Unpack": _Operation.unpack,
}
_BLOCKED: Final = frozenset(
    ["BatchToSpaceND", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "ExpandDims", "Squeeze"]
)
"""What may be done with places that are dealt out to the batch."""
