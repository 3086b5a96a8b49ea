"""From a picture to a network's input, and from the input's coordinates back to the picture's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cnnviz.images import Picture
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["Geometry", "prepare"]

Size = tuple[int, ...]
Method = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Geometry:
    """Where a network's input lies in the picture that it was made of.

    The picture is resized, then a window is cut out of it; a window that reaches beyond the resized
    picture is padded there.  Signals and volumes have one axis or three instead of two.

    Attributes
    ----------
    original : tuple of int
        (height, width) of the picture.
    resized : tuple of int
        (height, width) that it was resized to.
    offset : tuple of int
        (top, left) of the window in the resized picture; negative where it is padded.
    size : tuple of int
        (height, width) of the window, which is the network's input.
    """

    original: Size
    resized: Size
    offset: Size
    size: Size

    def __post_init__(self) -> None:
        for name in ("original", "resized", "offset", "size"):
            object.__setattr__(self, name, tuple(int(each) for each in getattr(self, name)))
        if len({len(self.original), len(self.resized), len(self.offset), len(self.size)}) != 1:
            raise ArrayError(
                f"a geometry leads from {self.size} at {self.offset} in {self.resized} to "
                f"{self.original}",
                "as many axes in each",
                "give each one number for each axis",
            )

    @classmethod
    def identity(cls, size: Size) -> Geometry:
        """Make the geometry of an input that is its own picture.

        Parameters
        ----------
        size : tuple of int
            (height, width), (length,) or (depth, height, width).

        Returns
        -------
        Geometry
        """
        return cls.stretched(size, size)

    @classmethod
    def stretched(cls, original: Size, size: Size) -> Geometry:
        """Make the geometry of a whole picture that was stretched to the input's size.

        Parameters
        ----------
        original, size : tuple of int
            (height, width) of the picture and of the input.

        Returns
        -------
        Geometry
        """
        return cls(original, size, (0,) * len(size), size)

    def map_to_original(self, map: Array, method: Method = "bilinear") -> Array:
        """Bring a map of the input to the picture's coordinates.

        Pixel centres lie at half-integers in both frames.  Up to the window's edge the map
        continues with its outermost values.

        Parameters
        ----------
        map : ndarray (h, w)
            At the input's size; of signals (l,), of volumes (d, h, w).
        method : {"nearest", "bilinear", "bicubic"}
            How it is resized.

        Returns
        -------
        ndarray (H, W)
            At the picture's size; 0 at every pixel whose centre the network did not see.

        Raises
        ------
        ArrayError
            If the map has not the input's size.
        """
        from cnnviz_core import maps

        if np.shape(map) != self.size:
            raise ArrayError(
                f"the map has the shape {np.shape(map)}",
                f"the input's size, {self.size}",
                "resize it with cnnviz_core.maps.resize first",
            )
        spans = [
            _Span(*axis)
            for axis in zip(self.original, self.resized, self.offset, self.size, strict=True)
        ]
        window = map[tuple(span.seen for span in spans)]
        whole = np.pad(window, [span.margins for span in spans], mode="edge")
        if self.resized != self.original:
            whole = maps.resize(whole[None], self.original, method)[0]
        inside = functools.reduce(np.logical_and.outer, [span.inside for span in spans])
        return np.where(inside, whole, 0)

    def boxes_to_original(self, boxes: Array) -> Array:
        """Bring boxes of the input to the picture's coordinates.

        Parameters
        ----------
        boxes : ndarray (k, 4)
            (x0, y0, x1, y1), half-open, in pixels of the input; of signals (k, 2).

        Returns
        -------
        ndarray (k, 4) of float64
            In pixels of the picture, neither rounded nor clipped.
        """
        scale, shift = self._scale_and_shift()
        return (_boxes(boxes, len(scale)) + shift) / scale

    def boxes_to_input(self, boxes: Array) -> Array:
        """Bring boxes of the picture to the input's coordinates.

        Parameters
        ----------
        boxes : ndarray (k, 4)
            (x0, y0, x1, y1), half-open, in pixels of the picture; of signals (k, 2).

        Returns
        -------
        ndarray (k, 4) of float64
            In pixels of the input, neither rounded nor clipped; they may lie outside it.
        """
        scale, shift = self._scale_and_shift()
        return _boxes(boxes, len(scale)) * scale - shift

    def _scale_and_shift(self) -> tuple[Array, Array]:
        """Give what takes (x0, y0, x1, y1) of the picture to the input: ``box * scale - shift``."""
        scale = np.divide(self.resized, self.original)[::-1]
        return np.tile(scale, 2), np.tile(self.offset[::-1], 2)

    def to_dict(self) -> dict[str, list[int]]:
        """Give it as JSON values."""
        return {name: list(pair) for name, pair in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """Make the geometry that `to_dict` described."""
        return cls(**values)


@dataclass(frozen=True)
class _Span:
    """One axis of a geometry."""

    original: int
    resized: int
    offset: int
    size: int

    @property
    def seen(self) -> slice:
        """The part of the window that lies in the resized picture, in the window's pixels."""
        return slice(max(0, -self.offset), min(self.size, self.resized - self.offset))

    @property
    def margins(self) -> tuple[int, int]:
        """How much of the resized picture lies before and behind the window."""
        return max(0, self.offset), max(0, self.resized - self.offset - self.size)

    @property
    def inside(self) -> Array:
        """Which of the picture's pixels have their centres in the window."""
        centres = (np.arange(self.original) + 0.5) * (self.resized / self.original)
        return (centres >= self.offset) & (centres < self.offset + self.size)


