"""Finding explainers, inspectors, backends, rules and metrics by name, and making them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Final

from cnnviz_core.errors import (
    CnnvizError,
    MissingBackendError,
    ParameterError,
    PluginError,
    UnsupportedModelError,
    near,
)
from cnnviz_core.importing import import_string, installed
from cnnviz_core.parameters import Parameter, build, parameters_of, parse
from cnnviz_core.plugins import KINDS, Plugins
from cnnviz_core.rules import BackwardRule, check_steps
from cnnviz_core.specs import BackendSpec, ExplainerSpec, InspectorSpec, MetricSpec, RuleSpec

__all__ = ["Registry", "get_registry"]

_EXAMPLES: Final = {
    "method": "occlusion(window=48, stride=16)",
    "metric": "deletion(steps=28)",
}
_CONFIGURED: Final = re.compile(r"\s*(?P<name>[^()=]+?)\s*(?:\((?P<inside>[^()]*)\))?\s*")


class Registry:
    """The explainers, inspectors, backends, rules and metrics of all installed plugins.

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
    metrics : mapping of str to MetricSpec
        By name, in the order in which they were announced.
    plugins : tuple of PluginInfo
    failures : list of PluginFailure
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._plugins = Plugins(points)
        self.plugins = tuple(self._plugins.infos)
        self.failures = self._plugins.failures
        named = {key: found.all() for key, found in self._plugins.named.items()}
        self.explainers: Mapping[str, ExplainerSpec] = dict(sorted(named["explainers"].items()))
        self.inspectors: Mapping[str, InspectorSpec] = named["inspectors"]
        self.backends: Mapping[str, BackendSpec] = named["backends"]
        self.rules: Mapping[str, RuleSpec] = named["rules"]
        self.metrics: Mapping[str, MetricSpec] = named["metrics"]

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
        found: ExplainerSpec = self._plugins.find("explainers", name)
        return found

    def inspector_spec(self, name: str) -> InspectorSpec:
        """Find an inspector's record; see `spec`."""
        found: InspectorSpec = self._plugins.find("inspectors", name)
        return found

    def rule_spec(self, name: str) -> RuleSpec:
        """Find the record of a rule of relevance; see `spec`."""
        found: RuleSpec = self._plugins.find("rules", name)
        return found

    def metric_spec(self, name: str) -> MetricSpec:
        """Find a metric's record; see `spec`."""
        found: MetricSpec = self._plugins.find("metrics", name)
        return found

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

    def metric_class(self, name: str) -> type:
        """Import a metric's class; see `explainer_class`."""
        cls: type = _imported(self.metric_spec(name))
        return cls

    def metric(self, name: str, **params: Any) -> Any:
        """Make a metric; see `explainer`.

        Parameters
        ----------
        name : str
            The metric's name.
        **params
            Its parameters, where they differ from their defaults.

        Returns
        -------
        Metric

        Raises
        ------
        ParameterError
            If a parameter is unknown or out of its range.
        """
        return build(self.metric_class(name), params, method=self.metric_spec(name).name)

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
        name, params = _read(text, "method", self.explainer_class, shared)
        return self.explainer(name, **params)

    def configured_metric(self, text: str, **shared: Any) -> Any:
        """Make a metric of its name with its parameters, "deletion(steps=28)"; see `configured`.

        Parameters
        ----------
        text : str
            The metric's name, or its name and parameters.
        **shared
            Further parameters, each given to the metric only if it has one of that name.

        Returns
        -------
        Metric

        Raises
        ------
        ParameterError
            If the text cannot be read, or a parameter is unknown or out of its range.
        """
        name, params = _read(text, "metric", self.metric_class, shared)
        return self.metric(name, **params)

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


def _read(
    text: str, noun: str, class_of: Callable[[str], type], shared: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Read a name with parameters; of the shared ones those that the class has are added."""
    found = _CONFIGURED.fullmatch(text)
    if found is None:
        raise ParameterError(
            f"{text!r} does not name a {noun}",
            f"a {noun}'s name, or its name and parameters: {_EXAMPLES[noun]}",
            f"list the {noun}s with `cnnviz {noun}s`",
        )
    name, inside = found["name"], (found["inside"] or "").strip()
    known = {parameter.name: parameter for parameter in parameters_of(class_of(name))}
    params = {key: value for key, value in shared.items() if key in known}
    for part in inside.split(",") if inside else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        # `build` speaks of unknown names.
        params[key] = parse(known[key], value.strip("'\"")) if key in known else value
    return name, params


def _imported(spec: ExplainerSpec | InspectorSpec | RuleSpec | MetricSpec) -> Any:
    """Import what a record announces."""
    try:
        return import_string(spec.target)
    except Exception as error:
        noun = next(kind.noun for kind in KINDS.values() if kind.record is type(spec))
        raise PluginError(
            f"the {noun} {spec.name!r} could not be imported from {spec.target!r} "
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


@functools.cache
def get_registry() -> Registry:
    """Give the registry of the installed plugins, loaded once.

    Returns
    -------
    Registry
    """
    return Registry()
