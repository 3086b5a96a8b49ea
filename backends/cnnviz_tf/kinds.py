"""What a rule calls the operations of a graph, and what is known of their values beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import tensorflow as tf

from cnnviz_tf.rules import OVERRIDES

__all__ = [
    "CONVOLUTIONS",
    "ELEMENTWISE",
    "NORMS",
    "PLACING",
    "PRODUCTS",
    "REDUCTIONS",
    "SHAPES",
    "SUMS",
    "TYPES",
    "Facts",
    "may_vary",
    "weight_index",
]

CONVOLUTIONS: Final = {
    "Conv2D": 0,
    "Conv3D": 0,
    "DepthwiseConv2dNative": 0,
    "Conv2DBackpropInput": 2,
    "Conv3DBackpropInputV2": 2,
}
"""From the type of a convolution to the index of its data; its weight is the input of index 1."""

PRODUCTS: Final = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
"""Products of matrices: dense layers where one of the two is constant."""

PLACING: Final = frozenset(
    {
        "BatchToSpaceND",
        "BroadcastTo",
        "Cast",
        "CheckNumerics",
        "DepthToSpace",
        "EnsureShape",
        "ExpandDims",
        "Gather",
        "GatherNd",
        "GatherV2",
        "Identity",
        "IdentityN",
        "Merge",
        "MirrorPad",
        "Pack",
        "Pad",
        "PadV2",
        "PlaceholderWithDefault",
        "Reshape",
        "ResizeNearestNeighbor",
        "ReverseV2",
        "Roll",
        "Slice",
        "Snapshot",
        "SpaceToBatchND",
        "SpaceToDepth",
        "Split",
        "SplitV",
        "Squeeze",
        "StridedSlice",
        "Switch",
        "Tile",
        "Transpose",
        "Unpack",
    }
)
"""Operations that only place values anew."""

SUMS: Final = frozenset({"Add", "AddN", "AddV2", "Sub"})
_SCALINGS: Final = frozenset({"Add", "AddV2", "BiasAdd", "Mul", "RealDiv", "Sub"})
NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
REDUCTIONS: Final = frozenset({"Max", "Mean", "Min", "Prod", "Sum"})

_NONNEGATIVE: Final = frozenset(
    {"Abs", "Exp", "Relu", "Relu6", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Square"}
)
"""Operations that give nothing negative."""

_KEEPING: Final = frozenset(
    {"Add", "AddN", "AddV2", "AvgPool", "AvgPool3D", "ConcatV2", "Max", "MaxPool", "MaxPool3D"}
    | {"Maximum", "Mean", "Mul", "Sum"}
    | (PLACING - {"MirrorPad", "PadV2"})
)
"""Operations that give nothing negative if they take nothing negative."""

_UNARY: Final = frozenset(
    {
        *("Abs", "Atan", "Atanh", "Acos", "Acosh", "Asin", "Asinh", "Cos", "Cosh", "Elu", "Erf"),
        *("Erfc", "Exp", "Expm1", "Log", "Log1p", "Reciprocal", "Inv", "Rsqrt", "Selu", "Sigmoid"),
        *("Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Square", "Tan", "Tanh", "ClipByValue"),
        *("Ceil", "Floor", "Round", "Rint", "Sign", "Xlog1py", "Xlogy", "Xdivy"),
    }
)
"""Functions of single values, other than rectifiers."""

_BINARY: Final = frozenset(
    {"DivNoNan", "FloorMod", "Maximum", "Minimum", "MulNoNan", "Pow", "RealDiv"}
    | {"SquaredDifference"}
)
"""Functions of two values, which are functions of one where the other is constant."""

_CHOICES: Final = frozenset(
    {"Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual", "Select", "SelectV2"}
    | {"LogicalAnd", "LogicalNot", "LogicalOr"}
)

ELEMENTWISE: Final = frozenset(
    {"Neg", "Identity", "Cast", "ZerosLike", "OnesLike", *OVERRIDES}
    | SUMS
    | {"Mul", "BiasAdd"}
    | _UNARY
    | _BINARY
    | _CHOICES
)
"""Operations of which every result depends on the values at the same place only."""

SHAPES: Final = frozenset({"OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"})
"""Operations that read no value of what they take."""

_READS: Final = frozenset({"HashTableV2", "LookupTableFindV2", "ReadVariableOp", "ResourceGather"})
"""Operations that TensorFlow calls stateful, though they only read."""

_BOUNDED: Final = frozenset({"Sigmoid", "Softsign", "Tanh"})
_SIMPLE: Final = {
    **dict.fromkeys(OVERRIDES, "relu"),
    **dict.fromkeys(("AvgPool", "AvgPool3D"), "avgpool"),
    **dict.fromkeys(("MaxPool", "MaxPool3D", "MaxPoolV2"), "maxpool"),
    **dict.fromkeys(("Concat", "ConcatV2"), "concat"),
    **dict.fromkeys(_UNARY, "activation"),
    "Neg": "batchnorm",
}
TYPES: Final = {
    "conv": frozenset(CONVOLUTIONS),
    "linear": PRODUCTS,
    "add": SUMS,
    **{
        kind: frozenset(key for key, value in _SIMPLE.items() if value == kind)
        for kind in ("relu", "avgpool", "maxpool", "activation", "concat")
    },
}
"""From a kind to the types of operation that may be of it."""

_OVER_PLACES: Final = {"Max": "maxpool", "Mean": "avgpool", "Sum": "avgpool"}


class Facts:
    """What a graph's operations are, as far as rules of relevance ask.

    Parameters
    ----------
    graph : tf.Graph
        The graph.
    inputs : iterable of tf.Tensor
        The network's inputs.
    """

    def __init__(self, graph: tf.Graph, inputs: Iterable[tf.Tensor]) -> None:
        self._inputs = frozenset(tensor.ref() for tensor in inputs)
        self._data = set(self._inputs)
        self._nonnegative: set[object] = set()
        self._weighted: set[object] = set()
        self.order: dict[tf.Operation, int] = {}
        for index, op in enumerate(graph.get_operations()):
            self.order[op] = index
            if op.type not in SHAPES and any(map(self.is_data, op.inputs)):
                self._note(op)

    def is_input(self, tensor: tf.Tensor) -> bool:
        """Tell whether a tensor is an input of the network.

        Parameters
        ----------
        tensor : tf.Tensor
            Any of the graph.

        Returns
        -------
        bool
        """
        return tensor.ref() in self._inputs

    def is_data(self, tensor: tf.Tensor) -> bool:
        """Tell whether a tensor depends on the values of the network's inputs.

        Parameters
        ----------
        tensor : tf.Tensor
            Any of the graph.

        Returns
        -------
        bool
        """
        return tensor.ref() in self._data

    def is_nonnegative(self, tensor: tf.Tensor) -> bool:
        """Tell whether a tensor is known to hold nothing negative.

        Parameters
        ----------
        tensor : tf.Tensor
            Any of the graph.

        Returns
        -------
        bool
        """
        return tensor.ref() in self._nonnegative or _is_constant_nonnegative(tensor)

    def is_first(self, op: tf.Operation) -> bool:
        """Tell whether no convolution or dense layer is before an operation.

        Parameters
        ----------
        op : tf.Operation
            The operation.

        Returns
        -------
        bool
        """
        return not any(tensor.ref() in self._weighted for tensor in op.inputs)

    def data_of(self, op: tf.Operation) -> list[tf.Tensor]:
        """List the inputs of an operation that depend on the network's.

        Parameters
        ----------
        op : tf.Operation
            The operation.

        Returns
        -------
        list of tf.Tensor
        """
        return [tensor for tensor in op.inputs if self.is_data(tensor)]

    def kind(self, op: tf.Operation) -> str | None:
        """Give what a rule calls an operation.

        Parameters
        ----------
        op : tf.Operation
            The operation; it takes what depends on the network's inputs.

        Returns
        -------
        str or None
            One of `cnnviz_core.rules.RULE_KINDS`; None if it is of no kind.
        """
        if op.type in _SIMPLE:
            return _SIMPLE[op.type]
        if weight_index(op, self) is not None:
            return "conv" if op.type in CONVOLUTIONS else "linear"
        if op.type in _OVER_PLACES:
            return _OVER_PLACES[op.type] if _is_over_places(op) else None
        if op.type in NORMS:
            return None if op.get_attr("is_training") else "batchnorm"
        several = len(self.data_of(op)) > 1
        if op.type in SUMS and several:
            return "add"
        if op.type in _SCALINGS and not several:
            divisor = op.type == "RealDiv" and self.is_data(op.inputs[1])
            return "activation" if divisor else "batchnorm"
        if op.type == "Mul":
            return "gate" if self.signal(op) is not None else None
        return "activation" if op.type in _BINARY and not several else None

    def signal(self, op: tf.Operation) -> int | None:
        """Tell which operand of a product is the signal, the other one being a gate.

        Parameters
        ----------
        op : tf.Operation
            A product of two values that depend on the network's inputs.

        Returns
        -------
        int or None
            Its index; None if not exactly one operand comes from a bounded activation.
        """
        gates = [self._is_bounded(tensor) for tensor in op.inputs]
        return gates.index(False) if gates.count(True) == 1 else None

    def _note(self, op: tf.Operation) -> None:
        """Remember what follows from an operation for its results."""
        weighted = weight_index(op, self) is not None or not self.is_first(op)
        nonnegative = op.type in _NONNEGATIVE or self._keeps_nonnegative(op)
        for output in op.outputs:
            self._data.add(output.ref())
            if weighted:
                self._weighted.add(output.ref())
            if nonnegative:
                self._nonnegative.add(output.ref())

    def _keeps_nonnegative(self, op: tf.Operation) -> bool:
        """Tell whether an operation gives nothing negative because it takes nothing negative."""
        if op.type in ("PadV2", "RealDiv"):
            return all(map(self.is_nonnegative, (op.inputs[0], op.inputs[-1])))
        values = [tensor for tensor in op.inputs if tensor.dtype.is_floating]
        return op.type in _KEEPING and all(map(self.is_nonnegative, values))

    def _is_bounded(self, tensor: tf.Tensor) -> bool:
        """Tell whether a tensor is what a bounded activation gives, placed or scaled anew."""
        op = tensor.op
        while op.type in PLACING or op.type in _SCALINGS:
            data = self.data_of(op)
            if len(data) != 1:
                return False
            op = data[0].op
        return op.type in _BOUNDED or self._is_hard_sigmoid(op)

    def _is_hard_sigmoid(self, op: tf.Operation) -> bool:
        """Tell whether an operation is the rectifier, or the clipping, of a hard sigmoid."""
        if op.type in ("Maximum", "Minimum", "ClipByValue"):
            ends = [tf.get_static_value(tensor) for tensor in op.inputs]
            inner = self.data_of(op)[0].op
            if inner.type in ("Maximum", "Minimum"):
                ends += [tf.get_static_value(tensor) for tensor in inner.inputs]
            return any(end is not None and end.ndim == 0 and end == 1 for end in ends)
        if op.type != "Relu6" or op.inputs[0].op.type not in ("Add", "AddV2"):
            return False
        shifts = [tf.get_static_value(tensor) for tensor in op.inputs[0].op.inputs]
        return any(shift is not None and shift.ndim == 0 for shift in shifts)


def weight_index(op: tf.Operation, facts: Facts) -> int | None:
    """Tell which input of an operation is its weight.

    Parameters
    ----------
    op : tf.Operation
        The operation.
    facts : Facts
        Those of its graph.

    Returns
    -------
    int or None
        None if it is no convolution or product of matrices, or has no constant weight.
    """
    if op.type in CONVOLUTIONS:
        return None if facts.is_data(op.inputs[1]) else 1
    if op.type in PRODUCTS and len(op.inputs) == 2:
        constant = [index for index in (0, 1) if not facts.is_data(op.inputs[index])]
        return constant[0] if len(constant) == 1 else None
    return None


def may_vary(op: tf.Operation) -> bool:
    """Tell whether an operation may give now this, now that for the same input.

    Parameters
    ----------
    op : tf.Operation
        The operation.

    Returns
    -------
    bool
        True for what draws random numbers, keeps a state, or calls Python.
    """
    return "Random" in op.type or (op.op_def.is_stateful and op.type not in _READS)


def _is_over_places(op: tf.Operation) -> bool:
    """Tell whether a reduction is over axes of places: not that of samples or of channels."""
    rank, axes = op.inputs[0].shape.rank, tf.get_static_value(op.inputs[1])
    if rank is None or axes is None:
        return False
    over = {int(axis) % rank for axis in axes.reshape(-1)}
    first = rank > 3 and over == set(range(2, rank))
    return bool(over) and (over <= set(range(1, rank - 1)) or first)


def _is_constant_nonnegative(tensor: tf.Tensor) -> bool:
    """Tell whether a tensor is a single constant that is not negative."""
    value = tf.get_static_value(tensor) if tensor.shape.rank == 0 else None
    return value is not None and bool(value >= 0)
