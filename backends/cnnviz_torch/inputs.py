"""What a network takes and which of its outputs is the main one."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import nn

from cnnviz_core.errors import ParameterError, UnsupportedModelError
from cnnviz_core.model import InputInfo
from cnnviz_torch.arrays import main_tensor
from cnnviz_torch.layers import features_of

__all__ = [
    "ChannelsLast",
    "Output",
    "Shape",
    "check_loaded",
    "declared_inputs",
    "reference_tensor",
    "select",
    "stem_checked",
    "takes_names",
]

Shape: TypeAlias = tuple[int | None, ...]
Output: TypeAlias = str | int | Callable[[Any], torch.Tensor] | None


class ChannelsLast(Exception):
    """Says that a network takes an input with the channels on the last axis.

    Attributes
    ----------
    name : str
        The input.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def check_loaded(network: nn.Module) -> None:
    """Check that a network's parameters hold values.

    Parameters
    ----------
    network : nn.Module
        The network.

    Raises
    ------
    UnsupportedModelError
        If one has none yet.
    """
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            raise UnsupportedModelError(
                "the network's parameters hold no values yet (meta device or lazy module)",
                "a network whose parameters are loaded",
                "load its weights, or run a lazy network once",
            )


def reference_tensor(network: nn.Module) -> torch.Tensor | None:
    """Find the tensor whose type and device the input must have.

    Parameters
    ----------
    network : nn.Module
        The network.

    Returns
    -------
    Tensor or None
        Its first floating-point parameter, or failing that buffer.
    """
    held = chain(network.parameters(), network.buffers())
    return next((tensor for tensor in held if tensor.is_floating_point()), None)


def declared_inputs(
    network: nn.Module, input_shape: Shape | Mapping[str, Shape] | None
) -> dict[str, InputInfo]:
    """Name a network's inputs, and say what is known of them.

    Parameters
    ----------
    network : nn.Module
        The network; the parameters of its ``forward`` that have no default are its inputs.
    input_shape : tuple, mapping of str to tuple, or None
        Shapes without the batch axis, channels last.

    Returns
    -------
    dict of str to InputInfo
        In the order of the call.

    Raises
    ------
    ParameterError
        If there are several inputs and one shape.
    """
    like = reference_tensor(network)
    dtype = "float64" if like is not None and like.dtype == torch.float64 else "float32"
    if isinstance(input_shape, Mapping):
        shapes: dict[str, Shape | None] = {k: tuple(v) for k, v in input_shape.items()}
    else:
        shapes = dict.fromkeys(_argument_names(network))
        if input_shape is not None and len(shapes) > 1:
            raise ParameterError(
                f"one input_shape was given for the inputs {', '.join(map(repr, shapes))}",
                "a shape for each input",
                "pass input_shape={name: (H, W, C), ...}",
            )
        if input_shape is not None:
            shapes = dict.fromkeys(shapes, tuple(input_shape))
    return {name: InputInfo(name, shape, dtype) for name, shape in shapes.items()}


def _argument_names(network: nn.Module) -> list[str]:
    """Name the arguments that a network cannot be called without."""
    arguments = _arguments(network)
    required = [p.name for p in arguments if p.default is p.empty]
    return required or [p.name for p in arguments[:1]] or ["input"]


