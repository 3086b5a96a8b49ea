"""Where masks take anything away: boxes around it, and the masks and the samples within boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from cnnviz_core.blended import Blended, blend
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, MaskForm, NumPyArrays, Separable, draw
from cnnviz_core.model import Array

__all__ = ["blended_within", "drawn_within", "reached", "windows_of"]

_ROUNDING: Final = 1e-6
"""By how much the weights of an interpolation may fail to add up to 1."""


def reached(form: MaskForm) -> Array:
    """Find boxes outside of which masks are 1, so that they change nothing there.

    They are found from what a form says, without drawing it, and are not always the smallest ones:
    of masks that are stretched it is all.  An interpolation between ones counts as 1, whatever its
    rounding.

    Parameters
    ----------
    form : MaskForm
        The masks, (n, *size).

    Returns
    -------
    ndarray of int (n, axes, 2)
        Where each mask's box starts and stops along each axis, half-open; twice 0 where the mask is
        1 everywhere.
    """
    return _unlike(form, 1.0)


def _unlike(form: MaskForm, value: float) -> Array:
    """Find boxes outside of which masks have a value; see `reached`."""
    match form:
        case Affine(inner, scale, shift) if np.ndim(shift) == 0 and scale:
            return _unlike(inner, (value - float(shift)) / scale)
        case Affine():
            return _everything(form)
        case Labelled(labels, values):
            return _around_segments(labels, values != value)
        case Separable(stretch=True):
            return _everything(form)
        case Separable(values, weights):
            apart = any(np.abs(along.sum(-2) - 1.0).max() > _ROUNDING for along in weights)
            if value and apart:
                return _everything(form)
            return _around_cells(values != value, [along != 0 for along in weights])
        case Drawn(values):
            marked = values != value
            axes = range(1, marked.ndim)
            return np.stack([_ends(_along(marked, axis)) for axis in axes], axis=1)


def _everything(form: MaskForm) -> Array:
    """Give boxes around all that there is."""
    whole = np.stack([np.zeros(len(form.shape) - 1, np.int64), np.array(form.shape[1:])], axis=-1)
    return np.broadcast_to(whole, (len(form), *whole.shape)).copy()


def _along(marked: Array, axis: int) -> Array:
    """Tell which places of an axis of each of (n, *size) have something marked: (n, extent)."""
    others = tuple(a for a in range(1, marked.ndim) if a != axis)
    lines: Array = np.any(marked, axis=others)
    return lines


def _ends(marked: Array) -> Array:
    """Give where the marked places of lines (..., extent) start and stop: (..., 2)."""
    extent = marked.shape[-1]
    found = marked.any(-1)
    first = marked.argmax(-1)
    last = extent - marked[..., ::-1].argmax(-1)
    return np.stack([first * found, last * found], axis=-1)


def _around(marked: Array, ends: Array) -> Array:
    """Give where the marked ones of things (n, K) start and stop, which each do so at (K, 2)."""
    start, stop = ends[..., 0], ends[..., 1]
    marked = marked & (stop > start)
    low = np.where(marked, start, np.iinfo(np.int64).max).min(-1)
    high = np.where(marked, stop, 0).max(-1)
    return np.stack([np.minimum(low, high), high], axis=-1)


def _none_empty(boxes: Array) -> Array:
    """Give boxes that are empty along one axis as empty along all."""
    full: Array = np.all(boxes[..., 1] > boxes[..., 0], axis=-1)
    return boxes * full[:, None, None]


def _around_segments(labels: Array, marked: Array) -> Array:
    """Give boxes around the marked segments (n, K)."""
    axes, segments = range(labels.ndim), np.arange(marked.shape[1])
    along = []
    for axis in axes:
        at = np.zeros((len(segments), labels.shape[axis]), dtype=bool)
        place = np.arange(labels.shape[axis])
        at[labels, place.reshape([-1 if a == axis else 1 for a in axes])] = True
        along.append(_around(marked, _ends(at)))
    return np.stack(along, axis=1)


def _around_cells(marked: Array, supports: Sequence[Array]) -> Array:
    """Give boxes around what the marked cells (n, *grid) touch, of which `supports` tells."""
    along = [
        _around(_along(marked, axis), _ends(support)) for axis, support in enumerate(supports, 1)
    ]
    return _none_empty(np.stack(along, axis=1))


def windows_of(values: Array, starts: Array, extent: Sequence[int]) -> Array:
    """Cut windows of one extent out of an array.

    Parameters
    ----------
    values : ndarray (*size, ...)
        The array.
    starts : ndarray of int (n, axes)
        Where each window starts.
    extent : sequence of int
        How many positions it has along each axis; all within the array.

    Returns
    -------
    ndarray (n, *extent, ...)
    """
    axes = len(extent)
    index = []
    for axis, positions in enumerate(extent):
        shape = [len(starts), *(positions if a == axis else 1 for a in range(axes))]
        index.append((starts[:, axis, None] + np.arange(positions)).reshape(shape))
    cut: Array = values[tuple(index)]
    return cut


def drawn_within(
    form: MaskForm, starts: Array, extent: Sequence[int], dtype: npt.DTypeLike = np.float32
) -> Array:
    """Draw what of masks lies in windows of one extent.

    Parameters
    ----------
    form : MaskForm
        The masks.
    starts : ndarray of int (n, axes)
        Where each mask's window starts.
    extent : sequence of int
        How many positions it has along each axis.
    dtype : dtype
        In which floating-point type.

    Returns
    -------
    ndarray (n, *extent)
        As `cnnviz_core.mask_forms.draw` makes them, but for rounding.
    """
    match form:
        case Affine(inner, scale, shift):
            made = drawn_within(inner, starts, extent, dtype)
            shift = np.asarray(shift, dtype)
            return made * scale + (windows_of(shift, starts, extent) if shift.ndim else shift)
        case Labelled(labels, values):
            number = windows_of(labels, starts, extent)
            taken = np.take_along_axis(values, number.reshape(len(values), -1), axis=1)
            return taken.reshape(number.shape).astype(dtype)
        case Separable(stretch=False):
            weights = [
                _along_windows(along, starts[:, axis], positions)
                for axis, (along, positions) in enumerate(zip(form.weights, extent, strict=True))
            ]
            drawn: Array = draw(replace(form, weights=weights), NumPyArrays(dtype))
            return drawn
        case _:
            whole = draw(form, NumPyArrays(dtype))
            return np.stack(
                [
                    mask[tuple(slice(s, s + e) for s, e in zip(start, extent, strict=True))]
                    for mask, start in zip(whole, starts, strict=True)
                ]
            )


def _along_windows(weights: Array, starts: Array, positions: int) -> Array:
    """Cut windows out of the weights ([n,] g, extent) along an axis: (n, g, positions)."""
    each = np.broadcast_to(weights, (len(starts), *weights.shape[-2:]))
    at = starts[:, None, None] + np.arange(positions)
    return np.take_along_axis(each, at, axis=-1)


def blended_within(batch: Blended, starts: Array, extent: Sequence[int]) -> Array:
    """Make what of a described batch lies in windows of one extent.

    Parameters
    ----------
    batch : Blended
        The batch.
    starts : ndarray of int (n, axes)
        Where the window of each of it starts.
    extent : sequence of int
        How many positions it has along each axis.

    Returns
    -------
    ndarray (n, *extent, C)
        Of the batch's type.
    """
    masks = drawn_within(batch.masks, starts, extent, batch.dtype)
    fill = np.broadcast_to(batch.fill, batch.sample.shape)
    sample, fill = (windows_of(part, starts, extent) for part in (batch.sample, fill))
    return blend(sample, masks, fill)
