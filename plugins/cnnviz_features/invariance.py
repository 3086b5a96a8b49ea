"""How a network's features and its answer change as a picture turns, grows or moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.exhibits import Curves, Exhibit, Line, Table, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, resolve_layers
from cnnviz_core.model import LOGITS, Array
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.targets import ClassProbability, ClassScore, Predicted, Target, probabilities
from cnnviz_features.moving import NEUTRAL, Fill, Interpolation, Transform, amounts, moved

__all__ = ["Invariance"]

_STAGES: Final = "stages"
_SHOWN: Final = 7
"""How many pictures stand along an axis."""
_SINGLE: Final = 5
"""Up to how many pictures each have a curve of their own."""
_NAMES: Final[dict[Transform, tuple[str, str]]] = {
    "rotate": ("Rotation", "degrees counter-clockwise"),
    "scale": ("Scale", "times as large"),
    "translate-x": ("Horizontal translation", "pixels to the right"),
    "translate-y": ("Vertical translation", "pixels down"),
}
_DISTANCES: Final = {"euclidean": "normalised distance", "cosine": "1 - cosine similarity"}


_PER_STEP: Final = ("amounts", "distance", "probability", "predicted")


@dataclass(frozen=True, eq=False)
class _Course:
    """What became of one picture at all steps; see the arrays of the findings."""

    index: int
    followed: int
    distance: Array
    probability: Array
    predicted: Array


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found about one transformation; see the arrays of the findings."""

    transform: Transform
    amounts: Array
    distance: Array
    probability: Array
    predicted: Array


