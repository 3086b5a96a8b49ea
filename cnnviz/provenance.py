"""What made a result: the network, the plugin, and the versions of what computed it."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Mapping

from cnnviz.network import Network
from cnnviz_core.plugins import PluginInfo

__all__ = ["provenance_of"]


def provenance_of(network: Network, plugin: PluginInfo | None) -> Mapping[str, str]:
    """Say what made a result.

    Parameters
    ----------
    network : Network
        What was looked at.
    plugin : PluginInfo or None
        What announced the method or the inspector.

    Returns
    -------
    mapping of str to str
        "model", "framework", and by distribution the versions.
    """
    found = {"model": network.name, "framework": network.model.framework}
    if plugin is not None:
        found["plugin"] = f"{plugin.distribution} {plugin.version}"
    own = _own_version()
    if own is not None:
        found["cnnviz"] = own
    for package in dict.fromkeys(("numpy", network.model.framework)):
        version = getattr(sys.modules.get(package), "__version__", None)
        if version is not None:
            found[package] = str(version)
    return found


@functools.cache
def _own_version() -> str | None:
    """Give the installed version of this package; None where it was not installed."""
    try:
        return importlib.metadata.version("cnnviz")
    except importlib.metadata.PackageNotFoundError:
        return None
