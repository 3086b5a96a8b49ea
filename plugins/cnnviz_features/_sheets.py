"""Laying many small tiles out on a sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnnviz_core.exhibits import Tile

__all__ = ["sheet"]


def sheet(tiles: Sequence[Tile]) -> tuple[tuple[Tile | None, ...], ...]:
    """Lay tiles out in rows: about a square, without an empty place where one can be had."""
    n = len(tiles)
    least = math.ceil(math.sqrt(n))
    columns = next((k for k in range(least, least + least // 2 + 1) if n % k == 0), least)
    padded = [*tiles, *[None] * (-n % columns)]
    return tuple(tuple(padded[i : i + columns]) for i in range(0, n, columns))
