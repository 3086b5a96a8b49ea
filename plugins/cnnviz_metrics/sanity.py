"""Sanity check: whether a map changes when the network's weights are replaced by random ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError, OutOfMemoryError
from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.layers import layers_of
from cnnviz_core.maps import min_max
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model, copyable
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_metrics._maps import is_flat
from cnnviz_metrics._rows import Resampled, counted, mean, measured

__all__ = [
    "Draw",
    "SanityCheck",
    "cascade",
    "independent",
    "random_arrays",
    "randomised_parts",
    "rank_correlation",
    "structural_similarity",
]

Draw: TypeAlias = Literal["normal", "shuffled"]
"""Where a layer's random weights come from: a normal distribution with the mean and the standard
deviation of its own weights, or its own weights in another order."""

_ROOM: Final = 2**30
"""How many bytes of weights the copies may have that are kept from batch to batch."""
_NOT_LEARNED: Final = frozenset({"mean", "variance", "epsilon"})
_WINDOW: Final = 7


def random_arrays(
    arrays: Mapping[str, Array], layer: str, draw: Draw = "normal", seed: int = 0
) -> dict[str, Array]:
    """Draw other values for what a layer has learned.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The layer's arrays, as `cnnviz_core.model.Model.parameters` gives them.
    layer : str
        The layer's path; each array of each layer has draws of its own, the same in every
        framework.
    draw : {"normal", "shuffled"}
        See `Draw`.
    seed : int
        For NumPy's generator.

    Returns
    -------
    dict of str to ndarray
        Of the arrays' shapes and types.  The statistics of a normalisation are left out, and so are
        arrays of whole numbers, such as indices, and zeros and ones that nobody trained.
    """
    made: dict[str, Array] = {}
    for name, values in _learned(arrays).items():
        rng = np.random.default_rng([seed, *f"{layer}.{name}".encode()])
        if draw == "shuffled":
            made[name] = rng.permutation(values.ravel()).reshape(values.shape)
        else:
            mean, deviation = (float(f(values, dtype=np.float64)) for f in (np.mean, np.std))
            drawn = rng.standard_normal(values.shape, dtype=np.float32)
            made[name] = (mean + deviation * drawn).astype(values.dtype)
    return made


def _learned(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Leave out the arrays that nobody trained."""
    return {
        name: values
        for name, values in arrays.items()
        if name not in _NOT_LEARNED and not _are_whole(values)
    }


def _are_whole(values: Array) -> bool:
    """Tell whether all values are whole numbers; of most arrays the first ones tell."""
    return all(np.array_equal(some, np.rint(some)) for some in (values.ravel()[:100], values))


def randomised_parts(model: Model, x: Array, parts: int | None = None) -> list[tuple[str, ...]]:
    """Divide a network into parts that are randomised one after the other, the top first.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        A batch that it takes.
    parts : int, optional
        How many there are to be at most, about equally many layers in each; by default each layer
        with weights is a part.

    Returns
    -------
    list of tuple of str
        The paths of the layers in each part.  A normalisation is in the part of the layer before
        it.  Branches that do not depend on each other come in the framework's order.

    Raises
    ------
    ArrayError
        If the network has no layer whose weights can be randomised.
    """
    layers = layers_of(model, x)
    kinds = {info.path or info.name: info.kind for info in reversed(list(layers.values()))}
    blocks: list[tuple[str, ...]] = []
    norms: tuple[str, ...] = ()
    for path, kind in kinds.items():
        if not _learned(model.parameters(path)):
            continue
        if kind == "norm":
            norms = (*norms, path)
        else:
            blocks.append((*norms, path))
            norms = ()
    if norms:
        blocks.append(norms)
    if not blocks:
        raise ArrayError(
            "the network has no layer with trained weights",
            "a layer with weights that differ from each other",
            "use the network that was trained, not an exported function of it",
        )
    ends = np.linspace(0, len(blocks), min(parts or len(blocks), len(blocks)) + 1).round()
    return [tuple(itertools.chain(*blocks[a:b])) for a, b in itertools.pairwise(ends.astype(int))]


def cascade(
    model: Model,
    parts: Sequence[Sequence[str]],
    *,
    draw: Draw = "normal",
    seed: int = 0,
    made: Sequence[Model] = (),
) -> Iterator[Model]:
    """Randomise a copy of a network part by part.

    Parameters
    ----------
    model : Model
        The network, which offers "copy"; it is not changed.
    parts : sequence of sequence of str
        The paths of the layers in each part, as `randomised_parts` gives them.
    draw : {"normal", "shuffled"}
        See `Draw`.
    seed : int
        For `random_arrays`.
    made : sequence of Model
        The first of these copies, where they were made before: they are not made again.

    Yields
    ------
    Model
        Copies in which the first part is random, the first two, and so on.
    """
    copy = model
    for k, part in enumerate(parts):
        copy = made[k] if k < len(made) else _randomised(copy, model, part, draw, seed)
        yield copy


