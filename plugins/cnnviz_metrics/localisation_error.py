"""The localisation error of ILSVRC: is one of a network's guesses right, and its box too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import UnknownClassError
from cnnviz_core.maps import iou
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import ClassProbability, ClassScore, Target
from cnnviz_metrics._regions import boxes_in
from cnnviz_metrics._rows import Resampled, counted, mean
from cnnviz_metrics.boxes import BoxRule, rule_boxes

__all__ = ["LocalisationError", "guess_ranks", "localisation_errors"]


def guess_ranks(logits: Array, labels: Sequence[int]) -> Array:
    """Give at which guess a network names each sample's class.

    Parameters
    ----------
    logits : ndarray (N, K)
        The scores of the classes.
    labels : sequence of int
        The samples' classes.

    Returns
    -------
    ndarray (N,) of int64
        0 for the first guess.  Of classes with equal scores the lower one is guessed first.

    Raises
    ------
    UnknownClassError
        If a label is no class of the network.

    Examples
    --------
    >>> guess_ranks(np.array([[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]]), [2, 0]).tolist()
    [1, 0]
    """
    logits, classes = np.asarray(logits), np.asarray(labels, dtype=np.int64)
    unknown = (classes < 0) | (classes >= logits.shape[1])
    if unknown.any():
        raise UnknownClassError(
            f"class {classes[unknown][0]} is out of range",
            f"a class from 0 to {logits.shape[1] - 1}",
            "annotate the pictures with the classes of this network",
        )
    own = np.take_along_axis(logits, classes[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < classes[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(axis=1)


def localisation_errors(
    ranks: Array, overlaps: Array, guesses: int, delta: float = 0.5
) -> tuple[Array, Array]:
    """Tell of each picture whether all guesses are wrong, by their class or by their box.

    A guess is wrong if its class is, whatever its box; so only the guess that names the picture's
    class can be right, and only the box of that class matters.

    Parameters
    ----------
    ranks : ndarray (N,)
        At which guess the picture's class is named, 0 for the first.
    overlaps : ndarray (N,)
        The overlap of the box of that class with the best of the true ones.
    guesses : int
        How many guesses there are.
    delta : float
        The overlap from which on a box is right.

    Returns
    -------
    class_wrong : ndarray (N,) of bool
        Whether no guess names the class.
    box_wrong : ndarray (N,) of bool
        Whether one does, and its box is wrong.  The error is the mean of both together.

    References
    ----------
    Russakovsky et al., "ImageNet large scale visual recognition challenge", International Journal
    of Computer Vision 115, 2015, section 4.2.

    Examples
    --------
    >>> [w.tolist() for w in localisation_errors([0, 0, 3], [0.7, 0.2, 0.9], 1)]
    [[False, False, True], [False, True, False]]
    """
    class_wrong = np.asarray(ranks) >= guesses
    return class_wrong, ~class_wrong & (np.asarray(overlaps) < delta)


@dataclass(frozen=True)
class LocalisationError(Resampled):
    """Share of pictures of which no guess has both the right class and a right box.

    The box of a guess is put around the largest component of what lies above a share of the maximum
    of the map that explains it.  Of the guesses only the one that names the picture's class can be
    right; so the map of this class is all that is needed, and where the batch was explained for
    another one, it is made.  Maps are taken as their method shows them, at the input's size, and
    boxes are half-open, which for boxes of whole pixels is the count of ILSVRC, where the last
    column and row belong to the box.

    Parameters
    ----------
    rule : float, "cam" or "grad-cam"
        Above what share of the map's maximum a pixel is looked at.
    delta : float
        The intersection over union from which on a box is right.

    References
    ----------
    Russakovsky et al., "ImageNet large scale visual recognition challenge", International Journal
    of Computer Vision 115, 2015, section 4.2.  Selvaraju et al., "Grad-CAM", ICCV 2017, section
    4.1.
    """

    rule: Annotated[
        BoxRule,
        Range(0, 1),
        Help("share of the map's maximum, or whose: cam's 0.2, grad-cam's 0.15"),
    ] = "grad-cam"
    delta: Annotated[
        float, Range(0, 1, open_low=True), Help("overlap from which on a box is right")
    ] = 0.5

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray (N,)
            ``rank``, at which guess the picture's class is named, 0 for the first; ``overlap``,
            that of this class's box with the best of the true ones.

        Raises
        ------
        UnknownClassError
            If a label is no class of the network.
        """
        rank, overlap = np.full((2, len(explained)), np.nan)
        truths = [boxes_in(annotation, explained.size) for annotation in explained.annotations]
        labels = {
            row: annotation.label
            for row, annotation in enumerate(explained.annotations)
            if annotation.label is not None and len(truths[row])
        }
        if labels:
            logits = _logits(explained, list(labels))
            rank[list(labels)] = guess_ranks(logits, list(labels.values()))
            for row, map in _maps_of(explained, labels).items():
                overlap[row] = iou(rule_boxes(map, self.rule), truths[row]).max(initial=0)
        return {"rank": rank, "overlap": overlap}

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map, if it is that of the picture's own class."""
        return 1

    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `resampled`.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.
        counts : ndarray (R, N)
            How often each picture stands in each data set.

        Returns
        -------
        mapping of str to ndarray (R,)
            In [0, 1]: ``top1_error`` and ``top5_error``, of one and of five guesses; what of them
            is due to the class, ``top1_class_error`` and ``top5_class_error``; and ``box_error``,
            the share of wrong boxes if the class is given.
        """
        counts, rank, overlap = counted(counts, records["rank"], records["overlap"])
        names = ("top1_error", "top5_error", "top1_class_error", "top5_class_error", "box_error")
        top1, top5 = (localisation_errors(rank, overlap, k, self.delta) for k in (1, 5))
        wrong = (top1[0] | top1[1], top5[0] | top5[1], top1[0], top5[0], overlap < self.delta)
        return dict(zip(names, mean(counts, np.stack(wrong, axis=1)).T, strict=True))


def _logits(explained: Explained, rows: list[int]) -> Array:
    """Give the scores (n, K) of some pictures of a batch."""
    x, size = explained.x[rows], explained.batch_size
    batches = [x[start : start + size] for start in range(0, len(x), size)]
    return np.concatenate([explained.model.forward(batch).logits for batch in batches])


def _maps_of(explained: Explained, labels: Mapping[int, int]) -> dict[int, Array]:
    """Give the maps (H, W) of the classes of some pictures; those that are there are not remade."""
    wanted = {row: _of_class(explained.maps.targets[row], label) for row, label in labels.items()}
    agnostic = getattr(explained.explainer, "class_agnostic", False)
    missing = [
        row
        for row, target in wanted.items()
        if not agnostic and target != explained.maps.targets[row]
    ]
    maps = {row: explained.shown[row] for row in labels}
    if missing:
        _, shown = explained.again(explained.x[missing], [wanted[row] for row in missing])
        maps.update(zip(missing, shown, strict=True))
    return maps


def _of_class(target: Target, label: int) -> Target:
    """Give the target that asks of a class what was asked."""
    if isinstance(target, ClassProbability):
        return replace(target, index=label)
    return ClassScore(label)
