"""The conformance kit for backends: inherit `BackendConformance`, supply ``build``, run pytest.

Everything is compared with the NumPy reference model computing in float64.

Examples
--------
::

    from cnnviz_core.testing.backend import BackendConformance

    class TestMyBackend(BackendConformance):
        capabilities = frozenset({"capture", "gradient"})

        def build(self, net):
            return my_backend.wrap(my_backend.build(net))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, CnnvizError, RuleError, UnknownLayerError
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    Array,
    Cotangent,
    CurvedModel,
    Model,
    curved,
    input_node,
)
from cnnviz_core.netspec import NetSpec
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD, BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_core.testing.backend_relevance import RelevanceConformance
from cnnviz_core.testing.blending import BlendConformance
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.copying import CopyConformance
from cnnviz_core.testing.fields import FieldConformance
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.preparing import PrepareConformance
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["BackendConformance", "assert_close"]

ALL = frozenset({"capture", "replace", "gradient", "parameters", "rule:relu"})
WITH_RELU = [name for name in NETS if name not in ("smooth", "swish")]
RULES = {
    "guided": GUIDED,
    "deconvnet": DECONVNET,
    "straight-through": BackwardRule("straight-through", {"relu": ReluStep(False, False)}),
}
_HEADS = ("softmax", "sigmoid")
KINDS = {"conv", "linear", "relu", "pool", "norm"}


class BackendConformance(
    BlendConformance, CopyConformance, FieldConformance, PrepareConformance, RelevanceConformance
):
    """What every backend must do.

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own; tests of anything else are left out.
        "blend", "copy", "curvature", "geometry", "prepare" and rules of relevance ("rule:conv",
        ...) are optional, and tested wherever a model offers them.
    rtol : float
        The largest difference from the reference, as a fraction of the largest value.
    """

    capabilities: ClassVar[frozenset[str]] = ALL
    rtol: ClassVar[float] = 1e-5

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it.

        Parameters
        ----------
        net : NetSpec
            One of `cnnviz_core.testing.nets`.

        Returns
        -------
        Model
        """
        raise NotImplementedError("a backend's conformance tests supply build(net)")

    # ---------------------------------------------------------------- helpers

    def _need(self, *capabilities: str) -> None:
        """Leave a test out where the backend does not offer what it tests."""
        missing = set(capabilities) - self.capabilities
        if missing:
            pytest.skip(f"the backend does not offer {', '.join(sorted(missing))}")

    def _pair(self, name: str, n: int = 2) -> tuple[Model, ReferenceModel, Any, NetSpec]:
        """Give a network in the framework, its reference, and a batch."""
        net = NETS[name]()
        return self.build(net), ReferenceModel(net, "float64"), _one(random_input(net, n)), net

    # ---------------------------------------------------------------- what it says of itself

    @pytest.mark.parametrize("name", NETS)
    def test_offers_what_it_declares(self, name: str) -> None:
        model, _, x, _ = self._pair(name)
        model.forward(x)
        assert self.capabilities <= model.capabilities
        assert isinstance(model, Model)
        assert model.framework

    @pytest.mark.parametrize("name", NETS)
    def test_layers_are_the_networks_in_forward_order(self, name: str) -> None:
        model, reference, x, net = self._pair(name)
        model.forward(x)
        expected = {n: i for n, i in reference.layers.items() if i.kind in KINDS}
        found = [n for n in model.layers if n in expected]
        assert set(found) == set(expected)
        for node, earlier in _dependencies(net).items():
            # Branches that do not depend on each other may be run in any order.
            if node in expected:
                assert earlier & set(found) <= set(found[: found.index(node)]), node
        for node, info in expected.items():
            layer = model.layers[node]
            assert layer.name == node
            assert layer.kind == info.kind, node
            assert layer.shape == info.shape, node
            assert layer.grid == info.grid, node
            assert (layer.path, layer.call, layer.calls) == (info.path, info.call, info.calls)

    @pytest.mark.parametrize("name", NETS)
    def test_inputs_are_named(self, name: str) -> None:
        model, reference, _, _ = self._pair(name)
        assert len(model.inputs) == len(reference.inputs)
        if len(model.inputs) > 1:
            assert set(model.inputs) == set(reference.inputs)

    @pytest.mark.parametrize(
        ("name", "activation"),
        [("plain", "softmax"), ("softmax_head", "softmax"), ("sigmoid_head", "sigmoid")],
    )
    def test_activation(self, name: str, activation: str) -> None:
        model, _, x, _ = self._pair(name)
        model.forward(x)
        assert model.activation == activation

    # ---------------------------------------------------------------- forward

    @pytest.mark.parametrize("name", NETS)
    def test_output_and_logits(self, name: str) -> None:
        model, reference, x, _ = self._pair(name, n=3)
        actual, expected = model.forward(x), reference.forward(x)
        assert_close(actual.output, expected.output, self.rtol, "output")
        assert_close(actual.logits, expected.logits, self.rtol, "logits")
        assert actual.output.dtype == np.float32

    @pytest.mark.parametrize("name", NETS)
    def test_captures_every_layer(self, name: str) -> None:
        self._need("capture")
        model, reference, x, _ = self._pair(name)
        model.forward(x)
        nodes = [n for n in reference.layers if n in model.layers]
        assert {n for n, i in reference.layers.items() if i.kind in KINDS} <= set(nodes)
        actual, expected = model.forward(x, capture=nodes), reference.forward(x, capture=nodes)
        for node in nodes:
            assert_close(actual[node], expected[node], self.rtol, node)

    def test_capture_one_at_a_time_equals_all_at_once(self) -> None:
        self._need("capture")
        model, reference, x, _ = self._pair("residual")
        model.forward(x)
        nodes = [n for n in reference.layers if n in model.layers]
        together = model.forward(x, capture=nodes)
        for node in nodes:
            np.testing.assert_array_equal(model.forward(x, capture=[node])[node], together[node])

    def test_results_do_not_alias(self) -> None:
        self._need("capture")
        model, _, x, _ = self._pair("plain")
        model.forward(x)
        first = model.forward(x, capture=["relu2"])
        kept = first["relu2"].copy()
        model.forward(x + 1, capture=["relu2"])
        np.testing.assert_array_equal(first["relu2"], kept)

    @pytest.mark.parametrize("name", ["plain", "residual", "softmax_head"])
    def test_batch_equals_single_samples(self, name: str) -> None:
        model, _, x, _ = self._pair(name, n=3)
        whole = model.forward(x).logits
        for i in range(3):
            assert_close(model.forward(x[i : i + 1]).logits, whole[i : i + 1], self.rtol)

    # ---------------------------------------------------------------- replace

    @pytest.mark.parametrize("name", NETS)
    def test_replace_by_an_array(self, name: str) -> None:
        self._need("capture", "replace")
        model, reference, x, _ = self._pair(name)
        model.forward(x)
        for node in (n for n, i in reference.layers.items() if i.kind in KINDS):
            value = reference.forward(x, capture=[node])[node]
            new = np.random.default_rng(1).normal(size=value.shape).astype(np.float32)
            actual = model.forward(x, capture=[node], replace={node: new})
            expected = reference.forward(x, capture=[node], replace={node: new})
            assert_close(actual.logits, expected.logits, self.rtol, node)
            assert_close(actual[node], new, 1e-6, node)

    def test_replace_by_a_function(self) -> None:
        self._need("replace")
        model, reference, x, _ = self._pair("plain")
        model.forward(x)

        def without_channel_2(value: Array) -> Array:
            changed = value.copy()
            changed[..., 2] = 0
            return changed

        swap = {"relu2": without_channel_2}
        assert_close(
            model.forward(x, replace=swap).logits,
            reference.forward(x, replace=swap).logits,
            self.rtol,
        )

    def test_replace_by_itself_changes_nothing(self) -> None:
        self._need("capture", "replace")
        model, _, x, _ = self._pair("residual")
        plain = model.forward(x, capture=["relu@1"])
        again = model.forward(x, replace={"relu@1": plain["relu@1"]})
        assert_close(again.logits, plain.logits, 1e-6)

    def test_replacing_leaves_the_next_call_alone(self) -> None:
        self._need("capture", "replace")
        model, _, x, _ = self._pair("plain")
        before = model.forward(x).logits
        model.forward(x, replace={"relu2": np.zeros_like})
        np.testing.assert_array_equal(model.forward(x).logits, before)

    # ---------------------------------------------------------------- pullback

    @pytest.mark.parametrize("name", NETS)
    def test_gradients_at_the_inputs(self, name: str) -> None:
        self._need("gradient")
        model, reference, x, net = self._pair(name)
        nodes = [input_node(n) for n in net.inputs] if len(net.inputs) > 1 else [INPUT]
        self._compare(model, reference, x, nodes)

    @pytest.mark.parametrize("name", NETS)
    def test_gradients_at_every_layer(self, name: str) -> None:
        self._need("gradient", "capture")
        model, reference, x, _ = self._pair(name)
        model.forward(x)
        for node in (n for n, i in reference.layers.items() if i.kind in KINDS):
            self._compare(model, reference, x, [node], of=OUTPUT)
        for node in _before_logits(reference):
            self._compare(model, reference, x, [node])

    def test_several_nodes_at_once(self) -> None:
        self._need("gradient", "capture")
        model, reference, x, _ = self._pair("residual")
        self._compare(model, reference, x, ["bn1a", INPUT, "relu@2", "conv2b"])
        self._compare(model, reference, x, ["relu@1", "relu@2"])

    def test_gradient_of_a_layer(self) -> None:
        self._need("gradient", "capture")
        model, reference, x, _ = self._pair("residual")
        self._compare(model, reference, x, [INPUT, "relu@0"], of="relu@1")

    def test_cotangent_as_a_function(self) -> None:
        self._need("gradient")
        model, reference, x, _ = self._pair("softmax_head")
        for of in (LOGITS, OUTPUT):
            actual = model.pullback(x, lambda v: v * v, of=of)
            expected = reference.pullback(x, lambda v: v * v, of=of)
            assert_close(actual.gradients[INPUT], expected.gradients[INPUT], self.rtol, of)

    def test_exception_in_the_cotangent_comes_through(self) -> None:
        self._need("gradient")
        model, _, x, _ = self._pair("plain")
        before = model.pullback(x, np.ones_like).gradients[INPUT]

        def broken(value: Array) -> Array:
            raise ZeroDivisionError("in the cotangent")

        with pytest.raises(ZeroDivisionError, match="in the cotangent"):
            model.pullback(x, broken)
        np.testing.assert_array_equal(model.pullback(x, np.ones_like).gradients[INPUT], before)

    def test_pullback_is_linear_in_the_cotangent(self) -> None:
        self._need("gradient")
        model, _, x, _ = self._pair("strided")
        shape = model.forward(x).logits.shape
        a, b = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
        one, two, both = (model.pullback(x, c).gradients[INPUT] for c in (a, b, a + 2 * b))
        assert_close(both, one + 2 * two, self.rtol)

    def test_pullback_gives_the_values_too(self) -> None:
        self._need("gradient", "capture")
        model, reference, x, _ = self._pair("softmax_head")
        actual = model.pullback(x, np.ones_like, wrt=["relu2"])
        trace = reference.forward(x, capture=["relu2"])
        for node in ("relu2", LOGITS, OUTPUT):
            assert_close(actual.values[node], trace[node], self.rtol, node)

    def _compare(
        self,
        model: Model,
        reference: ReferenceModel,
        x: Any,
        wrt: list[str],
        of: str = LOGITS,
        rule: BackwardRule = STANDARD,
    ) -> None:
        """Compare one vector-Jacobian product with the reference's."""
        shape = reference.forward(x, capture=[of])[of].shape
        cotangent = np.random.default_rng(3).normal(size=shape).astype(np.float32)
        actual = model.pullback(x, cotangent, of=of, wrt=wrt, rule=rule)
        expected = reference.pullback(x, cotangent, of=of, wrt=wrt, rule=rule)
        assert set(actual.gradients) == set(wrt)
        for node in wrt:
            what = f"{rule.name} gradient of {of} at {node}"
            assert_close(actual.gradients[node], expected.gradients[node], self.rtol, what)

    # ---------------------------------------------------------------- rules

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("name", WITH_RELU)
    def test_relu_rules(self, name: str, rule: str) -> None:
        self._need("gradient", "rule:relu")
        model, reference, x, net = self._pair(name)
        nodes = [input_node(n) for n in net.inputs] if len(net.inputs) > 1 else [INPUT]
        self._compare(model, reference, x, nodes, rule=RULES[rule])

    def test_rules_of_a_layer(self) -> None:
        self._need("gradient", "capture", "rule:relu")
        model, reference, x, _ = self._pair("residual")
        self._compare(model, reference, x, [INPUT], of="bn2b", rule=DECONVNET)

    def test_a_rule_does_not_outlive_its_call(self) -> None:
        self._need("gradient", "rule:relu")
        model, reference, x, _ = self._pair("strided")
        self._compare(model, reference, x, [INPUT])
        self._compare(model, reference, x, [INPUT], rule=GUIDED)
        self._compare(model, reference, x, [INPUT])

    def test_a_rule_that_would_change_nothing_is_refused(self) -> None:
        self._need("gradient")
        model, _, x, _ = self._pair("smooth")
        with pytest.raises(RuleError, match="relu"):
            model.pullback(x, np.ones_like, rule=GUIDED)

    def test_a_rule_without_rectifiers_on_the_way_is_refused(self) -> None:
        self._need("gradient", "capture", "rule:relu")
        model, _, x, _ = self._pair("plain")
        with pytest.raises(RuleError):
            model.pullback(x, np.ones_like, wrt=["relu2"], rule=GUIDED)

    def test_an_unknown_step_is_refused(self) -> None:
        self._need("gradient")
        model, _, x, _ = self._pair("plain")
        rule = BackwardRule("unheard-of", {"teleport": ReluStep(True, True)})
        with pytest.raises(CnnvizError):
            model.pullback(x, np.ones_like, rule=rule)

    # ---------------------------------------------------------------- curvature

    def _curved(self, name: str) -> tuple[CurvedModel, ReferenceModel, Any, NetSpec]:
        """Give what `_pair` gives, of a model that can be differentiated twice."""
        model, reference, x, net = self._pair(name)
        model.forward(x)
        if "curvature" not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer curvature")
        return curved(model), reference, x, net

    @pytest.mark.parametrize("name", NETS)
    def test_curvature_at_the_inputs(self, name: str) -> None:
        model, reference, x, net = self._curved(name)
        for node in [input_node(n) for n in net.inputs] if len(net.inputs) > 1 else [INPUT]:
            for of in (LOGITS, OUTPUT) if net.ops[-1].kind in _HEADS else (LOGITS,):
                self._compare_curvature(model, reference, x, node, of)

    @pytest.mark.parametrize("name", NETS)
    def test_curvature_at_layers(self, name: str) -> None:
        self._need("capture")
        model, reference, x, _ = self._curved(name)
        for node in _before_logits(reference):
            if reference.layers[node].kind in ("conv", "norm"):
                self._compare_curvature(model, reference, x, node, OUTPUT)

    def test_curvature_of_a_layer(self) -> None:
        self._need("capture")
        model, reference, x, _ = self._curved("swish")
        self._compare_curvature(model, reference, x, INPUT, "bn3")
        self._compare_curvature(model, reference, x, "conv1", "conv2")
        self._compare_curvature(model, reference, x, "conv2", "conv2")

    def _compare_curvature(
        self, model: CurvedModel, reference: ReferenceModel, x: Any, wrt: str, of: str
    ) -> None:
        """Compare one derivative in a direction with the reference's."""

        def drawn(seed: int) -> Cotangent:
            def draw(value: Array) -> Array:
                return np.random.default_rng(seed).normal(size=value.shape).astype(np.float32)

            return draw

        expected = reference.curvature(x, drawn(4), drawn(5), of=of, wrt=wrt)
        actual = model.curvature(x, drawn(4), drawn(5), of=of, wrt=wrt)
        for name in ("gradient", "tangent", "bend"):
            what = f"{name} of {of} at {wrt}"
            assert_close(getattr(actual, name), getattr(expected, name), self.rtol, what)
        assert set(actual.values) == set(expected.values)
        for node, value in actual.values.items():
            assert_close(value, expected.values[node], self.rtol, node)

    def test_curvature_is_the_slope_of_the_pullback(self) -> None:
        model, _, x, _ = self._curved("swish")
        rng = np.random.default_rng(5)
        direction = rng.normal(size=x.shape).astype(np.float32)
        cotangent = rng.normal(size=model.forward(x).logits.shape).astype(np.float32)
        found = model.curvature(x, cotangent, direction)
        above, below = (model.pullback(x + s * direction, cotangent) for s in (0.01, -0.01))
        slope = (above.gradients[INPUT] - below.gradients[INPUT]) / 0.02
        assert_close(found.bend, slope, 2e-3, "bend")
        slope = (above.values[LOGITS] - below.values[LOGITS]) / 0.02
        assert_close(found.tangent, slope, 2e-3, "tangent")

    def test_a_piecewise_linear_network_does_not_bend(self) -> None:
        model, _, x, _ = self._curved("strided")
        assert not model.curvature(x, np.ones_like, np.ones_like).bend.any()

    def test_the_cotangent_and_the_direction_are_asked_for_values(self) -> None:
        self._need("capture")
        model, _, x, _ = self._curved("softmax_head")
        trace = model.forward(x, capture=["relu2"])
        seen: dict[str, Array] = {}

        def cotangent(value: Array) -> Array:
            seen[OUTPUT] = value.copy()
            return value * value

        def direction(value: Array) -> Array:
            seen["relu2"] = value.copy()
            return np.cos(value)

        found = model.curvature(x, cotangent, direction, of=OUTPUT, wrt="relu2")
        for node, value in seen.items():
            assert_close(value, trace[node], self.rtol, node)
        again = model.curvature(
            x, trace[OUTPUT] ** 2, np.cos(trace["relu2"]), of=OUTPUT, wrt="relu2"
        )
        assert_close(found.bend, again.bend, self.rtol, "bend")

    def test_exceptions_in_the_direction_come_through(self) -> None:
        model, _, x, _ = self._curved("swish")

        def broken(value: Array) -> Array:
            raise ZeroDivisionError("in the direction")

        with pytest.raises(ZeroDivisionError, match="in the direction"):
            model.curvature(x, np.ones_like, broken)
        with pytest.raises(ZeroDivisionError, match="in the direction"):
            model.curvature(x, broken, np.ones_like)

    def test_bad_direction(self) -> None:
        model, _, x, _ = self._curved("swish")
        for bad in (np.ones((2, 3), np.float32), np.full(x.shape, np.nan, np.float32)):
            with pytest.raises(ArrayError, match="direction"):
                model.curvature(x, np.ones_like, bad)

    def test_curvature_where_nothing_depends(self) -> None:
        self._need("capture")
        model, _, x, _ = self._curved("swish")
        with pytest.raises(UnknownLayerError, match="does not depend"):
            model.curvature(x, np.ones_like, np.ones_like, of="conv1", wrt="conv2")
        with pytest.raises(UnknownLayerError, match="conv1"):
            model.curvature(x, np.ones_like, np.ones_like, wrt="conv11")

    # ---------------------------------------------------------------- parameters

    @pytest.mark.parametrize("name", NETS)
    def test_parameters(self, name: str) -> None:
        self._need("parameters")
        model, _, x, net = self._pair(name)
        model.forward(x)
        for op in net.ops:
            if op.kind not in ("conv", "linear", "batchnorm"):
                continue
            arrays = model.parameters(op.layer)
            for key, expected in net.of_layer(op.layer).items():
                assert_close(arrays[key], expected, 1e-6, f"{op.layer}.{key}")
            if op.kind == "batchnorm":
                epsilon = np.full_like(arrays["variance"], op.attrs["epsilon"])
                assert_close(arrays["epsilon"], epsilon, 1e-6, f"{op.layer}.epsilon")

    def test_parameters_are_copies(self) -> None:
        self._need("parameters")
        model, _, x, _ = self._pair("plain")
        before = model.forward(x).logits
        weight = model.parameters("conv1")["weight"]
        if weight.flags.writeable:
            weight[...] = 0
        np.testing.assert_array_equal(model.forward(x).logits, before)

    def test_a_layer_without_arrays_has_none(self) -> None:
        self._need("parameters")
        model, _, x, _ = self._pair("plain")
        model.forward(x)
        assert dict(model.parameters("relu1")) == {}

    # ---------------------------------------------------------------- errors

    def test_unknown_layer_lists_near_ones(self) -> None:
        self._need("capture")
        model, _, x, _ = self._pair("plain")
        with pytest.raises(UnknownLayerError, match="conv1"):
            model.forward(x, capture=["conv11"])

    def test_a_layer_called_often_must_say_which_call(self) -> None:
        self._need("capture")
        model, _, x, _ = self._pair("residual")
        with pytest.raises(UnknownLayerError, match="relu@2"):
            model.forward(x, capture=["relu"])

    def test_a_node_that_the_score_does_not_depend_on(self) -> None:
        self._need("gradient", "capture")
        model, _, x, _ = self._pair("residual")
        with pytest.raises(UnknownLayerError, match="does not depend"):
            model.pullback(x, np.ones_like, of="relu@0", wrt=["relu@1"])

    @pytest.mark.parametrize("spoil", ["nan", "rank", "channels", "empty", "text"])
    def test_bad_input(self, spoil: str) -> None:
        model, _, x, _ = self._pair("plain")
        model.forward(x)
        with pytest.raises(ArrayError):
            model.forward(_spoilt(x, spoil))

    def test_bad_cotangent(self) -> None:
        self._need("gradient")
        model, _, x, _ = self._pair("plain")
        with pytest.raises(ArrayError, match="cotangent"):
            model.pullback(x, np.ones((2, 4), np.float32))

    def test_bad_replacement(self) -> None:
        self._need("replace", "capture")
        model, _, x, _ = self._pair("plain")
        with pytest.raises(ArrayError, match="replacement"):
            model.forward(x, replace={"relu2": np.ones((2, 3, 3, 8), np.float32)})

    def test_missing_input_is_named(self) -> None:
        model, _, x, _ = self._pair("two_inputs")
        with pytest.raises(ArrayError, match="vector"):
            model.forward({"image": x["image"]})


