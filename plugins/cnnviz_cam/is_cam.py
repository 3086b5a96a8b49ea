"""IS-CAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.masking import View, channels_of, weigh_by_views
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target

__all__ = ["ISCAM"]


@dataclass(frozen=True)
class ISCAM:
    """Score-CAM with each score averaged on the way from the fill to the masked picture.

    With ``H_k`` the mask that Score-CAM makes of a feature map, the weights are the softmax over
    the channels of the mean, over ``i`` from 1 to ``steps``, of the score of
    ``(i / steps) * H_k * x``.  One step is Score-CAM.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    steps : int
        How many points on the way are averaged.
    channels : int or None
        How many channels to ask about, those that vary most; None is all.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        Where the way begins, in the network's own input range, and what is shown where a mask is
        0.  The paper multiplies, which is 0.
    batch_size : int or "auto"
        How many masked pictures go through the network at once; "auto" measures what pays.

    Notes
    -----
    The mean is the right Riemann sum of the score over the straight way.  Implementations that add
    ``i / steps`` to the last step's factor, as torchcam's does, leave that way: at ten steps they
    end at 5.5 times the masked picture.

    References
    ----------
    Naidu et al., "IS-CAM: integrated Score-CAM for axiomatic-based explanations", 2020.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    steps: Annotated[int, Range(1), Help("points averaged on the way to the masked picture")] = 10
    channels: Annotated[
        int | None, Range(1), Help("channels to ask about, those that vary most; none: all")
    ] = None
    fill: Annotated[
        Fill, Help("shown where a mask is 0: a value, mean, blur, noise, inpaint or an array")
    ] = 0.0
    batch_size: Annotated[
        BatchSize, Range(1), Help("masks that go through the network at once")
    ] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})

    def passes(self, model: Model, x: Array) -> int:
        """Count the forward passes for one sample.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.

        Returns
        -------
        int
            One for each channel and step, and one more.
        """
        return self.steps * channels_of(model, x, self.layer, self.channels) + 1

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
            With the raw map (N, h, w) at the layer's size, before its positive part is taken, and
            ``extras["weights"]`` (N, K), in [0, 1].

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        return weigh_by_views(
            model,
            x,
            targets,
            self._views,
            self.steps,
            layer=self.layer,
            channels=self.channels,
            batch_size=self.batch_size,
            what="is-cam",
        )

    def _views(self, picture: Array) -> Iterator[View]:
        """Give the points on the way, of which the last is the whole masked picture."""
        for i in range(1, self.steps + 1):
            yield View(picture, self.fill, share=i / self.steps)
