"""What happens in a network as a patch covers a picture place by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.exhibits import Gallery, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, on_grid, resolve_layer
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.progress import advance
from cnnviz_core.targets import ClassProbability, ClassScore, Predicted, Target, probabilities
from cnnviz_core.windows import Windows

__all__ = ["OcclusionAnalysis"]

_SIDE: Final = 224
"""About how many pixels wide a map is drawn."""


@dataclass(frozen=True)
class OcclusionAnalysis:
    """How a class's probability, the answer, and the strongest feature fare under a sliding patch.

    A square patch slides over the picture, and at each of its positions the network looks at what
    is left.  Three things are noted: the sum over all positions of the feature map that is the
    strongest of its layer on the whole picture, the probability of the class, and which class is
    the most probable.  Where covering an object lowers both the activation and the probability, the
    network knows the class by the object and not by its surroundings.

    Each map is shown over the picture: a pixel has the colour of the patch whose middle is nearest.
    Activation and probability are shown relative to the largest of their map.

    Parameters
    ----------
    layer : str
        The layer whose feature map is followed; "auto" is the last one with a spatial grid.
    channel : int or None
        The feature map; None is the one with the largest sum over the whole picture.
    window : int or None
        Side of the patch, in pixels of the network's input; None is a seventh of the picture's
        shorter side (32 of 224).
    stride : int or None
        Step of the patch in pixels; None is a quarter of the patch.
    fill : float, "grey" or "mean"
        What the patch shows: a value in the network's own input range, the grey halfway from black
        to white, or the picture's mean colour.

    Notes
    -----
    The arrays of the findings, for N pictures and patches in R rows and C columns:

    - "positions" (R, C, 4): where the patches are, (x0, y0, x1, y1), half-open, in pixels.
    - "activation" (N, R, C): the sum of the feature map under each patch.
    - "probability" (N, R, C): the class's probability under each patch; its score where the
      network's scores are no probabilities.
    - "predicted" (N, R, C): the most probable class.
    - "drop" (N, H, W): by how much the patches that cover a pixel lower the probability, on the
      average: the map of the occlusion method.
    - "features" (N, h, w): the feature map of the whole picture.
    - "whole" (N, 2): its sum, and the class's probability, on the whole picture.
    - "channels" (N,), "classes" (N,): which feature map and which class they are.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2
    and figure 7.
    """

    layer: Annotated[str, Help("a layer's name; auto: the last one with a spatial grid")] = AUTO
    channel: Annotated[
        int | None, Range(0), Help("the feature map to follow; none: the strongest one")
    ] = None
    window: Annotated[
        int | None, Range(1), Help("side of the patch in pixels; none: a seventh of the side")
    ] = None
    stride: Annotated[
        int | None, Range(1), Help("step of the patch in pixels; none: a quarter of the patch")
    ] = None
    fill: Annotated[
        float | Literal["grey", "mean"],
        Help("value shown by the patch, mid-grey, or the picture's mean colour"),
    ] = "grey"

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})

    def inspect(self, subject: Subject) -> Findings:
        """Cover the pictures, place by place.

        Parameters
        ----------
        subject : Subject
            The network, the pictures, and the classes asked for; the predicted ones if none are.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If there is no picture, or the network looks at signals or volumes.
        UnknownLayerError
            If there is no such layer, or it has no spatial grid.
        ParameterError
            If the layer has no such channel, or the stride is larger than the window.
        TargetError
            If a target is no class, or the network does not give one score for each class.
        """
        batch = subject.pictures.all()
        if batch.x.ndim != 4:
            raise ArrayError(
                f"a batch of the shape {batch.x.shape} was given",
                "pictures (N, H, W, C)",
                "use the method occlusion for signals and volumes",
            )
        info = resolve_layer(subject.model, self.layer, batch.x)
        windows = Windows.over(batch.x.shape[1:3], self.window, self.stride)
        n = len(batch.x)
        studies = [
            self._study(subject, info, windows, i, x, f"occlusion analysis, picture {k} of {n}")
            for k, (i, x) in enumerate(zip(batch.indices, batch.x, strict=True), 1)
        ]
        arrays = {
            "positions": np.array(
                [(x.start, y.start, x.stop, y.stop) for y, x in windows], dtype=np.int64
            ).reshape(*windows.grid, 4),
            "activation": np.stack([study.activation for study in studies]),
            "probability": np.stack([study.probability for study in studies]),
            "predicted": np.stack([study.predicted for study in studies]),
            "drop": np.stack([study.drop(windows) for study in studies]),
            "features": np.stack([study.features for study in studies]),
            "whole": np.array([study.whole for study in studies], dtype=studies[0].features.dtype),
            "channels": np.array([study.channel for study in studies]),
            "classes": np.array([study.asked for study in studies]),
        }
        patch = [part[0].stop - part[0].start for part in windows.along]
        facts = {
            "layer": info.name,
            "patch": patch,
            "pictures": [study.facts(subject) for study in studies],
        }
        likely = subject.model.activation != "none"
        gallery = Gallery(
            tuple(study.tiles(subject, windows, likely) for study in studies),
            f"Under a patch of {patch[0]} x {patch[1]} pixels at {len(windows)} places",
            column_titles=(
                "picture",
                "strongest feature map" if self.channel is None else "feature map",
                "its activation under the patch",
                "probability of the class" if likely else "score of the class",
                "most probable class",
            ),
            note=f"Feature maps of {info.name}. A pixel has the colour of the patch whose middle "
            "is nearest; activation and probability are relative to the largest of the map.",
            side=_SIDE,
        )
        return Findings(arrays, (gallery,), facts, f"Occlusion analysis of {subject.name}")

    def _study(
        self, subject: Subject, info: LayerInfo, windows: Windows, i: int, x: Array, what: str
    ) -> _Study:
        """Look at one picture, whole and under every patch."""
        model = subject.model
        features, logits = _seen(model, x[None], info)
        asked = _class_of(subject.target(i), logits[0])
        channel = self._channel(features[0], info)
        activation, probability, predicted = [], [], []
        places = list(windows)
        for start in range(0, len(places), subject.batch_size):
            part = places[start : start + subject.batch_size]
            maps, scores = _seen(model, self._covered(x, part, subject.space), info)
            activation.append(maps[..., channel].sum((1, 2)))
            probability.append(probabilities(scores, model.activation)[:, asked])
            predicted.append(scores.argmax(-1))
            advance(what, start + len(part), len(places))
        return _Study(
            name=subject.pictures.names[i],
            x=x,
            channel=channel,
            asked=asked,
            features=features[0, ..., channel],
            whole=(
                float(features[0, ..., channel].sum()),
                float(probabilities(logits, model.activation)[0, asked]),
            ),
            activation=np.concatenate(activation).reshape(windows.grid),
            probability=np.concatenate(probability).reshape(windows.grid),
            predicted=np.concatenate(predicted).reshape(windows.grid),
        )

    def _channel(self, features: Array, info: LayerInfo) -> int:
        """Choose the feature map of (h, w, C) that is followed."""
        channels = features.shape[-1]
        if self.channel is None:
            return int(features.sum((0, 1)).argmax())
        if self.channel >= channels:
            raise ParameterError(
                f"channel={self.channel} is out of range",
                f"a channel from 0 to {channels - 1} of layer {info.name!r}",
                "count the channels from 0",
            )
        return self.channel

    def _covered(self, x: Array, places: list[tuple[slice, ...]], space: PixelSpace) -> Array:
        """Give copies of a picture, each with the patch at another place."""
        if self.fill == "grey":
            fill = space.to_input(np.full(space.colours, 0.5))
        else:
            fill = x.mean((0, 1)) if self.fill == "mean" else np.asarray(self.fill)
        covered = np.repeat(x[None], len(places), axis=0)
        for picture, place in zip(covered, places, strict=True):
            picture[place] = fill
        return covered


@dataclass(frozen=True, eq=False)
class _Study:
    """What was found out on one picture (H, W, C) under patches in R rows and C columns."""

    name: str
    x: Array
    channel: int
    asked: int
    features: Array
    whole: tuple[float, float]
    activation: Array
    probability: Array
    predicted: Array

    def drop(self, windows: Windows) -> Array:
        """Give by how much the probability falls at each pixel, on the average."""
        whole = self.probability.dtype.type(self.whole[1])
        return windows.mean((whole - self.probability).reshape(1, -1))[0]

    def answers(self) -> list[tuple[int, float]]:
        """Give the classes that are the most probable somewhere, with their shares of places."""
        found, counts = np.unique(self.predicted, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(found[k]), float(counts[k] / self.predicted.size)) for k in order]

    def facts(self, subject: Subject) -> dict[str, Any]:
        """Say what was found out."""
        return {
            "picture": self.name,
            "class": self.asked,
            "label": subject.label(self.asked),
            "probability": self.whole[1],
            "channel": self.channel,
            "activation": self.whole[0],
            "answers": [
                {"class": index, "label": subject.label(index), "share": share}
                for index, share in self.answers()
            ],
        }

    def tiles(self, subject: Subject, windows: Windows, likely: bool) -> tuple[Tile, ...]:
        """Show it; whether the scores are probabilities decides on how they are written."""
        form = ".1%" if likely else ".4g"
        pixels = subject.space.pixels(self.x)
        asked, answers = subject.label(self.asked), self.answers()
        numbers = {index: k for k, (index, _) in enumerate(answers)}
        classes = np.vectorize(numbers.__getitem__)(self.predicted)
        often, share = answers[0]
        return (
            Tile(pixels, caption=f"{self.name}: {asked}, {self.whole[1]:{form}}"),
            _heat(pixels, self.features, f"map {self.channel}, sum {self.whole[0]:.4g}"),
            _heat(
                pixels,
                windows.spread(self.activation),
                f"sum from {self.activation.min():.4g} to {self.activation.max():.4g}",
            ),
            _heat(
                pixels,
                windows.spread(self.probability),
                f"{asked}: {self.probability.min():{form}} to {self.probability.max():{form}}",
            ),
            Tile(
                pixels,
                classes=windows.spread(classes),
                legend=tuple(subject.label(index) for index, _ in answers),
                caption=f"{subject.label(often)} at {share:.0%} of the places",
            ),
        )


def _heat(pixels: Array, values: Array, caption: str) -> Tile:
    """Show values over a picture, relative to the largest magnitude."""
    top = np.abs(values).max()
    signed = bool(values.min() < 0)
    return Tile(pixels, values / (top if top > 0 else 1), signed, caption=caption)


def _seen(model: Model, x: Array, info: LayerInfo) -> tuple[Array, Array]:
    """Give a layer's values on its grid, (N, h, w, C), and the scores."""
    trace = model.forward(x, capture=(info.name,))
    return on_grid(trace[info.name], info), trace.logits


def _class_of(target: Target | None, logits: Array) -> int:
    """Give the class that was asked for, or else the predicted one."""
    resolved = (target or Predicted()).resolve(logits)
    if not isinstance(resolved, ClassScore | ClassProbability):
        raise TargetError(
            f"the target is {resolved}",
            "a class, whose probability is followed",
            "name one, or leave the target out for the predicted class",
        )
    resolved.score(logits)  # raises where there is no such class
    return resolved.index
