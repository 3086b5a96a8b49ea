"""The reference model: a `NetSpec` run by NumPy, with analytic gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from cnnviz_core.checks import (
    check_cotangent,
    check_direction,
    check_inputs,
    check_parameters,
    check_replacement,
    no_variable,
)
from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.layers import check_nodes, find_layer, is_special
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    Array,
    Cotangent,
    Curvature,
    InputInfo,
    Inputs,
    LayerInfo,
    Pullback,
    Replacement,
    Trace,
)
from cnnviz_core.netspec import KINDS, NetSpec, Op
from cnnviz_core.rules import (
    RULE_KINDS,
    STANDARD,
    BackwardRule,
    check_steps,
    without_effect,
    without_step,
)
from cnnviz_core.spatial import Geometry
from cnnviz_core.steps import Step
from cnnviz_core.testing.geometry import geometry_of
from cnnviz_core.testing.operations import OPERATIONS
from cnnviz_core.testing.relevance import KIND_OF, PLACING, Linear, folded, take_step
from cnnviz_core.testing.tangents import backward_moved, forward_moved

__all__ = ["ReferenceModel"]

_WEIGHTED = ("conv", "linear")
_AFFINE = (*_WEIGHTED, "avgpool", "gap", "batchnorm", "add", "concat", "flatten", "tokens")


class ReferenceModel:
    """A `NetSpec` behind the `Model` protocol, in NumPy.

    Parameters
    ----------
    net : NetSpec
        The network.
    dtype : {"float32", "float64"}
        The type in which it computes.
    """

    framework = "numpy"
    capabilities = frozenset(
        {"capture", "replace", "gradient", "curvature", "geometry", "parameters", "copy"}
        | {f"rule:{kind}" for kind in RULE_KINDS}
    )

    def __init__(self, net: NetSpec, dtype: str = "float32") -> None:
        self._net = net
        self._dtype = dtype
        self._arrays = {
            op.layer: {k: v.astype(dtype) for k, v in net.of_layer(op.layer).items()}
            for op in net.ops
        }
        last = net.ops[-1]
        ends = last.kind in ("softmax", "sigmoid")
        self.activation = last.kind if ends else "softmax"
        self._special = {
            INPUT: next(iter(net.inputs)),
            OUTPUT: last.name,
            LOGITS: last.inputs[0] if ends else last.name,
        }
        shapes = net.shapes()
        self._nodes = {net.node(op): op for op in net.ops if not op.attrs.get("functional", False)}
        self.inputs: Mapping[str, InputInfo] = MappingProxyType(
            {name: InputInfo(name, shape, dtype) for name, shape in net.inputs.items()}
        )
        self.layers: Mapping[str, LayerInfo] = MappingProxyType(
            {node: self._info(node, op, shapes[op.name]) for node, op in self._nodes.items()}
        )

    def _info(self, node: str, op: Op, shape: tuple[int, ...]) -> LayerInfo:
        """Describe one call of a layer."""
        calls = [other.name for other in self._net.ops if other.layer == op.layer]
        return LayerInfo(
            name=node,
            kind=KINDS[op.kind],
            type=op.kind,
            shape=shape,
            grid=self._net.grids()[op.name],
            path=op.layer,
            call=calls.index(op.name),
            calls=len(calls),
            affine=self._are_affine_in(op.name),
        )

    def _are_affine_in(self, name: str) -> bool:
        """Tell whether the logits are an affine function of a result."""
        logits = self._special[LOGITS]
        way = self._way(logits, {name})
        return logits in self._depends_on({name}) and all(op.kind in _AFFINE for op in way)

    def _value_name(self, node: str) -> str:
        """Give the name of the result that a node stands for."""
        if node in self._special:
            return self._special[node]
        if is_special(node):
            name = node.removeprefix(f"{INPUT}:")
            if name not in self.inputs:
                raise UnknownLayerError(
                    f"the network has no input {name!r}",
                    f"one of {', '.join(self.inputs)}",
                    "name one of these",
                )
            return name
        return self._nodes[find_layer(self.layers, node).name].name

    def _run(self, x: Inputs, replace: Mapping[str, Replacement]) -> dict[str, Array]:
        """Compute every result."""
        swaps = {self._value_name(node): (node, new) for node, new in replace.items()}
        values = check_inputs(self.inputs, x)
        for name in (*values, *(op.name for op in self._net.ops)):
            if name not in values:
                op = next(op for op in self._net.ops if op.name == name)
                given = [values[i] for i in op.inputs]
                values[name] = OPERATIONS[op.kind].forward(given, self._arrays[op.layer], op.attrs)
            if name in swaps:
                node, new = swaps[name]
                array = new(values[name]) if callable(new) else new
                values[name] = check_replacement(array, values[name], node)
        return values

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `Model.forward`."""
        check_nodes(self.layers, [*capture, *(replace or {})])
        values = self._run(x, replace or {})
        return Trace({n: values[self._value_name(n)] for n in (OUTPUT, LOGITS, *capture)})

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Compute a vector-Jacobian product; see `Model.pullback`."""
        check_nodes(self.layers, [of, *wrt])
        check_steps(rule)
        values = self._run(x, {})
        top = values[self._value_name(of)]
        given = cotangent(top) if callable(cotangent) else cotangent
        gradients = {self._value_name(of): check_cotangent(given, top, of)}
        wanted = {node: self._value_name(node) for node in wrt}
        for node in wrt:
            self._check_way(of, node)
        between = f"between {of!r} and {', '.join(map(repr, wrt))}"
        ops = self._way(self._value_name(of), set(wanted.values()))
        norms = self._folded(ops) if rule.conserves else {}
        gone = {norm.name for chain in norms.values() for norm in chain}
        steps = self._steps(rule, [op for op in ops if op.name not in gone], between)
        for op in ops:
            if op.name in gone:
                parts: Sequence[Array] = [gradients[op.name]]
            else:
                chain = norms.get(op.name, [])
                operation = Linear(
                    op,
                    [values[name] for name in op.inputs],
                    values[[op, *chain][-1].name],
                    self._weights(op, chain),
                )
                parts = take_step(steps[op.name], operation, gradients[op.name], rule)
            for name, part in zip(op.inputs, parts, strict=True):
                gradients[name] = gradients[name] + part if name in gradients else part
        kept = {n: values[self._value_name(n)] for n in (of, LOGITS, OUTPUT, *wrt)}
        return Pullback(
            {node: value for node, value in kept.items() if not node.startswith(INPUT)},
            {
                node: gradients.get(name, np.zeros_like(values[name]))
                for node, name in wanted.items()
            },
            tuple(op.name for op in ops if self._is_unruled(rule, op, steps)),
        )

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Differentiate twice, forward over backward; see `CurvedModel.curvature`."""
        check_nodes(self.layers, [of, wrt])
        values = self._run(x, {})
        bottom, top = self._value_name(wrt), self._value_name(of)
        self._check_way(of, wrt)
        start, value = values[bottom], values[top]
        given = direction(start.copy()) if callable(direction) else direction
        moved = {bottom: check_direction(given, start, wrt)}
        given = cotangent(value.copy()) if callable(cotangent) else cotangent
        gradients = {top: check_cotangent(given, value, of)}
        bends = {top: np.zeros_like(value)}
        above = self._depends_on({bottom}) - {bottom}
        ops = [op for op in self._net.ops if op.name in above]

        def moves(op: Op) -> list[Array]:
            return [moved.get(name, np.zeros_like(values[name])) for name in op.inputs]

        for op in ops:
            inputs = [values[name] for name in op.inputs]
            arrays = self._arrays[op.layer]
            moved[op.name] = forward_moved(op, moves(op), inputs, values[op.name], arrays)
        for op in reversed(ops):
            if op.name not in gradients:
                continue
            g, bend = gradients[op.name], bends[op.name]
            inputs = [values[name] for name in op.inputs]
            own, arrays = values[op.name], self._arrays[op.layer]
            parts = OPERATIONS[op.kind].backward(g, inputs, own, arrays, op.attrs)
            turned = backward_moved(op, g, bend, moves(op), inputs, own, arrays)
            for name, part, turn in zip(op.inputs, parts, turned, strict=True):
                gradients[name] = gradients[name] + part if name in gradients else part
                bends[name] = bends[name] + turn if name in bends else turn
        kept = {node: values[self._value_name(node)] for node in (of, LOGITS, OUTPUT, wrt)}
        return Curvature(
            {node: kept[node] for node in kept if not node.startswith(INPUT)},
            gradients[bottom],
            moved[top],
            bends[bottom],
        )

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what is read; see `SpatialModel.geometry`."""
        check_nodes(self.layers, nodes)
        if x is not None:
            check_inputs(self.inputs, x)
        source = self._value_name(wrt)
        return geometry_of(self._net, source, {node: self._value_name(node) for node in nodes})

    def _check_way(self, of: str, wrt: str) -> None:
        """Check that a node depends on another."""
        if self._value_name(of) not in self._depends_on({self._value_name(wrt)}):
            raise UnknownLayerError(
                f"{of!r} does not depend on {wrt!r}",
                "a node on the way from the input to the one that is differentiated",
                "choose an earlier layer",
            )

    def _way(self, top: str, ends: set[str]) -> list[Op]:
        """Give the operations between a value and others that it depends on, from the top down."""
        above = self._depends_on(ends)
        reached, ops = {top}, []
        for op in reversed(self._net.ops):
            if op.name in reached and any(name in above for name in op.inputs):
                ops.append(op)
                reached.update(op.inputs)
        return ops

    def _steps(self, rule: BackwardRule, ops: Sequence[Op], between: str) -> dict[str, Step | None]:
        """Give the step to take at each operation, and check that the rule has what it needs."""
        linear = {op.name for op in self._net.ops if KIND_OF.get(op.kind) in _WEIGHTED}
        behind = self._depends_on(linear)
        on_the_way = [op for op in ops if op.name in linear]
        steps: dict[str, Step | None] = {}
        for op in ops:
            kind = KIND_OF.get(op.kind)
            first = not any(name in behind for name in op.inputs)
            above = self._depends_on({op.name}) - {op.name}
            last = not any(other.name in above for other in on_the_way)
            weighted = kind in _WEIGHTED
            steps[op.name] = rule.step(kind, first=weighted and first, last=weighted and last)
        unruled = [op for op in ops if self._is_unruled(rule, op, steps)]
        if unruled and rule.unknown == "refuse":
            raise without_step(rule, [f"{op.kind} {op.name!r}" for op in unruled], between)
        if rule.needs and not any(steps.values()):
            raise without_effect(rule, between)
        return steps

    def _is_unruled(self, rule: BackwardRule, op: Op, steps: Mapping[str, Step | None]) -> bool:
        """Tell whether an operation needs a step that a rule has not."""
        needs = op.name in steps and op.kind not in PLACING
        return needs and steps[op.name] is None and rule.unknown != "differentiate"

    def _folded(self, ops: Sequence[Op]) -> dict[str, list[Op]]:
        """Give the batch normalisations that are folded into each layer, from the bottom up."""
        chains: dict[str, list[Op]] = {}
        # The way may end at the layer itself, inside the chain.
        ends = {op.name: op.name for op in self._net.ops if KIND_OF.get(op.kind) in _WEIGHTED}
        for norm in reversed(ops):
            value = norm.inputs[0]
            takers = [op for op in ops if value in op.inputs]
            if norm.kind == "batchnorm" and value in ends and takers == [norm]:
                ends[norm.name] = ends[value]
                chains.setdefault(ends[value], []).append(norm)
        return chains

    def _weights(self, op: Op, norms: Sequence[Op]) -> Mapping[str, Array]:
        """Give an operation's arrays, with batch normalisations folded in."""
        arrays: Mapping[str, Array] = self._arrays[op.layer]
        for norm in norms:
            arrays = folded(arrays, self._arrays[norm.layer], norm.attrs["epsilon"])
        return arrays

    def _depends_on(self, names: set[str]) -> set[str]:
        """Give the results that depend on one of these, and these themselves."""
        above = set(names)
        for op in self._net.ops:
            if any(name in above for name in op.inputs):
                above.add(op.name)
        return above

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `Model.parameters`."""
        path = self._path(layer)
        arrays = {key: value.copy() for key, value in self._arrays[path].items()}
        if "variance" in arrays:
            attrs = next(op.attrs for op in self._net.ops if op.layer == path)
            arrays["epsilon"] = np.full_like(arrays["variance"], attrs["epsilon"])
        return arrays

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> ReferenceModel:
        """Copy the network; see `CopyableModel.copied`."""
        arrays = {key: value.copy() for key, value in self._net.parameters.items()}
        for layer, given in parameters.items():
            for name, values in check_parameters(given, self.parameters(layer), layer).items():
                key = f"{self._path(layer)}.{name}"
                if key not in arrays:
                    raise no_variable(layer, name)
                arrays[key] = values.copy()
        return ReferenceModel(dataclasses.replace(self._net, parameters=arrays), self._dtype)

    def _path(self, layer: str) -> str:
        """Give the path of a layer, of which a node may be named."""
        return layer if layer in self._arrays else find_layer(self.layers, layer).path
