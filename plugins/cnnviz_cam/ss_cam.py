"""SS-CAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_cam.masking import View, channels_of, weigh_by_views
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, Fixed, filling
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target

__all__ = ["SSCAM"]


@dataclass(frozen=True)
class SSCAM:
    """Score-CAM with each score averaged over noise.

    With ``H_k`` the mask that Score-CAM makes of a feature map, and ``y`` the target's score, the
    weights are the softmax over the channels of the mean, over the draws of normal noise ``d``, of

    - ``y((H_k + d) * x)`` where the noise is on the features, the paper's SS-CAM (1): one value
      for each position, the same for all of the picture's colours;
    - ``y(H_k * x + d)`` where it is on the picture, the paper's SS-CAM (2): one value for each
      position and colour.

    The noise is drawn anew for each position, never for each sample or channel: all of them are
    compared under the same draws, which takes nothing from their mean and most of the noise from
    their differences.  Without noise this is Score-CAM.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    noise_on : {"features", "input"}
        Whether the noise is added to the masks or to the masked pictures.
    sigma : float
        The noise's standard deviation, as a fraction of the range of what it is added to: of a
        mask that is 1, of a picture the sample's largest value less its least.
    draws : int
        How many draws are averaged.
    channels : int or None
        How many channels to ask about, those that vary most; None is all.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown where a mask is 0, in the network's own input range.  The paper multiplies,
        which is 0.
    seed : int
        For NumPy's generator.
    batch_size : int or "auto"
        How many masked pictures go through the network at once; "auto" measures what pays.

    Notes
    -----
    The paper gives sigma = 2 and no unit.  A fraction of the range means the same whatever the
    network's input range or the scale of its features, and on the features it is torchcam's
    ``std``.  The authors' code divides sigma by the range and then takes the square as the standard
    deviation, so that the noise is the smaller, the larger the features are.  At 2 the noise is
    twice as large as all that it is added to: expect flat weights, and try .1 as well.

    References
    ----------
    Naidu et al., "SS-CAM: smoothed Score-CAM for sharper visual feature localization", 2020.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    noise_on: Annotated[
        Literal["features", "input"], Help("whether masks or masked pictures get the noise")
    ] = "features"
    sigma: Annotated[
        float, Range(0), Help("the noise's standard deviation, a fraction of the values' range")
    ] = 2.0
    draws: Annotated[int, Range(1), Help("draws of noise that are averaged")] = 35
    channels: Annotated[
        int | None, Range(1), Help("channels to ask about, those that vary most; none: all")
    ] = None
    fill: Annotated[
        Fill, Help("shown where a mask is 0: a value, mean, blur, noise, inpaint or an array")
    ] = 0.0
    seed: Annotated[int, Range(0), Help("seed of the noise")] = 0
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
            One for each channel and draw, and one more.
        """
        return self.draws * channels_of(model, x, self.layer, self.channels) + 1

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
            self._on_features if self.noise_on == "features" else self._on_input,
            self.draws,
            layer=self.layer,
            channels=self.channels,
            batch_size=self.batch_size,
            what="ss-cam",
        )

    def _on_features(self, picture: Array) -> Iterator[View]:
        """Give the picture seen through noisy masks, a draw at a time."""
        for noise in self._draws(picture.shape[:-1], self.sigma):
            yield View(picture, self.fill, noise=noise)

    def _on_input(self, picture: Array) -> Iterator[View]:
        """Give the noisy picture, a draw at a time."""
        for noise in self._draws(picture.shape, self.sigma * float(np.ptp(picture))):
            # m * (x + d) + (1 - m) * (fill + d) is the masked picture plus the noise.
            noise = noise.astype(picture.dtype)
            shown = filling(picture, self.fill)
            # What is inpainted follows the noisy picture by itself.
            fill = shown.values + noise if isinstance(shown, Fixed) else self.fill
            yield View(picture + noise, fill)

    def _draws(self, shape: tuple[int, ...], deviation: float) -> Iterator[Array]:
        """Draw the noise, one draw at a time."""
        rng = np.random.default_rng(self.seed)
        for _ in range(self.draws):
            yield deviation * rng.standard_normal(shape)
