"""Finished pictures: climbing with many at once, and what is to be seen and said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cnnviz_core.exhibits import Curves, Gallery, Line, Tile, mosaic
from cnnviz_core.inspector import Subject
from cnnviz_core.layers import is_special
from cnnviz_core.model import Array
from cnnviz_core.optimisers import Optimiser
from cnnviz_core.pixels import as_pixels
from cnnviz_core.targets import ClassScore, probabilities
from cnnviz_features._sheets import sheet
from cnnviz_features.synthesis.ascent import Climb, ascend
from cnnviz_features.synthesis.objectives import Objective

__all__ = ["Made", "make"]

_CURVES: Final = 10
"""How many curves one can tell apart in a figure."""
_ALONG: Final = 6
"""How many frames of a picture have room along its curve."""


@dataclass(frozen=True, eq=False)
class Made:
    """Pictures that have climbed, row by row: the pictures of a row share an objective.

    Attributes
    ----------
    subject : Subject
        What they were made for.
    objectives : tuple of Objective
        One for each of the N pictures.
    restarts : int
        How many pictures a row has.
    colours : ndarray (N, H, W, K)
        In [0, 1].
    scores : ndarray (S, N)
        Before each step, of the pictures as they were moved.
    reached : ndarray (N,)
        The scores of the finished pictures, unmoved.
    probabilities : ndarray (N, classes), or None
        Of the finished pictures; None where the network's answer is not one of classes.
    shut, flat : ndarray (N,) of int
        At how many steps the score's own gradient was 0; and that from before rectifiers too.
    frames : tuple of (int, ndarray (N, H, W, 3) of uint8)
        After how many steps, and the pictures then.
    begun : tuple of (ndarray (H, W, 3) of uint8), optional
        What each row began with, where that is worth showing.
    """

    subject: Subject
    objectives: tuple[Objective, ...]
    restarts: int
    colours: Array
    scores: Array
    reached: Array
    probabilities: Array | None
    shut: Array
    flat: Array
    frames: tuple[tuple[int, Array], ...]
    begun: tuple[Array, ...] = ()

    @property
    def arrays(self) -> dict[str, Array]:
        """The numbers: "pictures", "scores", "reached" and, of classes, "probabilities"."""
        known = {} if self.probabilities is None else {"probabilities": self.probabilities}
        return {
            "pictures": self.colours,
            "scores": self.scores,
            "reached": self.reached,
            **known,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What there is to say, as JSON has it."""
        steps = len(self.scores)
        return {
            "objectives": [str(objective) for objective in self.objectives],
            "scores": [float(score) for score in self.reached],
            "steps": steps,
            "steps without a gradient of the score": self.shut.tolist(),
            "pictures without any gradient": np.flatnonzero(self.flat == steps).tolist(),
        }

    @property
    def animation(self) -> tuple[Array, ...]:
        """The frames, each with all pictures, a row of them in a row."""
        columns = self.restarts if self.restarts > 1 else None
        return tuple(mosaic(list(pictures), columns, gap=2) for _, pictures in self.frames)

    def gallery(self) -> Gallery:
        """Show the pictures.

        Returns
        -------
        Gallery
            One row for each objective where it has several pictures.
        """
        tiles = [Tile(as_pixels(c), caption=self._caption(i)) for i, c in enumerate(self.colours)]
        note = self._without()
        if self.restarts == 1 and not self.begun:
            side = 256 if len(tiles) == 1 else 192
            return Gallery(sheet(tiles), note=note, side=side)
        rows = [tiles[i : i + self.restarts] for i in range(0, len(tiles), self.restarts)]
        if self.begun:
            begun = [Tile(pixels, caption="the start") for pixels in self.begun]
            rows = [[first, *row] for first, row in zip(begun, rows, strict=True)]
        return Gallery(tuple(map(tuple, rows)), note=note)

    def curves(self) -> Curves:
        """Show how the scores rose, with the frames of a picture that is alone.

        Returns
        -------
        Curves
            One for each picture, of the first ones where there are many.
        """
        named = [f"{objective}" for objective in self.objectives]
        if self.restarts > 1:
            named = [f"{name}, {i % self.restarts + 1}" for i, name in enumerate(named)]
        chosen = range(min(len(named), _CURVES))
        shown = np.linspace(0, len(self.frames) - 1, _ALONG).round().astype(int)
        alone = len(named) == 1 and len(self.frames) > 0
        along = [self.frames[k] for k in dict.fromkeys(shown.tolist())] if alone else []
        return Curves(
            np.arange(len(self.scores)),
            tuple(Line(named[i], self.scores[:, i]) for i in chosen),
            title="The score while climbing"
            + (f", first {_CURVES} of {len(named)} pictures" if len(named) > _CURVES else ""),
            x_title="steps",
            y_title="score",
            pictures=tuple(
                (float(step), Tile(pictures[0], caption=f"{step} steps"))
                for step, pictures in along
            ),
        )

    def _caption(self, i: int) -> str:
        """Say what a picture is of, what it scores, and how sure the network is of a class."""
        objective = self.objectives[i]
        said = f"{objective}\nscore {self.reached[i]:.3g}"
        (_, target), *others = objective.terms
        if self.probabilities is None or others or not isinstance(target, ClassScore):
            return said
        known = self.probabilities[i]
        best = int(known.argmax())
        said += f", {known[target.index]:.1%}"
        if best == target.index:
            return said
        return f"{said}\nseen as {self.subject.label(best)}, {known[best]:.1%}"

    def _without(self) -> str:
        """Tell of pictures that never had a gradient."""
        stuck = int(np.sum(self.flat == len(self.scores)))
        return f"{stuck} of {len(self.flat)} pictures excite nothing and stayed" if stuck else ""