def prepare(picture: Picture, preprocessing: Preprocessing) -> tuple[Array, Geometry]:
    """Make a network's input of a picture.

    Resizing, cropping and padding are those of torchvision's transforms on PIL images: the longer
    side is rounded down, the window's offset is rounded to even, and a window larger than the
    resized picture is padded with black.

    Parameters
    ----------
    picture : Picture
        The picture.
    preprocessing : Preprocessing
        What the network wants.

    Returns
    -------
    x : ndarray (h, w, C) of float32
        In the network's value range.
    geometry : Geometry
        The way back to the picture's coordinates.

    Raises
    ------
    ParameterError
        If the preprocessing contradicts itself.
    """
    from PIL import Image

    _check_sizes(preprocessing)
    mean, std = _statistics(preprocessing)
    image = Image.fromarray(picture.pixels)
    if preprocessing.channels == "L":
        image = image.convert("L")
    resized = _resized_size(picture.size, preprocessing)
    if resized != picture.size:
        height, width = resized
        image = image.resize((width, height), _filter(preprocessing.interpolation))
    size = resized if preprocessing.size is None else preprocessing.size
    offset = (_offset(resized[0], size[0]), _offset(resized[1], size[1]))
    if size != resized:
        (top, left), (height, width) = offset, size
        # PIL fills what lies outside the picture with black.
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image).reshape(*size, -1)
    if preprocessing.channels == "BGR":
        pixels = pixels[..., ::-1]
    x = ((pixels * preprocessing.scale - mean) / std).astype(np.float32)
    return np.ascontiguousarray(x), Geometry(picture.size, resized, offset, size)


def _check_sizes(preprocessing: Preprocessing) -> None:
    """Check that what a picture is brought to has pixels."""
    for name in ("size", "resize"):
        given = getattr(preprocessing, name)
        if given is not None and np.min(given) < 1:
            raise ParameterError(
                f"the preprocessing's {name} is {given}",
                "at least one pixel in each direction",
                "pass (height, width) in pixels",
            )


def _statistics(preprocessing: Preprocessing) -> tuple[Array, Array]:
    """Give the mean and the standard deviation of each channel, checked."""
    channels = len(preprocessing.channels)
    for name in ("mean", "std"):
        values = getattr(preprocessing, name)
        if len(values) not in (1, channels):
            raise ParameterError(
                f"the preprocessing's {name} has {len(values)} values",
                f"one for each of the {channels} channels {preprocessing.channels}, or one for all",
                f"give {name} as many values as there are channels",
            )
    if 0 in preprocessing.std:
        raise ParameterError(
            f"the preprocessing's std is {preprocessing.std}",
            "values other than 0",
            "pass std=(1.0,) to leave the scale as it is",
        )
    return np.asarray(preprocessing.mean), np.asarray(preprocessing.std)


def _resized_size(original: Size, preprocessing: Preprocessing) -> Size:
    """Give the size that a picture is resized to."""
    resize = preprocessing.resize if preprocessing.resize is not None else preprocessing.size
    if resize is None:
        return original
    if isinstance(resize, Sequence):
        height, width = resize
        return height, width
    short, long = sorted(original)
    longer = int(resize * long / short)
    return (longer, resize) if original[0] > original[1] else (resize, longer)


def _offset(resized: int, size: int) -> int:
    """Give where a centred window begins, as torchvision's CenterCrop rounds it."""
    if size > resized:
        return -((size - resized) // 2)
    return round((resized - size) / 2)


def _filter(interpolation: str) -> Any:
    """Give Pillow's filter of a name."""
    from PIL import Image

    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    if interpolation not in filters:
        raise ParameterError(
            f"the preprocessing's interpolation is {interpolation!r}",
            " or ".join(map(repr, filters)),
            "pass one of these",
        )
    return filters[interpolation]


def _boxes(boxes: Array, numbers: int) -> Array:
    """Give boxes as an array (k, numbers)."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, numbers)
    if array.ndim != 2 or array.shape[1] != numbers:
        corners = "x0, y0, x1, y1" if numbers == 4 else "the first corner, then the last"
        raise ArrayError(
            f"the boxes have the shape {array.shape}",
            f"(k, {numbers}): {corners} for each box",
            "pass one row for each box",
        )
    return array
