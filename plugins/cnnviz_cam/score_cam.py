"""Score-CAM, and Faster Score-CAM."""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["ScoreCAM"]


@dataclass(frozen=True)
class ScoreCAM:
    """Feature maps weighted by the score of the picture seen through each of them.

    A feature map ``A_k`` of the layer is upsampled bilinearly to the picture's size and brought to
    [0, 1] by its least and its largest value, which gives the mask ``H_k``; a constant one gives a
    mask of zeros.  With ``y`` the target's score, the weights are the softmax over the channels of
    ``y(H_k * x) - y(baseline)``, and the raw map is ``sum_k w_k A_k``; its positive part is shown.
    The baseline's score is the same for all channels, so the softmax takes it away: it is never
    computed.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    channels : int or None
        How many channels to ask about; the others weigh nothing.  Those whose values vary most
        over the sample's positions are taken, as in Faster Score-CAM; None is all.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown where a mask is 0, in the network's own input range.  The paper multiplies,
        which is 0.
    batch_size : int or "auto"
        How many masked pictures go through the network at once; "auto" measures what pays.

    Notes
    -----
    Fewer channels change the softmax too, which then sums to 1 over those that are left.

    References
    ----------
    Wang et al., "Score-CAM: score-weighted visual explanations for convolutional neural networks",
    CVPR workshops 2020, section 3 and algorithm 1.  The limit on the channels is that of
    "Faster Score-CAM" in tf-keras-vis, by tabayashi0117, which takes for a batch all the channels
    that any of its samples would take.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
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
            One for each channel, and one more.
        """
        return channels_of(model, x, self.layer, self.channels) + 1

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
            lambda picture: [View(picture, self.fill)],
            1,
            layer=self.layer,
            channels=self.channels,
            batch_size=self.batch_size,
            what="score-cam",
        )
