"""Activation maximisation: pictures made to excite a part of a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, auto_layer, layers_of, resolve_layer
from cnnviz_core.model import Array, LayerInfo
from cnnviz_core.optimisers import Adam, Optimiser, Plain
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import as_pixels
from cnnviz_core.scoring import score
from cnnviz_core.targets import ClassScore, Target
from cnnviz_features.synthesis.ascent import Climb
from cnnviz_features.synthesis.diversity import Diversity
from cnnviz_features.synthesis.objectives import Direction, Objective
from cnnviz_features.synthesis.parameterisation import Parameterisation, parameterisation
from cnnviz_features.synthesis.priors import L2, Prior, TotalVariation, weighted
from cnnviz_features.synthesis.reading import read_objective
from cnnviz_features.synthesis.showing import make
from cnnviz_features.synthesis.transformations import Jitter, Rotate, Scale, Transformation

__all__ = ["Maximisation"]

_PART: Final = re.compile(r"(?P<first>\d+)(?:\s*-\s*(?P<last>\d+))?")


@dataclass(frozen=True)
class Maximisation:
    """A picture made to excite a neuron, a channel, a direction of a layer, or a class.

    Beginning with faint noise, or with the subject's pictures, the picture climbs the gradient of
    its score.  Left to itself it would fill with fine noise that means nothing to a person; what
    keeps it legible is that it is made of waves in uncorrelated colours, which coarse shapes need
    fewer steps to change than fine ones, and that it is moved, scaled and turned at random before
    each look, so that only what survives that is of use.

    What to excite is the subject's target if there is one, else `objective`, else a layer's
    direction, channel or channels.

    Parameters
    ----------
    layer : str
        The layer of `direction`, `channel` and `channels`; "auto" is the last with a spatial grid.
    channel : int or None
        A channel of the layer: the mean over its positions is to grow.
    position : str
        "middle", or "row,column" on the layer's grid: only the channel's neuron there is to grow.
    channels : str
        Several channels of the layer, a picture for each: numbers and ranges, such as "0-8" or
        "3,17,40-43".  Only looked at where nothing else is asked for.
    direction : ndarray (C,) or None
        A vector with an entry for each channel of the layer, with which the values' inner product
        is to grow.
    cosine_power : float
        Of the cosine to `direction`, which its product is multiplied by; 0 leaves it out.
    objective : str
        What to excite in words: "layer:476" for a channel, "layer:476@7,7" for a neuron,
        "class:tabby" for a class, or sums such as "layer:465 + layer:460", "-layer:476" and
        "0.5*conv1:3 + tabby"; several objectives are separated by semicolons.
    parameterisation : {"fourier", "pixel"}
        What a picture is made of: waves, or pixels.
    decorrelate : bool
        Whether colours are mixed as in photographs, rather than red, green and blue each for
        itself; without effect on grey pictures.
    steps : int
        How many steps to take.
    step_size : float
        Of Adam: the change of each parameter in a step.  Of plain ascent: their root mean square
        change.
    optimiser : {"adam", "plain"}
        Whether steps are balanced by Adam, or go along the gradient, divided by its root mean
        square.
    jitter : float
        How far the picture is shifted at most, as a part of its side.
    scale : float
        How much larger or smaller it becomes at most, as a part of its size.
    rotate : float
        How far it is turned at most, in degrees.
    l2 : float
        The weight of the mean squared difference of the colours from middle grey, which is taken
        off the score.
    tv : float
        The weight of the mean total variation of the colours, which is taken off the score.
    restarts : int
        How many pictures to make of each objective, from different noise.
    diversity : float
        How much to keep the pictures of one objective apart, with several restarts: the weight, in
        the score's own unit, of the negative cosine similarity of their Gram matrices at the
        objective's layer (of a class, at the last layer with a spatial grid).  About half the score
        that is reached without it is a good choice.
    noise : float
        How strong the noise is that a picture begins with; beginning with a picture, that of the
        restarts after the first.
    frames : int
        Every how many steps to keep a frame of the animation; 0 keeps none.
    seed : int
        Of the noise and the transformations.  They do not depend on what is excited, so that a
        channel's picture is the same alone and among others.

    Notes
    -----
    With P rows, one for each objective (and each picture of the subject), and R restarts, there are
    ``N = P R`` pictures, the restarts of a row one after the other.  The findings have the arrays

    - "pictures" (N, H, W, K): the colours in [0, 1];
    - "scores" (S, N): the score before each of the S steps, of the pictures as they were moved;
    - "reached" (N,): the score of the finished pictures, not moved;
    - "probabilities" (N, classes): what the network says of them, where its answer is of classes.

    A rectified layer that a picture does not excite at all has no gradient.  Then the gradient of
    the values before its rectifier is taken, or, failing that, one that passes all rectifiers as if
    they were open; the facts say at how many steps.  So a channel with a minus is pressed on below
    0, as the values before the rectifier allow.

    References
    ----------
    Erhan et al., "Visualizing higher-layer features of a deep network", University of Montreal,
    2009; Olah et al., "Feature visualization", Distill 2017.
    """

    layer: Annotated[str, Help("layer to excite; auto: the last with a spatial grid")] = AUTO
    channel: Annotated[int | None, Range(0), Help("channel of the layer to excite")] = None
    position: Annotated[
        str, Help("neuron of the channel: row,column or middle; empty: the whole channel")
    ] = ""
    channels: Annotated[
        str, Help("channels of the layer, a picture for each, where nothing else is asked for")
    ] = "0-8"
    direction: Annotated[
        np.ndarray | None, Help("vector in the layer's channels along which to excite it")
    ] = None
    cosine_power: Annotated[
        float, Range(0), Help("power of the cosine to the direction; 0: only the product")
    ] = 0.0
    objective: Annotated[
        str, Help('what to excite, such as "layer:3 - tabby"; several separated by ;')
    ] = ""
    parameterisation: Annotated[
        Literal["fourier", "pixel"], Help("what a picture is made of: waves or pixels")
    ] = "fourier"
    decorrelate: Annotated[bool, Help("mix colours as in photographs")] = True
    steps: Annotated[int, Range(1), Help("how many steps to take")] = 192
    step_size: Annotated[
        float, Range(0, open_low=True), Help("change of the parameters in a step")
    ] = 0.05
    optimiser: Annotated[
        Literal["adam", "plain"], Help("balanced steps, or steps along the gradient")
    ] = "adam"
    jitter: Annotated[
        float, Range(0, 1), Help("most that the picture is shifted, as a part of its side")
    ] = 0.06
    scale: Annotated[
        float, Range(0, 1, open_high=True), Help("most that it grows or shrinks, as a part of it")
    ] = 0.1
    rotate: Annotated[float, Range(0, 180), Help("most that it is turned, in degrees")] = 10.0
    l2: Annotated[float, Range(0), Help("weight of the squared distance from grey")] = 0.0
    tv: Annotated[float, Range(0), Help("weight of the total variation")] = 0.0
    restarts: Annotated[int, Range(1), Help("pictures to make of each objective")] = 1
    diversity: Annotated[float, Range(0), Help("how much to keep restarts apart")] = 0.0
    noise: Annotated[float, Range(0), Help("strength of the noise at the start")] = 0.01
    frames: Annotated[
        int, Range(0), Help("every how many steps to keep a frame of the animation; 0: none")
    ] = 0
    seed: Annotated[int, Range(0), Help("of the noise and the transformations")] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def inspect(self, subject: Subject) -> Findings:
        """Make the pictures.

        Parameters
        ----------
        subject : Subject
            The network; its pictures, if any, are what to begin with, and its targets what to
            excite.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If the network does not look at pictures, or none of the pictures can be read.
        ParameterError
            If a channel does not exist, a text cannot be read, or several things are asked for that
            exclude each other.
        TargetError
            If a target or objective does not fit the network.
        UnknownLayerError
            If there is no such layer.
        """
        if len(subject.shape) != 3:
            raise ArrayError(
                f"the network's input has the shape {subject.shape}",
                "(H, W, C)",
                "use a network that looks at pictures",
            )
        dtype = next(iter(subject.model.inputs.values())).dtype
        made_of = parameterisation(
            self.parameterisation,
            (*subject.shape[:2], subject.space.colours),
            decorrelate=self.decorrelate,
        )
        begin = _Begin.of(subject, dtype)
        rows = self._rows(subject, begin)
        noise, moves = np.random.SeedSequence(self.seed).spawn(2)
        start = self._start(made_of, rows, np.random.default_rng(noise), dtype)
        climb = Climb(
            subject.model,
            subject.space,
            tuple(objective for objective, _ in rows for _ in range(self.restarts)),
            made_of,
            self._transformations(subject.shape),
            self._priors(made_of.shape),
            self._diversity(subject, rows, begin.x),
        )
        made = make(
            climb,
            start,
            self._optimiser(),
            self.steps,
            subject=subject,
            restarts=self.restarts,
            seed=moves,
            every=self.frames,
        )
        made = replace(made, begun=tuple(as_pixels(c) for _, c in rows if c is not None))
        return Findings(
            arrays=made.arrays,
            exhibits=(made.gallery(), made.curves()),
            facts={**made.facts, "seed": self.seed},
            title=self._title(subject, rows),
            frames=made.animation,
        )

    # ------------------------------------------------------------------------ what to excite

    def _rows(self, subject: Subject, begin: _Begin) -> list[_Row]:
        """Give each row's objective, and what it begins with."""
        if begin.targets:
            self._alone("a target", *self._asked())
            named = [Objective.of(t, _called(t, subject)) for t in begin.targets]
            begun = [None] * len(named) if begin.colours is None else begin.colours
            return list(zip(named, begun, strict=True))
        pictures = [None] if begin.colours is None else begin.colours
        wanted = self._objectives(subject, begin.x)
        return [(objective, picture) for objective in wanted for picture in pictures]

    def _asked(self) -> list[str]:
        """Name the parameters that say what to excite."""
        named = {
            "objective": self.objective != "",
            "direction": self.direction is not None,
            "channel": self.channel is not None,
            "channels": self.channels != type(self).channels,
            "position": self.position != "",
            "layer": self.layer != AUTO,
        }
        return [name for name, given in named.items() if given]

    @staticmethod
    def _alone(what: str, *others: str) -> None:
        """Check that only one thing is asked for."""
        if others:
            raise ParameterError(
                f"both {what} and {others[0]} say what to excite",
                "one of them",
                f"leave {others[0]} out",
            )

    def _objectives(self, subject: Subject, x: Array) -> list[Objective]:
        """Read the objectives from the parameters."""
        if self.objective:
            self._alone("objective", *[name for name in self._asked() if name != "objective"])
            texts = [text for text in self.objective.split(";") if text.strip()]
            return [read_objective(t, subject.model, x, subject.labels) for t in texts or [""]]
        info = resolve_layer(subject.model, self.layer, x)
        if self.direction is not None:
            self._alone("direction", *[n for n in self._asked() if n not in ("direction", "layer")])
            return [Objective.of(Direction(info.name, self.direction, self.cosine_power))]
        at = f"@{self.position}" if self.position else ""
        return [
            read_objective(f"{info.name}:{channel}{at}", subject.model, x)
            for channel in self._channels(info)
        ]

    def _channels(self, info: LayerInfo) -> list[int]:
        """Give the channels that are asked for."""
        if self.channel is not None:
            return [self.channel]
        found: list[int] = []
        for part in self.channels.split(","):
            read = _PART.fullmatch(part.strip())
            if read is None:
                raise ParameterError(
                    f"channels={self.channels!r} cannot be read",
                    "numbers and ranges, separated by commas",
                    'pass channels="0-8" or channels="3,17,40"',
                )
            found += range(int(read["first"]), int(read["last"] or read["first"]) + 1)
        default = self.channels == type(self).channels
        return [k for k in found if k < info.shape[-1]] if default else found

    # ------------------------------------------------------------------------ how it climbs

    def _start(
        self, made_of: Parameterisation, rows: Sequence[_Row], rng: np.random.Generator, dtype: str
    ) -> Array:
        """Give the parameters to begin with, one after the other for the restarts of each row."""
        noise = made_of.noise(rng, self.restarts, self.noise, dtype)
        if rows[0][1] is None:
            return np.concatenate([noise] * len(rows))
        noise[0] = 0
        pictures = made_of.parameters(np.stack([c for _, c in rows if c is not None]))
        return np.concatenate([picture + noise for picture in pictures])

    def _optimiser(self) -> Optimiser:
        """Give what makes steps of gradients."""
        if self.optimiser == "adam":
            return Adam(self.step_size)
        return Plain(self.step_size, normalise=True)

    def _transformations(self, shape: tuple[int, int, int]) -> tuple[Transformation, ...]:
        """Give what moves the pictures before each look."""
        shift = round(self.jitter * min(shape[:2]))
        moves: list[Transformation] = []
        if shift:
            moves.append(Jitter(shift))
        if self.scale:
            moves.append(Scale(1 - self.scale, 1 + self.scale))
        if self.rotate:
            moves.append(Rotate(self.rotate))
        return tuple(moves)

    def _priors(self, shape: tuple[int, int, int]) -> tuple[tuple[float, Prior], ...]:
        """Give the penalties, as means over the values of a picture."""
        values = float(np.prod(shape))
        return weighted((self.l2 / values, L2()), (self.tv / values, TotalVariation()))

    def _diversity(self, subject: Subject, rows: Sequence[_Row], x: Array) -> Diversity | None:
        """Give what keeps restarts apart: at the objective's layer, of a class at the last grid."""
        if not self.diversity or self.restarts == 1:
            return None
        layers = layers_of(subject.model, x)
        nodes = {node for objective, _ in rows for node in objective.nodes}
        own = nodes.pop() if len(nodes) == 1 else ""
        node = own if own in layers and layers[own].grid else auto_layer(layers).name
        return Diversity(node, self.restarts, self.diversity)

    def _title(self, subject: Subject, rows: Sequence[_Row]) -> str:
        """Say in a line what the pictures are."""
        names = list(dict.fromkeys(str(objective) for objective, _ in rows))
        named = ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
        return f"What excites {subject.name}: {named}"


