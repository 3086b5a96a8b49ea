"""FullGrad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.layers import layers_of, on_grid
from cnnviz_core.maps import min_max, resize
from cnnviz_core.model import INPUT, Array, LayerInfo, Model, Pullback
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["FullGrad"]

Psi = Literal["rescaled", "rescaled-channels", "magnitude", "signed"]

_WITH_BIAS: Final = frozenset({"conv", "linear", "norm"})


@dataclass(frozen=True)
class FullGrad:
    """Gradient times input, and at every layer gradient times bias.

    A network of convolutions, batch normalisations, linear layers, rectifiers and max-pooling is
    linear around a sample ``x``, so that its score ``y`` is exactly the sum of ``dy / dx * x`` and,
    over all layers ``l``, of ``dy / dz_l * b_l``, where ``z_l`` is the layer's output and ``b_l``
    its bias.  The raw map is the sum over the channels of ``psi(dy / dx * x)`` and, over the layers
    with a spatial grid and their channels, of ``psi(dy / dz_l * b_l)``, each upsampled bilinearly.

    The bias of a batch normalisation is the one that it implies,
    ``shift - scale * mean / sqrt(variance + epsilon)``.  A bias that a layer's arrays do not tell,
    as where they lack the epsilon, is measured: it is what the layer gives where the picture is
    zero and all convolutions, linear layers and normalisations before it give zeros.

    Parameters
    ----------
    psi : {"rescaled", "rescaled-channels", "magnitude", "signed"}
        What becomes of a layer's terms before they are upsampled and summed.

        - "rescaled": magnitudes, shifted and scaled to [0, 1] over all channels and positions of
          the layer, as the authors' code does.
        - "rescaled-channels": the same in each channel by itself, as the paper's formula reads.
        - "magnitude": magnitudes.
        - "signed": the terms themselves.
    batch_size : int
        How many samples are differentiated at once; the gradients of all layers are held.

    Notes
    -----
    ``extras["completeness_gap"]`` is the score less the sum of all terms, those of layers without a
    grid included; 0 up to rounding where the theorem holds.  It is not 0 for probabilities, where
    values exceed the 6 of a ReLU6, where a network adds constants between its layers, and for
    curved functions, such as GELU or layer normalisation.

    The authors' code upsamples with aligned corners; here pixels are aligned by their centres.

    References
    ----------
    Srinivas & Fleuret, "Full-gradient representation for neural network visualization", NeurIPS
    2019, sections 3 and 4.
    """

    psi: Annotated[Psi, Help("what becomes of a layer's terms before they are summed")] = "rescaled"
    batch_size: Annotated[int, Range(1), Help("samples that are differentiated at once")] = 4

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient", "parameters", "replace"})

    def passes(self, model: Model, x: Array) -> int:
        """Count the most passes that one sample can take.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.

        Returns
        -------
        int
            In forward passes: one forward and backward, and one where biases are measured.
        """
        return 4

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
            With the raw map (N, H, W), negative nowhere but where `psi` is "signed", and
            ``extras["completeness_gap"]`` (N,).
        """
        of = target_node(targets)
        biases = _biases(model, x)
        raw = np.zeros(x.shape[:-1])
        explained = np.zeros(len(x))
        scores: list[Array] = []
        resolved: list[Target] = []
        for start in range(0, len(x), self.batch_size):
            stop = start + self.batch_size
            part = slice(start, stop)
            # The last part gets all targets that are left, so that too many are noticed.
            asked = targets[start : stop if stop < len(x) else None]
            back, biases = _gradients(model, x[part], asked, of, biases)
            raw[part], explained[part] = self._sum(x[part], back.gradients, biases, model.layers)
            scores.append(scores_of(asked, back.values[of]))
            resolved += resolve_all(asked, back.values[of])
            advance("full-grad", min(stop, len(x)), len(x))
        score = np.concatenate(scores)
        return Maps(
            raw=raw.astype(x.dtype),
            scores=score,
            targets=tuple(resolved),
            presentation=Presentation(sign="signed" if self.psi == "signed" else "positive"),
            extras={"completeness_gap": (score - explained).astype(score.dtype)},
        )

    def _sum(
        self,
        x: Array,
        gradients: Mapping[str, Array],
        biases: Mapping[str, Array],
        layers: Mapping[str, LayerInfo],
    ) -> tuple[Array, Array]:
        """Sum all terms of a batch: as a map, and as they are."""
        size = x.shape[1:-1]
        terms = gradients[INPUT].astype(np.float64) * x
        raw = _PSI[self.psi](terms).sum(-1)
        explained = _total(terms)
        for node, bias in biases.items():
            terms = gradients[node].astype(np.float64) * bias
            explained += _total(terms)
            info = layers[node]
            if info.grid is not None and len(info.grid) == len(size):
                raw += resize(_PSI[self.psi](on_grid(terms, info)).sum(-1), size)
        return raw, explained


