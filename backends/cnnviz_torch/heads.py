"""Torch networks with global pooling and a linear layer in the place of their head."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from cnnviz_core.errors import UnsupportedModelError
from cnnviz_core.heads import BODY, EPSILON, Epoch, Head, Training
from cnnviz_core.model import Array, LayerInfo
from cnnviz_torch.copying import copied
from cnnviz_torch.model import unwrapped

__all__ = ["fitted", "pooled"]


def pooled(native: nn.Module, layer: LayerInfo, head: Head) -> nn.Sequential:
    """Cut a copy of a network behind a layer, and put a head there.

    Parameters
    ----------
    native : nn.Module
        The network, of one input, whose way to the layer ``torch.fx`` can trace; it is not changed.
    layer : LayerInfo
        A call of one of its modules, which returns (N, C, ...grid).
    head : Head
        What is put there.

    Returns
    -------
    nn.Sequential
        In evaluation mode, with the parts "body", "conv" and "relu" where the head has a kernel,
        "pool", "flatten" and "linear".

    Raises
    ------
    UnsupportedModelError
        If the network cannot be copied or traced, or the layer is not found in the trace.
    """
    with torch.random.fork_rng([]):  # modules draw values for the arrays that are put in below
        body = _cut(_copy(native), layer)
        like = next(body.parameters(), torch.empty(0))
        parts = [(name, part.to(like)) for name, part in _parts(head, len(layer.shape) - 1)]
    return nn.Sequential(OrderedDict([(BODY, body), *parts])).eval()


def _copy(native: Any) -> nn.Module:
    """Copy a network, in evaluation mode."""
    if not isinstance(native, nn.Module) or isinstance(native, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"{type(native).__name__} cannot be changed",
            "an nn.Module",
            "take the network that it was exported or scripted from",
        )
    return copied(unwrapped(native), {}).eval()


class _Reached(Exception):
    """The call was traced behind which a network is cut; what follows does not matter."""


class _Tracer(fx.Tracer):
    """Follows a network up to a call of one of its modules, into which it does not look."""

    def __init__(self, whole: nn.Module, call: int) -> None:
        super().__init__()
        self.whole, self.call, self.calls = whole, call, 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module is one operation."""
        return m is self.whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, *args: Any) -> Any:
        """Follow the call of a module."""
        value = super().call_module(m, *args)
        if m is self.whole:
            if self.calls == self.call:
                raise _Reached
            self.calls += 1
        return value


class _OfOneInput(nn.Module):
    """Calls a network with one argument, whatever else its forward takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> Any:
        """Return what the network does."""
        return self.network(x)


def _cut(network: nn.Module, layer: LayerInfo) -> fx.GraphModule:
    """Keep of a network what comes before the end of a layer's call."""
    call = int(layer.name.removeprefix(layer.path).removeprefix("@") or 0)
    tracer = _Tracer(network.get_submodule(layer.path), call)
    try:
        tracer.trace(_OfOneInput(network))
    except _Reached:
        return fx.GraphModule(network, _plain(tracer.graph))
    except Exception as error:  # whatever a user's own forward raises when it is traced
        raise UnsupportedModelError(
            f"the network cannot be cut behind layer {layer.name!r}: torch.fx cannot trace it "
            f"({type(error).__name__}: {error})",
            "a network whose forward does not look at the values or the shapes of its input",
            "give the part before its head as a network of its own",
        ) from error
    raise UnsupportedModelError(
        f"layer {layer.name!r} is not called where torch.fx traces the network",
        "a module that the network calls by itself",
        "name the module around it",
    )


def _plain(traced: fx.Graph) -> fx.Graph:
    """Copy a graph that ends in what it returns, without what keeps it from being pickled."""
    graph, copies = fx.Graph(), {}
    for node in traced.nodes:
        node.type = None  # an annotation may be a text
        if node.op in ("call_module", "get_attr"):
            node.target = node.target.removeprefix("network.")
        copies[node] = last = graph.node_copy(node, copies.__getitem__)
    graph.output(last)
    return graph


def _parts(head: Head, axes: int) -> Iterator[tuple[str, nn.Module]]:
    """Make the modules of a head for a grid of so many axes."""
    if head.kernel is not None:
        kernel = head.kernel
        conv = getattr(nn, f"Conv{axes}d")(*kernel.shape[-2:], kernel.shape[:-2], padding="same")
        yield "conv", _loaded(conv, kernel.transpose(-1, -2, *range(axes)), 0)
        yield "relu", nn.ReLU()
    kind = {"average": "Avg", "max": "Max"}[head.pooling]
    yield "pool", getattr(nn, f"Adaptive{kind}Pool{axes}d")(1)
    yield "flatten", nn.Flatten()
    yield "linear", _loaded(nn.Linear(*head.weight.shape), head.weight.T, head.bias)


