"""DeepDream: a picture in which a network sees more of what it sees in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.exhibits import Gallery, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, auto_layer, layers_of, resolve_layers, stages
from cnnviz_core.maps.resize import Interpolation, resize
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
_LUMINANCE: Final = (0.299, 0.587, 0.114)
"""The share of red, green and blue in grey: that of ITU-R BT.601, as Pillow has it."""
_ROUNDING: Final = 1e-9
"""By how much sizes may differ that are the same but for how they were computed."""


@dataclass(frozen=True, eq=False)
class _Begun:
    """What a dream begins with, and what is to grow in it.

    Attributes
    ----------
    name : str
        What the picture is called.
    start : ndarray (H, W, K)
        Its colours, at the size of the dream.
    sizes : list of tuple of int
        (height, width) of each octave, from the smallest on.
    goals : tuple of Objective
        One for each layer, or that of the target.
    """

    name: str
    start: Array
    sizes: list[tuple[int, int]]
    goals: tuple[Objective, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.goals))


@dataclass(frozen=True)
class Dream:
    """A picture that excites a layer more and more.

    Beginning with a picture, every step adds to it the gradient of an objective, by the colours of
    its pixels, divided by its mean absolute value and times `step_size`.  The objective is the mean
    square of a layer's values: whatever the layer sees in the picture, it is to see more of.  Where
    a target is asked for it is the target's score instead.

    Of several layers the divided gradients are averaged, so that each has the same say.

    The dream is of the whole picture as it came, with its own details and ratio of sides, not of
    what is cut out of it for the network.  Where there is only the prepared picture, it is of that.

    It is dreamed at several sizes (octaves), from the smallest on that covers the network's input.
    What the dream of one size added is enlarged and added to the picture at the next size, so that
    the picture's own details come back at every size, and structures of all sizes grow.

    A network takes one size of input; a larger picture is cut into tiles of that size, at another
    place at every step (the picture is moved around, what leaves it on one side coming back on the
    other, so that no seam stays).

    Parameters
    ----------
    layer : str
        The layer, or several, separated by commas; "auto" is the last layer of the last resolution
        but one, where networks see parts of things: eyes, wheels, leaves.
    channel : int or None
        The channel of the layer whose values are to grow; None is all of them.
    size : int or None
        The longer side of the dreams in pixels, so that they cover the network's input; None is as
        large as the octaves make it, the smallest of which just covers the network's input.
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
        keeps none.  Of several pictures the first is animated.
    zoom_frames : int
        How many frames to add in which the first dream comes nearer and is dreamed on at its last
        size, as in the famous videos; each takes `steps` steps.
    zoom : float
        The size of a frame of the zoom, divided by that of the one before it.
    seed : int
        Of the moves, and of the noise where there is no picture.

    Notes
    -----
    Where the subject has no picture, the dream begins with noise of the size of the network's
    input; there is one dream for each target, or one alone.  A network for grey pictures dreams of
    a picture's luminance.

    Pictures may be of different sizes, so each has arrays of its own, which begin with its number,
    from 1 on: "1/dream", "2/dream" and so on.  These are

    - "dream" (H, W, K): the dream's colours in [0, 1];
    - "start" (H, W, K): what it began with, at the same size;
    - "octave 1", "octave 2" and so on (h, w, K): the dream at the end of each size;
    - "history" (L, T): the objective before each step of all sizes, for each layer: the mean over
      the tiles of its mean square, or of the target's score, where L is 1.

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
            If a dream of this size is smaller than the network's input, the layer has no such
            channel, or both a target and a layer or channel are asked for.
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
        begun = self._begin(subject, tile)
        sizes = [each.sizes for each in begun]
        total = self.steps * (sum(map(len, sizes)) + self.zoom_frames)
        done = count(1)
        ascents = [
            _Ascent(self, subject, each, tile, lambda: advance("dream", next(done), total))
            for each in begun
        ]
        arrays: dict[str, Array] = {}
        dreams = []
        for number, (each, ascent) in enumerate(zip(begun, ascents, strict=True), 1):
            octaves = ascent.octaves(animated=self.frames > 0 and number == 1)
            arrays |= {
                f"{number}/dream": octaves[-1],
                f"{number}/start": each.start,
                **{f"{number}/octave {k}": octave for k, octave in enumerate(octaves, 1)},
                f"{number}/history": np.array(ascent.history).T,
            }
            dreams.append(octaves)
        ascents[0].zoom(dreams[0][-1])
        wanted = list(map(str, begun))
        return Findings(
            arrays=arrays,
            exhibits=_exhibits(begun, dreams),
            facts={
                "pictures": [each.name for each in begun],
                "objective": wanted,
                "octaves": [list(map(list, each)) for each in sizes],
                "tiles a step": [[_tiles(size, tile) for size in each] for each in sizes],
                "seed": self.seed,
            },
            title=f"Dreams of {subject.name}: {', '.join(dict.fromkeys(wanted))}",
            frames=tuple(ascents[0].frames),
        )

    def _begin(self, subject: Subject, tile: tuple[int, int]) -> list[_Begun]:
        """Give what each dream begins with."""
        n, targets = len(subject.pictures), subject.targets
        bases: Iterator[Array]
        if n:
            if len(targets) not in (0, 1, n):
                raise TargetError(
                    f"{len(targets)} targets were given for {n} pictures",
                    "one target for each picture, or one alone",
                    "pass one target, or a list as long as the pictures",
                )
            batch = subject.pictures.all()
            x, names = batch.x, [subject.pictures.names[i] for i in batch.indices]
            asked = [each for i in batch.indices if (each := subject.target(i))]
            # One after the other: as they came, pictures may be large.
            prepared = zip(batch.indices, batch.x, strict=True)
            bases = (_colours(subject, index, one) for index, one in prepared)
        else:
            noise = self._noise(subject, tile).repeat(max(1, len(targets)), axis=0)
            x, names, asked = subject.space.to_input(noise), ["noise"] * len(noise), list(targets)
            bases = iter(noise)
        begun = []
        for name, base, goals in zip(names, bases, self._goals(subject, x, asked), strict=True):
            sizes = self._sizes(name, (base.shape[0], base.shape[1]), tile)
            start = np.clip(_resized(base, sizes[-1], "bicubic"), 0, 1)
            begun.append(_Begun(name, start, sizes, goals))
        return begun

    def _noise(self, subject: Subject, tile: tuple[int, int]) -> Array:
        """Give the colours (1, h, w, K) of a picture of noise."""
        waves = Fourier((*tile, subject.space.colours))
        dtype = next(iter(subject.model.inputs.values())).dtype
        return waves.value(waves.noise(np.random.default_rng(self.seed), 1, _NOISE, dtype))

    def _sizes(
        self, name: str, picture: tuple[int, int], tile: tuple[int, int]
    ) -> list[tuple[int, int]]:
        """Give (height, width) of a picture at each octave, from the smallest on."""
        longest = max(picture)
        # The picture is enlarged or shrunk by this to cover the network's input, and no more.
        least = max(tile[0] / picture[0], tile[1] / picture[1])
        smallest = math.ceil(least * longest - _ROUNDING)
        if self.size is None:
            factors = [least * self.octave_scale**k for k in range(self.octaves)]
        elif self.size < smallest:
            raise ParameterError(
                f"a dream of {name} of size={self.size} is smaller than the network's input, "
                f"{tile[0]} x {tile[1]}",
                f"a longer side of at least {smallest} pixels",
                f"pass size={2 * smallest}, or leave it out",
            )
        else:
            downwards = [self.size / longest / self.octave_scale**k for k in range(self.octaves)]
            factors = [
                factor for factor in reversed(downwards) if factor >= least * (1 - _ROUNDING)
            ]
        return [(round(picture[0] * factor), round(picture[1] * factor)) for factor in factors]

    def _goals(
        self, subject: Subject, x: Array, asked: Sequence[Target]
    ) -> list[tuple[Objective, ...]]:
        """Give what is to grow in each picture: a goal for each layer, or that of its target."""
        if not asked:
            layers = _layers(subject, self.layer, x)
            return [tuple(Objective.of(self._energy(info)) for info in layers)] * len(x)
        if self.layer != AUTO or self.channel is not None:
            raise ParameterError(
                "both a target and a layer or channel were asked for",
                "a target, whose score is to grow, or a layer",
                "leave one of them out",
            )
        targets = score(subject.model, x, asked).targets
        return [(Objective.of(each, _called(each, subject)),) for each in targets]

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


