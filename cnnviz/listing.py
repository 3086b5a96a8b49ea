"""What there is: the methods, inspectors and metrics installed, and the layers of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cnnviz.tables import Table
from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.layers import auto_layer
from cnnviz_core.model import LayerInfo
from cnnviz_core.naming import normal
from cnnviz_core.parameters import Parameter, parameters_of
from cnnviz_core.plugins import PluginInfo
from cnnviz_core.registry import get_registry
from cnnviz_core.specs import InspectorSpec, MetricSpec, RuleSpec

__all__ = [
    "InspectorInfo",
    "MethodInfo",
    "MetricInfo",
    "Table",
    "by_family",
    "family_of",
    "inspectors",
    "layers",
    "methods",
    "metrics",
    "plugin_of",
    "short_reference",
    "usual_inspector",
    "usual_metric",
    "usual_name",
]

_FAMILIES = ("cam", "gradient", "perturbation", "relevance", "features", "wrapper", "control")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class MethodInfo:
    """An installed method.

    Attributes
    ----------
    name : str
        What to call it by.
    family : str
        "cam", "gradient", "perturbation", ...
    summary : str
        One line.
    needs : tuple of str
        The capabilities that a model must have, sorted.
    references : tuple of str
        The papers.
    cost : str
        The work for one sample, in words; empty where the method does not say.
    class_agnostic : bool
        Whether the map is the same for every target.
    aliases : tuple of str
        Its other names.
    distribution, version : str
        The distribution that it came with.
    """

    name: str
    family: str
    summary: str
    needs: tuple[str, ...]
    references: tuple[str, ...]
    cost: str
    class_agnostic: bool
    aliases: tuple[str, ...]
    distribution: str
    version: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters; reading them imports the method."""
        return get_registry().parameters(self.name)

    @property
    def composites(self) -> tuple[RuleSpec, ...]:
        """What its parameter ``composite`` can name; empty for a method that has none."""
        takes = any(parameter.name == "composite" for parameter in self.parameters)
        return tuple(get_registry().rules.values()) if takes else ()


@dataclass(frozen=True)
class InspectorInfo:
    """An installed inspector.

    Attributes
    ----------
    name : str
        What to call it by; also its command.
    summary : str
        One line.
    shown : str
        What it looks at beside the network: "nothing", "pictures", ...
    targeted : bool
        Whether a class or another target may be named.
    needs : tuple of str
        The capabilities that a model must have, sorted.
    references : tuple of str
        The papers.
    cost : str
        The work, in words; empty where the inspector does not say.
    aliases : tuple of str
        Its other names.
    distribution, version : str
        The distribution that it came with.
    """

    name: str
    summary: str
    shown: str
    targeted: bool
    needs: tuple[str, ...]
    references: tuple[str, ...]
    cost: str
    aliases: tuple[str, ...]
    distribution: str
    version: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters; reading them imports the inspector."""
        return parameters_of(get_registry().inspector_class(self.name))


@dataclass(frozen=True)
class MetricInfo:
    """An installed metric of maps.

    Attributes
    ----------
    name : str
        What to call it by.
    family : str
        What it judges: "localisation", "faithfulness", ...
    summary : str
        One line.
    higher_is_better : bool or None
        Which of two values is the better one; None where neither is.
    asks : tuple of str
        What of the annotation it cannot do without, sorted.
    needs : tuple of str
        The capabilities that a model must have, sorted.
    references : tuple of str
        The papers.
    cost : str
        The work for one map, in words.
    aliases : tuple of str
        Its other names.
    distribution, version : str
        The distribution that it came with.
    """

    name: str
    family: str
    summary: str
    higher_is_better: bool | None
    asks: tuple[str, ...]
    needs: tuple[str, ...]
    references: tuple[str, ...]
    cost: str
    aliases: tuple[str, ...]
    distribution: str
    version: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters; reading them imports the metric."""
        return parameters_of(get_registry().metric_class(self.name))


def usual_name(name: str) -> str:
    """Give the name under which a method is listed.

    Parameters
    ----------
    name : str
        The method's name or an alias, in any case, with hyphens or underscores.

    Returns
    -------
    str

    Raises
    ------
    UnknownMethodError
        If there is no such method.

    Examples
    --------
    >>> usual_name("Grad_CAM")
    'grad-cam'
    """
    registry = get_registry()
    spec = registry.spec(name)
    return next(listed for listed, known in registry.explainers.items() if known is spec)


