"""DeepDream: a picture in which a network sees more of what it sees in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.exhibits import Gallery, Tile, mosaic
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, auto_layer, layers_of, resolve_layers, stages
from cnnviz_core.maps.resize import resize
from cnnviz_core.model import Array, LayerInfo
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import as_pixels
from cnnviz_core.progress import advance
from cnnviz_core.scoring import score
from cnnviz_core.targets import ClassScore, Target
from cnnviz_features.synthesis.objectives import Energy, Objective, pull
from cnnviz_features.synthesis.parameterisation import Fourier
from cnnviz_features.synthesis.priors import TotalVariation

__all__ = ["Dream", "cut", "join"]

_NOISE: Final = 0.12
"""How strong the noise is that a dream without a picture begins with."""

_Goal: TypeAlias = tuple[Objective, ...]
"""What is to grow, one objective for each picture."""


@dataclass(frozen=True)
class Dream:
    """A picture that excites a layer more and more.

    Beginning with a picture, every step adds to it the gradient of an objective, by the colours of
    its pixels, divided by its mean absolute value and times `step_size`.  The objective is the mean
    square of a layer's values: whatever the layer sees in the picture, it is to see more of.  Where
    a target is asked for it is the target's score instead.

    Of several layers the divided gradients are averaged, so that each has the same say.

    The picture is dreamed at several sizes (octaves), from the network's input size on.  What the
    dream of one size added is enlarged and added to the picture at the next size, so that the
    picture's own details come back at every size, and structures of all sizes grow.

    A network takes one size of input; a larger picture is cut into tiles of that size, at another
    place at every step (the picture is moved around, what leaves it on one side coming back on the
    other, so that no seam stays).  The pictures of a subject have the network's input size: they
    are enlarged to the size of the dream.

    Parameters
    ----------
    layer : str
        The layer, or several, separated by commas; "auto" is the last layer of the last resolution
        but one, where networks see parts of things: eyes, wheels, leaves.
    channel : int or None
        The channel of the layer whose values are to grow; None is all of them.
    size : int or None
        The longer side of the dream in pixels, at least that of the network's input; None is as
        large as makes the smallest octave the network's input.
    octaves : int
        At how many sizes to dream, at most: none is smaller than the network's input.
    octave_scale : float
        The size of an octave, divided by that of the one before it.
    steps : int
        How many steps to take at each size.
    step_size : float
        The mean change of a colour in a step; colours are in [0, 1].
    jitter : int or None
        How many pixels the picture is moved around at most before each step, down and to the right;
        None is as far as a tile is large.
    tv : float
        How strongly to smooth: from the divided gradient that of the total variation is taken off,
        times this.  0.1 is mild, 1 makes a painting of the picture.
    frames : int
        Every how many steps to keep a frame of the animation, besides the start and the end; 0
        keeps none.
    zoom_frames : int
        How many frames to add in which the dream comes nearer and is dreamed on at its last size,
        as in the famous videos; each takes `steps` steps.
    zoom : float
        The size of a frame of the zoom, divided by that of the one before it.
    seed : int
        Of the moves, and of the noise where there is no picture.

    Notes
    -----
    Where the subject has no picture, the dream begins with noise; there is one dream for each
    target, or one alone.

    The findings have the arrays

    - "dream" (N, H, W, K): the dreams' colours in [0, 1];
    - "start" (N, H, W, K): what they began with;
    - "octave 1", "octave 2" and so on (N, h, w, K): the dream at the end of each size;
    - "history" (N, L, T): the objective before each step of all sizes, for each layer: the mean
      over the tiles of its mean square, or of the target's score, where L is 1.

    References
    ----------
    Mordvintsev, Olah & Tyka, "Inceptionism: going deeper into neural networks", Google Research
    blog, 2015, and the notebook of the "deepdream" code that they published.
    """

    layer: Annotated[
        str, Help("layer, or several, separated by commas; auto: the last resolution but one")
    ] = AUTO
    channel: Annotated[
        int | None, Range(0), Help("channel of the layer that is to grow; none: all of them")
    ] = None
    size: Annotated[
        int | None, Range(1), Help("longer side of the dream; none: as the octaves make it")
    ] = None
    octaves: Annotated[int, Range(1), Help("at how many sizes to dream, at most")] = 4
    octave_scale: Annotated[
        float, Range(1, open_low=True), Help("size of an octave by that of the one before it")
    ] = 1.4
    steps: Annotated[int, Range(1), Help("steps at each size")] = 10
    step_size: Annotated[
        float, Range(0, open_low=True), Help("mean change of a colour in a step")
    ] = 0.0075
    jitter: Annotated[
        int | None, Range(0), Help("most pixels to move before a step; none: a tile's side")
    ] = None
    tv: Annotated[float, Range(0), Help("how strongly to smooth (total variation)")] = 0.0
    frames: Annotated[int, Range(0), Help("every how many steps to keep a frame; 0: none")] = 0
    zoom_frames: Annotated[int, Range(0), Help("frames of a zoom into the dream to add")] = 0
    zoom: Annotated[
        float, Range(1, open_low=True), Help("size of a zoom's frame by that of the one before it")
    ] = 1.05
    seed: Annotated[int, Range(0), Help("of the moves and the noise")] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def inspect(self, subject: Subject) -> Findings:
        """Dream.

        Parameters
        ----------
        subject : Subject
            The network and its pictures; without any the dream begins with noise.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If the network does not look at pictures, or none of the pictures can be read.
        ParameterError
            If the size is smaller than the network's input, the layer has no such channel, or both
            a target and a layer or channel are asked for.
        TargetError
            If there are several targets, and not as many as pictures.
        UnknownLayerError
            If there is no such layer, or "auto" finds none with a spatial grid.
        """
        if len(subject.shape) != 3:
            raise ArrayError(
                f"the network's input has the shape {subject.shape}",
                "(H, W, C)",
                "dream of a network that looks at pictures",
            )
        tile = subject.shape[0], subject.shape[1]
        sizes = self._sizes(tile)
        x, names, asked = self._begin(subject)
        goals = self._goals(subject, x, asked)
        start = np.clip(resize(subject.space.to_colours(x), sizes[-1], "bicubic"), 0, 1)
        ascent = _Ascent(self, subject, goals, tile, sizes)
        octaves = ascent.octaves(start)
        dream = octaves[-1]
        ascent.zoom(dream)
        wanted = [" + ".join(map(str, goal)) for goal in zip(*goals, strict=True)]
        return Findings(
            arrays={
                "dream": dream,
                "start": start,
                **{f"octave {k}": octave for k, octave in enumerate(octaves, 1)},
                "history": np.moveaxis(np.array(ascent.history[: self.steps * len(sizes)]), 0, -1),
            },
            exhibits=_exhibits(start, octaves, names, wanted),
            facts={
                "pictures": list(names),
                "objective": wanted,
                "octaves": [list(size) for size in sizes],
                "tiles a step": [_tiles(size, tile) for size in sizes],
                "seed": self.seed,
            },
            title=f"Dreams of {subject.name}: {', '.join(dict.fromkeys(wanted))}",
            frames=tuple(ascent.frames),
        )

    def _sizes(self, tile: tuple[int, int]) -> list[tuple[int, int]]:
        """Give (height, width) of the picture at each octave, from the smallest on."""
        longest = max(tile)
        if self.size is not None and self.size < longest:
            raise ParameterError(
                f"a dream of size={self.size} is smaller than the network's input, "
                f"{tile[0]} x {tile[1]}",
                f"a longer side of at least {longest} pixels",
                f"pass size={2 * longest}, or leave it out",
            )
        powers = [self.octave_scale**k for k in range(self.octaves)]
        if self.size is not None:
            # The tolerance is for a size that was found as the powers were.
            downwards = [self.size / longest / power for power in powers]
            powers = [factor for factor in reversed(downwards) if factor >= 1 - 1e-9]
        return [(round(tile[0] * factor), round(tile[1] * factor)) for factor in powers]

    def _begin(self, subject: Subject) -> tuple[Array, Sequence[str], Sequence[Target]]:
        """Give what to begin with, at the network's input size, its names, and its targets."""
        n, targets = len(subject.pictures), subject.targets
        if not n:
            waves = Fourier((subject.shape[0], subject.shape[1], subject.space.colours))
            dtype = next(iter(subject.model.inputs.values())).dtype
            noise = waves.value(waves.noise(np.random.default_rng(self.seed), 1, _NOISE, dtype))
            dreams = max(1, len(targets))
            return subject.space.to_input(np.repeat(noise, dreams, 0)), ["noise"] * dreams, targets
        if len(targets) not in (0, 1, n):
            raise TargetError(
                f"{len(targets)} targets were given for {n} pictures",
                "one target for each picture, or one alone",
                "pass one target, or a list as long as the pictures",
            )
        batch = subject.pictures.all()
        names = [subject.pictures.names[i] for i in batch.indices]
        return batch.x, names, [each for i in batch.indices if (each := subject.target(i))]

    def _goals(self, subject: Subject, x: Array, asked: Sequence[Target]) -> list[_Goal]:
        """Give what is to grow: one goal for each layer, or that of the targets."""
        if not asked:
            layers = _layers(subject, self.layer, x)
            return [(Objective.of(self._energy(info)),) * len(x) for info in layers]
        if self.layer != AUTO or self.channel is not None:
            raise ParameterError(
                "both a target and a layer or channel were asked for",
                "a target, whose score is to grow, or a layer",
                "leave one of them out",
            )
        targets = score(subject.model, x, asked).targets
        return [tuple(Objective.of(each, _called(each, subject)) for each in targets)]

    def _energy(self, info: LayerInfo) -> Target:
        """Give the mean square of a layer's values, or of its channel's."""
        if self.channel is None:
            return Energy(info.name)
        if self.channel >= info.shape[-1]:
            raise ParameterError(
                f"channel={self.channel} was asked for, and layer {info.name!r} has "
                f"{info.shape[-1]} channels",
                f"a channel from 0 to {info.shape[-1] - 1}",
                "count from 0",
            )
        return _ChannelEnergy(info.name, self.channel)


