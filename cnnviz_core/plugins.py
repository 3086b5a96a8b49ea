"""Loading the installed plugins, and the records that they announce.

pluggy loads entry points without isolation: one that raises stops all.  So the loop is ours: each
entry point is loaded by itself, and one that fails is taken out, remembered and reported.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pluggy

from cnnviz_core import hookspecs
from cnnviz_core.errors import PluginError, UnknownMethodError
from cnnviz_core.naming import Named, normal
from cnnviz_core.specs import (
    API,
    BackendSpec,
    ExplainerSpec,
    InspectorSpec,
    MetricSpec,
    RuleSpec,
)

__all__ = ["KINDS", "Kind", "PluginFailure", "PluginInfo", "Plugins"]

STRICT: Final = "CNNVIZ_STRICT_PLUGINS"
"""The environment variable that makes a failing plugin raise, when set to 1."""


class Kind(NamedTuple):
    """A kind of record that plugins announce.

    Attributes
    ----------
    record : type
        The records' class.
    noun : str
        What a record announces, for messages.
    command : str
        The command that lists them.
    """

    record: type[Any]
    noun: str
    command: str


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "explainers": Kind(ExplainerSpec, "method", "cnnviz methods"),
        "inspectors": Kind(InspectorSpec, "inspector", "cnnviz inspectors"),
        "backends": Kind(BackendSpec, "backend", "cnnviz doctor"),
        "rules": Kind(RuleSpec, "rule", "cnnviz methods lrp"),
        "metrics": Kind(MetricSpec, "metric", "cnnviz metrics"),
    }
)
"""By the end of their hook's name: "explainers" of ``cnnviz_explainers``."""


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be loaded.

    Attributes
    ----------
    distribution, version : str
        Which distribution it came with.
    entry_point : str
        The entry point's name.
    stage : str
        "load" (its module), "announce" (its hooks) or "import" (an explainer's own module).
    error : str
        The exception, in one line.
    traceback : str
        The whole of it.
    """

    distribution: str
    version: str
    entry_point: str
    stage: str
    error: str
    traceback: str


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was loaded, and what it announced.

    Attributes
    ----------
    distribution, version : str
        Which distribution it came with.
    entry_point : str
        The entry point's name.
    announced : mapping of str to tuple of str
        For each of `KINDS` the names that it announced.
    """

    distribution: str
    version: str
    entry_point: str
    announced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Plugins:
    """The installed plugins and what they announce.

    Parameters
    ----------
    points : iterable of EntryPoint, optional
        The entry points to load; those installed under the group ``cnnviz`` if left out.

    Attributes
    ----------
    infos : list of PluginInfo
        Those that were loaded.
    failures : list of PluginFailure
        Those that were not.
    named : mapping of str to Named
        The records of each of `KINDS`.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        self.infos: list[PluginInfo] = []
        self.failures: list[PluginFailure] = []
        self.named: dict[str, Named[Any]] = {
            key: Named(kind.noun, kind.command) for key, kind in KINDS.items()
        }
        for point in entry_points(group=hookspecs.GROUP) if points is None else points:
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        """Load one entry point; on failure remember it and leave no trace of the plugin."""
        distribution = point.dist.name if point.dist else ""
        version = point.dist.version if point.dist else ""
        stage = "load"
        name = f"{distribution}:{point.name}"
        try:
            module = point.load()
            stage = "announce"
            self._manager.register(module, name=name)
            self._manager.check_pending()
            found = {
                key: _announced(self._manager, module, f"{hookspecs.GROUP}_{key}", kind.record)
                for key, kind in KINDS.items()
            }
        except Exception as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._fail(
                PluginFailure(
                    distribution,
                    version,
                    point.name,
                    stage,
                    f"{type(error).__name__}: {error}",
                    traceback.format_exc(),
                ),
                error,
            )
            return
        for key, records in found.items():
            for record in records:
                self.named[key].claim(distribution, record)
        names = {key: tuple(record.name for record in records) for key, records in found.items()}
        self.infos.append(PluginInfo(distribution, version, point.name, MappingProxyType(names)))

    def _fail(self, failure: PluginFailure, error: Exception) -> None:
        """Remember a failure with one warning, or raise it where that was asked for."""
        if os.environ.get(STRICT) == "1":
            raise PluginError(
                f"plugin {failure.entry_point!r} of {failure.distribution or 'unknown'} "
                f"{failure.version} failed to {failure.stage}: {failure.error}",
                "a plugin that loads",
                f"repair or uninstall it, or unset {STRICT}",
            ) from error
        self.failures.append(failure)
        warnings.warn(
            f"cnnviz: plugin {failure.entry_point!r} of {failure.distribution or 'unknown'} failed "
            f"to {failure.stage} ({failure.error}); `cnnviz doctor` shows the whole of it",
            RuntimeWarning,
            stacklevel=2,
        )

    def find(self, kind: str, name: str) -> Any:
        """Find a record; say so if it is missing since its plugin failed.

        Parameters
        ----------
        kind : str
            One of `KINDS`.
        name : str
            Its name or an alias, in any spelling.

        Returns
        -------
        ExplainerSpec, InspectorSpec, ...

        Raises
        ------
        UnknownMethodError
            If there is none; the message lists names near it.
        ConflictError
            If two plugins claim the name.
        PluginError
            If a plugin of this name failed.
        """
        try:
            return self.named[kind].find(name)
        except UnknownMethodError:
            failed = [f for f in self.failures if normal(f.entry_point) == normal(name)]
            if failed:
                raise PluginError(
                    f"the plugin {failed[0].entry_point!r} failed: {failed[0].error}",
                    "a plugin that loads",
                    "see `cnnviz doctor` for the whole error, then repair or uninstall the plugin",
                ) from None
            raise


def _announced(
    manager: pluggy.PluginManager, module: Any, hook: str, record: type[Any]
) -> list[Any]:
    """Call one plugin's implementation of a hook, and check what it gives."""
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    given = manager.subset_hook_caller(hook, others)()
    specs = [spec for announced in given for spec in announced]
    for spec in specs:
        if not isinstance(spec, record):
            raise TypeError(f"{hook} gave a {type(spec).__name__}, not {record.__name__}")
        if spec.api != API:
            raise TypeError(f"{spec.name!r} was written for API {spec.api}; this is API {API}")
    return specs
