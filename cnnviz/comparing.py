"""Several methods side by side, on the same pictures and targets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cnnviz.explaining import (
    Task,
    batches,
    join,
    make_explainers,
    network_of,
    one_layer,
    runnable,
)
from cnnviz.explanation import THRESHOLD, Explanation, Normalise
from cnnviz.listing import by_family, usual_name
from cnnviz.looking import AskedLayer, layer_text
from cnnviz.network import Labels, Network, Preprocess
from cnnviz.samples import Sample, samples_of
from cnnviz.targeting import Asked
from cnnviz_core.errors import (
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
    PluginError,
    RuleError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.explainer import Explainer, passes_of, require
from cnnviz_core.layers import AUTO, resolve_layers
from cnnviz_core.pace import BatchSize
from cnnviz_core.progress import advance
from cnnviz_core.registry import get_registry

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ALL", "BUDGET", "Comparison", "compare", "run_methods"]

ALL: Final = "all"
"""The name that stands for every installed method."""
BUDGET: Final = 1000
"""How many forward passes a picture may cost by a method that was not named."""

_CANNOT: Final = (MissingCapabilityError, RuleError, UnsupportedModelError, UnknownLayerError)
"""What a method raises that does not fit a network; the other methods go on."""

Methods: TypeAlias = str | Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison(Mapping[str, Explanation]):
    """Explanations of the same samples and targets by several methods: a mapping by method.

    Attributes
    ----------
    explanations : mapping of str to Explanation
        By method, in the order asked for; all over the same samples.
    skipped : mapping of str to str
        The methods that this network cannot run, or whose work is beyond the budget, each with the
        reason.
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

    def shown(self, **how: Any) -> Comparison:
        """Show all results in another way than the methods' authors do.

        Parameters
        ----------
        **how
            As for `Explanation.shown`: sign, reduce, upsample.

        Returns
        -------
        Comparison
            A copy.
        """
        return Comparison({name: e.shown(**how) for name, e in self.items()}, self.skipped)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        boxes: bool = False,
        threshold: float = THRESHOLD,
        normalise: Normalise = True,
    ) -> Path:
        """Write the comparison to a file, whole or not at all.

        Parameters
        ----------
        path : path
            ".html" gives a page that stands alone; ".png", ".jpg" or ".webp" the `sheet`.
        boxes : bool
            Whether to draw boxes around what is hot.
        threshold : float
            The share of the maximum above which a box is drawn.
        normalise : {True, "max", "percentile", "min-max", False}
            As for `Explanation.heatmap`.

        Returns
        -------
        pathlib.Path
            Where it was written.

        Raises
        ------
        ParameterError
            If the suffix is unknown, or nothing can be written there.
        """
        from cnnviz import pages, sheets

        target = Path(path).expanduser()
        if target.suffix.lower() == ".html":
            pages.write_report(
                self,
                target,
                skipped=self.skipped,
                boxes=boxes,
                threshold=threshold,
                normalise=normalise,
            )
        else:
            sheet = self.sheet(boxes=boxes, threshold=threshold, normalise=normalise)
            sheets.write_image(sheet, target)
        return target

    def sheet(
        self,
        *,
        boxes: bool = False,
        threshold: float = THRESHOLD,
        normalise: Normalise = True,
    ) -> Image.Image:
        """Draw all methods on all samples in one picture.

        Few methods make a row for each sample and a column for each method; many make a block for
        each sample, with the methods grouped by family.

        Parameters
        ----------
        boxes, threshold, normalise
            As for `save`.

        Returns
        -------
        PIL.Image.Image
        """
        from cnnviz import sheets

        return sheets.sheet(
            self, skipped=self.skipped, boxes=boxes, threshold=threshold, normalise=normalise
        )

    def _repr_html_(self) -> str:
        from cnnviz import pages

        return pages.html_fragment(self, skipped=self.skipped)


