"""The part of the conformance kit that is about faster copies of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.errors import CnnvizError
from cnnviz_core.layers import is_special
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, PREPARE, Array, Model, input_node, preparable
from cnnviz_core.netspec import NetSpec
from cnnviz_core.rules import DECONVNET, GUIDED
from cnnviz_core.testing.blending import described, soft_forms
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.nets import NETS, random_input

__all__ = ["PrepareConformance"]


class PrepareConformance:
    """What every backend must do that offers "prepare".

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own.
    rtol : float
        The largest difference between a network and its faster copy.
    tried_layers : int or None
        How many layers of each network are tried one by one, spread over it: fewer where each takes
        a graph of its own; None for all.
    """

    capabilities: ClassVar[frozenset[str]]
    rtol: ClassVar[float]
    tried_layers: ClassVar[int | None] = None

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it."""
        raise NotImplementedError

    def _prepared(self, name: str, n: int = 3) -> tuple[Model, Model, Any]:
        """Give a network in the framework, its faster copy, and a batch."""
        net = NETS[name]()
        model, x = self.build(net), random_input(net, n, seed=3)
        if PREPARE not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer prepare")
        batch = dict(x) if len(x) > 1 else next(iter(x.values()))
        return model, preparable(model).prepared(batch), batch

    def _tried(self, nodes: Sequence[str]) -> list[str]:
        """Choose the layers that are tried one by one."""
        number = len(nodes) if self.tried_layers is None else min(self.tried_layers, len(nodes))
        return [nodes[i] for i in np.linspace(0, len(nodes) - 1, number).round().astype(int)]

    def _same(self, actual: Mapping[str, Array], expected: Mapping[str, Array], what: str) -> None:
        """Compare two answers."""
        assert set(actual) == set(expected), what
        for node, value in expected.items():
            assert actual[node].dtype == value.dtype
            assert_close(actual[node], value, self.rtol, f"{what}: {node}")

    @pytest.mark.parametrize("name", NETS)
    def test_a_prepared_model_gives_the_values(self, name: str) -> None:
        """Of every layer, one by one and all at once, of batches of any size and any strides."""
        model, prepared, _ = self._prepared(name)
        nodes = list(model.layers)
        assert list(prepared.layers) == nodes
        for n in (1, 2, 7):
            for x in _batches(NETS[name](), n):
                plain, fast = model.forward(x), prepared.forward(x)
                self._same(fast.values, plain.values, f"{n} samples")
        every = model.forward(x, capture=[*nodes, INPUT])
        self._same(prepared.forward(x, capture=[*nodes, INPUT]).values, every.values, "capture")
        for node in self._tried(nodes):
            one = prepared.forward(x, capture=[node])
            assert set(one.values) == {LOGITS, OUTPUT, node}
            assert_close(one[node], every[node], self.rtol, node)

    @pytest.mark.parametrize("name", NETS)
    def test_a_prepared_model_takes_replacements(self, name: str) -> None:
        """At every layer: arrays and functions, of different samples and of equal ones."""
        model, prepared, _ = self._prepared(name)
        nodes = list(model.layers)
        for x in _batches(NETS[name](), 3):
            values = model.forward(x, capture=nodes)
            for node in self._tried(nodes):
                if len(values[node]) != 3:
                    continue
                for new in (np.cos(values[node]), values[node][::-1], np.cos):
                    swap = {node: new}
                    looked = [node, nodes[0], nodes[-1]]
                    try:
                        expected = model.forward(x, capture=looked, replace=swap)
                    except CnnvizError as error:  # some heads may not be replaced
                        with pytest.raises(type(error)):
                            prepared.forward(x, capture=looked, replace=swap)
                        continue
                    actual = prepared.forward(x, capture=looked, replace=swap)
                    self._same(actual.values, expected.values, f"{node} replaced")

    @pytest.mark.parametrize("name", NETS)
    def test_a_prepared_model_gives_the_gradients(self, name: str) -> None:
        """At the inputs, at layers, and at several of which some follow from others."""
        model, prepared, _ = self._prepared(name)
        if "gradient" not in self.capabilities:
            pytest.skip("the backend does not offer gradient")
        nodes = list(model.layers)
        inputs = [input_node(key) for key in model.inputs]
        for x in _batches(NETS[name](), 3):
            for of in (LOGITS, OUTPUT, nodes[len(nodes) // 2]):
                for wrt in (
                    inputs,
                    *([node] for node in self._tried(nodes)),
                    [*nodes[1::3], inputs[0]],
                ):
                    self._differentiated(model, prepared, x, {"of": of, "wrt": wrt})

    @pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "branches", "smooth"])
    def test_a_prepared_model_keeps_rules(self, name: str) -> None:
        """Those of rectifiers, and those of relevance that the network offers."""
        model, prepared, x = self._prepared(name)
        if not {"gradient", "rule:relu"} <= self.capabilities:
            pytest.skip("the backend does not offer rules")
        for rule in (GUIDED, DECONVNET):
            for wrt in ([INPUT], [list(model.layers)[1]], [list(model.layers)[-1]]):
                self._differentiated(model, prepared, x, {"wrt": wrt, "rule": rule})

    def _differentiated(
        self, model: Model, prepared: Model, x: Any, asked: Mapping[str, Any]
    ) -> None:
        """Compare the gradients, or the error."""
        try:
            expected = model.pullback(x, np.cos, **asked)
        except CnnvizError as error:
            with pytest.raises(type(error)):
                prepared.pullback(x, np.cos, **asked)
            return
        actual = prepared.pullback(x, np.cos, **asked)
        self._same(actual.gradients, expected.gradients, f"gradients {asked}")
        self._same(actual.values, expected.values, f"values {asked}")

    @pytest.mark.parametrize("name", ["plain", "signal", "volume", "two_inputs", "tokens"])
    def test_a_prepared_model_takes_described_batches(self, name: str) -> None:
        """Whatever describes the masks."""
        model, prepared, _ = self._prepared(name)
        if BLEND not in model.capabilities:
            pytest.skip("the backend does not offer blend")
        x = random_input(NETS[name](), 1, seed=9)
        free = next(iter(x))
        for what, form in soft_forms(x[free].shape[1:-1]).items():
            batch = cast(Blended, described(x[free][0], form, 0.5))
            rest = {key: np.repeat(array, len(batch), 0) for key, array in x.items()}
            made: Any = {**rest, free: np.asarray(batch)}
            given: Any = {**rest, free: batch}
            if len(x) == 1:
                made, given = made[free], given[free]
            self._same(prepared.forward(given).values, model.forward(made).values, what)

    def test_a_prepared_model_takes_samples_of_another_shape(self) -> None:
        """They need not be faster."""
        model, prepared, x = self._prepared("plain")
        other = np.concatenate([x, x], axis=1)
        try:
            expected = model.forward(other)
        except CnnvizError as error:
            with pytest.raises(type(error)):
                prepared.forward(other)
        else:
            self._same(prepared.forward(other).values, expected.values, "another shape")

    def test_a_prepared_model_refuses_what_the_model_refuses(self) -> None:
        """With errors of the same classes."""
        model, prepared, x = self._prepared("plain")
        bad = x.copy()
        bad[0, 0, 0, 0] = np.nan
        value = model.forward(x, capture=["relu2"])["relu2"]
        forwards: list[tuple[Any, dict[str, Any]]] = [
            (bad, {}),
            (x[0], {}),
            (x[..., :2], {}),
            (x[:0], {}),
            (x.astype(str), {}),
            (x, {"capture": ["conv11"]}),
            (x, {"capture": ["@input:other"]}),
            (x, {"replace": {"conv11": value}}),
            (x, {"replace": {LOGITS: model.forward(x).logits}}),
            (x, {"replace": {"relu2": value[:1]}}),
            (x, {"replace": {"relu2": value[..., 1:]}}),
            (x, {"replace": {"relu2": value * np.nan}}),
            (x, {"replace": {"relu2": lambda value: value[:1]}}),
        ]
        for batch, asked in forwards:
            try:
                expected = model.forward(batch, **asked)
            except CnnvizError as error:
                with pytest.raises(type(error)):
                    prepared.forward(batch, **asked)
            else:  # some treat the input and the logits as they do layers
                assert list(asked.get("replace", ())) == [LOGITS]
                self._same(prepared.forward(batch, **asked).values, expected.values, "logits")
        pullbacks: list[tuple[Any, Any, dict[str, Any]]] = [
            (bad, np.cos, {}),
            (x, np.cos, {"wrt": ["conv11"]}),
            (x, np.cos, {"wrt": [LOGITS]}),
            (x, np.cos, {"of": "conv11"}),
            (x, np.cos, {"of": INPUT}),
            (x, np.cos, {"of": "relu1", "wrt": ["relu2"]}),
            (x, np.cos, {"of": "relu1", "wrt": ["conv1", "relu2"]}),
            (x, np.ones((2, 4), np.float32), {}),
            (x, lambda value: value * np.nan, {}),
        ]
        for batch, cotangent, asked in pullbacks:
            try:
                back = model.pullback(batch, cotangent, **asked)
            except CnnvizError as error:
                with pytest.raises(type(error)):
                    prepared.pullback(batch, cotangent, **asked)
            else:
                assert LOGITS in asked.get("wrt", ()) or asked.get("of") == INPUT
                again = prepared.pullback(batch, cotangent, **asked)
                self._same(again.gradients, back.gradients, "at the ends")

    def test_exceptions_come_through_a_prepared_model(self) -> None:
        """And do not spoil the next call."""
        model, prepared, x = self._prepared("residual")

        def broken(value: Array) -> Array:
            raise ZeroDivisionError("in a function that was given")

        with pytest.raises(ZeroDivisionError):
            prepared.pullback(x, broken)
        with pytest.raises(ZeroDivisionError):
            prepared.forward(x, replace={"bn0": broken})
        self._same(prepared.forward(x).values, model.forward(x).values, "after an exception")

    def test_what_a_prepared_model_gives_is_the_callers(self) -> None:
        """Nothing that is written to it is seen by the next call."""
        _, prepared, x = self._prepared("residual")
        nodes = [node for node in prepared.layers if not is_special(node)]
        first = prepared.forward(x, capture=[*nodes, INPUT])
        kept = {node: value.copy() for node, value in first.values.items()}
        for value in first.values.values():
            value[...] = 7
        for node, value in prepared.forward(x, capture=[*nodes, INPUT]).values.items():
            np.testing.assert_array_equal(value, kept[node])

    def test_a_network_is_as_it_was_when_it_has_been_prepared(self) -> None:
        """To the bit, and so are its answers."""
        net = NETS["residual"]()
        model, x = self.build(net), next(iter(random_input(net, 2).values()))
        if PREPARE not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer prepare")
        before = model.forward(x).logits
        prepared = preparable(model).prepared(x)
        prepared.forward(x)
        prepared.pullback(x, np.cos)
        np.testing.assert_array_equal(model.forward(x).logits, before)


def _batches(net: NetSpec, n: int) -> Iterator[Any]:
    """Make batches of different samples, of samples some of which are equal, and of one sample."""
    drawn = random_input(net, n, seed=n)
    several = {name: array[np.arange(n) // 2] for name, array in drawn.items()}
    one = {name: np.broadcast_to(array[:1], array.shape) for name, array in drawn.items()}
    strided = {name: array[::-1] for name, array in drawn.items()}
    for x in (drawn, several, one, strided):
        yield dict(x) if len(x) > 1 else next(iter(x.values()))
