"""What failed while an evaluation ran, and what is not tried any more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cnnviz_core.errors import (
    CnnvizError,
    MissingCapabilityError,
    RuleError,
    UnknownLayerError,
    UnsupportedModelError,
)

__all__ = ["UNFIT", "Failure", "Failures"]

UNFIT: Final = (MissingCapabilityError, RuleError, UnsupportedModelError, UnknownLayerError)
"""What is raised by what does not fit a network at all."""

_PATIENCE: Final = 16
"""On how many pictures something may fail that has never worked, before it is left out."""


@dataclass(frozen=True)
class Failure:
    """A picture, or a method or a metric on a picture, that failed.

    Attributes
    ----------
    picture : str
        The item's id.
    method, metric : str
        What failed; empty where the picture itself could not be read or prepared.
    what : str
        What went wrong.
    remedy : str
        What a person can do.
    """

    picture: str
    method: str = ""
    metric: str = ""
    what: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: Exception, picture: str, method: str = "", metric: str = "") -> Failure:
        """Make a failure of what was raised.

        Parameters
        ----------
        error : Exception
            The error.
        picture, method, metric : str
            As of `Failure`.

        Returns
        -------
        Failure
        """
        if isinstance(error, CnnvizError):
            return cls(picture, method, metric, error.problem, error.remedy)
        said = f"{type(error).__name__}: {error}"
        return cls(picture, method, metric, said, "report it to the author of what failed")

    @property
    def where(self) -> str:
        """What failed on which picture."""
        return ", ".join(filter(None, (self.picture, self.method, self.metric)))

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.remedy})"


@dataclass
class Failures:
    """The failures of a run.

    Attributes
    ----------
    found : list of Failure
        All of them.
    left_out : dict of (str, str) to str
        Methods, and metrics of methods, that are not tried any more, each with the reason; the
        metric is empty where the method is left out.
    """

    found: list[Failure] = field(default_factory=list)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    _works: set[tuple[str, str]] = field(default_factory=set)
    _failed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, error: Exception, picture: str, method: str = "", metric: str = "") -> None:
        """Note a failure, and give up what has failed on many pictures and never worked.

        Parameters
        ----------
        error : Exception
            What was raised.
        picture, method, metric : str
            As of `Failure`.
        """
        self.found.append(Failure.of(error, picture, method, metric))
        key = (method, metric)
        self._failed[key] += 1
        if method and key not in self._works and self._failed[key] >= _PATIENCE:
            self.give_up(f"it failed on the first {_PATIENCE} pictures", method, metric)

    def succeeded(self, method: str, metric: str = "") -> None:
        """Note that something worked, now or in an earlier run.

        Parameters
        ----------
        method, metric : str
            As of `Failure`.
        """
        self._works.add((method, metric))

    def give_up(self, reason: str, method: str, metric: str = "") -> None:
        """Leave something out.

        Parameters
        ----------
        reason : str
            Why.
        method, metric : str
            As of `Failure`.
        """
        self.left_out[method, metric] = reason