def make(
    climb: Climb,
    parameters: Array,
    optimiser: Optimiser,
    steps: int,
    *,
    subject: Subject,
    restarts: int = 1,
    seed: np.random.SeedSequence,
    settle: Callable[[Array], Array] | None = None,
    every: int = 0,
    what: str = "maximisation",
) -> Made:
    """Climb with many pictures, as many at once as the subject allows.

    Parameters
    ----------
    climb : Climb
        What is climbed; its objectives are those of all pictures.
    parameters : ndarray (N, ...)
        Where it starts.
    optimiser : Optimiser
        How steps are made.
    steps : int
        How many.
    subject : Subject
        Its `batch_size` is kept to, unless a row has more pictures.
    restarts : int
        How many pictures a row has; they stay together.
    seed : numpy.random.SeedSequence
        Of the transformations, which are the same for all pictures.
    settle : callable, optional
        What is done to the parameters after each step.
    every : int
        Every how many steps to keep a frame; 0 for none.
    what : str
        What the work is called in its progress.

    Returns
    -------
    Made
    """
    n = len(parameters)
    how: dict[str, Any] = {"settle": settle, "every": every}
    size = max(1, subject.batch_size // restarts) * restarts
    parts, reached, logits = [], [], []
    for first in range(0, n, size):
        chosen = slice(first, min(first + size, n))
        part = replace(climb, objectives=climb.objectives[chosen])
        told = what if n <= size else f"{what}, pictures {first + 1} to {chosen.stop} of {n}"
        rng = np.random.default_rng(seed)
        parts.append(ascend(part, parameters[chosen], optimiser, steps, rng=rng, what=told, **how))
        score, logit = _looked_at(part, parts[-1].colours)
        reached.append(score)
        logits.append(logit)
    return Made(
        subject,
        climb.objectives,
        restarts,
        np.concatenate([part.colours for part in parts]),
        np.concatenate([part.scores for part in parts], axis=1),
        np.concatenate(reached),
        _probabilities(np.concatenate(logits), climb.model.activation),
        np.concatenate([part.shut.sum(0) for part in parts]),
        np.concatenate([part.flat.sum(0) for part in parts]),
        tuple(
            (frames[0][0], np.concatenate([pictures for _, pictures in frames]))
            for frames in zip(*(part.frames for part in parts), strict=True)
        ),
    )


def _looked_at(climb: Climb, colours: Array) -> tuple[Array, Array]:
    """Give the scores of finished pictures, and the network's logits."""
    nodes = {node for objective in climb.objectives for node in objective.nodes}
    captured = [node for node in sorted(nodes) if not is_special(node)]
    trace = climb.model.forward(climb.space.to_input(colours), capture=captured)
    scores = [
        sum(objective.score(node, trace[node][i]) for node in objective.nodes)
        for i, objective in enumerate(climb.objectives)
    ]
    return np.array(scores, dtype=colours.dtype), trace.logits


def _probabilities(logits: Array, activation: str) -> Array | None:
    """Give the classes' probabilities, where there are any."""
    if logits.ndim != 2 or activation not in ("softmax", "sigmoid"):
        return None
    return probabilities(logits, activation)
