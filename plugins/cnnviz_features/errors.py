"""The mistakes of a network on labelled pictures, and the maps that explain the worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Annotated, Any, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.exhibits import Gallery, Tile
from cnnviz_core.explainer import Explainer, present
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO
from cnnviz_core.maps import percentile_clip, symmetric
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_features.confusion import Confusion, short_label
from cnnviz_features.judging import Judged, judge

__all__ = ["Errors"]

_SQUARE: Final = 1000
"""Up to how many classes the confusion is kept as a square of numbers."""
_CLIPPED: Final = 99.5
"""The percentile at which maps of single pixels are cut off."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """The maps of M mistakes, (M, 3, H, W): for the class predicted, the true one, difference."""

    maps: Array
    signed: bool = False
    fine: bool = False
    layer: str | None = None


@dataclass(frozen=True)
class Errors:
    """The worst mistakes of a network on labelled pictures, what misled it, and the confusion.

    A mistake is a picture whose own class has not the highest score.  The worst ones are explained:
    by the method's map for the class that was predicted, the map for the picture's own class, and
    their difference, positive where the picture speaks for the wrong class.

    Two differences can be shown.  "contrast" subtracts the method's raw results, with their signs,
    and divides by the largest magnitude of the difference.  Of a method that is linear in the
    score, such as Grad-CAM or integrated gradients, this is the map of the one score less the
    other.  Evidence that speaks for both classes drops out, and what speaks against one of them
    counts; so it shows what tips the scales also where the two maps look alike, or one of them is
    empty.  "maps" subtracts the maps as they are shown, both divided by their common maximum: it
    shows how much they differ, which may be little.

    Of a network with a sigmoid, whose classes do not exclude each other, a picture's own class is
    expected to have the highest score of all as well.

    The pictures are gone through once, a batch at a time; memory holds one batch and a few numbers
    of each picture.  Pictures whose class is not known and such that cannot be read are left out.

    Parameters
    ----------
    count : int
        How many mistakes to explain.
    order : {"margin", "loss"}
        What makes a mistake worse: by how much the predicted class's probability exceeds that of
        the true one, or how improbable the true class is.
    method : str
        The method that explains: its name, or its name and parameters, "occlusion(window=48)".
    layer : str
        The layer that the method looks at, if it looks at one; "auto" leaves that to the method.
    difference : {"contrast", "maps"}
        Whether raw results with their signs are subtracted, or the maps as they are shown.
    classes : int
        Up to how many classes the confusion is drawn as a matrix.
    state : str
        The path of an .npz file in which to keep how far the work has come; none if empty.  A file
        of the same network and pictures is gone on from.

    Notes
    -----
    The arrays of the findings, for N pictures that were judged and M mistakes that are explained:

    - ``pictures`` (N,): which pictures of the collection they are;
    - ``truth``, ``predicted`` (N,): the class that a picture has, and the one predicted;
    - ``p_true``, ``p_predicted`` (N,): their probabilities; scores, where the network has none;
    - ``rank`` (N,): how many classes come before the picture's own; 0 where the answer is right;
    - ``loss`` (N,): minus the logarithm of `p_true`; minus the score, where the network has no
      probabilities;
    - ``confusion`` (C, C), pictures of each class (row) by the class predicted (column); of more
      than 1000 classes ``confusion_triples`` (K, 3) instead: class, class predicted, pictures;
    - ``worst`` (M,): which of the N were explained, the worst first;
    - ``maps_predicted``, ``maps_true`` (M, H, W): the maps, not normalised;
    - ``difference`` (M, H, W): in [-1, 1].
    """

    count: Annotated[int, Range(1), Help("mistakes to explain")] = 8
    order: Annotated[
        Literal["margin", "loss"], Help("by lead of the wrong class, or by loss of the true one")
    ] = "margin"
    method: Annotated[str, Help("method that explains, with its parameters if need be")] = (
        "grad-cam"
    )
    layer: Annotated[str, Help("layer that the method looks at; auto is the method's default")] = (
        AUTO
    )
    difference: Annotated[
        Literal["contrast", "maps"],
        Help("of the raw results with their signs, or of the maps as they are shown"),
    ] = "contrast"
    classes: Annotated[int, Range(2), Help("up to how many classes the confusion is drawn")] = 20
    state: Annotated[str, Help("file that keeps how far the work has come, to go on from")] = ""

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have: those that the method needs."""
        return self._explainer().needs

    def _explainer(self) -> Explainer:
        """Make the method."""
        made: Any = get_registry().configured(self.method, layer=self.layer)
        if self.layer != AUTO and "layer" not in {each.name for each in fields(made)}:
            raise ParameterError(
                f"layer={self.layer!r} was given, and {self.method} looks at no layer",
                "a layer only for a method that looks at one",
                "leave layer out, or choose another method, such as grad-cam",
            )
        if getattr(made, "class_agnostic", False):
            raise ParameterError(
                f"{self.method} gives the same map for every class",
                "a method that tells the predicted class from the true one",
                "choose another method, such as grad-cam",
            )
        explainer: Explainer = made
        return explainer

    def inspect(self, subject: Subject) -> Findings:
        """Judge the pictures, and explain the worst mistakes.

        Parameters
        ----------
        subject : Subject
            The network and the labelled pictures.

        Returns
        -------
        Findings

        Raises
        ------
        TargetError
            If no picture's class is known, or the network has no such class or no scores of
            classes.
        ArrayError
            If no picture can be read, or the network looks at signals or volumes.
        ParameterError
            If the method's parameters do not fit, its maps are the same for every class, or the
            state is of another network, of other pictures, or none.
        UnknownMethodError
            If there is no such method.
        UnknownLayerError
            If there is no such layer.
        """
        if len(subject.shape) != 3:
            raise ArrayError(
                f"the network's input has the shape {subject.shape}",
                "pictures, (H, W, C)",
                "use a network on pictures; of signals and volumes explain the mistakes singly",
            )
        explainer = self._explainer()
        judged = judge(subject, self.state)
        mistakes = list(islice(self._mistakes(subject, judged), self.count))
        rows = np.array([row for row, _ in mistakes], dtype=np.int64)
        x = np.array([x for _, x in mistakes]).reshape(-1, *subject.shape)
        shown = self._explained(explainer, subject, judged, rows, x)
        confusion = Confusion(subject, judged)
        exhibits = [
            self._gallery(subject, judged, rows, x, shown) if mistakes else None,
            confusion.matrix(self.classes),
            confusion.mistaken(),
            confusion.accuracies(),
        ]
        known = sum(truth is not None for truth in subject.pictures.truth)
        return Findings(
            {
                **judged.arrays(),
                **(
                    {"confusion": confusion.square()}
                    if judged.classes <= _SQUARE
                    else {"confusion_triples": confusion.pairs}
                ),
                "worst": rows,
                "maps_predicted": shown.maps[:, 0],
                "maps_true": shown.maps[:, 1],
                "difference": shown.maps[:, 2],
            },
            tuple(exhibit for exhibit in exhibits if exhibit is not None),
            facts={
                "pictures": len(judged.truth),
                "mistakes": int((judged.rank > 0).sum()),
                "unlabelled": len(subject.pictures) - known,
                "unreadable": known - len(judged.truth),
                "classes": judged.classes,
                "top_1": _top(judged, 1),
                "top_5": _top(judged, 5),
                "mean_loss": float(judged.loss.mean()),
                "method": self.method,
                "layer": shown.layer,
                "worst": [_told(subject, judged, row) for row in rows],
            },
            title=_title(subject, judged),
        )

    def _mistakes(self, subject: Subject, judged: Judged) -> Iterator[tuple[int, Array]]:
        """Give the mistakes, the worst first, with their pictures."""
        wrong = np.flatnonzero(judged.rank > 0)
        margin = judged.p_predicted - judged.p_true
        worse = (margin if self.order == "margin" else judged.loss)[wrong]
        for row in wrong[np.argsort(-worse, kind="stable")]:
            x = subject.pictures.read(int(judged.pictures[row]))
            if x is not None:
                yield int(row), x

    def _explained(
        self, explainer: Explainer, subject: Subject, judged: Judged, rows: Array, x: Array
    ) -> _Shown:
        """Explain the mistakes, a batch at a time."""
        parts = []
        for at in range(0, len(rows), subject.batch_size):
            batch = rows[at : at + subject.batch_size]
            classes = (judged.predicted[batch], judged.truth[batch])
            parts.append(self._maps(explainer, subject, x[at : at + len(batch)], classes))
            advance("errors, explanations", at + len(batch), len(rows))
        if not parts:
            return _Shown(np.empty((0, 3, *subject.shape[:2]), dtype=judged.p_true.dtype))
        return replace(parts[0], maps=np.concatenate([part.maps for part in parts]))

    def _maps(
        self, explainer: Explainer, subject: Subject, x: Array, classes: tuple[Array, Array]
    ) -> _Shown:
        """Explain a batch for the predicted and the true classes."""
        size = subject.shape[:2]
        found = [
            explainer.explain(subject.model, x, [ClassScore(int(index)) for index in each])
            for each in classes
        ]
        own = found[0]
        both = np.stack([present(each.raw, size, own.presentation)[0] for each in found], axis=1)
        fine = own.raw.ndim == len(size) + 2
        if self.difference == "maps":
            scaled = _scaled(both, fine)
            # Maps with a sign may differ by more than what both are divided by.
            difference = np.clip(scaled[:, 0] - scaled[:, 1], -1, 1)
        else:
            with_sign = replace(own.presentation, sign="signed", reduce="sum")
            first, second = (present(each.raw, size, with_sign)[0] for each in found)
            difference = _scaled(first - second, fine)
        maps = np.concatenate([both, difference[:, None]], axis=1)
        return _Shown(maps, own.presentation.sign == "signed", fine, own.layer)

    def _gallery(
        self, subject: Subject, judged: Judged, rows: Array, x: Array, shown: _Shown
    ) -> Gallery:
        """Show each mistake with its maps."""
        heats = np.clip(_scaled(shown.maps[:, :2], shown.fine), -1 if shown.signed else 0, 1)
        pixels = subject.space.pixels(x)
        worse = "lead of the wrong class" if self.order == "margin" else "loss of the true class"
        return Gallery(
            tuple(
                _row(subject, judged, row, pixels[k], heats[k], shown.maps[k, 2], shown)
                for k, row in enumerate(rows)
            ),
            title=f"The worst mistakes, by the {worse}",
            column_titles=("Picture", "For the answer", "For the true class", "Difference"),
            note=f"Maps by {self.method}, those for the two classes on one scale. The "
            f"difference is positive for the answer, negative for the true class.{_about(subject)}",
        )


