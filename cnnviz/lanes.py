"""The models that one call runs: the network's own, and a faster one where much goes through it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cnnviz.network import Network
from cnnviz.samples import Sample
from cnnviz_core.explainer import Explainer, passes_of
from cnnviz_core.fast import MANY, prepared
from cnnviz_core.model import Model

__all__ = ["Lanes"]


@dataclass
class Lanes:
    """The models for the samples of one call, each made once.

    Attributes
    ----------
    network : Network
        The network.
    samples : int
        How many different samples there are; what several targets ask of one is mostly shared.
    """

    network: Network
    samples: int
    _own: dict[int, Model] = field(default_factory=dict, init=False)
    _fast: dict[int, Model] = field(default_factory=dict, init=False)

    def first(self, sample: Sample) -> Model:
        """Give the model that runs the samples themselves.

        Parameters
        ----------
        sample : Sample
            One of those that go through it together.

        Returns
        -------
        Model
        """
        return self._lane(sample, self.samples)

    def further(self, sample: Sample, explainer: Explainer) -> Model:
        """Give the model that runs the further inputs that a method makes.

        Parameters
        ----------
        sample : Sample
            One of those that the method explains together.
        explainer : Explainer
            The method.

        Returns
        -------
        Model
        """
        passes = passes_of(explainer, self.first(sample), sample.x[None])
        return self._lane(sample, passes * self.samples)

    def _lane(self, sample: Sample, samples: int) -> Model:
        """Give the model through which so many samples go."""
        held = id(sample.held)  # what other inputs are held at, by which samples are put together
        if held not in self._own:
            self._own[held] = sample.model(self.network)
        if samples < MANY:
            return self._own[held]
        if held not in self._fast:
            self._fast[held] = prepared(self._own[held], sample.x[None], samples)
        return self._fast[held]
