"""Maps of one's own making, with what is known of the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.targets import ClassScore


class Written:
    """A network of K classes whose scores stand in the first pixel of K channels of the input."""

    framework, capabilities, classes = "written", frozenset(), 6

    def forward(self, x):
        return SimpleNamespace(logits=x[:, 0, 0, : self.classes])


@dataclass(frozen=True)
class Drawn:
    """A method whose maps stand in the channels of the input after the scores."""

    class_agnostic: bool = False
    needs = frozenset()

    def explain(self, model, x, targets):
        maps = [sample[..., model.classes + t.index] for sample, t in zip(x, targets, strict=True)]
        return Maps(np.stack(maps), targets=tuple(targets))


def explained(maps, annotations, size=None, *, presentation=None, **known):
    """Give maps (N, h, w) of an input of a size, as one method has made them."""
    maps = np.asarray(maps, dtype=np.float64)
    made = Maps(
        maps,
        targets=tuple(ClassScore(a.label or 0) for a in annotations),
        presentation=presentation or Presentation(),
    )
    x = np.zeros((len(maps), *(size or maps.shape[1:]), 1), np.float32)
    return Explained(Written(), Drawn(), x, made, tuple(annotations), **known)


def boxed(*boxes, **known):
    """Annotate a picture with boxes."""
    return Annotation(boxes=np.array(boxes, np.float64).reshape(-1, 4), **known)


def rows(records, chosen):
    """Choose rows of records."""
    return {name: np.asarray(values)[chosen] for name, values in records.items()}