def usual_inspector(name: str) -> str:
    """Give the name under which an inspector is listed; see `usual_name`.

    Examples
    --------
    >>> usual_inspector("DeepDream")
    'dream'
    """
    registry = get_registry()
    spec = registry.inspector_spec(name)
    return next(listed for listed, known in registry.inspectors.items() if known is spec)


def usual_metric(name: str) -> str:
    """Give the name under which a metric is listed; see `usual_name`.

    Parameters
    ----------
    name : str
        The metric's name or an alias, in any spelling.

    Returns
    -------
    str

    Raises
    ------
    UnknownMethodError
        If there is no such metric.
    """
    registry = get_registry()
    spec = registry.metric_spec(name)
    return next(listed for listed, known in registry.metrics.items() if known is spec)


def plugin_of(
    name: str, kind: Literal["explainers", "inspectors", "metrics"] = "explainers"
) -> PluginInfo | None:
    """Find the plugin that announced a method, an inspector or a metric.

    Parameters
    ----------
    name : str
        Its name, in the usual form; ``distribution:name`` where two claim it.
    kind : {"explainers", "inspectors", "metrics"}
        Which of them it is.

    Returns
    -------
    PluginInfo or None
    """
    distribution, _, bare = name.rpartition(":")
    for plugin in get_registry().plugins:
        if bare in map(normal, plugin.announced[kind]) and (
            not distribution or normal(plugin.distribution) == distribution
        ):
            return plugin
    return None


def methods(model: Any = None) -> Table[MethodInfo]:
    """List the installed methods.

    Parameters
    ----------
    model : network, Network or str, optional
        List only those that this network can run.

    Returns
    -------
    Table of MethodInfo
        A tuple that prints as a table, by family and name.

    Examples
    --------
    >>> [method.name for method in methods() if method.family == "perturbation"]
    ['occlusion']
    """
    explainers = get_registry().explainers
    names: Iterable[str] = by_family(explainers)
    if model is not None:
        from cnnviz.explaining import network_of, runnable

        able = set(runnable(network_of(model).model))
        names = [name for name in names if name in able]
    found = []
    for name in names:
        spec, plugin = explainers[name], plugin_of(name)
        found.append(
            MethodInfo(
                name=name,
                family=spec.family,
                summary=spec.summary,
                needs=tuple(sorted(spec.needs)),
                references=spec.references,
                cost=spec.cost,
                class_agnostic=spec.class_agnostic,
                aliases=spec.aliases,
                distribution=plugin.distribution if plugin else "",
                version=plugin.version if plugin else "",
            )
        )
    cells = [(m.name, m.family, m.summary, m.cost) for m in found]
    return Table(found, ("method", "family", "summary", "cost"), cells)


def inspectors(model: Any = None) -> Table[InspectorInfo]:
    """List the installed inspectors.

    Parameters
    ----------
    model : network, Network or str, optional
        List only those that this network can run.

    Returns
    -------
    Table of InspectorInfo
        A tuple that prints as a table, in the order in which a newcomer would try them.

    Examples
    --------
    >>> [inspector.name for inspector in inspectors() if inspector.shown == "nothing"]
    ['filters', 'class-model']
    """
    known = get_registry().inspectors
    if model is not None:
        from cnnviz.explaining import network_of

        offered = network_of(model).model.capabilities
        known = {name: spec for name, spec in known.items() if spec.needs <= offered}
    found = [_inspector_info(name, spec) for name, spec in known.items()]
    cells = [(i.name, i.shown, i.summary, i.cost) for i in found]
    return Table(found, ("inspector", "is shown", "summary", "cost"), cells)


def _inspector_info(name: str, spec: InspectorSpec) -> InspectorInfo:
    """Gather what is known of an inspector."""
    plugin = plugin_of(name, "inspectors")
    return InspectorInfo(
        name=name,
        summary=spec.summary,
        shown=spec.shown,
        targeted=spec.targeted,
        needs=tuple(sorted(spec.needs)),
        references=spec.references,
        cost=spec.cost,
        aliases=spec.aliases,
        distribution=plugin.distribution if plugin else "",
        version=plugin.version if plugin else "",
    )


