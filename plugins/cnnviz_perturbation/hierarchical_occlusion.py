"""Hierarchical occlusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Annotated, ClassVar, Final, TypeAlias

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.fills import Fill
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_perturbation.cells import each_scored, grid_of

__all__ = ["HierarchicalOcclusion", "owen_values"]

Block: TypeAlias = tuple[slice, ...]
"""A box of cells."""

_AT_ONCE: Final = 8
"""How many blocks are split before it is asked again which are largest; whatever the batch size is,
so that it changes no result."""


@dataclass(frozen=True, eq=False)
class HierarchicalOcclusion:
    """The score, shared out among blocks of the picture, their halves, and the halves of these.

    The picture is cut into cells by a regular grid, and these are joined in a binary tree: a block
    of cells has two halves, across its longer side.  What a block adds to the score is shared
    between its halves as the Shapley value of a game of two shares it: each gets the mean of what
    it adds without the other one and with it.  Halves are halved in turn, those of which most is to
    be shared first, until the passes are used up; blocks that were not split are shared evenly
    among their cells.  With enough passes these are the Owen values of the tree.

    The raw map is each cell's value divided by the cell's pixels.  It adds up to the score less
    that of the fill alone, however many passes there are.

    Parameters
    ----------
    samples : int
        How many pictures are scored at most, of which two are the whole one and the fill alone.
    cells : int
        Cells along each axis.
    fill : float, "mean", "blur", "noise" or ndarray
        What is shown in the place of cells that are taken away: a value in the network's own input
        range, the sample's mean colour, the sample blurred, noise of its mean and spread, or an
        array that broadcasts to a sample.
    seed : int
        For a fill of noise.
    batch_size : int or "auto"
        How many subsets of the cells go through the network at once; "auto" measures what pays.

    Notes
    -----
    Owen values are the Shapley values where the score is a sum of what each cell adds.  Where cells
    act together they differ: halves of one block are taken to be together or not at all when those
    of another one are shared out, which is what makes a tree of n cells take some n^2 passes in the
    place of 2^n.

    References
    ----------
    Owen, "Values of games with a priori unions", Mathematical Economics and Game Theory, 1977.
    Lundberg & Lee, "A unified approach to interpreting model predictions", NeurIPS 2017; the
    partition explainer of its authors' library.
    """

    samples: Annotated[int, Range(2), Help("pictures to score, at most")] = 500
    cells: Annotated[int, Range(1), Help("cells along each axis")] = 16
    fill: Annotated[Fill, Help("what is shown in the place of cells that are taken away")] = "mean"
    seed: Annotated[int, Range(0), Help("for a fill of noise")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("subsets that go through the network at once")
    ] = 16

    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw map (N, H, W), signed, and ``extras["values"]`` (N, K), each cell's value,
            row by row.

        Raises
        ------
        ArrayError
            If the samples have no axis to cut, or a fill that is an array does not fit them.
        """
        whole = score(model, x, targets)
        dtype = whole.scores.dtype
        raw = np.zeros(x.shape[:-1], dtype=dtype)
        grid = grid_of(x.shape[1:-1], self.cells)
        values = np.zeros((len(x), int(np.prod(grid))), dtype=dtype)
        for rows, scored in each_scored(
            model,
            x,
            whole.targets,
            cells=self.cells,
            fill=self.fill,
            seed=self.seed,
            batch_size=self.batch_size,
            what="hierarchical occlusion",
        ):
            pixels = np.bincount(scored.cells.ravel())
            for k, row in enumerate(rows):
                found = owen_values(scored.of(k), grid, self.samples)
                values[row], raw[row] = found, (found / pixels)[scored.cells]
        return Maps(
            raw=raw,
            scores=whole.scores,
            targets=whole.targets,
            presentation=Presentation(sign="signed", upsample="nearest"),
            extras={"values": values},
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the most forward passes that one sample can take."""
        return 1 + min(self.samples // 2 * 2, _needed(grid_of(x.shape[1:-1], self.cells)))


@dataclass(frozen=True, eq=False)
class _Share:
    """What a block adds to the score in one context, and how much that counts.

    Attributes
    ----------
    block : tuple of slice
        The block.
    context : ndarray of bool (*grid)
        What is kept besides.
    weight : float
        The share of orders in which the block comes in this context.
    without, whole : float
        The scores of the context, and of the context with the block.
    """

    block: Block
    context: Array
    weight: float
    without: float
    whole: float

    @property
    def value(self) -> float:
        """What is to be shared out."""
        return self.weight * (self.whole - self.without)


def owen_values(value: Callable[[Array], Array], grid: tuple[int, ...], samples: int) -> Array:
    """Share out the value of a grid of cells by the halves of its blocks.

    Parameters
    ----------
    value : callable
        From which cells are kept, an ndarray of bool (M, K), to values (M,).
    grid : tuple of int
        How many cells there are along each axis; K in all.
    samples : int
        How many subsets to ask about, at least 2.

    Returns
    -------
    ndarray of float64 (K,)
        Each cell's value, row by row; their sum is the value of all cells less that of none.
    """
    none, everything = np.zeros(grid, dtype=bool), tuple(slice(0, n) for n in grid)
    nothing, whole = value(np.stack([none.ravel(), ~none.ravel()]))
    shared = np.zeros(grid)
    waiting: list[tuple[float, int, _Share]] = []
    number = count()

    def put(share: _Share) -> None:
        if shared[share.block].size == 1:
            shared[share.block] += share.value
        else:
            heappush(waiting, (-abs(share.value), next(number), share))

    put(_Share(everything, none, 1.0, nothing, whole))
    left = (samples - 2) // 2
    while waiting and left:
        largest = [heappop(waiting)[-1] for _ in range(min(_AT_ONCE, left, len(waiting)))]
        left -= len(largest)
        asked = np.stack([_kept(share, half) for share in largest for half in _halves(share.block)])
        for share, alone in zip(largest, value(asked).reshape(-1, 2), strict=True):
            for part in _parts(share, alone):
                put(part)
    for _, _, share in waiting:
        shared[share.block] += share.value / shared[share.block].size
    return shared.ravel()


def _parts(share: _Share, alone: Array) -> Iterator[_Share]:
    """Share between two halves, by the scores of the context with each of them alone."""
    halves = _halves(share.block)
    for mine, other in ((0, 1), (1, 0)):
        beside = _kept(share, halves[other]).reshape(share.context.shape)
        weight = share.weight / 2
        yield _Share(halves[mine], share.context, weight, share.without, alone[mine])
        yield _Share(halves[mine], beside, weight, alone[other], share.whole)


def _kept(share: _Share, half: Block) -> Array:
    """Keep a context and one half: (K,)."""
    kept = share.context.copy()
    kept[half] = True
    return kept.ravel()


def _halves(block: Block) -> tuple[Block, Block]:
    """Cut a block across its longest side, the first of equal ones."""
    sides = [part.stop - part.start for part in block]
    axis = int(np.argmax(sides))
    middle = block[axis].start + sides[axis] // 2
    return (
        (*block[:axis], slice(block[axis].start, middle), *block[axis + 1 :]),
        (*block[:axis], slice(middle, block[axis].stop), *block[axis + 1 :]),
    )


def _needed(grid: tuple[int, ...]) -> int:
    """Count the subsets that the Owen values of a grid depend on."""

    def below(block: Block) -> int:
        if all(part.stop - part.start == 1 for part in block):
            return 0
        return 2 + 2 * sum(below(half) for half in _halves(block))

    return 2 + below(tuple(slice(0, n) for n in grid))
