"""Which layers a network calls, in which order, and what they return: found by one forward pass."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias
from weakref import ReferenceType, ref

import torch
from torch import nn

from cnnviz_core.model import LOGITS, OUTPUT, LayerInfo
from cnnviz_torch.arrays import main_tensor, version_of
from cnnviz_torch.capture import hooked
from cnnviz_torch.layers import kind_of, layout_of, type_of
from cnnviz_torch.logits import Head, HeadFinder
from cnnviz_torch.tails import Tails, TailTaping

__all__ = ["Node", "Structure", "named_layers", "trace"]

_MOST_PREFIX_TOKENS = 8

Layouts: TypeAlias = defaultdict[torch.Size, bool]
"""Whether the last value of a shape had its channels on the second axis."""


@dataclass(frozen=True)
class Node:
    """One call of one module.

    Attributes
    ----------
    info : LayerInfo
        What is told of it.
    module : str
        The module's path in the network, as torch names it.
    call : int
        Which call of this module it is, from 0.
    channels_first : bool
        Whether its value has the channels on the second axis; at the boundary they are on the last.
    """

    info: LayerInfo
    module: str
    call: int
    channels_first: bool


@dataclass(frozen=True)
class Structure:
    """What one forward pass shows of a network.

    Attributes
    ----------
    nodes : mapping of str to Node
        In the order in which the calls end.
    head : Head or None
        The softmax or sigmoid at its end.
    channels_first : bool
        Whether its output has the channels on the second axis.
    channels_last : frozenset of str
        The nodes of those inputs that the network takes with the channels on the last axis.
    cuts : frozenset of str
        The layers through whose value everything goes from the inputs to the output.
    """

    nodes: Mapping[str, Node]
    head: Head | None
    channels_first: bool
    channels_last: frozenset[str] = frozenset()
    cuts: frozenset[str] = frozenset()

    @cached_property
    def layers(self) -> Mapping[str, LayerInfo]:
        """The nodes as they are told."""
        return MappingProxyType({name: node.info for name, node in self.nodes.items()})

    def headless(self) -> Structure:
        """Give the structure of the network where what ends it counts as its scores.

        Returns
        -------
        Structure
        """
        nodes = {
            name: replace(node, info=replace(node.info, affine=False))
            for name, node in self.nodes.items()
        }
        return replace(self, nodes=MappingProxyType(nodes), head=None)

    def has_channels_first(self, node: str, value: torch.Tensor) -> bool:
        """Tell whether a node's value has the channels on the second axis.

        Parameters
        ----------
        node : str
            A layer's name, or a special node.
        value : Tensor
            Its value.

        Returns
        -------
        bool
        """
        if node in self.nodes:
            return self.nodes[node].channels_first
        if node in (LOGITS, OUTPUT):
            return self.channels_first
        return value.ndim > 2 and node not in self.channels_last


@dataclass(frozen=True)
class _Call:
    """One call of a module, and the shape of the first floating-point tensor that it returned.

    `own` counts the module's calls, `index` those of the layer: an exported program may hold
    several modules for one layer.  `maker` is the place of the first call to return this tensor.
    """

    name: str
    path: str
    module: nn.Module
    own: int
    index: int
    shape: torch.Size
    maker: int


def named_layers(network: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Go through the modules whose calls are layers.

    Parameters
    ----------
    network : nn.Module
        The network, which itself is none.

    Yields
    ------
    (str, str, nn.Module)
        The layer's name, its path as torch names it, and the module.  The name is without what
        ``torch.compile`` puts in, and without the number of the call in an exported program.  Left
        out are scripted modules, which refuse hooks, and modules that compute a parameter.
    """
    for path, module in network.named_modules():
        parts = path.split(".")
        if (
            path
            and "parametrizations" not in parts
            and "_orig_mod" not in module._modules
            and not isinstance(module, torch.jit.ScriptModule)
        ):
            named = (re.sub(r"@\d+$", "", part) for part in parts if part != "_orig_mod")
            yield ".".join(named), path, module


