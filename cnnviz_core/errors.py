"""Every exception that cnnviz raises on purpose.

Each says three things: what was wrong, what was expected, and what to do next.  Where a standard
exception type fits (``ValueError``, ``LookupError``, ``ImportError``), the class derives from it
too, so that ``except ValueError`` does what a reader expects.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AnswerError",
    "ArrayError",
    "CnnvizError",
    "ConflictError",
    "ImageError",
    "MissingBackendError",
    "MissingCapabilityError",
    "ModelSourceError",
    "OutOfMemoryError",
    "ParameterError",
    "PluginError",
    "ReadOnlyResultError",
    "RuleError",
    "TargetError",
    "UnknownClassError",
    "UnknownLayerError",
    "UnknownMethodError",
    "UnsupportedModelError",
    "near",
]


class CnnvizError(Exception):
    """Base of all errors of cnnviz.

    Parameters
    ----------
    problem : str
        What was wrong, with the offending value.
    expected : str
        What would have been right.
    remedy : str
        What to do next.

    Examples
    --------
    >>> print(CnnvizError("window is 0", "a positive whole number", "pass window=32"))
    window is 0
      expected: a positive whole number
      what to do: pass window=32
    """

    def __init__(self, problem: str, expected: str, remedy: str) -> None:
        super().__init__(problem, expected, remedy)
        self.problem = problem
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  expected: {self.expected}\n  what to do: {self.remedy}"


class ArrayError(CnnvizError, ValueError):
    """An array has the wrong rank, size, type, or holds NaN or infinity."""


class ImageError(CnnvizError, ValueError):
    """A picture cannot be read, or has a form that no network input can be made of."""


class ParameterError(CnnvizError, ValueError):
    """A method's parameter is unknown, of the wrong type or out of its range."""


class TargetError(CnnvizError, ValueError):
    """A target does not fit the network's output or the number of samples."""


class UnknownClassError(TargetError, LookupError):
    """A class index is out of range, or no class bears the given name."""


class UnknownMethodError(CnnvizError, LookupError):
    """No explainer bears the given name."""


class UnknownLayerError(CnnvizError, LookupError):
    """No layer bears the given name, or the name stands for several calls."""


class UnsupportedModelError(CnnvizError, TypeError):
    """No backend can put this object behind the ``Model`` protocol."""


class MissingBackendError(CnnvizError, ImportError):
    """The framework that a model or a source needs is not installed."""


class MissingCapabilityError(CnnvizError, TypeError):
    """A model lacks an operation that a method needs."""


class RuleError(CnnvizError, ValueError):
    """A backward rule would change nothing in this model, or cannot be applied to it."""


class ModelSourceError(CnnvizError, ValueError):
    """A model could not be loaded from the given source."""


class PluginError(CnnvizError, ImportError):
    """A plugin failed to load, or breaks the plugin contract."""


class ConflictError(CnnvizError, LookupError):
    """Two plugins claim one name."""


class AnswerError(CnnvizError, RuntimeError):
    """A function that stands for a network raised, and was not to be asked again."""


class OutOfMemoryError(CnnvizError, MemoryError):
    """The memory of a network's device does not suffice for what it was asked to compute."""


class ReadOnlyResultError(CnnvizError, AttributeError):
    """A result was about to be changed."""


def near(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Names that a person may have meant, the most alike first.

    Parameters
    ----------
    name : str
        What was asked for.
    known : iterable of str
        What there is.
    n : int
        How many to give at most.

    Returns
    -------
    list of str

    Examples
    --------
    >>> near("gradcam", ["grad-cam", "occlusion"])
    ['grad-cam']
    """
    names = list(dict.fromkeys(known))
    folded = {k: k.casefold().replace("_", "-") for k in names}
    wanted = name.casefold().replace("_", "-")
    containing = [k for k in names if wanted and wanted in folded[k]]
    alike = difflib.get_close_matches(wanted, list(folded.values()), n=n, cutoff=0.5)
    by_fold: dict[str, list[str]] = {}
    for k, v in folded.items():
        by_fold.setdefault(v, []).append(k)
    ranked = [k for v in alike for k in by_fold[v]] + containing
    return list(dict.fromkeys(ranked))[:n]
