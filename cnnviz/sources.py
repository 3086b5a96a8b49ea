"""Loading a network by a short text: where it comes from and what it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnviz.network import Network, obeys_protocol, wrap
from cnnviz_core.errors import (
    CnnvizError,
    MissingBackendError,
    ModelSourceError,
    UnsupportedModelError,
    near,
)
from cnnviz_core.importing import import_string
from cnnviz_core.preprocessing import Described
from cnnviz_core.registry import get_registry
from cnnviz_core.specs import BackendSpec

__all__ = ["load"]

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z_][\w.+-]*):(?P<name>.+)")
_SAVED_MODEL = "saved_model.pb"


def load(source: str | os.PathLike[str], *, backend: str | None = None, **options: Any) -> Network:
    """Load a network.

    Parameters
    ----------
    source : str
        One of

        - a collection and a name in it: "torchvision:resnet50", "timm:convnext_tiny",
          "keras:MobileNetV2";
        - a file or folder that a framework saved: "model.keras", "exported.pt2", "saved_model/";
        - a function of yours that returns a network, or a network of yours:
          "package.module:factory" (the current folder is looked in too).  A function that itself
          answers pictures is wrapped there, as ``network = cnnviz.wrap(function)``;
        - "demo", the small trained network that comes with cnnviz.
    backend : str, optional
        Which backend is to load it, where several can: "torch", "tensorflow" or, for "demo",
        "numpy".
    **options
        Handed to the loader, or to the function.

    Returns
    -------
    Network

    Raises
    ------
    ModelSourceError
        If there is no such source; the message lists what there is.
    MissingBackendError
        If the framework is not installed; the message says which extra installs it.

    Examples
    --------
    >>> load("demo", backend="numpy")
    <Network 'digits in the wild' (numpy): preprocessing, 10 labels>
    """
    text = os.fspath(source)
    if text == "demo":
        from cnnviz.demo import network

        return network(backend)
    path = Path(text).expanduser()
    if path.exists():
        return _from_file(path, backend, options)
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise _unknown(text)
    scheme, name = match["scheme"], match["name"]
    owners = _owners("sources", scheme, backend)
    if owners:
        loader = import_string(_installed(owners).sources[scheme])
        return wrap(loader(name, **options))
    return _from_function(text, scheme, name, options)


def _owners(kind: str, key: str, backend: str | None) -> list[BackendSpec]:
    """List the backends that load a scheme or a suffix, of those asked for."""
    specs = list(get_registry().backends.values())
    if backend is not None:
        specs = [spec for spec in specs if backend in (spec.name, spec.extra)]
    return [spec for spec in specs if key in getattr(spec, kind)]


def _installed(owners: list[BackendSpec]) -> BackendSpec:
    """Give the first backend whose framework is installed, or say how to install one."""
    for spec in owners[:-1]:
        with contextlib.suppress(MissingBackendError):
            return get_registry().backend(spec.name)
    return get_registry().backend(owners[-1].name)


def _from_file(path: Path, backend: str | None, options: Mapping[str, Any]) -> Network:
    """Load a file, or a folder that holds a SavedModel."""
    suffix = _SAVED_MODEL if (path / _SAVED_MODEL).is_file() else path.suffix.lower()
    owners = _owners("suffixes", suffix, backend)
    if not owners:
        raise ModelSourceError(
            f"{str(path)!r} is no file that a backend can load",
            _what_there_is(),
            "load it with its framework, and pass the network itself to cnnviz.wrap",
        )
    described = import_string(_installed(owners).suffixes[suffix])(str(path), **options)
    network = wrap(described)
    return network if described.name else wrap(network, name=path.stem)


def _from_function(text: str, module: str, name: str, options: Mapping[str, Any]) -> Network:
    """Call a function of the user's own."""
    with _current_folder_importable():
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise _broken(text, error) from error
            raise _unknown(text) from error
        except Exception as error:
            raise _broken(text, error) from error
        for part in name.split("."):
            if not hasattr(found, part):
                alike = near(part, [n for n in vars(found) if not n.startswith("_")])
                raise ModelSourceError(
                    f"{module!r} has no {name!r}",
                    "the name of a function that returns a network",
                    f"perhaps {alike[0]!r} was meant" if alike else "check the name",
                )
            found = getattr(found, part)
        if not _is_network(found):
            try:
                found = found(**options)
            except CnnvizError:
                raise
            except Exception as error:
                raise _broken(text, error) from error
    network = wrap(found)
    named = isinstance(found, Network) or (isinstance(found, Described) and found.name)
    return network if named else wrap(network, name=name)


def _is_network(found: Any) -> bool:
    """Tell a network from a function that makes one."""
    if isinstance(found, (Network, Described)):
        return True
    if isinstance(found, type):
        return False
    if obeys_protocol(found):
        return True
    try:
        get_registry().backend_of(found)
    except UnsupportedModelError:
        return False
    return True


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Let the current folder's modules be found, as ``python -m`` does."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _broken(text: str, error: Exception) -> ModelSourceError:
    """Say that the user's own code raised."""
    return ModelSourceError(
        f"{text!r} raised {type(error).__name__}: {error}",
        "a function that returns a network, or a network, as cnnviz.wrap makes of any function",
        "run it by itself to see where it fails",
    )


def _unknown(text: str) -> ModelSourceError:
    """Say that there is no such source, and what there is."""
    scheme, colon, name = text.partition(":")
    schemes = [s for spec in get_registry().backends.values() for s in spec.sources]
    if colon:
        alike = near(scheme, schemes)
        remedy = f"perhaps '{alike[0]}:{name}' was meant" if alike else "check the spelling"
        return ModelSourceError(
            f"there is no collection, nor a module that can be imported, called {scheme!r}",
            _what_there_is(),
            remedy,
        )
    suffixes = [s for spec in get_registry().backends.values() for s in spec.suffixes]
    is_path = "/" in text or Path(text).suffix in suffixes
    places = [] if is_path else [f"{scheme}:{text}" for scheme in schemes]
    return ModelSourceError(
        f"there is no file {text!r}",
        _what_there_is(),
        f"check the path, or name its collection: {' or '.join(places)}"
        if places
        else "check the path",
    )


def _what_there_is() -> str:
    """List the sources that can be loaded."""
    backends = get_registry().backends.values()
    schemes = [f"{scheme}:NAME" for spec in backends for scheme in spec.sources]
    suffixes = [suffix for spec in backends for suffix in spec.suffixes]
    kinds = [*schemes, "package.module:function", "demo"]
    return ", ".join(kinds) + (f", or a file: {', '.join(suffixes)}" if suffixes else "")
