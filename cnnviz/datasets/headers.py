"""What the beginning of a picture's file says: its size, as a viewer shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cnnviz_core.errors import ImageError

__all__ = ["Header", "header_of"]

_ORIENTATION: Final = 0x0112
_SIDES: Final = (0x0100, 0x0101)
_ON_ITS_SIDE: Final = range(5, 9)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before its pixels are read.

    Attributes
    ----------
    size : tuple of int
        (height, width) as a viewer shows it.
    turned : bool
        Whether the file holds it on its side, with a note for viewers to turn it.
    """

    size: tuple[int, int]
    turned: bool = False


def header_of(path: Path) -> Header:
    """Read the beginning of a picture's file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Header

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImageError
        If it is no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            # Of a TIFF newer releases of Pillow give the size as it is shown, older ones as stored.
            tags = getattr(image, "tag_v2", {})
            width, height = (tags.get(_SIDES[i], image.size[i]) for i in range(2))
            # Of a PNG whose header has no note, Pillow would read all pixels to look behind them.
            known = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(_ORIENTATION, 1) if known else 1
    except FileNotFoundError:
        raise
    # Decoders raise all sorts of exceptions on damaged data.
    except Exception as error:
        raise ImageError(
            f"{path} is no picture that can be read: {error}",
            "a file in a format that Pillow reads, such as PNG, JPEG, WebP or TIFF",
            "open it in a viewer to see what it is",
        ) from None
    turned = orientation in _ON_ITS_SIDE
    return Header((width, height) if turned else (height, width), turned)
