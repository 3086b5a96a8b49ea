"""Heat in colour."""

from __future__ import annotations

import functools

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, near
from cnnviz_core.model import Array, as_float

__all__ = ["COLOURS", "SIGNED_COLOURS", "colourise"]

COLOURS = "inferno"
"""The colour map of heat from 0 to 1."""
SIGNED_COLOURS = "ice-ember"
"""The colour map of heat from -1 (against: blue) over 0 (black) to 1 (for: red to yellow)."""

# White in the middle, as matplotlib's diverging maps have it, would bury a photograph in snow.
_ICE_EMBER = np.array(
    [
        (170, 235, 255),
        (40, 150, 255),
        (15, 70, 170),
        (4, 4, 8),
        (150, 30, 30),
        (255, 110, 20),
        (255, 235, 130),
    ]
)


def colourise(heat: Array, colours: str | None = None, *, signed: bool = False) -> Array:
    """Colour a map.

    Parameters
    ----------
    heat : ndarray (...)
        In [0, 1], or in [-1, 1] if `signed`; what lies beyond takes the colour of the nearer end.
    colours : str, optional
        "ice-ember" or the name of one of matplotlib's colour maps.  The default is `COLOURS`, or
        `SIGNED_COLOURS` if `signed`.
    signed : bool
        Whether 0 is the middle of the colour map instead of its beginning.

    Returns
    -------
    ndarray (..., 3) of uint8
        RGB.

    Raises
    ------
    ParameterError
        If there is no such colour map.
    ArrayError
        If the map holds NaN.

    Examples
    --------
    >>> colourise([0.0, 1.0], "gray").tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    values = as_float(heat)
    if np.isnan(values).any():
        raise ArrayError(
            "the map holds NaN", "numbers", "replace them first, for instance with numpy.nan_to_num"
        )
    table = _table(colours or (SIGNED_COLOURS if signed else COLOURS))
    share = (values + 1) / 2 if signed else values
    rgb: Array = table[np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)]
    return rgb


@functools.lru_cache(maxsize=16)
def _table(name: str) -> Array:
    """Give 256 colours of a colour map, from its beginning to its end."""
    table = _ice_ember() if name == SIGNED_COLOURS else _matplotlib(name)
    table.flags.writeable = False
    return table


def _ice_ember() -> Array:
    """Give the colours of our own map."""
    places = np.linspace(0, len(_ICE_EMBER) - 1, 256)
    channels = [np.interp(places, range(len(_ICE_EMBER)), channel) for channel in _ICE_EMBER.T]
    table: Array = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return table


def _matplotlib(name: str) -> Array:
    """Give the colours of one of matplotlib's maps."""
    import matplotlib

    if name not in matplotlib.colormaps:
        alike = near(name, [SIGNED_COLOURS, *matplotlib.colormaps])
        raise ParameterError(
            f"there is no colour map {name!r}",
            "'ice-ember' or the name of one of matplotlib's colour maps",
            f"perhaps {alike[0]!r} was meant" if alike else "pass 'inferno', 'turbo' or 'viridis'",
        )
    table: Array = matplotlib.colormaps[name](np.linspace(0, 1, 256), bytes=True)[:, :3].copy()
    return table