@dataclass(frozen=True)
class Invariance:
    """Distance of the features from the untransformed ones, and the class's probability.

    Each picture is turned, scaled or shifted step by step about its centre.  With ``f`` what a
    layer makes of a picture, all its values as one vector, ``T`` the transformation and ``x`` the
    picture, the distance is ``|f(T x) - f(x)| / |f(x)|``, or one minus the cosine of the angle
    between the two.  A layer that keeps the places of things moves with the picture; a network that
    is invariant keeps its scores.  The class is the one that is asked for, else the picture's own
    where it is known, else the one that is predicted for the untransformed picture.

    Pictures are looked at one by one, in bounded memory.

    Parameters
    ----------
    transform : {"rotate", "scale", "translate-x", "translate-y", "all"}
        What is done to the pictures; "all" does each by itself.
    steps : int
        How many steps to each side of the untransformed picture.
    amount : float or None
        How far the last step goes: degrees; a factor, from ``1 / amount`` to `amount`; or pixels of
        the network's input, of which steps are whole ones.  None, and under "all": 180 degrees, a
        factor of 1.8, a quarter of the side.
    layer : str
        Names and patterns, separated by commas; "auto" is the first and the last of the last layers
        of each resolution, "stages" are all these.  The scores always come last.
    metric : {"euclidean", "cosine"}
        How feature vectors are compared.
    fill : {"mean", "black", "edge", "reflect"}
        What is shown where the picture is not: its mean colour, black, the nearest pixel of its
        edge, or its mirror image.
    interpolation : {"nearest", "bilinear", "cubic"}
        How values between the pixels' centres are found.

    Notes
    -----
    The arrays of the findings, for N pictures, L layers and S steps:

    - ``pictures`` (N,): which pictures of the collection were looked at;
    - ``classes`` (N,): the class whose probability is followed;
    - ``transform`` (S,): which transformation, an entry of the fact "transforms"; under "all" the
      steps of the four follow one after the other;
    - ``amounts`` (S,): degrees counter-clockwise, factors, pixels to the right, or pixels down;
    - ``distance`` (N, L, S): 0 for the untransformed picture; NaN where a vector of zeros is
      compared;
    - ``probability`` (N, S): of the class, in [0, 1]; its score, for a network without
      probabilities;
    - ``predicted`` (N, S): the class with the highest score.

    The facts name the ``transforms``, ``layers``, ``metric``, ``names`` and ``classes`` of the
    pictures, and how often the answer stays that for the untransformed picture, ``answer_kept``.
    The curves are means over the pictures, with the standard deviation (over N) as their spread.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.1
    and figure 5, which shows the first and the seventh layer of five pictures.
    """

    transform: Annotated[
        Literal["rotate", "scale", "translate-x", "translate-y", "all"],
        Help("what is done to the pictures"),
    ] = "rotate"
    steps: Annotated[int, Range(1), Help("steps to each side of the untransformed picture")] = 12
    amount: Annotated[
        float | None,
        Range(0, open_low=True),
        Help("degrees, factor or pixels of the last step; none: 180, 1.8, a quarter of the side"),
    ] = None
    layer: Annotated[
        str, Help("layers, separated by commas; auto: the first and last stage; stages: all")
    ] = AUTO
    metric: Annotated[Literal["euclidean", "cosine"], Help("how feature vectors are compared")] = (
        "euclidean"
    )
    fill: Annotated[Fill, Help("what is shown where the picture is not")] = "mean"
    interpolation: Annotated[Interpolation, Help("how values between pixels are found")] = (
        "bilinear"
    )

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})

    def inspect(self, subject: Subject) -> Findings:
        """Look at how features and answer change.

        Parameters
        ----------
        subject : Subject
            The network and the pictures.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If there is no picture, or the network looks at signals or volumes.
        TargetError
            If what is asked for is no class of the network.
        UnknownLayerError
            If there is no such layer.
        ParameterError
            If `amount` changes nothing, or is given for all transformations.
        """
        chosen: tuple[Transform, ...] = (
            tuple(NEUTRAL) if self.transform == "all" else (self.transform,)
        )
        if self.transform == "all" and self.amount is not None:
            raise ParameterError(
                f"amount={self.amount:g} was given for all transformations",
                "an amount for one: degrees, a factor and pixels are different things",
                "leave it out, or choose a transformation",
            )
        first = subject.pictures.first().x[0]
        if first.ndim != 3:
            raise ArrayError(
                f"the network's input has the shape {first.shape}",
                "pictures, (H, W, C)",
                "use a network on pictures; signals and volumes are not turned and scaled",
            )
        height, width, _ = first.shape
        layers = self._layers(subject, first)
        axes = {each: amounts(each, self.steps, self.amount, (height, width)) for each in chosen}
        steps = [(each, float(amount)) for each, axis in axes.items() for amount in axis]
        truth = subject.pictures.truth
        courses = [
            self._course(
                subject, batch.indices[0], truth[batch.indices[0]], batch.x[0], layers, steps
            )
            for batch in subject.pictures.batches(1)
        ]
        arrays = {
            "pictures": np.array([course.index for course in courses]),
            "classes": np.array([course.followed for course in courses]),
            "transform": np.array([chosen.index(each) for each, _ in steps]),
            "amounts": np.array([amount for _, amount in steps]),
            "distance": np.stack([course.distance for course in courses]),
            "probability": np.stack([course.probability for course in courses]),
            "predicted": np.stack([course.predicted for course in courses]),
        }
        found = [
            _Found(each, *(arrays[name][..., arrays["transform"] == k] for name in _PER_STEP))
            for k, each in enumerate(chosen)
        ]
        return self._findings(subject, first, layers, arrays, found)

    def _layers(self, subject: Subject, x: Array) -> list[str]:
        """Name the nodes to look at, the scores last."""
        asked = AUTO if self.layer == _STAGES else self.layer
        names = [info.name for info in resolve_layers(subject.model, asked, x[None])]
        if self.layer == AUTO:
            names = list(dict.fromkeys((names[0], names[-1])))
        return [*names, LOGITS]

    def _course(
        self,
        subject: Subject,
        index: int,
        truth: int | None,
        x: Array,
        layers: Sequence[str],
        steps: Sequence[tuple[Transform, float]],
    ) -> _Course:
        """Take one picture through all steps."""
        model = subject.model
        whole = model.forward(x[None], capture=layers[:-1])
        followed = _class_of(subject.target(index), truth, whole.logits[0])
        # The untransformed picture need not go through the network again.
        distance = np.zeros((len(layers), len(steps)), dtype=whole.logits.dtype)
        logits = np.repeat(whole.logits, len(steps), axis=0)
        changed = [k for k, (each, amount) in enumerate(steps) if amount != NEUTRAL[each]]
        for start in range(0, len(changed), subject.batch_size):
            batch = changed[start : start + subject.batch_size]
            pictures = np.stack([self._moved(subject, x, *steps[k]) for k in batch])
            trace = model.forward(pictures, capture=layers[:-1])
            for row, node in enumerate(layers):
                distance[row, batch] = _distances(trace[node], whole[node], self.metric)
            logits[batch] = trace.logits
            what = f"invariance, picture {index + 1} of {len(subject.pictures)}"
            advance(what, start + len(batch), len(changed))
        chances = probabilities(logits, model.activation)
        return _Course(index, followed, distance, chances[:, followed], logits.argmax(-1))

    def _moved(self, subject: Subject, x: Array, transform: Transform, amount: float) -> Array:
        """Make the picture of one step."""
        return moved(
            x,
            transform,
            amount,
            fill=self.fill,
            black=subject.space.offset,
            interpolation=self.interpolation,
        )

    def _findings(
        self,
        subject: Subject,
        first: Array,
        layers: Sequence[str],
        arrays: Mapping[str, Array],
        found: Sequence[_Found],
    ) -> Findings:
        """Put together what was found."""
        listed = subject.pictures.names
        names = [listed[index] for index in arrays["pictures"]]
        classes = [subject.label(int(index)) for index in arrays["classes"]]
        legend = _legend(names, classes)
        words = ["scores" if node == LOGITS else node for node in layers]
        exhibits: list[Exhibit] = []
        for each in found:
            along = self._along(subject, first, each)
            exhibits.append(_distance_curves(each, words, _DISTANCES[self.metric], along))
            exhibits.append(_probability_curves(each, legend, subject.model.activation, along))
        exhibits.append(_summary(found, words, subject.model.activation))
        return Findings(
            arrays,
            tuple(exhibits),
            facts={
                "transforms": [each.transform for each in found],
                "layers": list(layers),
                "metric": self.metric,
                "names": names,
                "classes": classes,
                "answer_kept": {each.transform: _kept(each) for each in found},
            },
            title=f"Invariance of {subject.name}, "
            + (f"{len(names)} pictures" if len(names) > 1 else names[0]),
        )

    def _along(
        self, subject: Subject, first: Array, found: _Found
    ) -> tuple[tuple[float, Tile], ...]:
        """Show the first picture at places along the axis, with what the network says."""
        wanted = np.linspace(found.amounts[0], found.amounts[-1], _SHOWN)
        # The untransformed picture is among them.
        wanted[np.abs(wanted - NEUTRAL[found.transform]).argmin()] = NEUTRAL[found.transform]
        places = np.unique(np.abs(found.amounts - wanted[:, None]).argmin(1))
        return tuple(
            (
                amount,
                Tile(
                    subject.space.pixels(self._moved(subject, first, found.transform, amount)),
                    caption=_short(subject.label(int(found.predicted[0, place]))),
                ),
            )
            for place in places
            for amount in (float(found.amounts[place]),)
        )


