"""Other libraries, a module each, which says by the names of our methods what they can do."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchmarks.case import Case, Ways

_DISTRIBUTIONS = {
    "torch": {
        "captum": "captum",
        "torchcam": "torchcam",
        "pytorch-grad-cam": "grad-cam",
        "zennit": "zennit",
        "lucent": "torch-lucent",
    },
    "tensorflow": {"tf-keras-vis": "tf-keras-vis", "xplique": "xplique"},
}
"""The peers of each framework, and the distributions that they come in."""


@dataclass(frozen=True)
class Peer:
    """A library, which may be missing.

    Attributes
    ----------
    name : str
    version : str or None
        None where it cannot be used.
    why : str
        Why not.
    ways : callable
        Gives what it can do with a case; nothing where it cannot be used.
    """

    name: str
    version: str | None
    why: str
    ways: Callable[[Case], Ways]


def peers_of(framework: str) -> dict[str, Peer]:
    """Look for the peers of a framework.

    Parameters
    ----------
    framework : {"torch", "tensorflow"}

    Returns
    -------
    dict of str to Peer
        Those that are missing too.
    """
    return {name: _peer(name, where) for name, where in _DISTRIBUTIONS[framework].items()}


def _peer(name: str, distribution: str) -> Peer:
    """Look for one peer."""
    try:
        found = version(distribution)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"benchmarks.peers.{name.replace('-', '_')}")
    except PackageNotFoundError:
        return Peer(name, None, "not installed", lambda case: {})
    except ImportError as error:
        return Peer(name, None, f"cannot be imported: {error}", lambda case: {})
    return Peer(name, found, "", module.ways)
