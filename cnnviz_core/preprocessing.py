"""What a network wants done to a picture, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Described", "Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """From a picture's 8-bit pixels to a network's input.

    The picture is resized, a centred window is cut out, and each channel becomes
    ``(pixel * scale - mean) / std``.

    Attributes
    ----------
    size : tuple of int, or None
        (height, width) of the input; None keeps the picture's own size.
    resize : tuple of int, or int, or None
        What the picture is resized to before the window of `size` is cut from its centre: an int is
        the length of the shorter side (the ratio is kept), a pair is (height, width) whatever the
        ratio.  None stretches to `size`.
    interpolation : str
        "nearest", "bilinear", "bicubic" or "lanczos", with antialiasing as in Pillow.
    scale : float
        What 0..255 is multiplied by.
    mean, std : tuple of float
        One for each channel, in the order of `channels`, in units after scaling.
    channels : str
        "RGB", "BGR" or "L" (one channel, luminance).
    """

    size: tuple[int, int] | None = None
    resize: tuple[int, int] | int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Literal["RGB", "BGR", "L"] = "RGB"


@dataclass(frozen=True)
class Described:
    """A network and what its publisher says of it.

    Attributes
    ----------
    native : object
        The framework's own object.
    preprocessing : Preprocessing or None
        None where it is not known.
    labels : tuple of str, the string "imagenet-1k", or None
        The names of the classes in the order of the output; None where they are not known.
    name : str
        What to call the network.
    """

    native: object
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | Literal["imagenet-1k"] | None = None
    name: str = ""
