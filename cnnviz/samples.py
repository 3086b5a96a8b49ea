"""From pictures to what a network is fed: one sample for each, with the way back."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cnnviz.images import Picture, read_pictures
from cnnviz.network import Network
from cnnviz.preprocess import Geometry, prepare
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.inputs import OneInput
from cnnviz_core.model import Array, InputInfo, Model, as_float
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["Held", "Sample", "samples_of", "usual_input"]

_FORMS: Final = {3: "(N, L, C)", 4: "(N, H, W, C)", 5: "(N, D, H, W, C)"}
"""What a batch of signals, pictures and volumes looks like, by its number of axes."""
_KINDS: Final = {2: "signals", 3: "pictures", 4: "volumes"}


@dataclass(frozen=True, eq=False)
class Held:
    """What the other inputs of a network with several are held at.

    Attributes
    ----------
    free : str
        The name of the input that is explained.
    rows : mapping of str to ndarray (1, ...)
        One sample for each other input.
    """

    free: str
    rows: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, ready for a network.

    Attributes
    ----------
    x : ndarray (H, W, C)
        In the network's own value range; (L, C) for signals, (D, H, W, C) for volumes.
    geometry : Geometry
        Where `x` lies in the picture.
    pixels : ndarray (H, W, 3) of uint8
        The picture as a person sees it; (D, H, W, 3) of volumes.  Of signals their values (L, C).
    name : str
        What to call it.
    held : Held or None
        The other inputs, where the network has several.  Samples that share one of these may go
        through the network together.
    """

    x: Array
    geometry: Geometry
    pixels: Array
    name: str
    held: Held | None = None

    def model(self, network: Network) -> Model:
        """Give a network as one that takes `x`.

        Parameters
        ----------
        network : Network
            The network that the sample was prepared for.

        Returns
        -------
        Model
        """
        if self.held is None:
            return network.model
        return OneInput(network.model, self.held.free, self.held.rows)


def samples_of(
    network: Network, images: Any, *, preprocessed: bool = False, input: str | None = None
) -> list[Sample]:
    """Prepare pictures for a network.

    Parameters
    ----------
    network : Network
        Its preprocessing is applied; where it has none, pixels are divided by 255 at the size that
        the network declares, with a warning.
    images : path, PIL image, ndarray, sequence of these, or mapping of str to these
        Pictures of any sizes; or, with `preprocessed`, an array (N, H, W, C), (N, L, C) or
        (N, D, H, W, C).  A mapping has one entry for each input of the network: such pictures for
        the input that is explained; for each other an array with a row for each sample or one for
        all.
    preprocessed : bool
        Whether `images` is a batch in the network's own value range already.
    input : str, optional
        Which input is explained; the first with a spatial grid if left out.

    Returns
    -------
    list of Sample
        Their `x` all have one shape.

    Raises
    ------
    ArrayError
        If the prepared shapes differ, an array does not fit, or inputs are missing or unknown.
    ImageError
        If a picture cannot be read.
    ParameterError
        If there is no input of the name.
    """
    inputs = network.model.inputs
    if input is not None and input not in inputs:
        raise ParameterError(
            f"input={input!r} was given, and the network has no such input",
            f"one of {', '.join(map(repr, inputs))}",
            "leave it out for the first with a spatial grid",
        )
    if isinstance(images, Mapping):
        _check_names(images, inputs)
        free = input or usual_input(inputs)
        held = {name: images[name] for name in inputs if name != free}
        samples = _prepared(network, images[free], inputs[free], preprocessed)
        return _holding(samples, free, held, inputs) if held else samples
    if len(inputs) != 1:
        entries = ", ".join(f"{name!r}: ..." for name in inputs)
        raise ArrayError(
            f"the network has {len(inputs)} inputs: {', '.join(inputs)}",
            "a mapping with an entry for each: pictures for the one that is explained, arrays for "
            "the others",
            f"call cnnviz.explain(model, {{{entries}}})",
        )
    return _prepared(network, images, next(iter(inputs.values())), preprocessed)


def _prepared(network: Network, images: Any, info: InputInfo, preprocessed: bool) -> list[Sample]:
    """Prepare what is given for one input."""
    if preprocessed:
        return _from_batch(images, info)
    if info.shape is not None and len(info.shape) != 3:
        raise ArrayError(
            f"the input {info.name!r} takes no pictures: its shape is {_form(info.shape)}",
            "an array of that shape, N samples, in the network's own value range",
            "pass it to cnnviz.explain with preprocessed=True"
            if len(info.shape) in (2, 4)
            else "name an input with a spatial grid: input=...",
        )
    preprocess = network.preprocessing
    if preprocess is None or isinstance(preprocess, Preprocessing):
        steps = _at_declared_size(preprocess, network, info)
        made = [(p, *prepare(p, steps)) for p in read_pictures(images)]
    else:
        made = [(p, *_by_function(preprocess, p)) for p in read_pictures(images)]
    samples = [Sample(x, geometry, p.pixels, p.name) for p, x, geometry in made]
    _check_one_shape(samples)
    return samples


