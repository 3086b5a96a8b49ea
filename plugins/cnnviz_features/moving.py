"""Turning, scaling and shifting a picture, step by step."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.model import Array

__all__ = ["NEUTRAL", "Fill", "Interpolation", "Transform", "amounts", "moved"]

Transform: TypeAlias = Literal["rotate", "scale", "translate-x", "translate-y"]
Fill: TypeAlias = Literal["mean", "black", "edge", "reflect"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "cubic"]

NEUTRAL: Final[dict[Transform, float]] = {
    "rotate": 0.0,
    "scale": 1.0,
    "translate-x": 0.0,
    "translate-y": 0.0,
}
"""The amount at which each transformation changes nothing."""

_ORDERS: Final[dict[str, int]] = {"nearest": 0, "bilinear": 1, "cubic": 3}


def amounts(transform: Transform, steps: int, amount: float | None, size: tuple[int, int]) -> Array:
    """Give the steps of a transformation, the untransformed picture among them.

    Parameters
    ----------
    transform : {"rotate", "scale", "translate-x", "translate-y"}
        Which.
    steps : int
        How many to each side of the untransformed picture.
    amount : float or None
        How far the last step goes.  Of a rotation in degrees, from -`amount` to `amount`, evenly
        (None: 180).  Of scaling a factor, from ``1 / amount`` to `amount`, each the same multiple
        of the one before but for rounding to hundredths (None: 1.8).  Of a translation in pixels,
        from -`amount` to `amount`, evenly but for rounding to whole pixels, so that nothing is
        blurred (None: a quarter of the side).
    size : tuple of int
        (height, width) of the picture.

    Returns
    -------
    ndarray (S,) of float64
        Ascending, each once; S is ``2 * steps + 1``, or fewer where rounding makes some the same.

    Raises
    ------
    ParameterError
        If `amount` changes nothing.
    """
    last = _last(transform, size) if amount is None else amount
    share = np.arange(-steps, steps + 1) / steps
    if transform == "rotate":
        found = np.unique(share * last)
    elif transform == "scale":
        found = np.unique(np.round(last**share, 2))
    else:
        found = np.unique(np.rint(share * last))
    if len(found) == 1:
        raise ParameterError(
            f"amount={last:g} does not change the picture under {transform!r}",
            "degrees above 0 for a rotation, a factor of at least 1.01 for scale, and at least 1 "
            "pixel for a translation",
            "pass a larger amount, or leave it out",
        )
    return found + 0.0  # makes 0 of -0


def _last(transform: Transform, size: tuple[int, int]) -> float:
    """Give the amount of the last step where none is asked for."""
    if transform == "rotate":
        return 180.0
    if transform == "scale":
        return 1.8
    return max(1.0, size[0 if transform == "translate-y" else 1] / 4)


def moved(
    x: Array,
    transform: Transform,
    amount: float,
    *,
    fill: Fill = "mean",
    black: Array | float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> Array:
    """Transform a picture about its centre.

    The picture covers the area from 0 to its height and width, with the centres of its pixels at
    half integers.  What an input value is of a colour is affine, and so is interpolation: doing
    this to a network's input is doing it to the colours.

    Parameters
    ----------
    x : ndarray (H, W, C)
        The picture, in the network's own value range.
    transform : {"rotate", "scale", "translate-x", "translate-y"}
        What to do.
    amount : float
        Degrees counter-clockwise; the factor by which the picture grows; pixels to the right; or
        pixels down.
    fill : {"mean", "black", "edge", "reflect"}
        What is shown where the picture is not: its mean colour, black, the nearest pixel of its
        edge, or its mirror image.
    black : ndarray (C,) or float
        The input of black.
    interpolation : {"nearest", "bilinear", "cubic"}
        How values between the pixels' centres are found; "cubic" is a cubic spline.

    Returns
    -------
    ndarray (H, W, C)
        Of the same type.  Without a change, after a full turn, and for whole pixels under "nearest"
        and "bilinear", the values are exactly the picture's own.
    """
    from scipy.ndimage import affine_transform

    back, shift = _inverse(transform, amount)
    if not shift.any() and np.array_equal(back, np.eye(2)):
        return x.copy()
    centre = (np.array(x.shape[:2]) - 1) / 2
    outside = np.broadcast_to(x.mean((0, 1)) if fill == "mean" else black, x.shape[2:])
    # Constants are blended with the picture at its border, as they would be within it.
    mode = {"edge": "nearest", "reflect": "reflect"}.get(fill, "grid-constant")
    channels = [
        affine_transform(
            x[..., c],
            back,
            centre - back @ (centre + shift),
            order=_ORDERS[interpolation],
            mode=mode,
            cval=outside[c],
        )
        for c in range(x.shape[2])
    ]
    return np.stack(channels, axis=-1)


def _inverse(transform: Transform, amount: float) -> tuple[Array, Array]:
    """Give the matrix that leads back to where a pixel was, and the shift to undo before it."""
    if transform == "rotate":
        # By degrees, so that quarter turns are exact.
        from scipy.special import cosdg, sindg

        cos, sin = cosdg(amount), sindg(amount)
        return np.array([[cos, sin], [-sin, cos]]), np.zeros(2)
    if transform == "scale":
        return np.eye(2) / amount, np.zeros(2)
    shift = (amount, 0.0) if transform == "translate-y" else (0.0, amount)
    return np.eye(2), np.array(shift)
