"""Max-sensitivity: how much a map changes when the picture changes a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.noise import value_range
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_metrics._rows import Resampled, counted, mean

__all__ = ["MaxSensitivity", "in_ball", "relative_change"]


def in_ball(x: Array, radius: float, draw: int, seed: int = 0) -> Array:
    """Move each sample of a batch by a draw from the ball of the greatest deviation.

    Parameters
    ----------
    x : ndarray (N, ...)
        The batch, floating.
    radius : float
        By how much a value may change at most, as a share of its sample's range, its largest less
        its least value.
    draw : int
        Which draw, from 0.
    seed : int
        For NumPy's generator.

    Returns
    -------
    ndarray (N, ...)
        Of its type: each value moved by its own draw, uniform within the radius.  All samples get
        the same draws, scaled to their own range.
    """
    moves = np.random.default_rng([seed, draw]).uniform(-1, 1, x.shape[1:])
    return (x + radius * value_range(x) * moves).astype(x.dtype)


def relative_change(changed: Array, original: Array) -> Array:
    """Give by how much maps differ from others, as a share of these.

    Parameters
    ----------
    changed, original : ndarray (N, ...)
        The maps.

    Returns
    -------
    ndarray (N,) of float64
        Euclidean norms of the differences, divided by those of the original maps; where an original
        map is zero everywhere, not divided.  NaN where a map is not finite.

    Raises
    ------
    ArrayError
        If the shapes differ.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, definition 3.1;
    divided by the norm, so that methods of different scales can be compared.

    Examples
    --------
    >>> relative_change(np.array([[3.0, 0.0]]), np.array([[3.0, 4.0]])).tolist()
    [0.8]
    """
    changed, original = (np.asarray(maps, dtype=np.float64) for maps in (changed, original))
    if changed.shape != original.shape:
        raise ArrayError(
            f"maps of the shape {changed.shape} were given to be compared with {original.shape}",
            "the same shape",
            "use a method whose maps have one size for pictures of one size",
        )
    axes = tuple(range(1, original.ndim))
    finite = np.isfinite(changed).all(axis=axes) & np.isfinite(original).all(axis=axes)
    with np.errstate(invalid="ignore"):
        moved = np.sqrt(np.square(changed - original).sum(axis=axes))
        length = np.sqrt(np.square(original).sum(axis=axes))
    shares = np.divide(moved, length, out=moved.copy(), where=finite & (length > 0))
    return np.where(finite, shares, np.nan)


@dataclass(frozen=True)
class MaxSensitivity(Resampled):
    """Largest change of a map over pictures that differ from the explained one a little.

    What is compared is what the method itself returned, signed, with its channels and at its own
    size; the score that is explained stays the same.  The lower, the steadier the method.  Maps
    that are not finite are left out.

    Parameters
    ----------
    radius : float
        By how much each value of a picture may change at most, as a share of the picture's range,
        its largest less its least value.
    draws : int
        How many pictures are drawn, uniformly within that.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, section 3.
    """

    radius: Annotated[
        float,
        Range(0, open_low=True),
        Help("by how much a value may change, as a share of the picture's range"),
    ] = 0.02
    draws: Annotated[int, Range(1), Help("how many pictures are drawn")] = 10

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray
            ``largest`` and ``mean`` (N,), the largest and the mean relative change.
        """
        changes = np.empty((self.draws, len(explained)))
        for draw in range(self.draws):
            x = in_ball(explained.x, self.radius, draw, explained.seed)
            maps, _ = explained.again(x, explained.maps.targets)
            changes[draw] = relative_change(maps.raw, explained.maps.raw)
            advance("max-sensitivity", draw + 1, self.draws)
        return {"largest": changes.max(axis=0), "mean": changes.mean(axis=0)}

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
            ``max_sensitivity`` and ``mean_sensitivity``: the means over the pictures.
        """
        counts, largest, means = counted(counts, records["largest"], records["mean"])
        return {"max_sensitivity": mean(counts, largest), "mean_sensitivity": mean(counts, means)}

    def explanations(self, model: Model, x: Array) -> int:
        """Tell how often the method runs again for one map."""
        return self.draws
