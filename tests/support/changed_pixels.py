"""Networks and maps for metrics that change pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnviz_core.delegate import Delegate
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel


def case(name="plain", n=3, seed=5, dtype="float64"):
    """Give a small network, a batch for it, and maps of the batch's size."""
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    maps = np.random.default_rng(seed).normal(size=x.shape[:-1])
    return ReferenceModel(net, dtype), x.astype(dtype), maps


def linear(size, classes=2, channels=2, seed=0):
    """Give a linear network, and its weights (*size, channels, classes)."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(*size, channels, classes))
    flat = {"fc.weight": weights.reshape(-1, classes), "fc.bias": rng.normal(size=classes)}
    ops = (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",)))
    net = NetSpec({"image": (*size, channels)}, ops, flat, "linear")
    return ReferenceModel(net, "float64"), weights


class Constant(Delegate):
    """A model that says the same of everything."""

    def forward(self, x, **more):
        return super().forward(np.zeros_like(np.asarray(x)), **more)


class Blind(Delegate):
    """A model that ignores a part of each sample."""

    def __init__(self, model, ignored):
        super().__init__(model)
        self.ignored = ignored

    def forward(self, x, **more):
        seen = np.array(x)
        seen[:, self.ignored] = 0
        return super().forward(seen, **more)


class Counting(Delegate):
    """A model that counts the samples that it is given."""

    seen = 0

    def forward(self, x, **more):
        self.seen += len(x)
        return super().forward(x, **more)


@dataclass(frozen=True)
class NoMethod:
    """A method that is never asked."""

    needs = frozenset()

    def explain(self, model, x, targets):
        raise NotImplementedError


def explained(model, x, maps, targets=None, labels=None, **known):
    """Give samples with maps that are shown with their sign."""
    targets = targets or [ClassScore(0)] * len(x)
    made = Maps(maps, targets=tuple(targets), presentation=Presentation(sign="signed"))
    annotations = tuple(Annotation(label) for label in labels or [None] * len(x))
    return Explained(model, NoMethod(), x, made, annotations, **known)
