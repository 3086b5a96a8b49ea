"""The part of the conformance kit that is about copies of a network with other arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, UnknownLayerError
from cnnviz_core.model import INPUT, Array, CopyableModel, Model, copyable, input_node
from cnnviz_core.netspec import NetSpec
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["CopyConformance", "redrawn"]


def redrawn(net: NetSpec, seed: int = 11) -> NetSpec:
    """Draw other arrays for a network.

    Parameters
    ----------
    net : NetSpec
        The network.
    seed : int
        For NumPy's generator.

    Returns
    -------
    NetSpec
        Each array multiplied by factors between 0.5 and 1.5.
    """
    rng = np.random.default_rng(seed)
    arrays = {
        key: (array * rng.uniform(0.5, 1.5, array.shape)).astype(np.float32)
        for key, array in net.parameters.items()
    }
    return replace(net, parameters=arrays)


def by_layer(net: NetSpec) -> dict[str, Mapping[str, Array]]:
    """Give a network's arrays as `CopyableModel.copied` takes them."""
    found = {op.layer: net.of_layer(op.layer) for op in net.ops}
    return {layer: arrays for layer, arrays in found.items() if arrays}


class CopyConformance:
    """What every backend must do that offers "copy".

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own.
    rtol : float
        The largest difference from the reference, as a fraction of the largest value.
    """

    capabilities: ClassVar[frozenset[str]]
    rtol: ClassVar[float]

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it."""
        raise NotImplementedError

    def _copying(self, name: str) -> tuple[CopyableModel, Any, NetSpec]:
        """Give a network in the framework, a batch, and what it was built of."""
        net = NETS[name]()
        model, inputs = self.build(net), random_input(net, 2)
        if "copy" not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer copy")
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        return copyable(model), x, net

    @pytest.mark.parametrize("name", NETS)
    def test_a_copy_is_the_network_built_with_its_arrays(self, name: str) -> None:
        """Its values, its gradients, its layers and its arrays are; the network stays as it was."""
        model, x, net = self._copying(name)
        before = model.forward(x).logits
        other = redrawn(net)
        copy, reference = model.copied(by_layer(other)), ReferenceModel(other, "float64")
        assert copy.capabilities == model.capabilities
        assert copy.activation == model.activation
        assert_close(copy.forward(x).logits, reference.forward(x).logits, self.rtol, "logits")
        assert list(copy.layers) == list(model.layers)
        nodes = [input_node(n) for n in net.inputs] if len(net.inputs) > 1 else [INPUT]
        if "gradient" in model.capabilities:
            actual = copy.pullback(x, np.ones_like, wrt=nodes)
            expected = reference.pullback(x, np.ones_like, wrt=nodes)
            for node in nodes:
                assert_close(actual.gradients[node], expected.gradients[node], self.rtol, node)
        for layer, arrays in by_layer(other).items():
            found = copy.parameters(layer)
            for key, values in arrays.items():
                assert_close(found[key], values, 1e-6, f"{layer}.{key}")
        np.testing.assert_array_equal(model.forward(x).logits, before)
        for layer, arrays in by_layer(net).items():
            found = model.parameters(layer)
            for key, values in arrays.items():
                assert_close(found[key], values, 1e-6, f"{layer}.{key} of the network itself")

    @pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "tokens"])
    def test_a_copy_with_the_networks_own_arrays_is_the_network(self, name: str) -> None:
        """Also with those that are no variables, since they are as they were."""
        model, x, net = self._copying(name)
        before = model.forward(x).logits
        own = {layer: model.parameters(layer) for layer in by_layer(net)}
        for parameters in ({}, own):
            np.testing.assert_array_equal(model.copied(parameters).forward(x).logits, before)

    def test_layers_and_arrays_that_are_not_named_stay(self) -> None:
        """Those of the layer that is named, too."""
        model, x, net = self._copying("plain")
        bias = np.arange(5, dtype=np.float32)
        copy = model.copied({"fc": {"bias": bias}})
        expected = model.forward(x).logits + bias - net.parameters["fc.bias"]
        assert_close(copy.forward(x).logits, expected, self.rtol)

    def test_a_copy_can_be_copied(self) -> None:
        """What the first one changed is kept."""
        model, x, net = self._copying("residual")
        other = redrawn(net)
        copy: Model = model
        for layer, arrays in by_layer(other).items():
            copy = copyable(copy).copied({layer: arrays})
        expected = ReferenceModel(other, "float64").forward(x).logits
        assert_close(copy.forward(x).logits, expected, self.rtol)

    def test_arrays_that_were_given_are_copied(self) -> None:
        """What becomes of them later is not seen."""
        model, x, _ = self._copying("plain")
        bias = np.ones(5, np.float32)
        copy = model.copied({"fc": {"bias": bias}})
        before = copy.forward(x).logits
        bias[:] = 7
        np.testing.assert_array_equal(copy.forward(x).logits, before)

    def test_bad_parameters(self) -> None:
        """They are refused, and the network stays as it was."""
        model, x, _ = self._copying("residual")
        before = model.forward(x).logits
        good = model.parameters("fc")
        for arrays in (
            {"weight": good["weight"].T},
            {"weight": good["weight"] * np.nan},
            {"weight": good["weight"].astype(str)},
            {"kernel of another name": good["weight"]},
        ):
            with pytest.raises(ArrayError, match="fc"):
                model.copied({"fc": arrays})
        epsilon = {"epsilon": model.parameters("bn0")["epsilon"] + 1}
        with pytest.raises(ArrayError, match="epsilon"):
            model.copied({"fc": {"bias": good["bias"] + 1}, "bn0": epsilon})
        with pytest.raises(UnknownLayerError, match="conv1a"):
            model.copied({"conv1aa": {}})
        np.testing.assert_array_equal(model.forward(x).logits, before)