def compare(
    model: Any,
    images: Any,
    methods: Methods | None = None,
    target: Asked | Sequence[Asked] = None,
    layer: AskedLayer = AUTO,
    *,
    budget: int | None = BUDGET,
    preprocessed: bool = False,
    input: str | None = None,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    batch_size: BatchSize | None = None,
) -> Comparison:
    """Explain the same pictures and targets by several methods.

    The methods share their passes through the network where they can.

    Parameters
    ----------
    model, images, target, preprocessed, input, preprocess, labels, batch_size
        As for `explain`.
    methods : sequence of str, or mapping of str to mapping, optional
        Which methods; a mapping gives each its own parameters, as in
        ``{"grad-cam": {}, "occlusion": {"window": 16}}``.  "all", as if it is left out, stands for
        all that are installed; with names beside it, as in ``["all", "rise"]``, the named ones run
        whatever they cost.
    layer : str, int, layer of the framework, or sequence of these
        The layer to look at, for the methods that look at one, as for `explain`.
    budget : int or None
        How many forward passes a picture (a backward pass counts as two) a method may cost that was
        not named; None for no limit.  Named methods always run.

    Returns
    -------
    Comparison
        A method that this network cannot run is among its `skipped`, with the reason.  So is, where
        all were asked for, one that fails for a reason of its own or exceeds the budget.

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
    samples = samples_of(network, images, preprocessed=preprocessed, input=input)
    return run_methods(
        network, samples, methods, target, layer, budget=budget, batch_size=batch_size
    )


def run_methods(
    network: Network,
    samples: Sequence[Sample],
    methods: Methods | None = None,
    target: Asked | Sequence[Asked] = None,
    layer: AskedLayer = AUTO,
    *,
    budget: int | None = BUDGET,
    batch_size: BatchSize | None = None,
) -> Comparison:
    """Explain prepared samples by several methods.

    Parameters
    ----------
    network : Network
        The network.
    samples : sequence of Sample
        All of one shape.
    methods, target, layer, budget, batch_size
        As for `compare`.

    Returns
    -------
    Comparison
    """
    if budget is not None and budget < 1:
        raise ParameterError(
            f"budget is {budget}",
            "a number of forward passes of at least 1, or None",
            f"pass budget={BUDGET}, or None for no limit",
        )
    asked, named = _asked(network, methods)
    where = layer_text(network, layer)
    skipped: dict[str, str] = {}
    explainers = _loadable(asked, where, batch_size, skipped)
    run = _Run(network, layer, where, named, budget, skipped)
    parts: dict[str, list[Explanation]] = {method: [] for method in explainers}
    for task in batches(network, samples, target, batch_size):
        if where != AUTO:
            resolve_layers(task.model, where, task.x)  # a layer that is not there fails at once
        for done, (method, explainer) in enumerate(explainers.items()):
            advance("methods", done, len(explainers))
            if method not in skipped:
                advance(method, 0, 1)
                explained = run.one(task, method, explainer)
                parts[method] += [explained] if explained is not None else []
                advance(method, 1, 1)
        advance("methods", len(explainers), len(explainers))
    found = {method: join(each) for method, each in parts.items() if method not in skipped}
    if not found:
        raise run.nothing()
    return Comparison(found, skipped)


@dataclass
class _Run:
    """The running of methods, and why some are left out.

    Attributes
    ----------
    network : Network
    layer, where : object, str
        The layer that was asked for, and the same in text.
    named : set of str
        The methods that were asked for by name.
    budget : int or None
        As for `compare`.
    skipped : dict of str to str
        Filled on the way.
    """

    network: Network
    layer: AskedLayer
    where: str
    named: Set[str]
    budget: int | None
    skipped: dict[str, str]
    able: list[str] = field(init=False)
    failed: list[CnnvizError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.able = runnable(self.network.model)

    def one(self, task: Task, method: str, explainer: Explainer) -> Explanation | None:
        """Run a method on a batch; None where it is left out."""
        try:
            with one_layer(method, self.layer, self.where):
                require(explainer.needs, self.network.model, method, self.able)
                if self._is_beyond(task, method, explainer):
                    return None
                return task.run(method, explainer)
        except CnnvizError as error:
            if method in self.named and not self._is_unfit(error):
                raise
            self.skipped[method] = error.problem
            if not isinstance(error, _CANNOT):
                self.failed.append(error)
        except Exception as error:
            if method in self.named:
                raise
            # One method's mistake is not to cost the results of all others.
            self.skipped[method] = f"it failed with {type(error).__name__}: {error}"
        return None

    def _is_unfit(self, error: CnnvizError) -> bool:
        """Tell a method that does not fit the network from a mistake of the caller's."""
        chosen = isinstance(error, UnknownLayerError) and self.where != AUTO
        return isinstance(error, _CANNOT) and not chosen

    def _is_beyond(self, task: Task, method: str, explainer: Explainer) -> bool:
        """Leave out a method that nobody named and that costs more than the budget."""
        if method in self.named or self.budget is None:
            return False
        work = passes_of(explainer, task.model, task.x)
        if work <= self.budget:
            return False
        self.skipped[method] = (
            f"it would take about {work:,} forward passes a picture, beyond the budget of "
            f"{self.budget:,}: name it, or raise the budget"
        )
        return True

    def nothing(self) -> CnnvizError:
        """Make the error of a comparison of which nothing is left."""
        if self.failed:
            # Where all methods fail, it is by what they have in common.
            return self.failed[0]
        return MissingCapabilityError(
            "the network can run none of the methods: "
            + "; ".join(f"{method}: {why}" for method, why in self.skipped.items()),
            f"one of {', '.join(self.able) or 'no method, for this network'}",
            "choose another method, or pass the network itself instead of an exported copy",
        )


def _asked(
    network: Network, methods: Methods | None
) -> tuple[dict[str, Mapping[str, Any]], Set[str]]:
    """Give the methods by their usual names with their own parameters, and which were named."""
    if methods is None:
        methods = (ALL,)
    if isinstance(methods, str):
        methods = tuple(filter(None, (name.strip() for name in methods.split(","))))
    if not methods:
        raise ParameterError(
            "no method was given",
            "one or several methods",
            "name some, or leave methods out for all of them",
        )
    pairs = methods.items() if isinstance(methods, Mapping) else ((name, {}) for name in methods)
    given = dict(pairs)
    every = by_family(get_registry().explainers) if given.pop(ALL, None) is not None else ()
    named = {usual_name(name): _at(network, params) for name, params in given.items()}
    return {**{name: {} for name in every}, **named}, named.keys()


def _at(network: Network, params: Mapping[str, Any]) -> dict[str, Any]:
    """Give a method's own parameters, a layer among them in text."""
    changed = {"layer": layer_text(network, params["layer"])} if "layer" in params else {}
    return {**params, **changed}


def _loadable(
    asked: Mapping[str, Mapping[str, Any]],
    layer: str,
    batch_size: BatchSize | None,
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
