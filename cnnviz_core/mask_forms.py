"""Batches of masks in compact forms, and the one way to draw them with any framework's arrays.

A form says in few numbers what a batch of masks is: coarse grids and the weights that interpolate
them, or how much of each segment is kept.  A backend draws it where the network computes, so that
masks of the size of pictures need not be made elsewhere and copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cnnviz_core.maps import min_max
from cnnviz_core.model import Array

__all__ = [
    "Affine",
    "Drawn",
    "Labelled",
    "MaskArrays",
    "MaskForm",
    "NumPyArrays",
    "Separable",
    "draw",
]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Masks that are given as they are.

    Attributes
    ----------
    values : ndarray (n, *size)
        The masks.
    """

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The masks' shape, (n, *size)."""
        return self.values.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | Array) -> Drawn:
        return Drawn(self.values[part])


@dataclass(frozen=True, eq=False)
class Labelled:
    """Masks that are constant on each segment.

    Attributes
    ----------
    labels : ndarray of int (*size)
        The number of each position's segment, from 0.
    values : ndarray (n, K)
        Each mask's value on each of K segments.
    """

    labels: Array
    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The masks' shape, (n, *size)."""
        return (len(self.values), *self.labels.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | Array) -> Labelled:
        return replace(self, values=self.values[part])


@dataclass(frozen=True, eq=False)
class Separable:
    """Masks that are grids, multiplied by a matrix of weights along each axis, in [0, 1].

    Attributes
    ----------
    values : ndarray (n, *grid)
        The grids.
    weights : sequence of ndarray (g, extent) or (n, g, extent)
        For each axis what a grid's g values weigh at each position; the same for all masks, or for
        each its own.
    stretch : bool
        Whether each mask is shifted and scaled so that its least value is 0 and its largest 1
        (zeros if it is constant).  Otherwise it is clipped to [0, 1].
    """

    values: Array
    weights: Sequence[Array]
    stretch: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The masks' shape, (n, *size)."""
        return (len(self.values), *(along.shape[-1] for along in self.weights))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | Array) -> Separable:
        weights = [along[part] if along.ndim == 3 else along for along in self.weights]
        return replace(self, values=self.values[part], weights=weights)


@dataclass(frozen=True, eq=False)
class Affine:
    """Masks that are others, multiplied by a number, and something added.

    Attributes
    ----------
    form : MaskForm
        The other masks.
    scale : float
        The number.
    shift : float or ndarray (*size)
        What is added to each mask.
    """

    form: MaskForm
    scale: float = 1.0
    shift: Array | float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The masks' shape, (n, *size)."""
        return self.form.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | Array) -> Affine:
        return replace(self, form=self.form[part])


MaskForm: TypeAlias = Drawn | Labelled | Separable | Affine
"""A batch of masks: it has a length, ``form[start:stop]`` is a part of it, and ``form.shape`` is
(n, *size)."""


class MaskArrays(Protocol):
    """What a framework's arrays must do for masks to be drawn with them.

    They are all of one floating-point type, on one device, and understand ``*`` and ``+``.
    """

    def array(self, values: Array | float) -> Any:
        """Give an array of the framework, of the floating-point type."""
        ...

    def take(self, values: Any, labels: Array) -> Any:
        """Give ``values[:, labels]``, of values (n, K) and labels (*size)."""
        ...

    def combine(self, values: Any, weights: Any) -> Any:
        """Multiply values (n, g, r), transposed, by weights ([n,] g, extent): (n, r, extent)."""
        ...

    def reshape(self, values: Any, shape: tuple[int, ...]) -> Any:
        """Give an array another shape."""
        ...

    def clip(self, values: Any) -> Any:
        """Bring what lies outside of [0, 1] to the nearer end."""
        ...

    def stretch(self, values: Any) -> Any:
        """Bring each of (n, ...) to [0, 1] by its extremes; zeros where they are equal."""
        ...


def draw(form: MaskForm, arrays: MaskArrays) -> Any:
    """Draw a batch of masks.

    Parameters
    ----------
    form : MaskForm
        What they are.
    arrays : MaskArrays
        With which arrays.

    Returns
    -------
    array (n, *size)
        Of the framework.
    """
    match form:
        case Drawn(values):
            return arrays.array(values)
        case Labelled(labels, values):
            return arrays.take(arrays.array(values), labels)
        case Affine(inner, scale, shift):
            return draw(inner, arrays) * scale + arrays.array(shift)
        case Separable(values, weights, stretch):
            made = _interpolated(values, weights, arrays)
            return arrays.stretch(made) if stretch else arrays.clip(made)


def _interpolated(values: Array, weights: Sequence[Array], arrays: MaskArrays) -> Any:
    """Multiply grids by weights along each axis."""
    made = arrays.array(values)
    shape = values.shape
    for along in weights:
        # The axis in front becomes the last one, so that after all of them the order is back.
        lines = arrays.reshape(made, (shape[0], shape[1], math.prod(shape[2:])))
        shape = (shape[0], *shape[2:], along.shape[-1])
        made = arrays.reshape(arrays.combine(lines, arrays.array(along)), shape)
    return made


@dataclass(frozen=True)
class NumPyArrays:
    """NumPy's arrays, to draw masks with.

    Attributes
    ----------
    dtype : dtype
        Their floating-point type.
    """

    dtype: npt.DTypeLike = np.float32

    def array(self, values: Array | float) -> Array:
        """Give an array; see `MaskArrays.array`."""
        return np.asarray(values, dtype=self.dtype)

    def take(self, values: Array, labels: Array) -> Array:
        """Give each position its segment's value; see `MaskArrays.take`."""
        return np.take(values, labels, axis=1)  # C-contiguous, which an index need not give

    def combine(self, values: Array, weights: Array) -> Array:
        """Interpolate along an axis; see `MaskArrays.combine`."""
        product: Array = values.swapaxes(1, 2) @ weights
        return product

    def reshape(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Give another shape; see `MaskArrays.reshape`."""
        return values.reshape(shape)

    def clip(self, values: Array) -> Array:
        """Bring to [0, 1] what lies outside; see `MaskArrays.clip`."""
        return values.clip(0, 1)

    def stretch(self, values: Array) -> Array:
        """Bring to [0, 1] by the extremes; see `MaskArrays.stretch`."""
        return min_max(values)
