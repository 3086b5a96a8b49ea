"""From what a person asks for ("occlusion(window=48)", an object) to methods and metrics."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from cnnviz.listing import plugin_of
from cnnviz.looking import AskedLayer, layer_text
from cnnviz.network import Network
from cnnviz.wording import described
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Explainer
from cnnviz_core.importing import import_string
from cnnviz_core.layers import AUTO
from cnnviz_core.metric import Metric
from cnnviz_core.registry import get_registry
from cnnviz_core.specs import ExplainerSpec, MetricSpec

__all__ = ["Asked", "Measure", "Method", "measures_of", "methods_of", "plain", "revived"]

Asked: TypeAlias = str | Sequence[Any] | Mapping[str, Any]
"""Names with their parameters, objects, or a mapping from labels to parameters or to either."""

_APART: Final = re.compile(r",(?![^()]*\))")
"""A comma that is not inside brackets."""
_ELSEWHERE: Final = frozenset({"batch_size", "low", "high"})
"""Fields that do not make another method: how it is run, and what the network's input is."""

_T = TypeVar("_T", "Method", "Measure")


@dataclass(frozen=True)
class Method:
    """A method that is evaluated.

    Attributes
    ----------
    label : str
        What it is called: its name, with the parameters that differ from their defaults.
    explainer : Explainer
        The method.
    identity : mapping of str to value
        All that makes it this one, as JSON has it.
    """

    label: str
    explainer: Explainer
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A metric that is evaluated.

    Attributes
    ----------
    label : str
        What it is called, as with methods.
    metric : Metric
        The metric.
    identity : mapping of str to value
        All that makes it this one, as JSON has it.
    higher_is_better : bool or None
        Which of two values is the better one; None where neither is.
    asks : tuple of str
        What of the annotation it cannot do without; see `MetricSpec.asks`.
    summary : str
        What it is, in a line.
    """

    label: str
    metric: Metric
    identity: Mapping[str, Any]
    higher_is_better: bool | None = None
    asks: tuple[str, ...] = ()
    summary: str = ""


def methods_of(
    asked: Asked, network: Network, layer: AskedLayer = AUTO, batch_size: int | None = None
) -> tuple[Method, ...]:
    """Make the methods that are asked for.

    Parameters
    ----------
    asked : str, sequence, or mapping
        "grad-cam, occlusion(window=48)"; a sequence of such names and of explainers; or a mapping:
        from names to parameters, from labels to explainers or to names with parameters.
    network : Network
        For layers that are the framework's own.
    layer : str, int, layer, or sequence of these
        The layer to look at, for the methods that look at one and are not told another.
    batch_size : int, optional
        For the methods that have such a parameter.

    Returns
    -------
    tuple of Method

    Raises
    ------
    UnknownMethodError
        If there is no such method.
    ParameterError
        If a parameter is unknown or does not fit, none or the same label twice is asked for, or a
        layer is given and no method looks at one.
    """
    where = layer_text(network, layer)
    given = {"layer": None if where == AUTO else where, "batch_size": batch_size}
    shared = {name: value for name, value in given.items() if value is not None}
    registry = get_registry()

    def named(name: str, params: Mapping[str, Any]) -> Any:
        own = {k: layer_text(network, v) if k == "layer" else v for k, v in params.items()}
        fields = {parameter.name for parameter in registry.parameters(name)}
        return registry.explainer(name, **{k: shared[k] for k in shared if k in fields}, **own)

    def read(text: str) -> Any:
        return registry.configured(text, **shared)

    found = []
    for label, explainer in _made(asked, read, named, "explain", "method"):
        spec, name = _announced(explainer, registry.explainers)
        identity = _identity(explainer, name, _plugin(spec, name, "explainers"))
        found.append(Method(label or _label(explainer, name, shared), explainer, identity))
    looks = any("layer" in method.identity["params"] for method in found)
    if found and "layer" in shared and not looks:
        raise ParameterError(
            f"layer={where!r} was given, and no method that is asked for looks at a layer",
            "no layer",
            "leave it out, or use a method that looks at one, such as grad-cam",
        )
    return _checked(found, "method")


def measures_of(asked: Asked) -> tuple[Measure, ...]:
    """Make the metrics that are asked for.

    Parameters
    ----------
    asked : str, sequence, or mapping
        As for `methods_of`.  Of a metric's object that is not announced, the attributes
        ``higher_is_better`` and ``asks`` are read where it has them.

    Returns
    -------
    tuple of Measure

    Raises
    ------
    UnknownMethodError
        If there is no such metric.
    ParameterError
        If a parameter is unknown or does not fit, or none or the same label twice is asked for.
    """
    registry = get_registry()

    def named(name: str, params: Mapping[str, Any]) -> Any:
        return registry.metric(name, **params)

    found = []
    for label, metric in _made(asked, registry.configured_metric, named, "measure", "metric"):
        spec, name = _announced(metric, registry.metrics)
        identity = _identity(metric, name, _plugin(spec, name, "metrics"))
        found.append(_measure(label or _label(metric, name, {}), metric, identity, spec))
    return _checked(found, "metric")


def revived(label: str, identity: Mapping[str, Any]) -> Measure:
    """Make a metric again of what was written down of it.

    Parameters
    ----------
    label : str
        What it is called.
    identity : mapping of str to value
        `Measure.identity`.

    Returns
    -------
    Measure

    Raises
    ------
    ParameterError
        If its class is not there any more, or takes other parameters.
    """
    params = {
        name: np.array(value["array"]) if isinstance(value, Mapping) else value
        for name, value in identity["params"].items()
    }
    try:
        metric = import_string(identity["class"])(**params)
    except Exception as error:
        raise ParameterError(
            f"the metric {label} cannot be made again from {identity['class']!r} "
            f"({type(error).__name__}: {error})",
            "the same metrics installed as when it was evaluated",
            "install them, or evaluate again",
        ) from error
    spec, _ = _announced(metric, get_registry().metrics)
    return _measure(label, metric, identity, spec)


def _measure(label: str, metric: Any, identity: Mapping[str, Any], spec: Any) -> Measure:
    """Gather what is known of a metric, from its record or else from itself."""
    source = metric if spec is None else spec
    doc = (type(metric).__doc__ or "").strip().splitlines()
    return Measure(
        label,
        metric,
        identity,
        getattr(source, "higher_is_better", None),
        tuple(sorted(getattr(source, "asks", ()))),
        getattr(source, "summary", "") or (doc[0].rstrip(".") if doc else ""),
    )


def _made(
    asked: Asked,
    read: Callable[[str], Any],
    named: Callable[[str, Mapping[str, Any]], Any],
    verb: str,
    noun: str,
) -> Iterator[tuple[str, Any]]:
    """Make what is asked for, each with the label that it is given; empty where it has none."""
    if isinstance(asked, str):
        asked = [part.strip() for part in _APART.split(asked) if part.strip()]
    elif hasattr(asked, verb):
        asked = [asked]
    pairs: Iterable[tuple[str, Any]]
    pairs = asked.items() if isinstance(asked, Mapping) else (("", each) for each in asked)
    for label, each in pairs:
        if isinstance(each, str):
            yield label, read(each)
        elif isinstance(each, Mapping):
            yield "", named(label, each)
        elif hasattr(each, verb) and dataclasses.is_dataclass(each):
            yield label, each
        else:
            raise ParameterError(
                f"{each!r} is no {noun}",
                f"a {noun}'s name, or a frozen dataclass with the method {verb}()",
                f"list the {noun}s with `cnnviz {noun}s`",
            )


def _announced(made: object, specs: Mapping[str, _Spec]) -> tuple[_Spec | None, str]:
    """Find the record of an object and the name under which it is listed."""
    target = _class(made)
    for name, spec in specs.items():
        if spec.target == target:
            return spec, name
    return None, type(made).__name__


_Spec = TypeVar("_Spec", ExplainerSpec, MetricSpec)


def _class(made: object) -> str:
    """Give the import string of an object's class."""
    return f"{type(made).__module__}:{type(made).__qualname__}"


