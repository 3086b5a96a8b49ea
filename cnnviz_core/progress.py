"""Progress of long work, told to whoever listens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["advance", "listening"]

Listener = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""

_listener: ContextVar[Listener | None] = ContextVar("cnnviz_progress", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of the work in this block to a function.

    Parameters
    ----------
    listener : callable
        Called as ``listener(what, done, total)``.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def advance(what: str, done: int, total: int) -> None:
    """Say how far some work has come.

    Parameters
    ----------
    what : str
        What is being done, such as "occlusion".
    done, total : int
        How many units are done, and how many there are.
    """
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)
