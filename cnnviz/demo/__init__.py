"""Digits in the wild: a small trained network and scenes whose truth is known, shipped with cnnviz.

Handwritten digits lie on photographs; the network was told only which digits are there, and maps
find where.  How it was trained is in ``docs/demo`` of the repository.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple

from cnnviz.images import Picture, read_picture
from cnnviz.network import Network, wrap
from cnnviz_core.errors import MissingBackendError
from cnnviz_core.importing import import_string
from cnnviz_core.netspec import NetSpec
from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_core.registry import get_registry

__all__ = ["Mark", "netspec", "network", "scenes"]

_DATA = resources.files("cnnviz.demo") / "data"
_PREFERRED = ("torch", "tensorflow")


class Mark(NamedTuple):
    """A digit in a scene.

    Attributes
    ----------
    label : str
        "0" to "9".
    box : tuple of int
        (x0, y0, x1, y1) of the tight box around it, half-open, in pixels.
    """

    label: str
    box: tuple[int, int, int, int]


def netspec() -> NetSpec:
    """Read the trained network.

    Returns
    -------
    NetSpec
    """
    with resources.as_file(_DATA / "digits_in_the_wild.npz") as path:
        return NetSpec.load(path)


def network(backend: str | None = None) -> Network:
    """Build the trained network.

    Parameters
    ----------
    backend : str, optional
        "torch", "tensorflow" (or "tf"), or "numpy"; the first of these that is installed if left
        out.

    Returns
    -------
    Network

    Raises
    ------
    MissingBackendError
        If the framework is not installed.
    """
    spec = netspec()
    meta = spec.meta
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in meta["preprocessing"].items()
    }
    preprocessing = Preprocessing(**fields)
    native = _built(spec, backend)
    if native is None:
        from cnnviz_core.testing.reference import ReferenceModel

        model = ReferenceModel(spec)
        return wrap(model, preprocess=preprocessing, labels=meta["labels"], name=spec.name)
    return wrap(Described(native, preprocessing, tuple(meta["labels"]), spec.name))


def _built(spec: NetSpec, backend: str | None) -> object | None:
    """Build the network by a backend, or give None for NumPy."""
    registry = get_registry()
    for name in _PREFERRED if backend is None else (backend,):
        if name == "numpy":
            return None
        try:
            build = registry.backend(name).build
        except MissingBackendError:
            if backend is None:
                continue
            raise
        if build is None:
            raise MissingBackendError(
                f"the backend {name!r} cannot build networks from data",
                "a backend that announces a function for it, or numpy",
                "pass backend='numpy'",
            )
        return import_string(build)(spec)
    return None


def scenes() -> list[tuple[Picture, tuple[Mark, ...]]]:
    """Read the scenes.

    Returns
    -------
    list of (Picture, tuple of Mark)
        Each picture, 128 x 128 pixels, with the digits in it.
    """
    found = []
    for record in json.loads((_DATA / "scenes.json").read_text(encoding="utf-8")):
        with resources.as_file(_DATA / record["file"]) as path:
            picture = read_picture(path)
        marks = (Mark(str(m["label"]), tuple(m["box"])) for m in record["marks"])
        found.append((picture, tuple(marks)))
    return found
