"""What kind of layer a module is, how its values are laid out, and its arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import nn

from cnnviz_core.model import Array
from cnnviz_torch.arrays import to_array

__all__ = ["arrays_of", "features_of", "kind_of", "layout_of", "tensors_of", "type_of"]

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "conv": (nn.modules.conv._ConvNd,),
    "linear": (nn.Linear, nn.Bilinear),
    "relu": (nn.ReLU, nn.ReLU6, nn.LeakyReLU),
    "pool": (
        nn.modules.pooling._MaxPoolNd,
        nn.modules.pooling._AvgPoolNd,
        nn.modules.pooling._AdaptiveMaxPoolNd,
        nn.modules.pooling._AdaptiveAvgPoolNd,
        nn.modules.pooling._LPPoolNd,
        nn.FractionalMaxPool2d,
        nn.FractionalMaxPool3d,
    ),
    "norm": (
        nn.modules.batchnorm._NormBase,
        nn.LayerNorm,
        nn.GroupNorm,
        nn.LocalResponseNorm,
        nn.RMSNorm,
    ),
    "pad": (
        nn.modules.padding._CircularPadNd,
        nn.modules.padding._ConstantPadNd,
        nn.modules.padding._ReflectionPadNd,
        nn.modules.padding._ReplicationPadNd,
    ),
    "reshape": (nn.Flatten, nn.Unflatten),
    "dropout": (nn.modules.dropout._DropoutNd,),
    "attention": (nn.MultiheadAttention,),
    "activation": (
        nn.Softmax,
        nn.Softmax2d,
        nn.Softmin,
        nn.LogSoftmax,
        nn.Sigmoid,
        nn.LogSigmoid,
        nn.Tanh,
        nn.Hardtanh,
        nn.Hardsigmoid,
        nn.Hardswish,
        nn.Hardshrink,
        nn.ELU,
        nn.SELU,
        nn.CELU,
        nn.GELU,
        nn.GLU,
        nn.SiLU,
        nn.Mish,
        nn.PReLU,
        nn.RReLU,
        nn.Softplus,
        nn.Softshrink,
        nn.Softsign,
        nn.Tanhshrink,
        nn.Threshold,
    ),
}
# Layers of other packages, by the name of their class.
_KINDS_BY_NAME: Final = {
    "Add": "add",
    "Concat": "concat",
    "DropPath": "dropout",
    "FrozenBatchNorm2d": "norm",
    "GlobalAveragePool": "pool",
    "GlobalAveragePool2d": "pool",
    "Permute": "reshape",
    "StochasticDepth": "dropout",
}
_NAMES: Final[dict[tuple[type, ...], dict[str, str]]] = {
    (nn.modules.batchnorm._NormBase,): {
        "scale": "weight",
        "shift": "bias",
        "mean": "running_mean",
        "variance": "running_var",
    },
    (nn.LayerNorm, nn.GroupNorm): {"scale": "weight", "shift": "bias"},
}
_CHANNELS_LAST = (
    nn.Linear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNN,
    nn.LSTM,
    nn.GRU,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
)
_CHANNELS_FIRST = ("conv", "pool", "pad")


def _class_of(module: nn.Module) -> type:
    """Give a module's class, also that of which an exported program holds the operations only."""
    name = getattr(module, "_ty", None) or ""
    if isinstance(name, str) and name.startswith("torch.nn."):
        return getattr(nn, name.rpartition(".")[2], type(module))
    return type(module)


def type_of(module: nn.Module) -> str:
    """Name a module's class.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    str
        Such as "Conv2d".
    """
    name = getattr(module, "_ty", None)
    return name.rpartition(".")[2] if isinstance(name, str) else type(module).__name__


def kind_of(module: nn.Module) -> str:
    """Tell what a module does, in the words of `cnnviz_core.model.LayerInfo`.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    str
    """
    cls = _class_of(module)
    for kind, classes in _KINDS.items():
        if issubclass(cls, classes):
            return kind
    name = type_of(module)
    if name in _KINDS_BY_NAME:
        return _KINDS_BY_NAME[name]
    if name.endswith("Attention"):
        return "attention"
    return "container" if next(module.children(), None) is not None else "other"


def layout_of(module: nn.Module) -> str | None:
    """Tell where a module has the channels in what it returns, as far as its class says.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    {"first", "last"} or None
        None where it depends on what it is given.
    """
    cls = _class_of(module)
    if any(issubclass(cls, c) and cls.forward is c.forward for c in _CHANNELS_LAST):
        return "last"
    if kind_of(module) in _CHANNELS_FIRST or issubclass(cls, nn.modules.batchnorm._NormBase):
        return "first"
    if type_of(module) == "Permute":
        return {(0, 2, 3, 1): "last", (0, 3, 1, 2): "first"}.get(tuple(module.dims))
    return None


def features_of(module: nn.Module) -> int | None:
    """Tell how many channels a module takes, where it takes them on the last axis.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    int or None
        None for other modules, and for those that want the batch on the second axis.
    """
    if layout_of(module) != "last":
        return None
    if isinstance(module, nn.TransformerEncoder):
        return features_of(module.layers[0])
    if isinstance(module, nn.TransformerEncoderLayer):
        return features_of(module.self_attn)
    if not getattr(module, "batch_first", True):
        return None
    names = ("in_features", "input_size", "embed_dim")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Copy a module's own arrays, in the layouts of `cnnviz_core.model.Model.parameters`.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    dict of str to ndarray
        Under torch's own names, and as torch has them, where the protocol names none.
    """
    cls = _class_of(module)
    arrays = {
        name: to_array(tensor, channels_first=False) for name, tensor in tensors_of(module).items()
    }
    if issubclass(cls, nn.modules.conv._ConvTransposeNd):
        kernel = arrays["weight"]
        arrays["weight"] = kernel.reshape(*kernel.shape[:-2], -1)
    batch_norm = issubclass(cls, nn.modules.batchnorm._NormBase)
    if batch_norm and "variance" in arrays and hasattr(module, "eps"):
        arrays["epsilon"] = np.full_like(arrays["variance"], module.eps)
    return arrays


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Give a module's own tensors, as views laid out like what `arrays_of` gives.

    Parameters
    ----------
    module : nn.Module
        Any.

    Returns
    -------
    dict of str to Tensor
        What is written to one is written to the module.  The last axis of a transposed
        convolution's weight is split, (groups, C_out / groups).
    """
    cls = _class_of(module)
    if issubclass(cls, nn.modules.conv._ConvNd):
        return _present(weight=_kernel(module, cls), bias=getattr(module, "bias", None))
    if issubclass(cls, nn.Linear):
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        return _present(weight=weight.T, bias=getattr(module, "bias", None))
    for classes, names in _NAMES.items():
        if issubclass(cls, classes):
            return _present(**{name: getattr(module, own, None) for name, own in names.items()})
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return _present(**dict(own))


def _kernel(module: Any, cls: type) -> torch.Tensor:
    """View a convolution's weight with its kernel's axes first, then C_in / groups, then C_out."""
    weight: torch.Tensor = module.weight
    if issubclass(cls, nn.modules.conv._ConvTransposeNd):  # (C_in, C_out / groups, ...kernel)
        parts = weight.unflatten(0, (getattr(module, "groups", 1), -1))
        return parts.movedim((1, 0, 2), (-3, -2, -1))
    return weight.movedim((1, 0), (-2, -1))


def _present(**tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Leave out what there is not."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
