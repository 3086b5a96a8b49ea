"""Finding a record by the name that a person gave, however it is spelt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Generic, Protocol, TypeVar

from cnnviz_core.errors import ConflictError, UnknownMethodError, near

__all__ = ["Named", "folded", "normal"]


class _Announced(Protocol):
    """What the records of plugins have in common."""

    @property
    def name(self) -> str: ...


Record = TypeVar("Record", bound=_Announced)


def normal(name: str) -> str:
    """Give a method's name in its usual form: "Grad_CAM" becomes "grad-cam"."""
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


def folded(name: str) -> str:
    """Give what two spellings of a name have in common.

    Parameters
    ----------
    name : str
        A method's name.

    Returns
    -------
    str
        Only its letters and digits, in lower case, and "plus" for "+"; a distribution before a
        colon stays.

    Examples
    --------
    >>> folded("Grad-CAM++"), folded("GradCAMPlusPlus")
    ('gradcamplusplus', 'gradcamplusplus')
    """
    return re.sub(r"[^a-z0-9:]", "", name.casefold().replace("+", "plus"))


class Named(Generic[Record]):
    """Records of one kind, each with the distribution that claims its name.

    Parameters
    ----------
    noun : str
        What a record is of, for messages: "method".
    command : str
        The command that lists them.
    """

    def __init__(self, noun: str, command: str) -> None:
        self._noun: Final = noun
        self._command: Final = command
        self._claims: dict[str, list[tuple[str, Record]]] = {}

    def claim(self, distribution: str, record: Record) -> None:
        """Add a record.

        Parameters
        ----------
        distribution : str
            The distribution that announced it.
        record : record
            With a name.
        """
        self._claims.setdefault(normal(record.name), []).append((distribution, record))

    def all(self) -> dict[str, Record]:
        """Give the records by name, those that share a name by their distribution too.

        Returns
        -------
        dict of str to record
            In the order in which they were claimed.
        """
        named = {}
        for name, owners in self._claims.items():
            for distribution, record in owners:
                named[name if len(owners) == 1 else f"{normal(distribution)}:{name}"] = record
        return named

    def find(self, name: str) -> Record:
        """Find a record.

        Parameters
        ----------
        name : str
            Its name or an alias in any spelling; ``distribution:name`` where two claim it.

        Returns
        -------
        record

        Raises
        ------
        UnknownMethodError
            If there is none; the message lists names near it.
        ConflictError
            If two plugins claim the name.
        """
        known = self.all()
        wanted = normal(name)
        if wanted in known:
            return known[wanted]
        if wanted in self._claims:
            owners = [distribution for distribution, _ in self._claims[wanted]]
            raise ConflictError(
                f"the name {wanted!r} is claimed by {' and '.join(owners)}",
                f"one of {', '.join(f'{o}:{wanted}' for o in owners)}",
                "name the distribution too",
            )
        meant = self._meant(known, folded(name))
        if len(meant) == 1:
            return meant[0]
        if meant:
            names = [record.name for record in meant]
            raise ConflictError(
                f"{name!r} is another name of {' and '.join(names)}",
                f"one of {', '.join(names)}",
                f"use the {self._noun}'s own name",
            )
        usual = {name: name for name in known}
        usual |= {a: name for name, record in known.items() for a in _aliases(record)}
        alike = [usual[name] for name in near(wanted, usual)]
        raise UnknownMethodError(
            f"there is no {self._noun} {name!r}",
            f"one of {', '.join(known)}",
            f"perhaps {alike[0]!r} was meant" if alike else f"list them with `{self._command}`",
        )

    def _meant(self, known: Mapping[str, Record], spelt: str) -> list[Record]:
        """Give the records of which this is another spelling or an alias."""
        own = [record for listed, record in known.items() if folded(listed) == spelt]
        # A record's own name goes before others' aliases.
        found = own or [r for r in known.values() if spelt in map(folded, _aliases(r))]
        return list({id(record): record for record in found}.values())


def _aliases(record: object) -> tuple[str, ...]:
    """Give a record's other names."""
    return getattr(record, "aliases", ())
