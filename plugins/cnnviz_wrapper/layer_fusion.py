"""One map of a method's maps at several layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Explainer, Maps, passes_of, present
from cnnviz_core.layers import AUTO, resolve_layers
from cnnviz_core.maps import combine, resize
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target
from cnnviz_wrapper.wrapping import Wrapper, looks_at_a_layer

__all__ = ["LayerFusion"]

_SHALLOW: Final = 8
"""A layer is shallow where its grid has more than one position for so many of the sample's."""


@dataclass(frozen=True)
class LayerFusion(Wrapper):
    """A method's maps at several layers, coarse and fine, fused into one.

    Maps of different layers are on different scales, so this is the one method whose raw result is
    scaled.  With ``M_l`` the positive part of the inner method's map at layer l,

    1. each is divided by its maximum, ``S_l = M_l / max M_l`` (zeros stay zeros);
    2. those of shallow layers, in which few values are large, are raised to
       ``tanh(gamma M_l / max M_l)``, at most 0.96 for gamma = 2;
    3. all are resized, bilinearly, to the finest of the grids;
    4. and fused value by value, by their maximum unless `combine` says otherwise.

    The paper raises the first three stages of VGG-16, whose grids have more than one position for 8
    pixels; so "shallow" are, in any network, the layers with such a grid.

    Parameters
    ----------
    of : str
        The inner method, which must look at a layer: its name, or its name and parameters.
    layer : str
        The layers: names and patterns, separated by commas, "layer2,layer3,layer4"; "auto" is the
        last layer of each resolution.
    batch_size : int
        How many samples go through the network at once, in an inner method that asks often.
    stages : int
        How many layers "auto" takes, from the last one on.
    combine : {"max", "mean", "sum", "min", "product"}
        How the maps are fused.
    tanh : {"shallow", "all", "none"}
        Which layers' maps go through the hyperbolic tangent, which raises small values.
    gamma : float
        How much it raises them.

    References
    ----------
    Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization", IEEE
    Transactions on Image Processing 30, 2021: the hyperbolic tangent is equation 9.
    TorchCAM's ``fuse_cams`` raises all layers, and its maps are scaled from their minima.
    """

    of: Annotated[str, Help("the method, which must look at a layer, with its parameters")] = (
        "layer-cam"
    )
    layer: Annotated[
        str, Help("layers, by name or pattern, comma separated; auto: the last of each resolution")
    ] = AUTO
    stages: Annotated[int, Range(1), Help("how many layers auto takes, from the last one on")] = 3
    combine: Annotated[
        Literal["max", "mean", "sum", "min", "product"], Help("how the layers' maps are fused")
    ] = "max"
    tanh: Annotated[
        Literal["shallow", "all", "none"], Help("which layers' maps go through tanh(gamma M)")
    ] = "shallow"
    gamma: Annotated[float, Range(0, open_low=True), Help("how much those maps are raised")] = 2.0

    @property
    def inner(self) -> Explainer:
        """The inner method, at its own default layer."""
        inner = self.inner_at(AUTO)
        if not looks_at_a_layer(inner):
            raise ParameterError(
                f"{self.of} looks at no layer",
                "a method that looks at one",
                "name another method in of, such as layer-cam or grad-cam",
            )
        return inner

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
            In forward passes: the inner method's at each layer.
        """
        return sum(passes_of(self.inner_at(info.name), model, x) for info in self._layers(model, x))

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
            With the raw map (N, ...grid) of the finest grid, in [0, 1] unless it is a sum.
            ``extras["maxima"]`` (N, L) are the maxima by which the layers' maps were divided, in
            the order in which `layer` names the layers.

        Raises
        ------
        UnknownLayerError
            If a layer does not exist or has no spatial grid.
        ParameterError
            If the inner method looks at no layer, or names one itself.
        CnnvizError
            As the inner method does.
        """
        _ = self.inner  # an inner method that does not fit is told before any work
        infos = self._layers(model, x)
        shown, maxima, notes = [], [], dict[str, None]()
        for done, info in enumerate(infos, 1):
            maps = self.inner_at(info.name).explain(model, x, targets)
            positive = _positive(maps, x)
            top = positive.max(axis=tuple(range(1, positive.ndim)), keepdims=True)
            # A map of zeros stays one; one that is not finite stays so.
            with np.errstate(invalid="ignore"):
                scaled = np.divide(positive, top, out=positive.copy(), where=top > 0)
            shown.append(np.tanh(self.gamma * scaled) if self._is_raised(scaled, x) else scaled)
            maxima.append(top.reshape(len(x)))
            notes |= dict.fromkeys(maps.notes)
            advance(f"layers of {self.of}", done, len(infos))
        finest = tuple(max(sizes) for sizes in zip(*(m.shape[1:] for m in shown), strict=True))
        fused = combine([resize(m, finest) for m in shown], self.combine)
        return replace(
            maps,
            raw=fused,
            layer=", ".join(info.name for info in infos),
            presentation=replace(maps.presentation, sign="positive"),
            extras={"maxima": np.stack(maxima, axis=1)},
            terms=None,
            notes=tuple(notes),
        )

    def _layers(self, model: Model, x: Array) -> list[LayerInfo]:
        """Find the layers."""
        found = resolve_layers(model, self.layer, x)
        return found[-self.stages :] if self.layer == AUTO else found

    def _is_raised(self, maps: Array, x: Array) -> bool:
        """Tell whether a layer's maps go through the hyperbolic tangent."""
        shallow = any(
            _SHALLOW * positions > size
            for positions, size in zip(maps.shape[1:], x.shape[1:-1], strict=False)
        )
        return self.tanh == "all" or (self.tanh == "shallow" and shallow)


def _positive(maps: Maps, x: Array) -> Array:
    """Give a result's positive part, or the magnitudes of one that is shown without its sign."""
    grid = maps.raw.shape[1 : x.ndim - 1]
    how = maps.presentation
    if how.sign == "signed":
        how = replace(how, sign="positive")
    return present(maps.raw, grid, how)[0]
