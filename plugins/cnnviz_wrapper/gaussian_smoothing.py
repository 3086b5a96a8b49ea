"""Gaussian smoothing: a method's map, averaged over the neighbourhood of each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from cnnviz_core.blurring import blurred
from cnnviz_core.explainer import Maps, passes_of, present
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target
from cnnviz_wrapper.wrapping import Wrapper

__all__ = ["GaussianSmoothing"]


@dataclass(frozen=True)
class GaussianSmoothing(Wrapper):
    """Gaussian smoothing of a method's map, which makes regions of grains.

    A gradient is large at single pixels.  No box fits around these, and the hottest of them is one
    of many; smoothed, the map says where many of them lie together.

    Smoothed is the map that the inner method shows, at the sample's size.  With ``raw`` its own
    result,

    1. the channels are reduced, as by the largest magnitude in `saliency`, and the sign is treated:
       magnitudes or positive parts where the method shows these, signed values where it does not;
    2. the map is brought to the sample's size, as the method's own is;
    3. and convolved along each spatial axis with a Gaussian of the standard deviation
       ``sigma max(size)`` pixels, cut off at 4 standard deviations and of the sum 1.

    Beyond its edges the map is mirrored, the outermost value twice, so that its sum stays what it
    was.  Magnitudes are taken before they are smoothed: signed values of a gradient would cancel
    out.

    Parameters
    ----------
    of : str
        The inner method: its name, or its name and parameters.
    layer : str
        The layer that the inner method looks at, if it looks at one.
    batch_size : int
        How many samples go through the network at once, in an inner method that asks often.
    sigma : float
        The Gaussian's standard deviation, as a share of the sample's longest side; 0 changes
        nothing.

    References
    ----------
    Simonyan et al., "Deep inside convolutional networks: visualising image classification models
    and saliency maps", ICLR workshop 2014, section 3.1, for the magnitude of the gradient.
    Fong et al., "Understanding deep networks via extremal perturbations and smooth masks", ICCV
    2019: their library, TorchRay, smooths so, with the map's outermost value beyond its edges.
    """

    sigma: Annotated[
        float, Range(0, 1), Help("standard deviation, as a share of the longest side")
    ] = 0.02

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
            With the raw map (N, H, W), or (N, ...size), signed if the inner method shows the sign
            and nowhere negative if not.

        Raises
        ------
        CnnvizError
            As the inner method does.
        """
        maps = self.inner.explain(model, x, targets)
        size = x.shape[1:-1]
        shown, _ = present(maps.raw, size, maps.presentation)
        # A value that is not finite spreads, and is told of when the map is shown.
        with np.errstate(invalid="ignore"):
            smooth = blurred(shown[..., None], self.sigma * max(size))[..., 0]
        how = maps.presentation
        return replace(
            maps,
            raw=smooth.astype(maps.raw.dtype, copy=False),
            presentation=how if how.sign == "signed" else replace(how, sign="positive"),
            terms=None,
        )
