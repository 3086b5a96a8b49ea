"""Eigen-smoothing: the first principal component of the terms that a map is the sum of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Maps, passes_of
from cnnviz_core.maps.principal import project
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target
from cnnviz_wrapper.wrapping import Wrapper

__all__ = ["EigenSmoothing"]


@dataclass(frozen=True)
class EigenSmoothing(Wrapper):
    """First principal component of the terms of a method's map.

    A class activation map is a sum over channels, ``raw[p] = sum_k T[p, k]`` with p the position,
    such as ``T[p, k] = a_k A_k[p]`` in Grad-CAM.  With ``T = U S V^t``, the raw map is ``T v``,
    where ``v`` is the first right singular vector: the weighting of the terms, of length 1, under
    which the map has most energy.  Structure that few channels share is lost with the other
    components.

    The sign of a component is arbitrary; here it is the one for which the map's inner product with
    the inner method's own, ``sum_p raw[p] sum_k T[p, k]``, is positive: the two correlate
    positively.

    Of attributions to input values the terms are the sample's channels, (N, ...size, C).

    Parameters
    ----------
    of : str
        The inner method: its name, or its name and parameters.  Its map must be a sum of terms:
        one that weights feature maps, or attributes to input values.
    layer : str
        The layer that the inner method looks at, if it looks at one.
    batch_size : int
        How many samples go through the network at once, in an inner method that asks often.
    centre : bool
        Whether each term's mean over the positions is taken off first.  The map's mean is then 0.

    References
    ----------
    Gildenblat et al., "PyTorch library for CAM methods", 2021, ``eigen_smooth``, which centres and
    leaves the sign to chance.
    Muhammad and Yeasin, "Eigen-CAM: class activation map using principal components", IJCNN 2020,
    for feature maps that are not weighted.
    """

    centre: Annotated[bool, Help("take each term's mean over the positions off first")] = True

    def passes(self, model: Model, x: Array) -> int:
        """Say how much work one sample takes.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, ...)
            The batch.

        Returns
        -------
        int
            In forward passes: as many as the inner method.
        """
        return passes_of(self.inner, model, x)

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw map (N, ...grid), signed, or (N, ...size) of attributions to input values.
            ``extras["explained"]`` (N,) is the component's share of the terms' sum of squares, in
            [0, 1].

        Raises
        ------
        ParameterError
            If the inner method's map is not a sum of terms.
        CnnvizError
            As the inner method does.
        """
        maps = self.inner.explain(model, x, targets)
        if maps.terms is not None:
            terms = maps.terms()
        elif maps.raw.ndim == x.ndim:
            terms = maps.raw
        else:
            raise ParameterError(
                f"the map of {self.of} is not a sum of terms",
                "a method that weights feature maps, such as grad-cam, or that attributes to input "
                "values, such as saliency",
                "name another method; to smooth copies of one, put eigen-smoothing inside, as in "
                "noise-tunnel(of=eigen-smoothing)",
            )
        found = project(terms, centre=self.centre)
        return replace(
            maps,
            raw=found.maps.astype(maps.raw.dtype, copy=False),
            extras={"explained": found.shares},
            terms=found.terms,
        )
