"""Pictures, from wherever they come: 8-bit RGB pixels with a name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnviz_core.errors import ImageError
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Picture", "read_picture", "read_pictures"]

_KINDS = "a path, a PIL image, or an array (H, W, 3) of uint8, or of floats in [0, 1]"
# A float picture that was resized or filtered may leave [0, 1] by its rounding.
_SLACK = 1e-5


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as a viewer would show it.

    Attributes
    ----------
    pixels : ndarray (H, W, 3) of uint8
        RGB, read-only.
    name : str
        What to call it: the file's name without its folder, where there is a file.
    path : pathlib.Path or None
        The file that it was read from.
    """

    pixels: Array
    name: str
    path: Path | None = None

    def __post_init__(self) -> None:
        pixels = np.array(_rgb8(np.asarray(self.pixels), self.name), order="C")
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        height, width = self.pixels.shape[:2]
        return height, width

    def __repr__(self) -> str:
        height, width = self.size
        return f"Picture({self.name!r}, {width} x {height})"


def read_picture(source: Any, *, name: str | None = None) -> Picture:
    """Read one picture.

    Greyscale becomes RGB, transparency is laid on white, 16-bit values are brought to 8 bits,
    palettes and CMYK are converted, and the orientation that a camera noted is applied.  Of an
    animation the first frame is taken.

    Parameters
    ----------
    source : path, PIL image, ndarray or Picture
        An array is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last, of uint8, uint16,
        bool, or floats in [0, 1].
    name : str, optional
        What to call it; the default is the file's name, or "picture".

    Returns
    -------
    Picture

    Raises
    ------
    ImageError
        If there is no such file, it is no picture or a damaged one, or the array has another
        shape, type or range.

    Examples
    --------
    >>> import numpy as np
    >>> read_picture(np.zeros((2, 3)), name="black")
    Picture('black', 3 x 2)
    """
    if isinstance(source, Picture):
        return source if name is None else Picture(source.pixels, name, source.path)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        name = path.name if name is None else name
        return Picture(_read_file(path), name, path)
    called = "picture" if name is None else name
    if _is_pil(source):
        file = Path(source.filename) if getattr(source, "filename", "") else None
        called = file.name if file and name is None else called
        return Picture(_decode(source, called), called, file)
    if not hasattr(source, "__array__"):
        raise ImageError(
            f"{_an(type(source).__name__)} was given as a picture", _KINDS, "pass one of these"
        )
    try:
        return Picture(np.asarray(source), called)
    # Tensors on a device or with a gradient refuse, each in its own way.
    except (TypeError, RuntimeError) as error:
        raise ImageError(
            f"{_an(type(source).__name__)} cannot be made an array: {error}",
            _KINDS,
            "convert it first, for instance with tensor.detach().cpu().numpy()",
        ) from None


def read_pictures(sources: Any) -> list[Picture]:
    """Read one picture or several.

    Parameters
    ----------
    sources : a source, or an iterable of sources
        What `read_picture` takes.  An array (N, H, W, C) is N pictures.

    Returns
    -------
    list of Picture
        In the order given.  Pictures without a file are called "picture", or "picture-1",
        "picture-2" and so on where there are several.

    Raises
    ------
    ImageError
        If there is none, or one of them cannot be read.
    """
    single = (
        isinstance(sources, (str, os.PathLike, Picture))
        or _is_pil(sources)
        or (hasattr(sources, "__array__") and np.ndim(sources) != 4)
        or not isinstance(sources, Iterable)
    )
    if single:
        return [read_picture(sources)]
    listed = list(sources)
    if not listed:
        raise ImageError("no picture was given", f"at least one: {_KINDS}", "pass a picture")
    return [
        read_picture(source, name=None if _has_name(source) else _numbered(i, len(listed)))
        for i, source in enumerate(listed)
    ]


def _has_name(source: Any) -> bool:
    """Say whether a source brings a name."""
    return isinstance(source, (str, os.PathLike, Picture)) or bool(getattr(source, "filename", ""))


def _numbered(i: int, n: int) -> str:
    """Name the i-th of n pictures that have no name of their own."""
    return "picture" if n == 1 else f"picture-{i + 1}"