def _from_batch(images: Any, info: InputInfo) -> list[Sample]:
    """Take a batch as it is, and render it to be looked at."""
    batch = np.asarray(images)
    ranks = list(_FORMS) if info.shape is None else [len(info.shape) + 1]
    if info.shape is not None and ranks[0] not in _FORMS:
        raise ArrayError(
            f"the input {info.name!r} has no spatial grid: its shape is {_form(info.shape)}",
            f"an input of the shape {' or '.join(_FORMS.values())}",
            "explain another input, or another network",
        )
    if batch.dtype.kind not in "fiub" or batch.ndim not in ranks or 0 in batch.shape:
        form = " or ".join(_FORMS.values()) if info.shape is None else _form(info.shape)
        raise ArrayError(
            f"the preprocessed batch is an array of {batch.dtype} and the shape {batch.shape}",
            f"numbers of the shape {form}: batch first, channels last, nothing empty",
            _batch_remedy(batch, info),
        )
    _check_finite(batch, "the preprocessed batch")
    batch = as_float(batch)
    geometry = Geometry.identity(batch.shape[1:-1])
    return [Sample(x, geometry, _rendered(x), f"sample {i}") for i, x in enumerate(batch)]


def _batch_remedy(batch: Array, info: InputInfo) -> str:
    """Say what to do about a batch of another form than the network takes."""
    if info.shape is not None and batch.ndim != len(info.shape) + 1:
        one = batch.ndim == len(info.shape) and all(
            size in (None, given) for size, given in zip(info.shape, batch.shape, strict=True)
        )
        if not one:
            return f"pass {_KINDS[len(info.shape)]}: that is what the network takes"
    return (
        "add the batch axis with x[None], or move the channels last with numpy.moveaxis(x, 1, -1)"
    )


def _form(shape: tuple[int | None, ...]) -> str:
    """Write the shape of a batch as it is declared, with letters for sizes that are free."""
    names = {2: "LC", 3: "HWC", 4: "DHWC"}.get(len(shape), "?" * len(shape))
    sizes = [name if size is None else str(size) for name, size in zip(names, shape, strict=True)]
    return f"({', '.join(['N', *sizes])})"


def _rendered(x: Array) -> Array:
    """Show a sample as pixels: the smallest value becomes black, the largest white."""
    if x.ndim == 2:
        return x  # a signal is drawn as lines, of its values
    shown = x if x.shape[-1] == 3 else x.mean(-1, keepdims=True).repeat(3, axis=-1)
    low, high = shown.min(), shown.max()
    scale = 255 / (high - low) if high > low else 0.0
    return ((shown - low) * scale).round().astype(np.uint8)


def _check_names(given: Mapping[str, Any], inputs: Mapping[str, InputInfo]) -> None:
    """Check that there is an entry for each input, and no other."""
    wrong = [f"{name!r} is none of them" for name in given if name not in inputs]
    wrong += [f"{name!r} is missing" for name in inputs if name not in given]
    if wrong:
        raise ArrayError(
            f"of the network's inputs, {', '.join(wrong)}",
            f"an entry for each of {', '.join(map(repr, inputs))}",
            "name the inputs as the network does",
        )


def usual_input(inputs: Mapping[str, InputInfo]) -> str:
    """Choose the input to look at where none is named.

    Parameters
    ----------
    inputs : mapping of str to InputInfo
        The network's.

    Returns
    -------
    str
        The first with a spatial grid, or the first.
    """
    grids = (name for name, info in inputs.items() if info.shape and len(info.shape) > 1)
    return next(grids, next(iter(inputs)))


def _holding(
    samples: list[Sample], free: str, held: Mapping[str, Any], inputs: Mapping[str, InputInfo]
) -> list[Sample]:
    """Give the samples with what the other inputs are held at."""
    rows = {name: _rows(value, inputs[name], len(samples)) for name, value in held.items()}
    if all(len(array) == 1 for array in rows.values()):
        shared = Held(free, rows)
        return [dataclasses.replace(sample, held=shared) for sample in samples]
    return [
        dataclasses.replace(
            sample,
            held=Held(free, {name: a[i : i + 1] if len(a) > 1 else a for name, a in rows.items()}),
        )
        for i, sample in enumerate(samples)
    ]


def _rows(value: Any, info: InputInfo, samples: int) -> Array:
    """Check the array of an input that is held: a row for each sample, or one for all."""
    array = np.asarray(value)
    if info.shape is not None and array.ndim == len(info.shape):
        array = array[None]
    whole = array.dtype.kind in "fiub" and array.ndim > 0 and 0 not in array.shape
    if not whole or len(array) not in (1, samples):
        form = "(N, ...)" if info.shape is None else _form(info.shape)
        raise ArrayError(
            f"the input {info.name!r} is an array of {array.dtype} and the shape {array.shape}",
            f"numbers of the shape {form} with N = 1"
            + (f", or {samples}, as there are samples" if samples > 1 else ""),
            "pass one row for each sample, or one for all; v[None] makes a row of a vector",
        )
    _check_finite(array, f"the input {info.name!r}")
    # A copy: what the caller does to the array later is not to change what is explained.
    array = as_float(np.array(array))
    array.flags.writeable = False
    return array


def _check_finite(array: Array, what: str) -> None:
    """Check that there is neither NaN nor infinity."""
    if not np.isfinite(array).all():
        raise ArrayError(
            f"{what} holds NaN or infinity",
            "finite numbers",
            "find where they come from, or replace them with numpy.nan_to_num",
        )


def _at_declared_size(
    preprocess: Preprocessing | None, network: Network, info: InputInfo
) -> Preprocessing:
    """Complete a preprocessing by what the network declares of its input."""
    grid = info.shape[:2] if info.shape is not None else (None, None)
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