def _loaded(module: Any, weight: Array, bias: Array | int) -> nn.Module:
    """Put arrays into a module, in their precision."""
    module.double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(weight, np.float64)))
        module.bias.copy_(torch.from_numpy(np.array(bias, np.float64)))
    return module


def fitted(
    native: nn.Module,
    samples: tuple[Array, Array],
    validation: tuple[Array, Array] | None,
    training: Training,
) -> tuple[nn.Module, list[Epoch]]:
    """Train a copy of a network.

    Parameters
    ----------
    native : nn.Module
        A network from (N, C, ...grid) to the scores of classes; it is not changed.  Parameters that
        ask for no gradient stay as they are.
    samples : tuple of ndarray
        (N, ...grid, C) and the classes, (N,) of int.
    validation : tuple of ndarray, or None
        Likewise.
    training : Training
        How.

    Returns
    -------
    nn.Module
        In evaluation mode.
    list of Epoch

    Raises
    ------
    UnsupportedModelError
        If the network cannot be copied, or its head is to be trained and it was not made by
        `pooled`.
    """
    network = _copy(native)
    fixed, learning = _halves(network) if training.train == "head" else (nn.Identity(), network)
    like = next(network.parameters())

    def tensors(pairs: tuple[Array, Array]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give samples as `learning` takes them, with what is fixed computed once."""
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pairs[0], -1, 1)))
        y = torch.from_numpy(np.asarray(pairs[1], np.int64)).to(like.device)
        return _answers(fixed, x.to(like), training.batch_size), y

    x, y = tensors(samples)
    held = None if validation is None else tensors(validation)
    parameters = [p for p in learning.parameters() if p.requires_grad]
    rule = (
        _Adam(parameters, training.rate)
        if training.optimiser == "adam"
        else torch.optim.SGD(parameters, training.rate)
    )
    epochs = []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(training.seed)
        for order in training.orders(len(y)):
            batches = torch.from_numpy(order).to(like.device).split(training.batch_size)
            learning.train()
            loss, right = _epoch(learning, rule, ((x[rows], y[rows]) for rows in batches))
            learning.eval()
            share = None
            if held is not None:
                answers = _answers(learning, held[0], training.batch_size)
                share = float((answers.argmax(1) == held[1]).double().mean())
            epochs.append(Epoch(loss / len(y), right / len(y), share))
    for parameter in parameters:
        parameter.grad = None
    return network, epochs


class _Adam(torch.optim.Adam):
    """Adam in the form that Keras has: epsilon is added to the root before its bias is corrected.

    Kingma and Ba give both, ICLR 2015, section 2.
    """

    taken = 0

    def step(self, closure: Any = None) -> Any:
        """Make a step."""
        self.taken += 1
        for group in self.param_groups:
            group["eps"] = EPSILON / math.sqrt(1 - group["betas"][1] ** self.taken)
        return super().step(closure)


def _halves(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Split a pooled network before the first part of its head that has parameters."""
    if not isinstance(network, nn.Sequential) or next(iter(network._modules), "") != BODY:
        raise UnsupportedModelError(
            f"a {type(network).__name__} has no head of ours to train",
            "a network that cnnviz.heads.pooled made",
            "train all of it: train='all'",
        )
    parts = list(network)
    first = next(i for i, part in enumerate(parts) if i and list(part.parameters()))
    return nn.Sequential(*parts[:first]), nn.Sequential(*parts[first:])


def _answers(network: nn.Module, x: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Run a network without gradients, batch by batch."""
    if isinstance(network, nn.Identity):
        return x
    with torch.no_grad():
        return torch.cat([network(part) for part in x.split(batch_size)])


def _epoch(
    network: nn.Module,
    rule: torch.optim.Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[float, int]:
    """Make a step for every batch; give the sum of the losses and how many answers were right."""
    total, right = 0.0, 0
    for x, y in batches:
        scores = network(x)
        loss = F.cross_entropy(scores, y)
        rule.zero_grad()
        loss.backward()
        rule.step()
        total += float(loss.detach()) * len(y)
        right += int((scores.argmax(1) == y).sum())
    return total, right
