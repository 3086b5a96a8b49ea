"""What there is: the methods that are installed, and the layers of a network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.layers import auto_layer
from cnnviz_core.model import LayerInfo
from cnnviz_core.naming import normal
from cnnviz_core.parameters import Parameter
from cnnviz_core.registry import PluginInfo, get_registry

__all__ = [
    "MethodInfo",
    "Table",
    "by_family",
    "family_of",
    "layers",
    "methods",
    "plugin_of",
    "short_reference",
    "usual_name",
]

_FAMILIES = ("cam", "gradient", "perturbation", "relevance", "features", "wrapper", "control")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")

Row = TypeVar("Row")


class Table(tuple[Row, ...], Generic[Row]):
    """A tuple of records that prints as a table.

    Parameters
    ----------
    records : iterable
        The records.
    columns : sequence of str
        The columns' titles.
    cells : sequence of sequence of str
        What is printed, a row for each record.
    """

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    def __new__(
        cls, records: Iterable[Row], columns: Sequence[str], cells: Iterable[Sequence[str]]
    ) -> Table[Row]:
        """Make the tuple, and keep what is printed."""
        table = super().__new__(cls, records)
        table.columns = tuple(columns)
        table.cells = tuple(tuple(row) for row in cells)
        return table

    def __repr__(self) -> str:
        rows = [self.columns, *self.cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.cells)
        return f"<table><thead>{row(self.columns, 'th')}</thead><tbody>{body}</tbody></table>"


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


def plugin_of(name: str) -> PluginInfo | None:
    """Find the plugin that announced a method.

    Parameters
    ----------
    name : str
        The method's name, in its usual form; ``distribution:name`` where two claim it.

    Returns
    -------
    PluginInfo or None
    """
    distribution, _, bare = name.rpartition(":")
    for plugin in get_registry().plugins:
        if bare in map(normal, plugin.explainers) and (
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
