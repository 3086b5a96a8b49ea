"""Feature inversion: a picture made anew from what a layer keeps of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Curves, Gallery, Line, Tile, mosaic
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, resolve_layers
from cnnviz_core.model import Array
from cnnviz_core.optimisers import Adam
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import as_pixels
from cnnviz_features.synthesis.ascent import Climb, ascend
from cnnviz_features.synthesis.objectives import Distance, Objective
from cnnviz_features.synthesis.parameterisation import Parameterisation, parameterisation
from cnnviz_features.synthesis.priors import AlphaNorm, Prior, TotalVariation

__all__ = ["Inversion"]

_START: Final = 0.01
"""How strong the noise is that every picture begins with, in parameters."""


@dataclass(frozen=True)
class Inversion:
    """Pictures that a layer cannot tell from the given ones, as far as can be found.

    Beginning with faint noise, a picture ``c`` is sought that makes the sum of

    - ``|f(c) - f(c0)|^2 / |f(c0)|^2``,
    - ``norm`` times the mean of ``|2 c - 1|^alpha``, and
    - ``tv`` times the mean of ``(d^2 + r^2)^(beta / 2)``

    as small as can be, where ``f`` gives the values of a layer, ``c0`` is the given picture, and
    ``d`` and ``r`` are the differences of a colour to that of the pixel below and at the right; the
    means go over all pixels and colours.  What comes back is what the layer keeps: between it and
    the given picture the layer sees hardly a difference.  Layer by layer one sees what is lost.

    Parameters
    ----------
    layer : str
        The layer, or several, separated by commas, each inverted by itself; "auto" is the last of
        each resolution.
    steps : int
        Steps of the optimiser, Adam.
    rate : float
        Its learning rate.
    tv : float
        How much it costs not to be smooth.
    beta : float
        The power of the slopes; 2 blurs edges, 1 does not.
    norm : float
        How much it costs to be far from grey.
    alpha : float
        The power of the distance from grey.
    parameterisation : {"fourier", "pixel"}
        Whether the steps are made in waves, which finds coarse shapes first, or in single pixels,
        as in the paper.
    restarts : int
        How many times to begin, with other noise; the one with the least error is kept.
    seed : int
        Of the noise, which is the same for all pictures and layers.
    frames : int
        Every how many steps to keep a frame of the animation, besides the start and the end; 0
        keeps none.

    Notes
    -----
    The findings have the arrays, for L layers in forward order, N pictures and S steps,

    - "picture" (N, H, W, K): the given pictures' colours;
    - "inverted" (L, N, H, W, K): what was found, colours in [0, 1];
    - "error" (L, N): ``|f(c) - f(c0)| / |f(c0)|`` of what was found;
    - "history" (L, N, S): the same before each step;
    - "psnr" (L, N): the peak signal-to-noise ratio of what was found to the picture, in dB;
    - "correlation" (L, N): the correlation of their colours, in [-1, 1]; 0 where one of them is of
      one colour.

    The search for a deep layer is long, and may stop short of what the layer keeps: where the error
    is large and still falls, more steps show more.

    The colours are kept in [0, 1] by a sigmoid, which the paper leaves to the norm; its steps are
    those of gradient descent with momentum.

    References
    ----------
    Mahendran & Vedaldi, "Understanding deep image representations by inverting them", CVPR 2015,
    equations 1 to 5; with alpha = 6 and beta = 2.
    """

    layer: Annotated[
        str, Help("layer, or several, separated by commas; auto: the last of each resolution")
    ] = AUTO
    steps: Annotated[int, Range(1), Help("steps of the optimiser")] = 200
    rate: Annotated[float, Range(0, open_low=True), Help("learning rate")] = 0.05
    tv: Annotated[float, Range(0), Help("cost of not being smooth")] = 3.0
    beta: Annotated[float, Range(1), Help("power of the slopes")] = 2.0
    norm: Annotated[float, Range(0), Help("cost of being far from grey")] = 0.01
    alpha: Annotated[float, Range(1, open_low=True), Help("power of the distance from grey")] = 6.0
    parameterisation: Annotated[
        Literal["fourier", "pixel"], Help("whether steps are made in waves or in single pixels")
    ] = "fourier"
    restarts: Annotated[int, Range(1), Help("how many times to begin; the best is kept")] = 1
    seed: Annotated[int, Range(0), Help("of the noise to begin with")] = 0
    frames: Annotated[int, Range(0), Help("every how many steps to keep a frame; 0: none")] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def inspect(self, subject: Subject) -> Findings:
        """Invert.

        Parameters
        ----------
        subject : Subject
            The network and its pictures.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If the network does not look at pictures, or there is none that can be read.
        TargetError
            If a layer's values are all zero for a picture.
        UnknownLayerError
            If there is no such layer, or "auto" finds none with a spatial grid.
        """
        if len(subject.shape) != 3:
            raise ArrayError(
                f"the network's input has the shape {subject.shape}",
                "(H, W, C)",
                "invert a network that looks at pictures",
            )
        batch = subject.pictures.all()
        names = [subject.pictures.names[i] for i in batch.indices]
        layers = [info.name for info in resolve_layers(subject.model, self.layer, batch.x)]
        found = [self._inverted(subject, layer, batch.x) for layer in layers]
        picture = np.clip(subject.space.to_colours(batch.x), 0, 1)
        inverted = np.stack([each.colours for each in found])
        error = np.stack([each.error for each in found])
        arrays = {
            "picture": picture,
            "inverted": inverted,
            "error": error,
            "history": np.stack([each.history for each in found]),
            "psnr": _psnr(inverted, picture),
            "correlation": _correlation(inverted, picture),
        }
        return Findings(
            arrays=arrays,
            exhibits=(
                _gallery(picture, inverted, error, names, layers),
                _curves(arrays["history"], layers),
            ),
            facts={
                "layers": layers,
                "pictures": names,
                "error": error.tolist(),
                "psnr": arrays["psnr"].tolist(),
                "correlation": arrays["correlation"].tolist(),
                "seed": self.seed,
            },
            title=f"What the layers of {subject.name} keep",
            frames=_side_by_side([each.frames for each in found]),
        )

    def _inverted(self, subject: Subject, layer: str, x: Array) -> _Inverted:
        """Invert one layer."""
        tries = np.repeat(x, self.restarts, axis=0)
        rng = np.random.default_rng(self.seed)
        made_of = parameterisation(
            self.parameterisation, (x.shape[1], x.shape[2], subject.space.colours)
        )
        noise = made_of.noise(rng, self.restarts, _START, x.dtype.name)
        starts = np.concatenate([noise] * len(x))
        parts = [
            self._climbed(subject, layer, tries[some], made_of, starts[some])
            for first in range(0, len(tries), subject.batch_size)
            for some in [slice(first, first + subject.batch_size)]
        ]
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        errors = found[1].reshape(len(x), self.restarts)
        best = np.arange(len(x)) * self.restarts + errors.argmin(1)
        return _Inverted(*(each[best] for each in found))

    def _climbed(
        self,
        subject: Subject,
        layer: str,
        x: Array,
        made_of: Parameterisation,
        start: Array,
    ) -> _Inverted:
        """Invert one layer for some pictures, from one beginning each."""
        given = subject.model.forward(x, capture=(layer,))[layer]
        distances = [Distance(layer, value) for value in given]
        climb = Climb(
            subject.model,
            subject.space,
            tuple(-Objective.of(distance) for distance in distances),
            made_of,
            priors=self._priors(made_of.shape),
        )
        ascended = ascend(
            climb,
            start,
            Adam(self.rate),
            self.steps,
            rng=np.random.default_rng(self.seed),
            every=self.frames,
            what=f"inversion of {layer}",
        )
        seen = subject.model.forward(subject.space.to_input(ascended.colours), capture=(layer,))
        error = [
            distance.score(value) for distance, value in zip(distances, seen[layer], strict=True)
        ]
        frames = [frame for _, frame in ascended.frames]
        return _Inverted(
            ascended.colours,
            np.sqrt(np.array(error, dtype=x.dtype)),
            np.sqrt(-ascended.scores.T),
            np.stack(frames, axis=1) if frames else np.empty((len(x), 0)),
        )

    def _priors(self, shape: tuple[int, int, int]) -> tuple[tuple[float, Prior], ...]:
        """Give the penalties with weights that make means of their sums."""
        n = math.prod(shape)
        priors = (
            # The norm is of 2 c - 1, twice the distance from grey.
            (self.norm * 2**self.alpha / n, AlphaNorm(self.alpha)),
            (self.tv / n, TotalVariation(self.beta)),
        )
        return tuple((weight, prior) for weight, prior in priors if weight)


class _Inverted(NamedTuple):
    """What was found for one layer and n pictures.

    Colours (n, H, W, K), errors (n,) and their history (n, S), frames (n, F, H, W, 3).
    """

    colours: Array
    error: Array
    history: Array
    frames: Array


def _psnr(inverted: Array, picture: Array) -> Array:
    """Give the peak signal-to-noise ratio of colours in [0, 1], in dB; finite also of equals."""
    square = np.square(inverted - picture).mean((2, 3, 4))
    ratio: Array = -10 * np.log10(np.maximum(square, np.finfo(square.dtype).tiny))
    return ratio


def _correlation(inverted: Array, picture: Array) -> Array:
    """Correlate the colours of pictures; 0 where one is of a single colour."""
    a = inverted - inverted.mean((2, 3, 4), keepdims=True)
    b = picture - picture.mean((1, 2, 3), keepdims=True)
    size = np.sqrt(np.square(a).sum((2, 3, 4)) * np.square(b).sum((1, 2, 3)))
    return np.divide((a * b).sum((2, 3, 4)), size, out=np.zeros_like(size), where=size > 0)


def _gallery(
    picture: Array, inverted: Array, error: Array, names: Sequence[str], layers: Sequence[str]
) -> Gallery:
    """Show each picture, and what comes back from each layer."""
    rows = tuple(
        (
            Tile(as_pixels(picture[i]), caption=name),
            *(
                Tile(as_pixels(inverted[k, i]), caption=f"error {100 * error[k, i]:.2g} %")
                for k in range(len(layers))
            ),
        )
        for i, name in enumerate(names)
    )
    return Gallery(
        rows,
        title="What comes back from each layer",
        column_titles=("the picture", *layers),
        note="error: the distance of the layer's values from those of the picture, by their length",
    )


def _curves(history: Array, layers: Sequence[str]) -> Curves:
    """Show how the error of each layer fell: the mean over the pictures, and their spread."""
    percent = 100 * history
    return Curves(
        np.arange(history.shape[-1]),
        tuple(
            Line(layer, each.mean(0), each.std(0) if len(each) > 1 else None)
            for layer, each in zip(layers, percent, strict=True)
        ),
        title="The way there",
        x_title="steps",
        y_title="error in %",
    )


def _side_by_side(frames: Sequence[Array]) -> tuple[Array, ...]:
    """Make an animation: a row for each picture, a column for each layer."""
    pictures, n = frames[0].shape[:2]
    return tuple(
        mosaic([each[i, k] for i in range(pictures) for each in frames], columns=len(frames))
        for k in range(n)
    )
