"""Results as pages that stand alone: explanations, comparisons and inspections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cnnviz.comparing import Comparison
from cnnviz.explanation import THRESHOLD, Explanation, Normalise
from cnnviz.inspection import Inspection
from cnnviz.pages.explained import excerpt, explained
from cnnviz.pages.inspected import glimpse, inspected
from cnnviz.pages.templates import template_of
from cnnviz.pictures import ALPHA, FINE, SMOOTH
from cnnviz.sheets import Explanations
from cnnviz_core.errors import ParameterError
from cnnviz_core.files import replacing

__all__ = [
    "Result",
    "html_fragment",
    "inspection_fragment",
    "render",
    "render_report",
    "report",
    "write_report",
]

Result: TypeAlias = Explanation | Comparison | Inspection
"""What a page can show."""


def report(
    results: Result | Sequence[Result], path: str | os.PathLike[str], title: str = ""
) -> Path:
    """Write results as one page that stands alone, with a section for each.

    Parameters
    ----------
    results : Explanation, Comparison, Inspection, or a sequence of these
        In the order in which they are shown.
    path : path
        The file to write; ".html".
    title : str
        The page's title.

    Returns
    -------
    pathlib.Path
        Where it was written.

    Raises
    ------
    ParameterError
        If there is no result, something is none, or nothing can be written there.

    Examples
    --------
    >>> import cnnviz
    >>> from cnnviz.demo import scenes
    >>> picture = scenes()[0][0]
    >>> results = [cnnviz.explain("demo", picture), cnnviz.inspect("demo", "filters")]
    >>> cnnviz.report(results, "demo.html")  # doctest: +SKIP
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in (".html", ".htm"):
        raise ParameterError(
            f"a page cannot be saved as {target.name!r}",
            "a name that ends in .html",
            f"save it as {target.with_suffix('.html').name!r}" if target.stem else "name a file",
        )
    page = render(results, title=title)
    with replacing(target) as file:
        file.write(page.encode())
    return target


def render(results: Result | Sequence[Result], *, title: str = "") -> str:
    """Make a page of results that needs no other file and no network.

    Parameters
    ----------
    results : Explanation, Comparison, Inspection, or a sequence of these
        In the order in which they are shown.
    title : str
        The page's title.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ParameterError
        If there is no result, or something is none.
    """
    single = isinstance(results, (Explanation, Comparison, Inspection))
    given: Sequence[Any] = [results] if single else results  # type: ignore[assignment, list-item]
    if not given:
        raise ParameterError("there is no result to show", "at least one", "pass some")
    parts = [_part(result) for result in given]
    return _page(parts, title or (parts[0]["title"] if len(parts) == 1 else "What was found"))


def _part(result: Any) -> dict[str, Any]:
    """Say what a page shows of a result."""
    if isinstance(result, Inspection):
        return inspected(result)
    if isinstance(result, Explanation):
        return explained({result.method: result})
    if isinstance(result, Comparison):
        return explained(result, skipped=result.skipped)
    raise ParameterError(
        f"a page cannot show a {type(result).__name__}",
        "what cnnviz.explain, cnnviz.compare and cnnviz.inspect give",
        "pass such results, in a list",
    )


def write_report(
    explanations: Explanations,
    path: str | os.PathLike[str],
    *,
    skipped: Mapping[str, str] | None = None,
    boxes: bool = True,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
) -> None:
    """Write explanations as a page that stands alone.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    path : path
        The file to write.
    skipped, boxes, threshold, normalise, title
        See `render_report`.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    ParameterError
        If nothing can be written there.
    """
    page = render_report(
        explanations,
        skipped=skipped,
        boxes=boxes,
        threshold=threshold,
        normalise=normalise,
        title=title,
    )
    with replacing(path) as file:
        file.write(page.encode())


def render_report(
    explanations: Explanations,
    *,
    skipped: Mapping[str, str] | None = None,
    boxes: bool = True,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
) -> str:
    """Make a page of explanations that needs no other file and no network.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    skipped : mapping of str to str, optional
        Methods that could not run, each with the reason.
    boxes : bool
        Whether the boxes around what is hot are shown at first; the reader can turn them off.
    threshold : float
        For the boxes.
    normalise : {True, "max", "percentile", "min-max", False}
        As for `Explanation.heatmap`.
    title : str
        The page's title.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    part = explained(
        explanations, skipped=skipped, threshold=threshold, normalise=normalise, title=title
    )
    return _page([part], part["title"], threshold=threshold, boxes=boxes)


def html_fragment(explanations: Explanations, *, skipped: Mapping[str, str] | None = None) -> str:
    """Make a piece of HTML for a notebook: the first samples, small.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    skipped : mapping of str to str, optional
        Methods that could not run, each with the reason.

    Returns
    -------
    str
        HTML without style sheets or scripts.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    piece: str = template_of("fragment.html").render(excerpt(explanations, skipped))
    return piece


def inspection_fragment(inspection: Inspection) -> str:
    """Make a piece of HTML for a notebook: the figure, the animation and the facts.

    Parameters
    ----------
    inspection : Inspection
        Any.

    Returns
    -------
    str
        HTML without style sheets or scripts.
    """
    piece: str = template_of("inspection_fragment.html").render(glimpse(inspection))
    return piece


def _page(
    parts: Sequence[Mapping[str, Any]],
    title: str,
    *,
    threshold: float = THRESHOLD,
    boxes: bool = True,
) -> str:
    """Make a page of its parts."""
    page: str = template_of("report.html").render(
        parts=parts,
        title=title,
        alpha=ALPHA,
        looks={"smooth": SMOOTH, "fine": FINE},
        threshold=f"{100 * threshold:g}",
        boxes=boxes,
    )
    return page