def trace(
    network: nn.Module,
    run: Callable[[], torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    first: bool = True,
) -> Structure:
    """Run a network once, and note what it calls.

    Parameters
    ----------
    network : nn.Module
        The network.
    run : callable
        Runs it on some input, without gradients, and returns its main output.
    tensors : mapping of str to Tensor
        This input.
    first : bool
        Whether it has the channels on the second axis.

    Returns
    -------
    Structure
    """
    names = {module: (name, path) for name, path, module in named_layers(network)}
    own: Counter[nn.Module] = Counter()
    count: Counter[str] = Counter()
    calls: list[_Call] = []
    # No tensor is kept, lest all of them be in memory at once.  One that is gone has no maker, even
    # if another has its identity now.
    returned: dict[int, tuple[ReferenceType[torch.Tensor], int, int]] = {}
    # 3 for signals, 4 for pictures, 5 for volumes
    axes = max(tensor.ndim for tensor in tensors.values())
    taping = TailTaping(tensors)

    def note(module: nn.Module, args: Any, output: Any) -> None:
        name, path = names[module]
        value = main_tensor(output)
        if value is not None and value.ndim > 0:
            taping.mark(str(len(calls)), value)
            # The version tells the value of an in-place operation from that which it overwrote.
            version = version_of(value)
            alive, known, maker = returned.get(id(value), (None, version, 0))
            if alive is None or alive() is not value or known != version:
                maker = len(calls)
                returned[id(value)] = (ref(value), version, maker)
            calls.append(_Call(name, path, module, own[module], count[name], value.shape, maker))
        own[module] += 1
        count[name] += 1

    with HeadFinder() as finder, hooked(names, note), taping:
        output = run()
        head = finder.find(output)
    taping.mark(OUTPUT, output)
    taping.mark(LOGITS, head[1] if head else output)
    tails = taping.tails(not any(map(_has_backward_hooks, network.modules())))
    layouts: Layouts = defaultdict(lambda: first)
    nodes = _nodes(calls, count, layouts, axes, len(next(iter(tensors.values()))), tails)
    return Structure(
        MappingProxyType(nodes),
        head[0] if head else None,
        _channels_first(output.shape, None, layouts, axes),
        cuts=frozenset(name for i, name in enumerate(nodes) if str(i) in tails.cuts),
    )


def _has_backward_hooks(module: nn.Module) -> bool:
    """Tell whether a module may change the gradients that pass through it."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def _nodes(
    calls: list[_Call],
    count: Mapping[str, int],
    layouts: Layouts,
    axes: int,
    batch: int,
    tails: Tails,
) -> dict[str, Node]:
    """Describe every call; leaves behind how the values of each shape were last laid out."""
    nodes: dict[str, Node] = {}
    names: list[str] = []
    patches: list[tuple[int, ...]] = []
    for i, call in enumerate(calls):
        channels_first = _channels_first(call.shape, call.module, layouts, axes)
        layouts[call.shape] = channels_first
        shape = tuple(call.shape[1:])
        if channels_first:
            shape = (*shape[1:], shape[0])
        kind = kind_of(call.module)
        grid, prefix = None, 0
        if call.shape[0] == batch:
            if len(call.shape) == axes > 2:
                grid = shape[:-1]
            elif len(call.shape) == 3 and axes > 3:
                grid, prefix = _token_grid(shape[0], patches)
        if kind == "conv" and grid is not None:
            patches.append(grid)
        calls_of = count[call.name]
        name = call.name if calls_of == 1 else f"{call.name}@{call.index}"
        names.append(name)
        maker = names[call.maker]
        info = LayerInfo(
            name=name,
            kind=kind,
            type=type_of(call.module),
            shape=shape,
            grid=grid,
            prefix=prefix,
            path=call.name,
            call=call.index,
            calls=calls_of,
            same_as=maker if kind == "container" and maker != name else None,
            affine=str(i) in tails.affine,
        )
        nodes[name] = Node(info, call.path, call.own, channels_first)
    return nodes


def _channels_first(
    shape: torch.Size, module: nn.Module | None, layouts: Layouts, axes: int
) -> bool:
    """Tell whether a value of a shape has its channels on the second axis.

    Convolutions say so; linear layers and layer norms have them on the last.  Other layers keep
    what they are given, so a value is laid out as the one of its shape before it,
    or else as the input.
    """
    if len(shape) != axes or axes < 3:
        return False
    layout = layout_of(module) if module is not None else None
    return layouts[shape] if layout is None else layout == "first"


def _token_grid(tokens: int, patches: list[tuple[int, ...]]) -> tuple[tuple[int, ...] | None, int]:
    """Find the grid of the patch embedding that tokens come from, and how many come before it."""
    for grid in reversed(patches):
        prefix = tokens - math.prod(grid)
        if math.prod(grid) > 1 and 0 <= prefix <= _MOST_PREFIX_TOKENS:
            return grid, prefix
    return None, 0
