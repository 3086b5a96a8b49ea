"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cnnviz_core.errors import ParameterError

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when all is written.

    Until the block ends a file of that name stays what it was; if the block raises, it stays so.

    Parameters
    ----------
    path : path
        The file to write, in a folder that exists.

    Yields
    ------
    file
        Open for writing bytes.

    Raises
    ------
    ParameterError
        If the folder does not exist, the name is a folder's, or nothing can be written there.
    """
    final = Path(os.path.realpath(Path(path).expanduser()))
    if not final.parent.is_dir():
        raise ParameterError(
            f"{path} cannot be written: there is no folder {final.parent}",
            "a path in a folder that exists",
            f"make the folder first: Path({str(final.parent)!r}).mkdir(parents=True)",
        )
    if final.is_dir():
        raise ParameterError(
            f"{path} cannot be written: it is a folder",
            "a file's name",
            "add a name to it, such as result.png",
        )
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        file = part.open("xb")
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be written: {error.strerror}",
            "a folder in which files may be made",
            "choose another folder",
        ) from None
    try:
        with file:
            yield file
        part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