def _plugin(spec: Any, name: str, kind: Any) -> str:
    """Give the distribution and the version that announced something; empty for an object."""
    found = None if spec is None else plugin_of(name, kind)
    return "" if found is None else f"{found.distribution} {found.version}"


def _identity(made: Any, name: str, plugin: str) -> dict[str, Any]:
    """Give all that makes a method or a metric this one, as JSON has it."""
    params = {
        field.name: plain(getattr(made, field.name))
        for field in dataclasses.fields(made)
        if field.init and field.name not in {"batch_size"}
    }
    return {"name": name, "class": _class(made), "plugin": plugin, "params": params}


def plain(value: Any) -> Any:
    """Give a parameter as JSON has it.

    Parameters
    ----------
    value : object
        Of the types that parameters have.

    Returns
    -------
    JSON value
        Of an array a mapping with its list.
    """
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _label(made: Any, name: str, shared: Mapping[str, Any]) -> str:
    """Name a method or a metric after what differs from its defaults."""
    told = []
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        known = field.name in _ELSEWHERE or shared.get(field.name, field) == value
        if known or not field.init or _is_default(field, value):
            continue
        told.append(f"{field.name}={described(value) if isinstance(value, np.ndarray) else value}")
    return f"{name}({', '.join(told)})" if told else name


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    """Tell whether a field has its default; an array never is one."""
    if isinstance(value, np.ndarray):
        return False
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return bool(value == default)


def _checked(found: list[_T], noun: str) -> tuple[_T, ...]:
    """Check that there is something, and nothing twice."""
    labels = [each.label for each in found]
    twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if twice or not labels:
        raise ParameterError(
            f"the {noun} {twice[0]!r} was asked for twice" if twice else f"no {noun} was given",
            f"each {noun} once" if twice else f"one or several {noun}s",
            "give each a label: {'mine': ..., 'other': ...}"
            if twice
            else f"name some; `cnnviz {noun}s` lists them",
        )
    return tuple(found)
