"""The part of autograd's graph through which relevance flows: its operations and their kinds."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import torch
from torch.autograd.graph import Node, get_gradient_edge

from cnnviz_torch.graph import bottom_up, operation_name
from cnnviz_torch.rules import is_rectifier

__all__ = ["DENSE", "PLACING", "Flow", "Place"]

Place: TypeAlias = tuple[Node, int]
"""An operation, and which of its results."""

PLACING: Final = frozenset(
    {
        "Alias",
        "AsStrided",
        "BackwardHookFunction",
        "ChannelShuffle",
        "Clone",
        "ConstantPadNd",
        "CopyBackwards",
        "Diagonal",
        "Expand",
        "Flip",
        "Gather",
        "Im2Col",
        "Index",
        "IndexSelect",
        "MaskedSelect",
        "MaxUnpool2D",
        "MaxUnpool3D",
        "NativeChannelShuffle",
        "Permute",
        "PixelShuffle",
        "PixelUnshuffle",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReflectionPad3D",
        "Repeat",
        "ReplicationPad1D",
        "ReplicationPad2D",
        "ReplicationPad3D",
        "ReshapeAlias",
        "Roll",
        "Select",
        "Slice",
        "Split",
        "SplitWithSizes",
        "Squeeze",
        "T",
        "ToCopy",
        "Transpose",
        "Unbind",
        "Unfold",
        "UnsafeSplit",
        "UnsafeView",
        "Unsqueeze",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "UpsampleNearestExact1D",
        "UpsampleNearestExact2D",
        "UpsampleNearestExact3D",
        "View",
    }
)
"""Operations that only place values anew."""

DENSE: Final = {"Addmm": 1, "Mm": 0, "Bmm": 0, "Linear": 0}
"""Products of matrices, and where the first factor stands among what they take."""

_ALIKE: Final = {
    "maxpool": re.compile(r"(Adaptive|Fractional)?MaxPool\dD(WithIndices)?|Amax|Max"),
    "avgpool": re.compile(r"(Mkldnn)?(Adaptive)?AvgPool\dD|Mean|Sum"),
    "concat": re.compile(r"Cat|Stack"),
}
_ACTIVATIONS: Final = frozenset(
    {
        "Abs",
        "Atan",
        "Celu",
        "Clamp",
        "ClampMax",
        "ClampMin",
        "Elu",
        "Erf",
        "Exp",
        "Expm1",
        "Fmax",
        "Fmin",
        "Gelu",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "Log",
        "Log1P",
        "LogSigmoid",
        "LogSigmoidForward",
        "Maximum",
        "Minimum",
        "Mish",
        "Pow",
        "Prelu",
        "PreluKernel",
        "Reciprocal",
        "Relu6",
        "Rsqrt",
        "Selu",
        "Sigmoid",
        "Silu",
        "Sin",
        "Softplus",
        "Softshrink",
        "Sqrt",
        "Square",
        "Tanh",
        "Threshold",
        "Where",
    }
)
_SCALING: Final = frozenset({"Add", "Sub", "Rsub", "Mul", "Div", "Neg"})
_NORMS: Final = frozenset(
    {
        "CudnnBatchNorm",
        "MiopenBatchNorm",
        "NativeBatchNorm",
        "NativeBatchNormLegit",
        "NativeBatchNormLegitNoTraining",
    }
)
_BOUNDED: Final = frozenset({"Erf", "Hardsigmoid", "Sigmoid", "Tanh"})
_CUT: Final = {
    "Hardtanh": ("_saved_min_val", "_saved_max_val"),
    "Clamp": ("_saved_min", "_saved_max"),
}


@dataclass
class Flow:
    """The operations that made a value of a network's inputs.

    Parameters
    ----------
    root : Node
        The last of them.
    inputs : collection of Node
        The leaves that stand for the network's inputs.
    way : collection of Node
        The operations that relevance passes on its way to what was asked for.
    ends : collection of Node
        The operations that made what was asked for.

    Attributes
    ----------
    order : list of Node
        All whose results depend on the inputs, every one behind those whose results it takes.
    takers : mapping of (Node, int) to list of Node
        Of each result, the operations on the way, or at its end, that take it, once for every
        time.
    kinds : dict of Node to (str or None)
        What a rule calls each of them.
    """

    root: Node
    inputs: Collection[Node]
    way: Collection[Node]
    ends: Collection[Node]
    order: list[Node] = field(init=False)
    takers: defaultdict[Place, list[Node]] = field(init=False)
    kinds: dict[Node, str | None] = field(init=False)

    def __post_init__(self) -> None:
        self._data = set(self.inputs)
        self.order = []
        for node in bottom_up([self.root]):
            if any(child in self._data for child, _ in node.next_functions):
                self._data.add(node)
                self.order.append(node)
        self.takers = defaultdict(list)
        for node in {*self.way, *self.ends}:
            for child, k in node.next_functions:
                if child is not None:
                    self.takers[child, k].append(node)
        self.kinds = {node: self._kind(node) for node in self.order}

    @classmethod
    def between(
        cls,
        value: torch.Tensor,
        leaves: Iterable[torch.Tensor],
        inputs: Iterable[torch.Tensor],
        way: Iterable[Node],
    ) -> Flow:
        """Look at what made a value.

        Parameters
        ----------
        value : Tensor
            A recorded one.
        leaves : iterable of Tensor
            What was asked for.
        inputs : iterable of Tensor
            The network's inputs.
        way : iterable of Node
            The operations that relevance passes.

        Returns
        -------
        Flow
        """

        def nodes(tensors: Iterable[torch.Tensor]) -> set[Node]:
            return {get_gradient_edge(tensor).node for tensor in tensors}

        return cls(get_gradient_edge(value).node, nodes(inputs), set(way), nodes(leaves))

    def given(self, node: Node) -> list[int]:
        """Tell which of the values that an operation takes depend on the network's inputs.

        Parameters
        ----------
        node : Node
            The operation.

        Returns
        -------
        list of int
            Their places.
        """
        return [k for k, (child, _) in enumerate(node.next_functions) if child in self._data]

    def signal(self, node: Node) -> int:
        """Tell which of the factors of a gated signal is the signal.

        Parameters
        ----------
        node : Node
            An operation of the kind "gate".

        Returns
        -------
        int
            Its place.
        """
        return next(k for k in self.given(node) if not self._bounded(node.next_functions[k][0]))

    def _kind(self, node: Any) -> str | None:
        """Tell what a rule calls an operation."""
        name, given = operation_name(node), self.given(node)
        alone = len(given) == 1
        if name == "Convolution":
            return "conv" if given == [0] else None
        if name in DENSE:
            place = DENSE[name]
            return "linear" if alone and given[0] in (place, place + 1) else None
        if is_rectifier(node):
            return "relu" if alone else None
        if name in _ACTIVATIONS:
            return "activation" if alone else "maxpool" if name in ("Maximum", "Fmax") else None
        if name in _NORMS:
            return "batchnorm" if given == [0] and not _of_batch(node) else None
        if name in _SCALING:
            return self._scaling(name, node, given)
        return next((kind for kind, names in _ALIKE.items() if names.fullmatch(name)), None)

    def _scaling(self, name: str, node: Node, given: Sequence[int]) -> str | None:
        """Tell what a rule calls a sum, difference, product or quotient."""
        if len(given) == 1:
            return "batchnorm" if name != "Div" or given == [0] else None
        if name in ("Add", "Sub", "Rsub"):
            return "add"
        bounded = [self._bounded(child) for child, _ in node.next_functions]
        return "gate" if name == "Mul" and bounded.count(True) == 1 else None

    def _bounded(self, node: Node | None) -> bool:
        """Tell whether a value is what a bounded activation gave, but for its place and scale."""
        while node is not None:
            name, given = operation_name(node), self.given(node)
            if name in _BOUNDED:
                return True
            if name in _CUT:
                return self._is_hard_sigmoid(name, node)
            scaled = name in _SCALING and self._scaling(name, node, given) == "batchnorm"
            if len(given) != 1 or not (name in PLACING or scaled):
                return False
            node = node.next_functions[given[0]][0]
        return False

    def _is_hard_sigmoid(self, name: str, node: Node) -> bool:
        """Tell whether a cut at both ends is that of a shifted value, as in ``relu6(x + 3)``."""
        ends = [getattr(node, end) for end in _CUT[name]]
        below = node.next_functions[0][0]
        return (
            all(isinstance(end, float | int) and math.isfinite(end) for end in ends)
            and below is not None
            and operation_name(below) in ("Add", "Sub")
            and len(self.given(below)) == 1
        )


def _of_batch(node: Any) -> bool:
    """Tell whether a batch normalisation takes the mean and variance of this very input."""
    return bool(getattr(node, "_saved_training", False))