def _an(noun: str) -> str:
    """Put the article before a type's name."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _is_pil(source: Any) -> bool:
    """Say whether it is a PIL image, without importing PIL to ask."""
    return any(
        kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(source).__mro__
    )


def _read_file(path: Path) -> Array:
    """Read a file's pixels."""
    from PIL import Image, UnidentifiedImageError

    if path.is_dir():
        raise ImageError(
            f"{path} is a folder",
            "a picture's file",
            f"pass the files in it: sorted(Path({str(path)!r}).glob('*.jpg'))",
        )
    try:
        with Image.open(path) as image:
            return _decode(image, str(path))
    except FileNotFoundError:
        raise ImageError(
            f"there is no file {path}",
            "a path to a picture",
            f"check it: it is looked for from {Path.cwd()}"
            if not path.is_absolute()
            else "check the spelling of the path",
        ) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is not a picture" + (": the file is empty" if _is_empty(path) else ""),
            "a file in a format that Pillow reads, such as PNG, JPEG, WebP or TIFF",
            "open it in a viewer to see what it is, and save it as PNG",
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} is too large: {error}",
            "a picture within Pillow's limit",
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file",
        ) from None
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}",
            "a readable file",
            "check the file's permissions",
        ) from None


def _is_empty(path: Path) -> bool:
    """Say whether a file holds nothing."""
    return path.stat().st_size == 0


def _decode(image: Image.Image, called: str) -> Array:
    """Decode a PIL image to the array that a viewer would show."""
    from PIL import Image, ImageOps

    try:
        image.load()
    # Decoders raise all sorts of exceptions on damaged data.
    except Exception as error:
        raise ImageError(
            f"{called} is damaged or cut short: {error}",
            "a whole picture",
            "copy or download it again",
        ) from None
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF" or upright.mode == "1":
        return _deep(np.asarray(upright))
    try:
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            upright = Image.alpha_composite(white, rgba)
        return np.asarray(upright.convert("RGB"))
    except ValueError:
        raise ImageError(
            f"{called} is in the colour mode {image.mode!r}",
            "a mode that Pillow converts to RGB",
            "save it as an RGB picture",
        ) from None


def _deep(values: Array) -> Array:
    """Bring the values of PIL's deep greyscale modes to a type that arrays come in."""
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 65535:
        # PIL holds 16-bit greyscale in 32 bits, depending on the format.
        return values.astype(np.uint16)
    return values


def _rgb8(array: Array, called: str) -> Array:
    """Check an array, and make 8-bit RGB of it."""
    _check_shape(array, called)
    pixels = _eight_bits(array, called)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        colour = pixels[..., :3].astype(np.uint32)
        alpha = pixels[..., 3:].astype(np.uint32)
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return pixels


def _check_shape(array: Array, called: str) -> None:
    """Check that an array has a picture's shape."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        if channels_first:
            remedy = "move the channels last: numpy.moveaxis(picture, 0, -1)"
        elif array.ndim == 4:
            remedy = "pass the pictures as a list"
        elif array.ndim == 3:
            remedy = "keep the three colour channels: picture[..., :3]"
        else:
            remedy = "reshape it to (height, width, 3)"
        raise ImageError(
            f"{called} is an array of the shape {array.shape}",
            "(H, W, 3) for colour, (H, W) or (H, W, 1) for greyscale, (H, W, 4) with transparency",
            remedy,
        )
    if array.size == 0:
        raise ImageError(
            f"{called} has no pixels: its shape is {array.shape}",
            "at least one pixel",
            "check how it was cropped or read",
        )


def _eight_bits(array: Array, called: str) -> Array:
    """Bring an array's values to 8 bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "f":
        raise ImageError(
            f"{called} is an array of {array.dtype}",
            "uint8 in 0..255, uint16 in 0..65535, or floats in [0, 1]",
            "convert it: picture.astype('uint8') if its values are 0..255",
        )
    if not np.isfinite(array).all():
        raise ImageError(
            f"{called} holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite",
            "finite numbers in [0, 1]",
            "find where they come from, or replace them with numpy.nan_to_num",
        )
    low, high = float(array.min()), float(array.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise ImageError(
            f"{called} is an array of floats from {low:.4g} to {high:.4g}",
            "floats in [0, 1]",
            "divide it by 255 if its values are 0..255; if it is already the network's input, "
            "pass it as (N, H, W, C) with preprocessed=True",
        )
    pixels: Array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return pixels