def _arguments(network: nn.Module) -> list[inspect.Parameter]:
    """List the arguments of a network's ``forward``, as far as it names them."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except ValueError:  # a traced module has no signature
        return []
    return [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def takes_names(network: nn.Module, names: Collection[str]) -> bool:
    """Tell whether a network is to be called with its inputs by name.

    Parameters
    ----------
    network : nn.Module
        The network.
    names : collection of str
        Names of inputs.

    Returns
    -------
    bool
        True where its ``forward`` has several arguments of these names, or one that cannot be given
        by place.
    """
    kinds = {p.name: p.kind for p in _arguments(network)}
    named = [kinds.get(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    by_place = len(named) == 1 and named[0] != inspect.Parameter.KEYWORD_ONLY
    return not by_place and inspect.Parameter.POSITIONAL_ONLY not in named


@contextmanager
def stem_checked(
    network: nn.Module,
    given: Mapping[str, torch.Tensor],
    check: Callable[[str, Shape], None],
    channels_last: Collection[str] = (),
) -> Iterator[None]:
    """Have an input checked by the layer that takes it first, before this layer is called.

    Parameters
    ----------
    network : nn.Module
        The network.
    given : mapping of str to Tensor
        The inputs that it is about to be called with.
    check : callable
        Of an input's name and the shape (without the batch axis, channels last) that a convolution
        or linear layer wants of it; raises where the input has not that shape.
    channels_last : collection of str
        The inputs that have their channels on the last axis already.

    Yields
    ------
    None

    Raises
    ------
    ChannelsLast
        Inside, where an input (N, C, L) goes to a layer that wants (N, L, C), such as an LSTM.
    """
    thread = threading.get_ident()

    def hook(module: Any, args: tuple[Any, ...]) -> None:
        if threading.get_ident() != thread or not args:
            return
        for name, tensor in given.items():
            if args[0] is tensor and isinstance(module, nn.modules.conv._ConvNd):
                check(name, (*(None for _ in module.kernel_size), module.in_channels))
            elif args[0] is tensor and tensor.ndim == 2 and isinstance(module, nn.Linear):
                check(name, (module.in_features,))
            elif args[0] is tensor and tensor.ndim == 3:
                features = features_of(module)
                if features == tensor.shape[1] and name not in channels_last:
                    raise ChannelsLast(name)
                if features is not None and features != tensor.shape[2]:
                    check(name, (None, features))

    stems = (
        nn.modules.conv._ConvNd,
        nn.Linear,
        nn.RNNBase,
        nn.MultiheadAttention,
        nn.TransformerEncoder,
        nn.TransformerEncoderLayer,
    )
    handles = []
    try:
        for module in network.modules():
            if isinstance(module, stems) and not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def select(returned: Any, output: Output) -> torch.Tensor:
    """Pick the main one of the tensors that a network returned.

    Parameters
    ----------
    returned : object
        What it returned.
    output : str, int, callable or None
        The key of a mapping, the attribute or the position of the tensor; a function of `returned`;
        or None for the tensor, of a mapping "logits" or "out", or else the first floating-point
        tensor.

    Returns
    -------
    Tensor

    Raises
    ------
    ParameterError
        If there is no such output.
    UnsupportedModelError
        If the network returned no floating-point tensor.
    """
    if output is None:
        named = (_item(returned, key) for key in ("logits", "out"))
        chosen = next((value for value in named if value is not None), returned)
    elif callable(output):
        chosen = output(returned)
    else:
        chosen = _item(returned, output)
        if chosen is None:
            raise ParameterError(
                f"the network has no output {output!r}; it returned {_described(returned)}",
                "a key, an attribute or a position of what it returns",
                "choose another, or pass output=function of what it returns",
            )
    tensor = main_tensor(chosen)
    if tensor is None:
        raise UnsupportedModelError(
            f"the network returned {_described(chosen)}, without any floating-point tensor",
            "a tensor, or a tuple, mapping or dataclass that holds one",
            "pass output=function that makes a tensor of what the network returns",
        )
    return tensor


def _item(returned: Any, key: str | int) -> Any:
    """Give one of several outputs, None where there is no such."""
    if isinstance(returned, Mapping):
        return returned.get(key)
    if isinstance(returned, (tuple, list)) and isinstance(key, int):
        return returned[key] if -len(returned) <= key < len(returned) else None
    if isinstance(returned, torch.Tensor) or not isinstance(key, str):
        return None
    return getattr(returned, key, None)


def _described(returned: Any) -> str:
    """Describe an output in a few words."""
    if isinstance(returned, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, returned))}"
    if isinstance(returned, (tuple, list)):
        return f"a {type(returned).__name__} of {len(returned)}"
    return f"a {type(returned).__name__}"
