"""Peers, each of which may be missing."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def optional(name: str) -> Any:
    """Import a peer.

    Parameters
    ----------
    name : str
        A module.

    Returns
    -------
    module or None
        None where its package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise  # it is there, and what it needs is not
        return None
