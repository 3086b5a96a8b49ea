"""The part of the conformance kit that is about receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, UnknownLayerError
from cnnviz_core.layers import stages
from cnnviz_core.model import INPUT, Array, Model, input_node, spatial
from cnnviz_core.netspec import NetSpec
from cnnviz_core.receptive import (
    ReceptiveField,
    input_convolutions,
    receptive_field,
    receptive_fields,
)
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["FieldConformance", "assert_same_field", "boxes_by_gradients"]


def boxes_by_gradients(
    model: Model,
    x: Any,
    node: str,
    positions: Sequence[tuple[int, ...]],
    *,
    wrt: str = INPUT,
    seed: int = 0,
) -> list[tuple[tuple[int, int], ...]]:
    """Find what positions of a layer see by differentiating: the smallest box with all gradients.

    Parameters
    ----------
    model : Model
        A network with the capability "gradient", whose samples do not influence each other.
    x : ndarray (N, ...)
        Inputs; a pixel counts that has a gradient in any of them.
    node : str
        The layer, whose values have a grid.
    positions : sequence of tuple of int
        Where on its grid.
    wrt : str
        The input's node.
    seed : int
        For the weights that the channels are given.

    Returns
    -------
    list of tuple of (int, int)
        For each position, along each axis the first pixel and the one after the last; (0, 0) where
        no pixel has a gradient.
    """
    draws, rng = len(x), np.random.default_rng(seed)
    prefix = model.layers[node].prefix if node in model.layers else 0

    def cotangent(value: Array) -> Array:
        asked = np.zeros_like(value)
        for k, position in enumerate(positions):
            for row in range(k * draws, (k + 1) * draws):
                at: tuple[int, ...] = tuple(position)
                if value.ndim != len(position) + 2:  # tokens
                    grid = model.layers[node].grid or ()
                    at = (prefix + int(np.ravel_multi_index(at, grid)),)
                asked[(row, *at)] = rng.normal(size=value.shape[-1])
        return asked

    many = np.concatenate([x] * len(positions))
    gradient = model.pullback(many, cotangent, of=node, wrt=[wrt]).gradients[wrt]
    seen = (gradient.reshape(len(positions), draws, *x.shape[1:]) != 0).any((1, -1))
    return [_hull(mask) for mask in seen]


def _hull(mask: Array) -> tuple[tuple[int, int], ...]:
    """Give the smallest box with all that is set."""
    if not mask.any():
        return ((0, 0),) * mask.ndim
    places = np.nonzero(mask)
    return tuple((int(axis.min()), int(axis.max()) + 1) for axis in places)


def assert_same_field(actual: ReceptiveField, expected: ReceptiveField) -> None:
    """Compare all that two receptive fields say.

    Parameters
    ----------
    actual, expected : ReceptiveField

    Raises
    ------
    AssertionError
        If they differ.
    """
    for name in ("layer", "grid", "pixels", "size", "stride", "start", "through"):
        found, wanted = getattr(actual, name), getattr(expected, name)
        assert found == wanted, f"{actual.layer}: {name} is {found}, expected {wanted}"
    for name in ("spans", "unbounded"):
        for axis, (a, b) in enumerate(
            zip(getattr(actual, name), getattr(expected, name), strict=True)
        ):
            np.testing.assert_array_equal(a, b, f"{actual.layer}: {name} along axis {axis}")


class FieldConformance:
    """What every backend must do that offers "geometry".

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own.
    """

    capabilities: ClassVar[frozenset[str]]

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it."""
        raise NotImplementedError

    def _spatial(self, name: str, n: int = 1) -> tuple[Model, ReferenceModel, Any]:
        """Give a network in the framework, its reference, and a batch."""
        net = NETS[name]()
        given = random_input(net, n)
        x: Any = given if len(given) > 1 else next(iter(given.values()))
        model = self.build(net)
        model.forward(x)
        if "geometry" not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer geometry")
        return model, ReferenceModel(net), x

    @pytest.mark.parametrize("name", NETS)
    def test_receptive_fields(self, name: str) -> None:
        """They are the reference's, border by border."""
        model, reference, x = self._spatial(name)
        nodes = [node for node in reference.layers if node in model.layers]
        seen = spatial(reference).geometry(nodes).nodes
        nodes = [node for node in nodes if node in seen]
        for local in (False, True):
            found = receptive_fields(model, nodes, x, local=local)
            expected = receptive_fields(reference, nodes, local=local)
            for actual, wanted in zip(found, expected, strict=True):
                assert_same_field(actual, wanted)

    @pytest.mark.parametrize("name", [name for name in NETS if name != "two_inputs"])
    def test_receptive_fields_are_where_gradients_are(self, name: str) -> None:
        """A box is the smallest one with all pixels that have a gradient in some input."""
        model, _, _ = self._spatial(name)
        if "gradient" not in self.capabilities:
            pytest.skip("the backend does not offer gradient")
        x = next(iter(random_input(NETS[name](), 24, seed=1).values()))
        for info in stages(model.layers):
            field = receptive_field(model, info.name, x)
            positions = [(0,) * len(field.grid), field.middle, tuple(n - 1 for n in field.grid)]
            found = boxes_by_gradients(model, x, info.name, positions)
            assert found == [field.box(position) for position in positions], info.name

    @pytest.mark.parametrize("name", NETS)
    def test_convolutions_of_the_input(self, name: str) -> None:
        """They are the reference's."""
        model, reference, x = self._spatial(name)
        found = [info.name for info in input_convolutions(model, x)]
        assert found == [info.name for info in input_convolutions(reference)]

    def test_an_input_without_places_has_no_fields(self) -> None:
        """Vectors, and layers that do not depend on the input, are errors."""
        model, _, x = self._spatial("two_inputs")
        with pytest.raises(ArrayError, match="no spatial axes"):
            receptive_field(model, "embed", x, wrt=input_node("vector"))
        with pytest.raises(UnknownLayerError, match="does not depend"):
            receptive_field(model, "embed", x)
        with pytest.raises(UnknownLayerError, match="conv"):
            receptive_field(model, "convolution", x)
