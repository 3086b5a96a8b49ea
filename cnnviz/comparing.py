"""Several methods side by side, on the same pictures and targets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cnnviz.explaining import batches, join, make_explainers, network_of, runnable
from cnnviz.explanation import THRESHOLD, Explanation
from cnnviz.listing import usual_name
from cnnviz.network import Labels, Network, Preprocess
from cnnviz.samples import Sample, samples_of
from cnnviz.targeting import Asked
from cnnviz_core.errors import (
    MissingCapabilityError,
    ParameterError,
    PluginError,
    RuleError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.explainer import Explainer, require
from cnnviz_core.layers import AUTO
from cnnviz_core.progress import advance
from cnnviz_core.registry import get_registry

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Comparison", "compare", "run_methods"]

_CANNOT: Final = (MissingCapabilityError, RuleError, UnsupportedModelError, UnknownLayerError)
"""What a method raises that does not fit a network; the other methods go on."""

Methods: TypeAlias = Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison(Mapping[str, Explanation]):
    """Explanations of the same samples and targets by several methods: a mapping by method.

    Attributes
    ----------
    explanations : mapping of str to Explanation
        By method, in the order asked for; all over the same samples.
    skipped : mapping of str to str
        The methods that this network cannot run, each with the reason.
    """

    explanations: Mapping[str, Explanation]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "explanations", MappingProxyType(dict(self.explanations)))
        object.__setattr__(self, "skipped", MappingProxyType(dict(self.skipped)))

    def __getitem__(self, method: str) -> Explanation:
        return self.explanations[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.explanations)

    def __len__(self) -> int:
        return len(self.explanations)

    def __repr__(self) -> str:
        first = next(iter(self.explanations.values()))
        without = f", without {', '.join(self.skipped)}" if self.skipped else ""
        return f"<Comparison of {', '.join(self.explanations)} on {len(first)} samples{without}>"

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        boxes: bool = False,
        threshold: float = THRESHOLD,
    ) -> Path:
        """Write the comparison to a file, whole or not at all.

        Parameters
        ----------
        path : path
            ".html" gives a page that stands alone; ".png", ".jpg" or ".webp" a sheet with a row for
            each sample and a column for each method.
        boxes : bool
            Whether to draw boxes around what is hot.
        threshold : float
            The share of the maximum above which a box is drawn.

        Returns
        -------
        pathlib.Path
            Where it was written.

        Raises
        ------
        ParameterError
            If the suffix is unknown, or nothing can be written there.
        """
        from cnnviz import report

        target = Path(path).expanduser()
        if target.suffix.lower() == ".html":
            report.write_report(
                self, target, skipped=self.skipped, boxes=boxes, threshold=threshold
            )
        else:
            report.write_image(self.sheet(boxes=boxes, threshold=threshold), target)
        return target

    def sheet(self, *, boxes: bool = False, threshold: float = THRESHOLD) -> Image.Image:
        """Draw a row for each sample and a column for each method.

        Parameters
        ----------
        boxes, threshold
            As for `save`.

        Returns
        -------
        PIL.Image.Image
        """
        from cnnviz import report

        return report.sheet(self, skipped=self.skipped, boxes=boxes, threshold=threshold)

    def _repr_html_(self) -> str:
        from cnnviz import report

        return report.html_fragment(self, skipped=self.skipped)


def compare(
    model: Any,
    images: Any,
    methods: Methods | None = None,
    target: Asked | Sequence[Asked] = None,
    layer: str = AUTO,
    *,
    preprocessed: bool = False,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    batch_size: int | None = None,
) -> Comparison:
    """Explain the same pictures and targets by several methods.

    The methods share their passes through the network where they can.

    Parameters
    ----------
    model, images, target, preprocessed, preprocess, labels, batch_size
        As for `explain`.
    methods : sequence of str, or mapping of str to mapping, optional
        Which methods; a mapping gives each its own parameters, as in
        ``{"grad-cam": {}, "occlusion": {"window": 16}}``.  All that are installed if left out.
    layer : str
        The layer to look at, for the methods that look at one.

    Returns
    -------
    Comparison
        A method that this network cannot run is among its `skipped`, with the reason.

    Raises
    ------
    MissingCapabilityError
        If the network can run none of the methods.
    CnnvizError
        As for `explain`.

    Examples
    --------
    >>> from cnnviz.demo import scenes
    >>> picture, truth = scenes()[0]
    >>> list(compare("demo", picture, ["grad-cam", "saliency"]))
    ['grad-cam', 'saliency']
    """
    network = network_of(model, preprocess=preprocess, labels=labels)
    samples = samples_of(network, images, preprocessed=preprocessed)
    return run_methods(network, samples, methods, target, layer, batch_size=batch_size)


def run_methods(
    network: Network,
    samples: Sequence[Sample],
    methods: Methods | None = None,
    target: Asked | Sequence[Asked] = None,
    layer: str = AUTO,
    *,
    batch_size: int | None = None,
    remember: int = 8,
) -> Comparison:
    """Explain prepared samples by several methods.

    Parameters
    ----------
    network : Network
        The network.
    samples : sequence of Sample
        All of one shape.
    methods, target, layer, batch_size
        As for `compare`.
    remember : int
        How many answers of the network to keep for the methods and targets that ask again.

    Returns
    -------
    Comparison
    """
    asked = _asked(methods)
    skipped: dict[str, str] = {}
    explainers = _loadable(asked, layer, batch_size, skipped)
    able = runnable(network.model)
    parts: dict[str, list[Explanation]] = {method: [] for method in explainers}
    for task in batches(network, samples, target, batch_size, remember):
        for done, (method, explainer) in enumerate(explainers.items()):
            if method not in skipped:
                try:
                    require(explainer.needs, network.model, method, able)
                    parts[method].append(task.run(method, explainer))
                except _CANNOT as error:
                    if isinstance(error, UnknownLayerError) and layer != AUTO:
                        raise
                    skipped[method] = error.problem
            advance("methods", done + 1, len(explainers))
    explained = {method: join(found) for method, found in parts.items() if method not in skipped}
    if not explained:
        raise MissingCapabilityError(
            "the network can run none of the methods: "
            + "; ".join(f"{method}: {why}" for method, why in skipped.items()),
            f"one of {', '.join(able) or 'no method, for this network'}",
            "choose another method, or pass the network itself instead of an exported copy",
        )
    return Comparison(explained, skipped)


def _asked(methods: Methods | None) -> dict[str, Mapping[str, Any]]:
    """Give the methods by their usual names, each with its own parameters."""
    if methods is None:
        methods = tuple(get_registry().explainers)
    if isinstance(methods, str):
        methods = (methods,)
    if not methods:
        raise ParameterError(
            "no method was given",
            "one or several methods",
            "name some, or leave methods out for all of them",
        )
    pairs = methods.items() if isinstance(methods, Mapping) else ((name, {}) for name in methods)
    return {usual_name(name): params for name, params in pairs}


def _loadable(
    asked: Mapping[str, Mapping[str, Any]],
    layer: str,
    batch_size: int | None,
    skipped: dict[str, str],
) -> dict[str, Explainer]:
    """Make the explainers; note those whose plugin is broken among the skipped."""
    sound = {}
    for method, params in asked.items():
        try:
            get_registry().explainer_class(method)
            sound[method] = params
        except PluginError as error:
            skipped[method] = error.problem
    return make_explainers(sound, layer, batch_size)
