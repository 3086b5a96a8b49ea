"""Where results are written, and what the files are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cnnviz.cli.base import make_folder
from cnnviz_core.errors import ParameterError

__all__ = ["FORMATS", "files_to_write", "is_animated"]

FORMATS: Final = ("png", "jpg", "webp", "html", "npz", "pdf", "svg", "gif", "mp4")
"""What an inspection can be saved as."""


_MOVING: Final = ("gif", "mp4")


def is_animated(out: str, formats: Sequence[str]) -> bool:
    """Tell whether an animation is to be written.

    Parameters
    ----------
    out : str
        A folder, or a file.
    formats : sequence of str
        Of `FORMATS`.

    Returns
    -------
    bool
    """
    return any(kind in _MOVING for kind in (Path(out).suffix.lower().lstrip("."), *formats))


def files_to_write(out: str, formats: Sequence[str], stem: str) -> list[Path]:
    """Say which files to write, and make their folder.

    Parameters
    ----------
    out : str
        A folder, made if need be, or a file.
    formats : sequence of str
        Of `FORMATS`; a file says its own, and these are written beside it.
    stem : str
        What files in a folder are called, without a suffix.

    Returns
    -------
    list of Path

    Raises
    ------
    ParameterError
        If the folder cannot be made, or `out` is a file of another kind.
    """
    path = Path(out).expanduser()
    suffix = path.suffix[1:].lower()
    if not suffix or path.is_dir() or out.endswith(("/", "\\")):
        folder, files = path, [f"{stem}.{kind}" for kind in formats or ("png",)]
    elif suffix in FORMATS:
        beside = [path.with_suffix(f".{kind}").name for kind in formats if kind != suffix]
        folder, files = path.parent, [path.name, *beside]
    else:
        raise ParameterError(
            f"--out is {out!r}",
            f"a folder, or a file that ends in .{', .'.join(FORMATS)}",
            f"name such a file, or write {out}/ for a folder",
        )
    make_folder(folder)
    return [folder / file for file in dict.fromkeys(files)]
