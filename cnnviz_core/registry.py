"""Finding explainers, inspectors, backends and rules of relevance among the installed plugins.

pluggy loads entry points without isolation: one that raises stops all.  So the loop is ours: each
entry point is loaded by itself, and one that fails is taken out, remembered and reported.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import re
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

import pluggy

from cnnviz_core import hookspecs
from cnnviz_core.errors import (
    CnnvizError,
    MissingBackendError,
    ParameterError,
    PluginError,
    UnknownMethodError,
    UnsupportedModelError,
    near,
)
from cnnviz_core.naming import Named, normal
from cnnviz_core.parameters import Parameter, build, parameters_of, parse
from cnnviz_core.rules import BackwardRule, check_steps
from cnnviz_core.specs import API, BackendSpec, ExplainerSpec, InspectorSpec, RuleSpec

Record = TypeVar("Record", ExplainerSpec, InspectorSpec, BackendSpec, RuleSpec)

__all__ = [
    "PluginFailure",
    "PluginInfo",
    "Registry",
    "get_registry",
    "import_string",
    "installed",
]

STRICT: Final = "CNNVIZ_STRICT_PLUGINS"
"""The environment variable that makes a failing plugin raise, when set to 1."""

_CONFIGURED: Final = re.compile(r"\s*(?P<name>[^()=]+?)\s*(?:\((?P<inside>[^()]*)\))?\s*")


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
    explainers, backends, inspectors, rules : tuple of str
        The names it announced.
    """

    distribution: str
    version: str
    entry_point: str
    explainers: tuple[str, ...]
    backends: tuple[str, ...]
    inspectors: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


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