_Row = tuple[Objective, Array | None]
"""What the pictures of a row are to excite, and the colours (H, W, K) that they begin with."""


@dataclass(frozen=True, eq=False)
class _Begin:
    """What there is before the first step.

    Attributes
    ----------
    x : ndarray (N, H, W, C)
        The pictures, or one of middle grey.
    colours : ndarray (N, H, W, K), or None
        The colours of the pictures; None where there are none.
    targets : tuple of Target
        What was asked for, resolved: one for each picture, if there are any; perhaps none.
    """

    x: Array
    colours: Array | None
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, subject: Subject, dtype: str) -> _Begin:
        """Read the pictures and the targets of a subject."""
        if not len(subject.pictures):
            size = (*subject.shape[:2], subject.space.colours)
            x = subject.space.to_input(np.full((1, *size), 0.5, dtype))
            alike = np.repeat(x, len(subject.targets), 0)
            return cls(x, None, _resolved(subject, alike, subject.targets))
        batch = subject.pictures.all()
        if len(subject.targets) not in (0, 1, len(subject.pictures)):
            raise TargetError(
                f"{len(subject.targets)} targets were given for {len(subject.pictures)} pictures",
                "one target for each picture, or one alone",
                "pass one target, or a list as long as the pictures",
            )
        asked = [target for i in batch.indices if (target := subject.target(i)) is not None]
        colours = np.clip(subject.space.to_colours(batch.x), 0, 1).astype(dtype)
        return cls(batch.x, colours, _resolved(subject, batch.x, asked))


def _resolved(subject: Subject, x: Array, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Fix what depends on the pictures, such as which class is predicted."""
    return score(subject.model, x, targets).targets if targets else ()


def _called(target: Target, subject: Subject) -> str:
    """Name a target, a class by its label."""
    return subject.label(target.index) if isinstance(target, ClassScore) else str(target)
