"""What import strings name, and what can be imported."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__all__ = ["import_string", "installed"]


def import_string(target: str) -> Any:
    """Import what an import string names.

    Parameters
    ----------
    target : str
        "package.module:attribute".

    Returns
    -------
    object
    """
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it.

    Parameters
    ----------
    package : str
        A root package's name.

    Returns
    -------
    bool
    """
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it is in sys.modules without a spec
        return True
