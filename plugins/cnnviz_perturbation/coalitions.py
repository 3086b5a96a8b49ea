"""A sample as a game of its segments: what is scored when only some of them are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.fills import Fill, Filling, Fixed, filling
from cnnviz_core.mask_forms import Labelled, MaskForm
from cnnviz_core.masks import SegmentMasks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.perturb import check_positions, each_sample, scored_batches
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_perturbation.segmenting import Segmentation, segment

__all__ = ["Game", "Hidden", "Setting", "explain_segments"]

Hidden: TypeAlias = Fill | Literal["segment-mean"]
"""What is shown in the place of a segment: a fill, or each segment's own mean colour."""


@dataclass(frozen=True, eq=False)
class Setting:
    """How samples are made games of.

    Attributes
    ----------
    method : str
        The method's name, for the progress.
    segments : int
        How many segments are wanted.
    segmentation : str or ndarray
        How a sample is divided; see `segment`.
    fill : float, str or ndarray
        What is shown in the place of a segment.
    seed : int
        Of the fill, where it is drawn.
    batch_size : int or "auto"
        How many coalitions go through the network at once; "auto" measures what pays.
    """

    method: str
    segments: int
    segmentation: Segmentation
    fill: Hidden
    seed: int
    batch_size: BatchSize

    def players(self, x: Array) -> int:
        """Count the segments of the first sample of a batch."""
        return int(segment(x[0], self.segmentation, self.segments).max()) + 1


@dataclass(frozen=True, eq=False)
class Game:
    """One sample, of which coalitions of segments are scored by several targets.

    Attributes
    ----------
    model : Model
        The network.
    x : ndarray (*size, C)
        The sample.
    targets : sequence of Target
        What is scored, resolved.
    whole : ndarray (T,)
        Each target's score of the whole sample.
    segments : ndarray of int (*size)
        The number of each position's segment, from 0.
    fill : Filling
        What is shown in the place of a segment.
    batch_size : int or "auto"
        How many coalitions go through the network at once; "auto" measures what pays.
    what : str
        What to call the work in the progress.
    """

    model: Model
    x: Array
    targets: Sequence[Target]
    whole: Array
    segments: Array
    fill: Filling
    batch_size: BatchSize
    what: str

    @property
    def players(self) -> int:
        """How many segments there are."""
        return int(self.segments.max()) + 1

    def scored(self, kept: Array) -> Iterator[tuple[MaskForm, Array]]:
        """Score coalitions of the segments, and hand on what was found a batch at a time.

        Parameters
        ----------
        kept : ndarray of bool (M, K)
            Which of the K segments each coalition shows; the first one all, of which the score is
            known.

        Yields
        ------
        masks : MaskForm
            Some of the coalitions (n, *size), in order.
        scores : ndarray (T, n)
            Each target's score of each of them.
        """
        yield Labelled(self.segments, kept[:1]), self.whole[:, None]
        yield from scored_batches(
            self.model,
            self.x,
            self.targets,
            SegmentMasks(self.segments, kept[1:]),
            self.fill,
            batch_size=self.batch_size,
            what=self.what,
        )


def explain_segments(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    setting: Setting,
    attribute: Callable[[Game], Mapping[str, Array]],
) -> Maps:
    """Explain the targets' scores on a batch by the segments of its samples.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
    targets : sequence of Target
        One for each sample; those of the same sample share its game.
    setting : Setting
        How samples are made games of.
    attribute : callable
        Gives, of a game, "value" (T, K), one for each target and segment, and whatever else there
        is to say, (T, K) for the segments or (T, ...).

    Returns
    -------
    Maps
        The values, at each pixel that of its segment; what else was said as extras, together with
        "segments", the number of each pixel's segment.

    Raises
    ------
    ArrayError
        If the samples have no axis along which to divide them, or cannot be divided as asked.
    """
    check_positions(x)
    whole = score(model, x, targets)
    segments = np.empty(x.shape[:-1], dtype=np.int64)
    found: dict[str, Array] = {}
    for rows, sample, what in each_sample(x, setting.method):
        labels = segment(sample, setting.segmentation, setting.segments)
        game = Game(
            model,
            sample,
            [whole.targets[row] for row in rows],
            whole.scores[rows],
            labels,
            _filling(sample, labels, setting.fill, setting.seed),
            setting.batch_size,
            what,
        )
        segments[rows] = labels
        for name, values in attribute(game).items():
            shown = values[:, labels] if values.ndim == 2 else values
            empty = np.empty((len(x), *shown.shape[1:]), dtype=shown.dtype)
            found.setdefault(name, empty)[rows] = shown
    return Maps(
        raw=found.pop("value"),
        scores=whole.scores,
        targets=whole.targets,
        presentation=Presentation(sign="signed"),
        extras={**found, "segments": segments},
    )


def _filling(x: Array, segments: Array, fill: Hidden, seed: int) -> Filling:
    """Make what is shown in the place of segments."""
    if isinstance(fill, str) and fill == "segment-mean":
        of = segments.ravel()
        totals = [np.bincount(of, channel.ravel()) for channel in np.moveaxis(x, -1, 0)]
        means = np.stack(totals, axis=-1) / np.bincount(of)[:, None]
        return Fixed(means[segments].astype(x.dtype))
    return filling(x, fill, seed)