@dataclass(frozen=True)
class _ChannelEnergy:
    """The mean square of a channel."""

    of: str
    index: int

    def score(self, value: Array) -> float:
        return float(np.mean(np.square(value[..., self.index])))

    def gradient(self, value: Array) -> Array:
        gradient = np.zeros_like(value)
        seen = value[..., self.index]
        gradient[..., self.index] = 2 / seen.size * seen
        return gradient

    def resolve(self, value: Array) -> Target:
        return self

    def __str__(self) -> str:
        return f"{self.of}:{self.index}"


def _layers(subject: Subject, layer: str, x: Array) -> list[LayerInfo]:
    """Find the layers to excite."""
    if layer != AUTO:
        return resolve_layers(subject.model, layer, x)
    layers = layers_of(subject.model, x)
    return (stages(layers) or [auto_layer(layers)])[-2:][:1]


def _called(target: Target, subject: Subject) -> str:
    """Name a target, a class by its label."""
    return subject.label(target.index) if isinstance(target, ClassScore) else str(target)


class _Ascent:
    """The way of some pictures uphill."""

    def __init__(
        self,
        dream: Dream,
        subject: Subject,
        goals: Sequence[_Goal],
        tile: tuple[int, int],
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        self._dream, self._subject, self._goals = dream, subject, goals
        self._tile, self._sizes = tile, sizes
        self._rng = np.random.default_rng(dream.seed)
        self._total = dream.steps * (len(sizes) + dream.zoom_frames)
        self.history: list[Array] = []
        self.frames: list[Array] = []

    def octaves(self, start: Array) -> list[Array]:
        """Dream at one size after another, and give the dream at the end of each."""
        if self._dream.frames:
            self._keep(start)
        found: list[Array] = []
        before = start
        for size in self._sizes:
            base = resize(start, size, antialias=True)
            added = resize(found[-1] - before, size) if found else 0
            found.append(self._climb(np.clip(base + added, 0, 1), self._dream.frames))
            before = base
        if self._dream.frames and len(self.history) % self._dream.frames:
            self._keep(found[-1])
        return found

    def zoom(self, dream: Array) -> None:
        """Come nearer and dream on, and keep a frame each time."""
        height, width = dream.shape[1:3]
        for _ in range(self._dream.zoom_frames):
            h, w = round(height * self._dream.zoom), round(width * self._dream.zoom)
            top, left = (h - height) // 2, (w - width) // 2
            nearer = resize(dream, (h, w))[:, top : top + height, left : left + width]
            dream = self._climb(nearer, 0)
            self._keep(dream)

    def _climb(self, pictures: Array, every: int) -> Array:
        """Take the steps of one size."""
        for _ in range(self._dream.steps):
            pictures = self._step(pictures)
            if every and len(self.history) % every == 0:
                self._keep(pictures)
        return pictures

    def _keep(self, pictures: Array) -> None:
        """Keep a frame: the pictures side by side, at the final size."""
        shown = as_pixels(resize(pictures, self._sizes[-1]))
        self.frames.append(mosaic(list(shown), columns=len(shown)))

    def _step(self, pictures: Array) -> Array:
        """Go uphill once."""
        jitter = self._dream.jitter
        down, right = self._rng.integers(self._tile if jitter is None else jitter + 1, size=2)
        shift = int(down), int(right)
        found = [self._gradient(goal, pictures, shift) for goal in self._goals]
        self.history.append(np.stack([scores for _, scores in found], axis=-1))
        uphill = np.mean([_unit(gradient) for gradient, _ in found], axis=0)
        if self._dream.tv:
            uphill = uphill - self._dream.tv * TotalVariation().gradient(pictures)
        advance("dream", len(self.history), self._total)
        return np.clip(pictures + self._dream.step_size * uphill, 0, 1).astype(pictures.dtype)

    def _gradient(
        self, goal: _Goal, pictures: Array, shift: tuple[int, int]
    ) -> tuple[Array, Array]:
        """Give a goal's gradient (N, H, W, K) by the colours, and its scores (N,)."""
        subject = self._subject
        tiles = cut(pictures, self._tile, shift)
        wanted = [each for each in goal for _ in range(len(tiles) // len(pictures))]
        parts = []
        for first in range(0, len(tiles), subject.batch_size):
            some = slice(first, first + subject.batch_size)
            parts.append(pull(subject.model, subject.space.to_input(tiles[some]), wanted[some]))
        gradient = subject.space.pulled(np.concatenate([part.gradient for part in parts]))
        scores = np.concatenate([part.scores for part in parts])
        return (
            join(gradient, pictures.shape, shift),
            scores.reshape(len(pictures), -1).mean(1),
        )


def cut(pictures: Array, tile: tuple[int, int], shift: tuple[int, int]) -> Array:
    """Cut pictures into tiles that cover them.

    Parameters
    ----------
    pictures : ndarray (N, H, W, K)
        At least as large as a tile.
    tile : tuple of int
        (height, width) of a tile.
    shift : tuple of int
        How many pixels down and to the right the first tile lies.

    Returns
    -------
    ndarray (N * n, h, w, K)
        The n tiles of the first picture row by row, then those of the others.  Pictures go on
        beyond their edge with what is on the other side.
    """
    rolled = np.roll(pictures, (-shift[0], -shift[1]), axis=(1, 2))
    down, across = (-(-side // step) for side, step in zip(rolled.shape[1:3], tile, strict=True))
    more = (down * tile[0] - rolled.shape[1], across * tile[1] - rolled.shape[2])
    wrapped = np.pad(rolled, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="wrap")
    blocks = wrapped.reshape(len(pictures), down, tile[0], across, tile[1], -1)
    return blocks.swapaxes(2, 3).reshape(-1, *tile, pictures.shape[-1])


def join(tiles: Array, shape: Sequence[int], shift: tuple[int, int]) -> Array:
    """Put tiles together to pictures: the inverse of `cut`.

    Parameters
    ----------
    tiles : ndarray (N * n, h, w, K)
        What `cut` gave, or something of its shape, such as a gradient.
    shape : sequence of int
        (N, H, W, K) of the pictures.
    shift : tuple of int
        What was passed to `cut`.

    Returns
    -------
    ndarray (N, H, W, K)
        Every pixel of one tile; what tiles have beyond the pictures' edges is left out.
    """
    n, height, width, k = shape
    h, w = tiles.shape[1:3]
    blocks = tiles.reshape(n, -(-height // h), -(-width // w), h, w, k).swapaxes(2, 3)
    whole = blocks.reshape(n, blocks.shape[1] * h, -1, k)[:, :height, :width]
    return np.roll(whole, shift, axis=(1, 2))


def _tiles(size: tuple[int, int], tile: tuple[int, int]) -> int:
    """Count the tiles that cover a picture."""
    return -(-size[0] // tile[0]) * -(-size[1] // tile[1])


def _unit(gradient: Array) -> Array:
    """Divide the gradient of each picture by its mean absolute value; zeros stay."""
    mean = np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
    return gradient / np.where(mean > 0, mean, 1)


def _exhibits(
    start: Array, octaves: Sequence[Array], names: Sequence[str], wanted: Sequence[str]
) -> tuple[Gallery, ...]:
    """Show the dreams beside what they began with, and how they grew."""
    pairs = tuple(
        (
            Tile(as_pixels(before), caption=name),
            Tile(
                as_pixels(after),
                caption=f"a dream of {goal}"
                if not np.array_equal(before, after)
                else f"unchanged: nothing in it excites {goal}",
            ),
        )
        for before, after, name, goal in zip(start, octaves[-1], names, wanted, strict=True)
    )
    strip = tuple(
        tuple(
            Tile(as_pixels(octave[i]), caption=f"{octave.shape[1]} x {octave.shape[2]} pixels")
            for octave in octaves
        )
        for i in range(len(start))
    )
    return (
        Gallery(pairs, title="Before and after", side=448),
        Gallery(
            strip,
            title="Octave by octave",
            column_titles=tuple(f"octave {k}" for k in range(1, len(octaves) + 1)),
            row_titles=tuple(names),
        ),
    )
