"""One network and one batch, with which cnnviz and every peer do the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

import cnnviz
from benchmarks.work import Work
from cnnviz import Network
from cnnviz_core.explainer import Explainer, passes_of
from cnnviz_core.fast import MANY
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore

CLASS = 281
"""The class that is explained, of 1000."""

LOW, HIGH = -2.2, 2.7
"""Between which the values of a picture are."""

Way: TypeAlias = Callable[[], object]
"""Does all of it once."""

Ways: TypeAlias = Mapping[str, Callable[[], Way]]
"""What a peer can do, by the names of our methods: each is made ready before the clock starts."""


@dataclass(frozen=True)
class Case:
    """One network and one batch.

    Attributes
    ----------
    name : str
        The network's name.
    native : object
        The framework's own network.
    network : Network
        The same as `cnnviz.wrap` gives it.
    layer, middle : str
        The layer for class activation maps, and one in the middle of the network.
    x : ndarray (N, H, W, 3)
        The batch.
    tensor : object
        The same as the framework takes it.
    forward : callable
        A plain forward pass of the batch, without gradients (TensorFlow: traced).
    work : Work
        How much is done by methods that ask many times.
    classes : tuple of int
        What is asked of one picture where several classes are.
    """

    name: str
    native: Any
    network: Network
    layer: str
    middle: str
    x: Array
    tensor: Any
    forward: Way = field(repr=False)
    work: Work
    classes: tuple[int, ...] = (CLASS,)

    @property
    def model(self) -> Model:
        """What our explainers work on."""
        return self.network.model

    def explainer(self, method: str, **params: Any) -> Explainer:
        """Make one of our methods, which looks at `layer` if it looks at one.

        Parameters
        ----------
        method : str
            Its name in the registry.
        **params
            Its parameters.

        Returns
        -------
        Explainer
        """
        if self._looks_at_one(method):
            params = {"layer": self.layer, **params}
        return get_registry().explainer(method, **params)

    def ours(self, method: str, **params: Any) -> Way:
        """Explain `CLASS` on the batch by one of our methods; see `explainer`.

        A method of many passes is run by `cnnviz.explain`, which prepares for them; of others only
        the explainer is, since what `explain` does besides, such as making maps of the picture's
        size, would count.
        """
        if self.passes(method, **params) >= MANY:
            layer = self.layer if self._looks_at_one(method) else AUTO
            how = {"target": CLASS, "layer": layer, "preprocessed": True, **params}
            return lambda: cnnviz.explain(self.network, self.x, method, **how)
        explainer = self.explainer(method, **params)
        targets = [ClassScore(CLASS)] * len(self.x)
        return lambda: explainer.explain(self.model, self.x, targets)

    def passes(self, method: str, **params: Any) -> int:
        """Tell how many forward passes one of our methods says it takes; see `explainer`."""
        return passes_of(self.explainer(method, **params), self.model, self.x)

    def _looks_at_one(self, method: str) -> bool:
        """Tell whether a method looks at one layer."""
        known = {parameter.name for parameter in get_registry().parameters(method)}
        return "layer" in known and method not in ("layer-fusion", "lrp")


def picture(batch: int, side: int) -> Array:
    """Draw a batch of noise, the same each time.

    Parameters
    ----------
    batch, side : int
        How many pictures, and their height and width.

    Returns
    -------
    ndarray (batch, side, side, 3)
        float32.
    """
    drawn = np.random.default_rng(0).uniform(LOW, HIGH, (batch, side, side, 3))
    return drawn.astype(np.float32)