def _colours(subject: Subject, index: int, prepared: Array) -> Array:
    """Give the colours (H, W, K) of a picture as it came, or else of the prepared one."""
    original = subject.pictures.original(index)
    if original is None or subject.space.colours not in (1, 3):
        return subject.space.to_colours(prepared)
    colours = (original / 255).astype(prepared.dtype)
    if subject.space.colours == 3:
        return colours
    return (colours @ np.array(_LUMINANCE, colours.dtype))[..., None]


def _resized(picture: Array, size: tuple[int, int], method: Interpolation = "bilinear") -> Array:
    """Resize a picture (H, W, K), without the patterns that fine detail makes in a small one."""
    (resized,) = resize(picture[None], size, method, antialias=True)
    return resized


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
    """The way of a picture uphill."""

    def __init__(
        self,
        dream: Dream,
        subject: Subject,
        begun: _Begun,
        tile: tuple[int, int],
        tell: Callable[[], None],
    ) -> None:
        self._dream, self._subject, self._begun = dream, subject, begun
        self._tile, self._tell = tile, tell
        self._rng = np.random.default_rng(dream.seed)
        self.history: list[list[float]] = []
        self.frames: list[Array] = []

    def octaves(self, *, animated: bool) -> list[Array]:
        """Dream at one size after another, and give the dream at the end of each."""
        start, every = self._begun.start, self._dream.frames if animated else 0
        if every:
            self._keep(start)
        found: list[Array] = []
        before = start
        for size in self._begun.sizes:
            base = _resized(start, size)
            added = _resized(found[-1] - before, size) if found else 0
            found.append(self._climb(np.clip(base + added, 0, 1), every))
            before = base
        if every and len(self.history) % every:
            self._keep(found[-1])
        return found

    def zoom(self, dream: Array) -> None:
        """Come nearer and dream on, and keep a frame each time."""
        height, width = dream.shape[:2]
        for _ in range(self._dream.zoom_frames):
            h, w = round(height * self._dream.zoom), round(width * self._dream.zoom)
            top, left = (h - height) // 2, (w - width) // 2
            nearer = _resized(dream, (h, w))[top : top + height, left : left + width]
            dream = self._climb(nearer, 0)
            self._keep(dream)

    def _climb(self, picture: Array, every: int) -> Array:
        """Take the steps of one size."""
        for _ in range(self._dream.steps):
            picture = self._step(picture)
            if every and len(self.history) % every == 0:
                self._keep(picture)
        return picture

    def _keep(self, picture: Array) -> None:
        """Keep a frame: the picture at its final size."""
        self.frames.append(as_pixels(_resized(picture, self._begun.sizes[-1])))

    def _step(self, picture: Array) -> Array:
        """Go uphill once."""
        jitter = self._dream.jitter
        down, right = self._rng.integers(self._tile if jitter is None else jitter + 1, size=2)
        shift = int(down), int(right)
        found = [self._gradient(goal, picture, shift) for goal in self._begun.goals]
        self.history.append([score for _, score in found])
        uphill = np.mean([_unit(gradient) for gradient, _ in found], axis=0)
        if self._dream.tv:
            uphill = uphill - self._dream.tv * TotalVariation().gradient(picture[None])[0]
        self._tell()
        return np.clip(picture + self._dream.step_size * uphill, 0, 1).astype(picture.dtype)

    def _gradient(
        self, goal: Objective, picture: Array, shift: tuple[int, int]
    ) -> tuple[Array, float]:
        """Give a goal's gradient (H, W, K) by the colours, and its mean over the tiles."""
        subject = self._subject
        tiles = cut(picture, self._tile, shift)
        parts = []
        for first in range(0, len(tiles), subject.batch_size):
            x = subject.space.to_input(tiles[first : first + subject.batch_size])
            parts.append(pull(subject.model, x, [goal] * len(x)))
        gradient = subject.space.pulled(np.concatenate([part.gradient for part in parts]))
        scores = np.concatenate([part.scores for part in parts])
        return join(gradient, picture.shape, shift), scores.mean()