def _class_of(asked: Target | None, truth: int | None, logits: Array) -> int:
    """Give the class to follow: what was asked for, else what is known, else what is predicted."""
    known = Predicted() if truth is None else ClassScore(truth)
    target = known if asked is None else asked
    resolved = target.resolve(logits)
    if not isinstance(resolved, ClassScore | ClassProbability):
        raise TargetError(
            f"the target is {target}",
            "a class, whose probability can be followed",
            "pass a class, or leave the target out",
        )
    resolved.score(logits)  # says so if the network has no such class
    return resolved.index


def _distances(values: Array, whole: Array, metric: str) -> Array:
    """Compare feature vectors (n, ...) with one (1, ...); NaN where they cannot be compared."""
    a, b = values.reshape(len(values), -1), whole.reshape(-1)
    length = np.linalg.norm(b)
    if metric == "euclidean":
        above, below = np.linalg.norm(a - b, axis=1), np.full(len(a), length)
    else:
        below = np.linalg.norm(a, axis=1) * length
        above = np.maximum(below - a @ b, 0)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _distance_curves(
    found: _Found, layers: Sequence[str], what: str, along: tuple[tuple[float, Tile], ...]
) -> Curves:
    """Draw the distance at each layer."""
    name, unit = _NAMES[found.transform]
    return Curves(
        found.amounts,
        tuple(_mean(layer, found.distance[:, row]) for row, layer in enumerate(layers)),
        title=f"{name}: distance at each layer{_over(len(found.distance))}",
        x_title=f"{name.lower()}, {unit}",
        y_title=what,
        pictures=along,
    )