def _row(
    subject: Subject,
    judged: Judged,
    row: int,
    pixels: Array,
    heats: Array,
    difference: Array,
    shown: _Shown,
) -> tuple[Tile, ...]:
    """Show one mistake: the picture, the two maps, the difference."""
    answer, true = int(judged.predicted[row]), int(judged.truth[row])
    place = f" (#{judged.rank[row] + 1})"
    minus = f"{short_label(subject, answer)} minus {short_label(subject, true)}"
    maps = (
        (heats[0], shown.signed, _chance(subject, answer, judged.p_predicted[row])),
        (heats[1], shown.signed, _chance(subject, true, judged.p_true[row]) + place),
        (difference, True, minus),
    )
    return (
        Tile(pixels, caption=subject.pictures.names[int(judged.pictures[row])]),
        *(Tile(pixels, heat, signed, shown.fine, caption=said) for heat, signed, said in maps),
    )


def _scaled(maps: Array, fine: bool) -> Array:
    """Divide each sample's maps by their common largest magnitude; single pixels are capped."""
    return symmetric(percentile_clip(maps, _CLIPPED) if fine else maps)


def _top(judged: Judged, k: int) -> float:
    """Give the share of pictures whose class is among the first k."""
    return float((judged.rank < k).mean())


def _title(subject: Subject, judged: Judged) -> str:
    """Say how often the network is wrong."""
    wrong, n = int((judged.rank > 0).sum()), len(judged.rank)
    told = f"{wrong} mistakes" if wrong > 1 else "1 mistake" if wrong else "no mistake"
    among = f"{n} pictures" if n > 1 else "1 picture"
    right = f"top-1 {100 * _top(judged, 1):.1f} %"
    if judged.classes > 5:
        right += f", top-5 {100 * _top(judged, 5):.1f} %"
    return f"{subject.name} makes {told} on {among}: {right}"


def _told(subject: Subject, judged: Judged, row: int) -> dict[str, Any]:
    """Say in JSON's words what a mistake was."""
    return {
        "name": subject.pictures.names[int(judged.pictures[row])],
        "truth": subject.label(int(judged.truth[row])),
        "predicted": subject.label(int(judged.predicted[row])),
        "p_true": float(judged.p_true[row]),
        "p_predicted": float(judged.p_predicted[row]),
        "rank": int(judged.rank[row]),
    }


def _about(subject: Subject) -> str:
    """Say what a mistake is where that is not clear."""
    if subject.model.activation != "sigmoid":
        return ""
    return (
        " The classes do not exclude each other: a mistake is where another than the true one has "
        "the highest score."
    )


def _chance(subject: Subject, index: int, p: float) -> str:
    """Name a class with its probability, or its score where there are none."""
    if subject.model.activation == "none":
        said = f"{p:.3g}"
    else:
        said = f"{100 * p:.0f} %" if p >= 0.01 else "< 1 %"
    return f"{short_label(subject, index)}, {said}"
