"""From pictures to what a network is fed: one sample for each, with the way back."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnviz.images import Picture, read_pictures
from cnnviz.network import Network
from cnnviz.preprocess import Geometry, prepare
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, InputInfo, as_float
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["Sample", "samples_of"]


@dataclass(frozen=True)
class Sample:
    """One picture, ready for a network.

    Attributes
    ----------
    x : ndarray (H, W, C)
        In the network's own value range.
    geometry : Geometry
        Where `x` lies in the picture.
    pixels : ndarray (H, W, 3) of uint8
        The picture as a person sees it.
    name : str
        What to call it.
    """

    x: Array
    geometry: Geometry
    pixels: Array
    name: str


def samples_of(network: Network, images: Any, *, preprocessed: bool = False) -> list[Sample]:
    """Prepare pictures for a network.

    Parameters
    ----------
    network : Network
        Its preprocessing is applied; where it has none, pixels are divided by 255 at the size that
        the network declares, with a warning.
    images : path, PIL image, ndarray, or sequence of these
        Pictures of any sizes; or, with `preprocessed`, an array (N, H, W, C).
    preprocessed : bool
        Whether `images` is a batch in the network's own value range already.

    Returns
    -------
    list of Sample
        Their `x` all have one shape.

    Raises
    ------
    ArrayError
        If the prepared shapes differ, or an array does not fit.
    ImageError
        If a picture cannot be read.
    """
    if preprocessed:
        return _from_batch(images)
    preprocess = network.preprocessing
    if preprocess is None or isinstance(preprocess, Preprocessing):
        steps = _at_declared_size(preprocess, network)
        made = [(p, *prepare(p, steps)) for p in read_pictures(images)]
    else:
        made = [(p, *_by_function(preprocess, p)) for p in read_pictures(images)]
    samples = [Sample(x, geometry, p.pixels, p.name) for p, x, geometry in made]
    _check_one_shape(samples)
    return samples


def _from_batch(images: Any) -> list[Sample]:
    """Take a batch as it is, and render it to be looked at."""
    batch = np.asarray(images)
    if batch.dtype.kind not in "fiub" or batch.ndim != 4 or 0 in batch.shape:
        raise ArrayError(
            f"the preprocessed batch is an array of {batch.dtype} and the shape {batch.shape}",
            "numbers of the shape (N, H, W, C): batch first, channels last, nothing empty",
            "add the batch axis with x[None], or move the channels last with "
            "numpy.moveaxis(x, 1, -1)",
        )
    if not np.isfinite(batch).all():
        raise ArrayError(
            "the preprocessed batch holds NaN or infinity",
            "finite numbers",
            "find where they come from, or replace them with numpy.nan_to_num",
        )
    batch = as_float(batch)
    height, width = batch.shape[1:3]
    geometry = Geometry.identity((height, width))
    return [Sample(x, geometry, _rendered(x), f"sample {i}") for i, x in enumerate(batch)]


def _rendered(x: Array) -> Array:
    """Show a sample as pixels: the smallest value becomes black, the largest white."""
    shown = x if x.shape[-1] == 3 else x.mean(-1, keepdims=True).repeat(3, axis=-1)
    low, high = shown.min(), shown.max()
    scale = 255 / (high - low) if high > low else 0.0
    return ((shown - low) * scale).round().astype(np.uint8)


def _at_declared_size(preprocess: Preprocessing | None, network: Network) -> Preprocessing:
    """Complete a preprocessing by what the network declares of its input."""
    info = _only_input(network)
    grid = info.shape[:2] if info.shape is not None and len(info.shape) == 3 else (None, None)
    size = (grid[0], grid[1]) if grid[0] is not None and grid[1] is not None else None
    if preprocess is not None:
        fixed = preprocess.size is not None or size is None
        return preprocess if fixed else dataclasses.replace(preprocess, size=size)
    at = f"stretched to {size[0]} x {size[1]}" if size else "at each picture's own size"
    warnings.warn(
        f"the preprocessing of {network.name or 'the network'} is not known: pixels are divided by "
        f"255, {at}; pass preprocess=cnnviz.Preprocessing(size=..., mean=..., std=...)",
        UserWarning,
        stacklevel=_outside(),
    )
    grey = info.shape is not None and info.shape[-1] == 1
    return Preprocessing(size=size, channels="L" if grey else "RGB")


def _outside() -> int:
    """Give the stack level of the caller outside this package, for warnings."""
    import sys

    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("cnnviz"):
        frame = frame.f_back
        level += 1
    return level


def _only_input(network: Network) -> InputInfo:
    """Give the network's input, which must be one picture."""
    inputs = network.model.inputs
    if len(inputs) != 1:
        raise ArrayError(
            f"the network has {len(inputs)} inputs: {', '.join(inputs)}",
            "one input, a picture",
            "wrap a network that fixes the others",
        )
    return next(iter(inputs.values()))


def _by_function(preprocess: Any, picture: Picture) -> tuple[Array, Geometry]:
    """Prepare a picture with a function of the user's."""
    x = np.asarray(preprocess(picture.pixels))
    if x.ndim != 3 or x.dtype.kind not in "fiub" or 0 in x.shape:
        raise ParameterError(
            f"the preprocessing function gave an array of {x.dtype} and the shape {x.shape}",
            "numbers of the shape (h, w, C), channels last, without a batch axis",
            "let it return such an array, as in x.permute(1, 2, 0).numpy() for torchvision's",
        )
    height, width = x.shape[:2]
    return as_float(x), Geometry.stretched(picture.size, (height, width))


def _check_one_shape(samples: Sequence[Sample]) -> None:
    """Check that one array can hold the maps of all samples."""
    shapes = dict.fromkeys(sample.x.shape for sample in samples)
    if len(shapes) > 1:
        raise ArrayError(
            f"the pictures make inputs of {len(shapes)} shapes: {', '.join(map(str, shapes))}",
            "one input size for all pictures of a call",
            "pass preprocess=cnnviz.Preprocessing(size=(height, width), ...), or explain the "
            "pictures one by one",
        )