def _one(x: Mapping[str, Array]) -> Any:
    """Give one array for a network with one input."""
    return dict(x) if len(x) > 1 else next(iter(x.values()))


def _dependencies(net: NetSpec) -> dict[str, set[str]]:
    """Give, for every node, the nodes that it depends on."""
    nodes = {op.name: net.node(op) for op in net.ops}
    earlier: dict[str, set[str]] = {name: set() for name in net.inputs}
    for op in net.ops:
        direct = {nodes[name] for name in op.inputs if name in nodes}
        earlier[op.name] = direct.union(*(earlier[name] for name in op.inputs))
    return {nodes[op.name]: earlier[op.name] for op in net.ops}


def _before_logits(reference: ReferenceModel) -> list[str]:
    """Give the layers that the logits depend on."""
    ends = reference.activation == "sigmoid" or "softmax" in reference.layers
    names = [n for n, i in reference.layers.items() if i.kind in KINDS]
    return [n for n in names if not (ends and n in ("softmax", "sigmoid"))]


def _spoilt(x: Array, how: str) -> Array:
    """Make a batch that no network should take."""
    match how:
        case "nan":
            bad = x.copy()
            bad[0, 0, 0, 0] = np.nan
            return bad
        case "rank":
            return x[0]
        case "channels":
            return x[..., :2]
        case "empty":
            return x[:0]
        case _:
            return x.astype(str)