def _rescaled(terms: Array) -> Array:
    """Bring a layer's magnitudes to [0, 1]."""
    return min_max(np.abs(terms))


def _rescaled_channels(terms: Array) -> Array:
    """Bring each channel's magnitudes to [0, 1]."""
    return min_max(np.abs(terms), axis=tuple(range(1, terms.ndim - 1)))


def _signed(terms: Array) -> Array:
    """Keep the terms."""
    return terms


_PSI: Final[Mapping[Psi, Callable[[Array], Array]]] = {
    "rescaled": _rescaled,
    "rescaled-channels": _rescaled_channels,
    "magnitude": np.abs,
    "signed": _signed,
}


def _total(terms: Array) -> Array:
    """Sum each sample's terms."""
    total: Array = terms.reshape(len(terms), -1).sum(-1)
    return total


def _biases(model: Model, x: Array) -> dict[str, Array]:
    """Find each layer's bias, which broadcasts to its value, where it is not zero."""
    layers = [
        info
        for info in layers_of(model, x).values()
        if info.kind in _WITH_BIAS and info.same_as is None
    ]
    told = {info.name: _told(info, model.parameters(info.name)) for info in layers}
    nodes = list(told)
    unknown = [node for node, bias in told.items() if bias is None]
    measured = _measured(model, x, nodes[: nodes.index(unknown[-1]) + 1]) if unknown else {}
    biases = {node: measured[node] if bias is None else bias for node, bias in told.items()}
    return {node: bias for node, bias in biases.items() if bias.any()}


def _told(info: LayerInfo, arrays: Mapping[str, Array]) -> Array | None:
    """Give the bias that a layer's arrays tell; None if they do not tell it."""
    double = {name: array.astype(np.float64) for name, array in arrays.items()}
    zero, one = np.zeros(1), np.ones(1)
    if info.kind != "norm":
        return double.get("bias", zero) if "weight" in double else None
    if "mean" not in double:  # no running statistics: the shift alone is added
        return double.get("shift", zero)
    if not {"variance", "epsilon"} <= set(double):
        return None
    factor = double.get("scale", one) / np.sqrt(double["variance"] + double["epsilon"])
    return double.get("shift", zero) - factor * double["mean"]


def _measured(model: Model, x: Array, nodes: Sequence[str]) -> dict[str, Array]:
    """Measure what layers give where the picture is zero and the layers before them give zeros."""
    found: dict[str, Array] = {}

    def measure(node: str) -> Callable[[Array], Array]:
        def act(value: Array) -> Array:
            found[node] = value.astype(np.float64)
            return np.zeros_like(value)

        return act

    model.forward(np.zeros_like(x[:1]), replace={node: measure(node) for node in nodes})
    return found


def _gradients(
    model: Model, x: Array, targets: Sequence[Target], of: str, biases: dict[str, Array]
) -> tuple[Pullback, dict[str, Array]]:
    """Differentiate with respect to the input and to all layers on the way to the score.

    Gives the layers that are on the way, too: of a network with several heads, or where the score
    is that of a layer inside, some are not.
    """

    def on_the_way(nodes: list[str]) -> list[str]:
        try:
            model.pullback(x[:1], np.zeros_like, of=of, wrt=nodes)
        except UnknownLayerError:
            if len(nodes) == 1:
                return []
            half = len(nodes) // 2
            return on_the_way(nodes[:half]) + on_the_way(nodes[half:])
        return nodes

    cotangent = cotangent_of(targets)
    try:
        return model.pullback(x, cotangent, of=of, wrt=(INPUT, *biases)), biases
    except UnknownLayerError:
        used = {node: biases[node] for node in on_the_way(list(biases))} if biases else {}
        return model.pullback(x, cotangent, of=of, wrt=(INPUT, *used)), used