def metrics() -> Table[MetricInfo]:
    """List the installed metrics of maps.

    Returns
    -------
    Table of MetricInfo
        A tuple that prints as a table, in the order in which they were announced.

    Examples
    --------
    >>> [metric.name for metric in metrics() if metric.family == "robustness"]
    ['max-sensitivity']
    """
    found = [_metric_info(name, spec) for name, spec in get_registry().metrics.items()]
    better = {True: "higher", False: "lower", None: ""}
    cells = [
        (m.name, m.family, m.summary, better[m.higher_is_better], ", ".join(m.asks), m.cost)
        for m in found
    ]
    return Table(found, ("metric", "family", "summary", "better", "asks for", "cost"), cells)


def _metric_info(name: str, spec: MetricSpec) -> MetricInfo:
    """Gather what is known of a metric."""
    plugin = plugin_of(name, "metrics")
    return MetricInfo(
        name=name,
        family=spec.family,
        summary=spec.summary,
        higher_is_better=spec.higher_is_better,
        asks=tuple(sorted(spec.asks)),
        needs=tuple(sorted(spec.needs)),
        references=spec.references,
        cost=spec.cost,
        aliases=spec.aliases,
        distribution=plugin.distribution if plugin else "",
        version=plugin.version if plugin else "",
    )


def by_family(names: Iterable[str]) -> list[str]:
    """Sort methods by family, then by name.

    Parameters
    ----------
    names : iterable of str
        Methods by their usual names.

    Returns
    -------
    list of str
        Class activation maps first, controls last but for families that are not known here.

    Examples
    --------
    >>> by_family(["occlusion", "saliency", "grad-cam", "cam"])
    ['cam', 'grad-cam', 'saliency', 'occlusion']
    """
    explainers = get_registry().explainers
    order = {family: i for i, family in enumerate(_FAMILIES)}

    def key(name: str) -> tuple[int, str, str]:
        family = explainers[name].family
        return order.get(family, len(order)), family, name

    return sorted(names, key=key)


def family_of(name: str) -> str:
    """Give a method's family, also of one that is not installed any more.

    Parameters
    ----------
    name : str
        The method's usual name.

    Returns
    -------
    str
        "other" where it is not known.
    """
    spec = get_registry().explainers.get(name)
    return "other" if spec is None else spec.family


def short_reference(reference: str) -> str:
    """Shorten a paper to its authors and year.

    Parameters
    ----------
    reference : str
        Authors, title, venue and year.

    Returns
    -------
    str

    Examples
    --------
    >>> short_reference("Zeiler & Fergus, Visualizing and understanding networks, ECCV 2014")
    'Zeiler & Fergus 2014'
    """
    authors, comma, rest = reference.partition(",")
    years = _YEAR.findall(rest)
    return f"{authors.replace(' et al.', '')} {years[-1]}" if comma and years else authors


def layers(model: Any) -> Table[LayerInfo]:
    """List a network's layers, in the order in which their calls end.

    Parameters
    ----------
    model : network, Network or str
        As for `explain`.

    Returns
    -------
    Table of LayerInfo
        A tuple that prints as a table, with each layer's number from the end, as ``layer=-1``
        takes it; the layer that "auto" stands for is marked.

    Raises
    ------
    ArrayError
        If the shapes depend on an input that the network has not seen, and none is declared.

    Examples
    --------
    >>> layers("demo")[-2].kind
    'linear'
    """
    from cnnviz.explaining import network_of

    found = network_of(model).model.layers
    try:
        auto = auto_layer(found).name
    except UnknownLayerError:
        auto = ""
    cells = [
        (
            str(i - len(found)),
            info.name,
            info.type,
            info.kind,
            " x ".join(map(str, info.shape)),
            "" if info.grid is None else " x ".join(map(str, info.grid)),
            "auto" if info.name == auto else "",
        )
        for i, info in enumerate(found.values())
    ]
    columns = ("from the end", "layer", "type", "kind", "output", "grid", "")
    return Table(found.values(), columns, cells)
