"""A memory of bounded size for what is dear to make."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["Recent"]

_V = TypeVar("_V")


class Recent(OrderedDict[Hashable, _V]):
    """What was made of late, by its key; the one asked for longest ago goes first.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def once(self, key: Hashable, make: Callable[[], _V]) -> _V:
        """Give what is known under a key, made when it is not.

        Parameters
        ----------
        key : hashable
            The key.
        make : callable
            Makes it.

        Returns
        -------
        object
        """
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
        return self[key]