def independent(
    model: Model,
    parts: Sequence[Sequence[str]],
    *,
    draw: Draw = "normal",
    seed: int = 0,
    made: Sequence[Model] = (),
) -> Iterator[Model]:
    """Randomise one part of a network at a time, each in a copy.

    Parameters
    ----------
    model, parts, draw, seed, made
        As `cascade` takes them.

    Yields
    ------
    Model
        Copies in which one part is random, each in its turn.
    """
    for k, part in enumerate(parts):
        yield made[k] if k < len(made) else _randomised(model, model, part, draw, seed)


def _randomised(model: Model, original: Model, part: Sequence[str], draw: Draw, seed: int) -> Model:
    """Copy a network, with some layers random whose weights are those of the original."""
    arrays = {path: random_arrays(original.parameters(path), path, draw, seed) for path in part}
    return copyable(model).copied(arrays)


def rank_correlation(maps: Array, others: Array) -> Array:
    """Give Spearman's rank correlation of maps with others.

    Parameters
    ----------
    maps, others : ndarray (N, ...)
        The maps.

    Returns
    -------
    ndarray (N,) of float64
        In [-1, 1]; equal values share the mean of their ranks.  1 where both maps are the same
        everywhere, and 0 where one of them is.  NaN where a map is not finite.

    Raises
    ------
    ArrayError
        If the shapes differ.

    Examples
    --------
    >>> rank_correlation(np.array([[1.0, 2.0, 9.0]]), np.array([[5.0, 7.0, 6.0]])).tolist()
    [0.5]
    """
    from scipy.stats import rankdata

    flat, other = _paired(maps, others)
    finite: Array = np.all(np.isfinite(flat) & np.isfinite(other), axis=1)
    ranks = [rankdata(np.where(finite[:, None], m, 0), axis=1) for m in (flat, other)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    one, two = (np.square(centred).sum(axis=1) for centred in (a, b))
    both_flat = ((one == 0) & (two == 0)).astype(np.float64)
    size = np.sqrt(one * two)
    found = np.divide((a * b).sum(axis=1), size, out=both_flat, where=size > 0)
    return np.where(finite, found.clip(-1, 1), np.nan)


def structural_similarity(maps: Array, others: Array) -> Array:
    """Give the structural similarity of maps with others.

    Parameters
    ----------
    maps, others : ndarray (N, *size)
        The maps; each is scaled to [0, 1] first, and one that is the same everywhere becomes 0.

    Returns
    -------
    ndarray (N,) of float64
        At most 1.  NaN where a map is not finite, or an axis is shorter than 3.

    Raises
    ------
    ArrayError
        If the shapes differ.

    References
    ----------
    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
    Transactions on Image Processing 13, 2004; with even windows, 7 wide or as wide as fits.
    """
    from skimage.metrics import structural_similarity as similarity

    _paired(maps, others)
    shortest = min(np.shape(maps)[1:])
    width = min(_WINDOW, shortest - 1 + shortest % 2)
    found = np.full(len(maps), np.nan)
    for row, pair in enumerate(zip(maps, others, strict=True)):
        if width >= 3 and all(np.isfinite(map).all() for map in pair):
            a, b = (_unit(np.asarray(map, dtype=np.float64)) for map in pair)
            found[row] = similarity(a, b, win_size=width, data_range=1.0)
    return found


def _unit(map: Array) -> Array:
    """Scale one map to [0, 1]; one that is flat becomes 0."""
    rows = map.reshape(1, 1, -1)
    scaled: Array = np.zeros_like(map) if is_flat(rows)[0] else min_max(rows).reshape(map.shape)
    return scaled


def _paired(maps: Array, others: Array) -> tuple[Array, Array]:
    """Check that maps can be compared, and give each as a row."""
    if np.shape(maps) != np.shape(others):
        raise ArrayError(
            f"maps of the shape {np.shape(maps)} were given to be compared with {np.shape(others)}",
            "the same shape",
            "use a method whose maps have one size for pictures of one size",
        )
    flat, other = (np.asarray(m, dtype=np.float64).reshape(len(m), -1) for m in (maps, others))
    return flat, other


@dataclass(frozen=True)
class SanityCheck(Resampled):
    """Likeness of a map to that of the same method on a network with random weights.

    A map that shows what the network has learned must change as its weights are replaced, from the
    top layer down; one that stays the same shows the picture alone, as an edge detector does.  This
    is done on copies; the network itself is never changed.  Rank correlations are those of what the
    method itself returned, signed, with its channels and at its own size, and of its magnitude; the
    structural similarity is that of the maps as they are shown.  The lower, the better, but even a
    random network sees the picture, so 0 is not to be expected.  Maps that are not finite are left
    out.

    Parameters
    ----------
    order : {"cascade", "independent"}
        Whether what was randomised stays so as the next part follows, or one part at a time is
        random.
    draw : {"normal", "shuffled"}
        Where random weights come from: a normal distribution with the mean and the standard
        deviation of the layer's own, or the layer's own in another order.
    parts : int or None
        Into how many parts the network is divided at most, each of which is randomised at once.

    Notes
    -----
    Within an evaluation as many copies as have 1 GiB of weights together are made once, and kept
    until it ends; the others are made again for each batch and method.

    References
    ----------
    Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3.
    """

    order: Annotated[
        Literal["cascade", "independent"],
        Help("whether what was randomised stays so, from the top down, or one part at a time is"),
    ] = "cascade"
    draw: Annotated[
        Draw, Help("random weights: normal, spread as the layer's own; or the layer's own shuffled")
    ] = "normal"
    parts: Annotated[
        int | None,
        Range(1),
        Help("into how many parts the network is divided at most; none: a part for each layer"),
    ] = 10

    needs: ClassVar[frozenset[str]] = frozenset({"copy", "parameters"})

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray
            ``signed`` and ``magnitude``, the rank correlations, and ``ssim``, the structural
            similarity: each (N, K + 1), with nothing randomised first, and then after each of K
            parts.
        """
        targets = explained.maps.targets
        key = (self, explained.seed, explained.size)
        if key not in explained.kept:
            explained.kept[key] = _Copies.of(explained, self.parts)
        kept: _Copies = explained.kept[key]
        copies = (cascade if self.order == "cascade" else independent)(
            explained.model, kept.parts, draw=self.draw, seed=explained.seed, made=kept.made
        )
        found = [_likeness(explained, explained.maps.raw, explained.shown)]
        try:
            for done, copy in enumerate(copies, start=1):
                kept.keep(copy, done)
                maps, shown = explained.again(explained.x, targets, copy)
                found.append(_likeness(explained, maps.raw, shown))
                advance("sanity check", done, len(kept.parts))
        except OutOfMemoryError:
            kept.make_room()
            raise
        signed, magnitude, ssim = np.stack(found, axis=-1)
        return {"signed": signed, "magnitude": magnitude, "ssim": ssim}

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
            ``correlation``, ``magnitude_correlation`` and ``ssim``, the means over the parts and
            the pictures; and ``last_correlation``, that after the last part: in a cascade, with all
            of the network random.
        """
        names = ("signed", "magnitude", "ssim")
        means = {name: mean(*counted(counts, records[name])) for name in names}
        return {
            "correlation": means["signed"][:, 1:].mean(axis=1),
            "magnitude_correlation": means["magnitude"][:, 1:].mean(axis=1),
            "ssim": means["ssim"][:, 1:].mean(axis=1),
            "last_correlation": means["signed"][:, -1],
        }

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw the likeness over the depth, and its standard deviation over the pictures."""
        titles = {
            "signed": "rank correlation",
            "magnitude": "rank correlation of magnitudes",
            "ssim": "structural similarity",
        }
        known = {title: _known(records[name]) for name, title in titles.items()}
        lines = tuple(
            Line(title, curve.mean(axis=0), curve.std(axis=0))
            for title, curve in known.items()
            if len(curve)
        )
        if not lines:
            return ()
        count = len(lines[0].y)
        done = self.order == "cascade"
        return (
            Curves(
                np.linspace(0, 1, count) if done else np.arange(count),
                lines,
                title="Likeness to the map of the trained network",
                x_title="share of the network that is random, from the top down"
                if done
                else "the part that is random, counted from the top",
                y_title="likeness",
            ),
        )

    def explanations(self, model: Model, x: Array) -> int:
        """Tell how often the method runs again for one map."""
        return len(randomised_parts(model, x, self.parts))


@dataclass
class _Copies:
    """The copies of one network that are kept, the first ones of the parts that are randomised."""

    parts: list[tuple[str, ...]]
    most: int
    made: list[Model] = field(default_factory=list)

    @classmethod
    def of(cls, explained: Explained, parts: int | None) -> _Copies:
        """Find out how many copies of a batch's network may be kept."""
        model = explained.model
        divided = randomised_parts(model, explained.x, parts)
        paths = {info.path or info.name for info in layers_of(model, explained.x).values()}
        weights = sum(v.nbytes for path in paths for v in model.parameters(path).values())
        return cls(divided, _ROOM // max(1, weights))

    def keep(self, copy: Model, number: int) -> None:
        """Keep a copy that was made, if it is the next one and there is room."""
        if len(self.made) == number - 1 < self.most:
            self.made.append(copy)

    def make_room(self) -> None:
        """Keep none from now on."""
        self.made.clear()
        self.most = 0


def _likeness(explained: Explained, raw: Array, shown: Array) -> Array:
    """Compare maps with those that are measured, in three ways: (3, N)."""
    own = explained.maps.raw
    return np.stack(
        [
            rank_correlation(own, raw),
            rank_correlation(np.abs(own), np.abs(raw)),
            structural_similarity(explained.shown, shown),
        ]
    )


def _known(curves: Array) -> Array:
    """Leave out the curves (N, K + 1) that are not known."""
    (known,) = measured(curves)
    return known