def _probability_curves(
    found: _Found, legend: Sequence[str], activation: str, along: tuple[tuple[float, Tile], ...]
) -> Curves:
    """Draw the class's probability: the mean, and a curve a picture if there are few."""
    name, unit = _NAMES[found.transform]
    n = len(found.probability)
    lines = [_mean("mean", found.probability)] if n > 1 else []
    if n <= _SINGLE:
        lines += [Line(*pair) for pair in zip(legend, found.probability, strict=True)]
    word = _word(activation)
    return Curves(
        found.amounts,
        tuple(lines),
        title=f"{name}: {word} of the class{_over(n)}",
        x_title=f"{name.lower()}, {unit}",
        y_title=word,
        y_range=None if activation == "none" else (0.0, 1.0),
        pictures=along,
    )


def _summary(found: Sequence[_Found], layers: Sequence[str], activation: str) -> Table:
    """List what each transformation does, on the mean over pictures and steps."""
    word = _word(activation)
    distances = [f"distance, {layer}" for layer in layers]
    names = [*distances, f"{word} before", f"{word} after", "answer kept"]
    columns = []
    for each in found:
        still = each.amounts == NEUTRAL[each.transform]
        columns.append(
            (
                *(f"{value:.2f}" for value in each.distance[..., ~still].mean((0, 2))),
                f"{each.probability[:, still].mean():.2f}",
                f"{each.probability[:, ~still].mean():.2f}",
                f"{100 * _kept(each):.0f} %",
            )
        )
    titles = tuple(_NAMES[each.transform][0] for each in found)
    return Table(
        ("measure", *titles),
        tuple(zip(names, *columns, strict=True)),
        title="On the whole",
        note="Means over the pictures and all steps. The answer is kept where it is the one for "
        "the untransformed picture.",
        numeric=titles,
    )


def _kept(found: _Found) -> float:
    """Give the share of transformed pictures that are called what the untransformed is."""
    still = found.amounts == NEUTRAL[found.transform]
    return float((found.predicted[:, ~still] == found.predicted[:, still]).mean())


def _mean(name: str, values: Array) -> Line:
    """Draw the mean over pictures (N, S), with the standard deviation if there are several."""
    return Line(name, values.mean(0), values.std(0) if len(values) > 1 else None)


def _legend(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Name the pictures' curves by their classes, and by the pictures too where these agree."""
    short = [_short(each) for each in classes]
    if len(set(short)) == len(short):
        return short
    return [f"{each} ({name})" for each, name in zip(short, names, strict=True)]


def _short(label: str) -> str:
    """Give the first of several names of a class."""
    return label.partition(",")[0]


def _word(activation: str) -> str:
    """Say what a network's answers are."""
    return "score" if activation == "none" else "probability"


def _over(n: int) -> str:
    """Say what a curve is the mean of."""
    return f", mean ± s.d. of {n} pictures" if n > 1 else ""