class Registry:
    """The explainers, inspectors, backends and rules of relevance of all installed plugins.

    Parameters
    ----------
    points : iterable of EntryPoint, optional
        The entry points to load; those installed under the group ``cnnviz`` if left out.

    Attributes
    ----------
    explainers : mapping of str to ExplainerSpec
        By name, sorted; names that two plugins claim appear only as ``distribution:name``.
    inspectors : mapping of str to InspectorSpec
        By name, in the order in which they were announced.
    backends : mapping of str to BackendSpec
        By name.
    rules : mapping of str to RuleSpec
        By name, in the order in which they were announced.
    plugins : tuple of PluginInfo
    failures : list of PluginFailure
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        self.failures: list[PluginFailure] = []
        self._explainers: Named[ExplainerSpec] = Named("method", "cnnviz methods")
        self._inspectors: Named[InspectorSpec] = Named("inspector", "cnnviz inspectors")
        self._backends: Named[BackendSpec] = Named("backend", "cnnviz doctor")
        self._rules: Named[RuleSpec] = Named("rule", "cnnviz methods lrp")
        plugins = []
        for point in entry_points(group=hookspecs.GROUP) if points is None else points:
            info = self._load(point)
            if info is not None:
                plugins.append(info)
        self.plugins = tuple(plugins)
        self.explainers: Mapping[str, ExplainerSpec] = dict(sorted(self._explainers.all().items()))
        self.inspectors: Mapping[str, InspectorSpec] = self._inspectors.all()
        self.backends: Mapping[str, BackendSpec] = self._backends.all()
        self.rules: Mapping[str, RuleSpec] = self._rules.all()

    def _load(self, point: EntryPoint) -> PluginInfo | None:
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
            explainers = _announced(self._manager, module, "cnnviz_explainers", ExplainerSpec)
            inspectors = _announced(self._manager, module, "cnnviz_inspectors", InspectorSpec)
            backends = _announced(self._manager, module, "cnnviz_backends", BackendSpec)
            rules = _announced(self._manager, module, "cnnviz_rules", RuleSpec)
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
            return None
        for explainer in explainers:
            self._explainers.claim(distribution, explainer)
        for inspector in inspectors:
            self._inspectors.claim(distribution, inspector)
        for backend in backends:
            self._backends.claim(distribution, backend)
        for rule in rules:
            self._rules.claim(distribution, rule)
        return PluginInfo(
            distribution,
            version,
            point.name,
            tuple(e.name for e in explainers),
            tuple(b.name for b in backends),
            tuple(i.name for i in inspectors),
            tuple(r.name for r in rules),
        )

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

    def spec(self, name: str) -> ExplainerSpec:
        """Find an explainer's record.

        Parameters
        ----------
        name : str
            The method's name or an alias in any spelling ("grad-cam++", "GradCAMPlusPlus");
            ``distribution:name`` where two distributions claim it.

        Returns
        -------
        ExplainerSpec

        Raises
        ------
        UnknownMethodError
            If there is none; the message lists names near it.
        ConflictError
            If two plugins claim the name.
        """
        return self._find(self._explainers, name)

    def inspector_spec(self, name: str) -> InspectorSpec:
        """Find an inspector's record; see `spec`."""
        return self._find(self._inspectors, name)

    def rule_spec(self, name: str) -> RuleSpec:
        """Find the record of a rule of relevance; see `spec`."""
        return self._find(self._rules, name)

    def _find(self, named: Named[Any], name: str) -> Any:
        """Find a record; say so if it is missing since its plugin failed."""
        try:
            return named.find(name)
        except UnknownMethodError:
            failed = [f for f in self.failures if normal(f.entry_point) == normal(name)]
            if failed:
                raise PluginError(
                    f"the plugin {failed[0].entry_point!r} failed: {failed[0].error}",
                    "a plugin that loads",
                    "see `cnnviz doctor` for the whole error, then repair or uninstall the plugin",
                ) from None
            raise

    def explainer_class(self, name: str) -> type:
        """Import an explainer's class.

        Parameters
        ----------
        name : str
            The method's name.

        Returns
        -------
        type
            A dataclass that is an `Explainer`.

        Raises
        ------
        PluginError
            If its module raises when imported.
        """
        cls: type = _imported(self.spec(name))
        return cls

    def inspector_class(self, name: str) -> type:
        """Import an inspector's class; see `explainer_class`."""
        cls: type = _imported(self.inspector_spec(name))
        return cls

    def explainer(self, name: str, **params: Any) -> Any:
        """Make an explainer.

        Parameters
        ----------
        name : str
            The method's name.
        **params
            Its parameters, where they differ from their defaults.

        Returns
        -------
        Explainer

        Raises
        ------
        ParameterError
            If a parameter is unknown or out of its range.
        """
        return build(self.explainer_class(name), params, method=self.spec(name).name)

    def inspector(self, name: str, **params: Any) -> Any:
        """Make an inspector; see `explainer`.

        Parameters
        ----------
        name : str
            The inspector's name.
        **params
            Its parameters, where they differ from their defaults.

        Returns
        -------
        Inspector

        Raises
        ------
        ParameterError
            If a parameter is unknown or out of its range.
        """
        return build(self.inspector_class(name), params, method=self.inspector_spec(name).name)

    def rule(self, name: str, **options: Any) -> BackwardRule:
        """Make a rule of relevance.

        Parameters
        ----------
        name : str
            The rule's name.
        **options
            What the function that makes it takes; one that is None keeps the function's own
            default.

        Returns
        -------
        BackwardRule
            It may still lack `BackwardRule.bounds`.

        Raises
        ------
        UnknownMethodError
            If there is no such rule; the message lists names near it.
        ConflictError
            If two plugins claim the name.
        ParameterError
            If the rule has no such option, or an option is out of its range.
        RuleError
            If it has a step that does not fit its kind of operation.
        PluginError
            If its module raises when imported, or what it announces makes no rule.
        """
        spec = self.rule_spec(name)
        rule = _made(spec, {k: v for k, v in options.items() if v is not None})
        if not isinstance(rule, BackwardRule):
            raise PluginError(
                f"the rule {spec.name!r} of {spec.target!r} is a {type(rule).__name__}",
                "a BackwardRule, or a function that returns one",
                "repair or uninstall the plugin that announces it",
            )
        lacks_bounds = rule.needs_bounds and rule.bounds is None
        check_steps(rule.bounded([0], [1]) if lacks_bounds else rule)
        return rule

    def configured(self, text: str, **shared: Any) -> Any:
        """Make an explainer of a method's name with its parameters, as in a wrapper's ``of``.

        Parameters
        ----------
        text : str
            "occlusion", or "occlusion(window=48, stride=16)".
        **shared
            Further parameters, each given to the method only if it has one of that name.

        Returns
        -------
        Explainer

        Raises
        ------
        ParameterError
            If the text cannot be read, or a parameter is unknown or out of its range.
        """
        found = _CONFIGURED.fullmatch(text)
        if found is None:
            raise ParameterError(
                f"{text!r} does not name a method",
                "a method's name, or its name and parameters: occlusion(window=48, stride=16)",
                "list the methods with `cnnviz methods`",
            )
        name, inside = found["name"], (found["inside"] or "").strip()
        known = {parameter.name: parameter for parameter in self.parameters(name)}
        params = {key: value for key, value in shared.items() if key in known}
        for part in inside.split(",") if inside else ():
            key, _, value = (piece.strip() for piece in part.partition("="))
            # `build` speaks of unknown names.
            params[key] = parse(known[key], value.strip("'\"")) if key in known else value
        return self.explainer(name, **params)

    def parameters(self, name: str) -> tuple[Parameter, ...]:
        """Give a method's parameters.

        Parameters
        ----------
        name : str
            The method's name.

        Returns
        -------
        tuple of Parameter
        """
        return parameters_of(self.explainer_class(name))

    def backend(self, name: str) -> BackendSpec:
        """Find a backend's record, and check that its framework is installed.

        Parameters
        ----------
        name : str
            The backend's name, or its extra.

        Returns
        -------
        BackendSpec

        Raises
        ------
        MissingBackendError
            If there is no such backend, or its framework is not installed; the message says which
            extra installs it.
        """
        for spec in self.backends.values():
            if name in (spec.name, spec.extra):
                absent = [package for package in spec.packages[:1] if not installed(package)]
                if absent:
                    raise MissingBackendError(
                        f"the backend {spec.name!r} needs {absent[0]}, which is not installed",
                        f"{absent[0]} in this environment",
                        f"pip install 'cnnviz[{spec.extra}]'",
                    )
                return spec
        raise MissingBackendError(
            f"there is no backend {name!r}",
            f"one of {', '.join(self.backends) or 'none, since no plugin announces any'}",
            "install a distribution that announces it; `cnnviz doctor` lists what there is",
        )

    def backend_of(self, native: object) -> BackendSpec:
        """Find the backend that takes an object.

        The classes of the object are walked from the most derived one; the first whose root package
        a backend claims, and whose ``accepts`` agrees, wins.  So a Keras model on the torch engine,
        which is an ``nn.Module`` too, is asked of Keras first.

        Parameters
        ----------
        native : object
            A framework's network.

        Returns
        -------
        BackendSpec

        Raises
        ------
        UnsupportedModelError
            If no backend takes it.
        """
        asked: set[str] = set()
        for cls in type(native).__mro__:
            root = cls.__module__.partition(".")[0]
            for spec in self.backends.values():
                if root in spec.packages and spec.name not in asked:
                    asked.add(spec.name)
                    if import_string(spec.accepts)(native):
                        return spec
        kinds = ", ".join(f"{s.name} ({', '.join(s.packages)})" for s in self.backends.values())
        raise UnsupportedModelError(
            f"no backend takes an object of the class "
            f"{type(native).__module__}.{type(native).__qualname__}",
            f"a network of one of {kinds or 'no backend, since none is installed'}",
            "pass the network itself, not its name or its outputs; "
            "strings go through cnnviz.load, as in cnnviz.load('torchvision:resnet50')",
        )


