"""Pictures inside pages, as data URIs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cnnviz.pictures import encode
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["TINY", "photo_uri", "pixels_uri", "uri"]

TINY = 64
"""Of pictures this small the pixels are shown."""


def photo_uri(image: Image.Image, most: int) -> str:
    """Give a photograph as a data URI, no larger than a page needs."""
    from PIL import Image

    if max(image.size) <= TINY:
        return uri(encode(image), "png")
    image = image.copy()
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    return uri(encode(image, "JPEG"), "jpeg")


def pixels_uri(pixels: Array) -> str:
    """Give pixels, with or without opacity, as a data URI."""
    from PIL import Image

    return uri(encode(Image.fromarray(pixels)), "png")


def uri(content: bytes, kind: str) -> str:
    """Give a picture's file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