def cut(picture: Array, tile: tuple[int, int], shift: tuple[int, int]) -> Array:
    """Cut a picture into tiles that cover it.

    Parameters
    ----------
    picture : ndarray (H, W, K)
        At least as large as a tile.
    tile : tuple of int
        (height, width) of a tile.
    shift : tuple of int
        How many pixels down and to the right the first tile lies.

    Returns
    -------
    ndarray (n, h, w, K)
        The tiles row by row.  The picture goes on beyond its edge with what is on the other side.
    """
    rolled = np.roll(picture, (-shift[0], -shift[1]), axis=(0, 1))
    down, across = (-(-side // step) for side, step in zip(rolled.shape[:2], tile, strict=True))
    more = (down * tile[0] - rolled.shape[0], across * tile[1] - rolled.shape[1])
    wrapped = np.pad(rolled, ((0, more[0]), (0, more[1]), (0, 0)), mode="wrap")
    blocks = wrapped.reshape(down, tile[0], across, tile[1], -1)
    return blocks.swapaxes(1, 2).reshape(-1, *tile, picture.shape[-1])


def join(tiles: Array, shape: Sequence[int], shift: tuple[int, int]) -> Array:
    """Put tiles together to a picture: the inverse of `cut`.

    Parameters
    ----------
    tiles : ndarray (n, h, w, K)
        What `cut` gave, or something of its shape, such as a gradient.
    shape : sequence of int
        (H, W, K) of the picture.
    shift : tuple of int
        What was passed to `cut`.

    Returns
    -------
    ndarray (H, W, K)
        Every pixel of one tile; what tiles have beyond the picture's edges is left out.
    """
    height, width, k = shape
    h, w = tiles.shape[1:3]
    blocks = tiles.reshape(-(-height // h), -(-width // w), h, w, k).swapaxes(1, 2)
    whole = blocks.reshape(blocks.shape[0] * h, -1, k)[:height, :width]
    return np.roll(whole, shift, axis=(0, 1))


def _tiles(size: tuple[int, int], tile: tuple[int, int]) -> int:
    """Count the tiles that cover a picture."""
    return -(-size[0] // tile[0]) * -(-size[1] // tile[1])


def _unit(gradient: Array) -> Array:
    """Divide a gradient by its mean absolute value; zeros stay."""
    mean = np.abs(gradient).mean()
    return gradient / mean if mean > 0 else gradient


def _exhibits(begun: Sequence[_Begun], dreams: Sequence[Sequence[Array]]) -> tuple[Gallery, ...]:
    """Show the dreams beside what they began with, and how they grew."""
    pairs = tuple(
        (
            Tile(as_pixels(each.start), caption=each.name),
            Tile(
                as_pixels(octaves[-1]),
                caption=f"a dream of {each}"
                if not np.array_equal(each.start, octaves[-1])
                else f"unchanged: nothing in it excites {each}",
            ),
        )
        for each, octaves in zip(begun, dreams, strict=True)
    )
    strip = tuple(
        tuple(
            Tile(as_pixels(octave), caption=f"{octave.shape[0]} x {octave.shape[1]} pixels")
            for octave in octaves
        )
        for octaves in dreams
    )
    return (
        Gallery(pairs, title="Before and after", side=560),
        Gallery(
            strip,
            title="Octave by octave",
            column_titles=tuple(f"octave {k}" for k in range(1, max(map(len, strip)) + 1)),
            row_titles=tuple(each.name for each in begun),
        ),
    )