_NOUNS: Final = {ExplainerSpec: "method", InspectorSpec: "inspector", RuleSpec: "rule"}
"""What a record announces, for messages."""


def _imported(spec: ExplainerSpec | InspectorSpec | RuleSpec) -> Any:
    """Import what a record announces."""
    try:
        return import_string(spec.target)
    except Exception as error:
        raise PluginError(
            f"the {_NOUNS[type(spec)]} {spec.name!r} could not be imported from {spec.target!r} "
            f"({type(error).__name__}: {error})",
            "a module that can be imported",
            "repair or uninstall the plugin that announces it",
        ) from error


def _made(spec: RuleSpec, options: Mapping[str, Any]) -> Any:
    """Give the rule that a record announces, or have its function make it with options."""
    announced = _imported(spec)
    known = _options(announced)
    for name in options:
        if name not in known:
            alike = near(name, known)
            raise ParameterError(
                f"the rule {spec.name!r} has no option {name!r}",
                f"one of {', '.join(known)}" if known else "no option at all",
                f"perhaps {alike[0]!r} was meant" if alike else "leave it out",
            )
    if not callable(announced):
        return announced
    try:
        return announced(**options)
    except CnnvizError:
        raise
    except Exception as error:
        raise PluginError(
            f"the rule {spec.name!r} of {spec.target!r} could not be made "
            f"({type(error).__name__}: {error})",
            "a function whose arguments all have defaults, and that returns a BackwardRule",
            "repair or uninstall the plugin that announces it",
        ) from error


def _options(announced: object) -> list[str]:
    """Give the names of what a function takes by name; none of what is no function."""
    if not callable(announced):
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(announced).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in by_name]


def _announced(
    manager: pluggy.PluginManager, module: Any, hook: str, record: type[Record]
) -> list[Record]:
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


@functools.cache
def get_registry() -> Registry:
    """Give the registry of the installed plugins, loaded once.

    Returns
    -------
    Registry
    """
    return Registry()
