"""A PyTorch network behind the ``Model`` protocol."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cnnviz_core.ablated import ABLATE, Ablated
from cnnviz_core.blended import BLEND, Batch
from cnnviz_core.checks import (
    check_cotangent,
    check_direction,
    check_parameters,
    check_replacement,
)
from cnnviz_core.errors import (
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.layers import find_layer, is_special
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    PREPARE,
    Array,
    Cotangent,
    Curvature,
    InputInfo,
    Inputs,
    LayerInfo,
    Model,
    Pullback,
    Replacement,
    Trace,
)
from cnnviz_core.rules import RULE_KINDS, STANDARD, BackwardRule, check_steps
from cnnviz_core.spatial import Geometry
from cnnviz_torch.ablating import ablated, check_few, made
from cnnviz_torch.accepts import accepts
from cnnviz_torch.arrays import to_array, to_tensor
from cnnviz_torch.build import SpecNetwork
from cnnviz_torch.capture import Action, Watch, watching
from cnnviz_torch.copying import copied
from cnnviz_torch.curvature import bent, twice_differentiable
from cnnviz_torch.exported import exported_inputs, unflattened
from cnnviz_torch.graph import Node, ways
from cnnviz_torch.inputs import Output, Shape, check_loaded, declared_inputs
from cnnviz_torch.isolation import isolated
from cnnviz_torch.layers import arrays_of
from cnnviz_torch.network import Network
from cnnviz_torch.recording import Recorder
from cnnviz_torch.rules import about_gradients, apply_rule
from cnnviz_torch.spreading import spread_at
from cnnviz_torch.trace import Structure, named_layers

# What few calls need is imported by them: a first explanation is to come soon.
if TYPE_CHECKING:
    from cnnviz_torch.records import Records

__all__ = ["TorchModel", "unwrapped", "wrap"]

_ACTIVATIONS = ("softmax", "sigmoid", "none")
_ALL = frozenset(
    {
        ABLATE,
        BLEND,
        PREPARE,
        "capture",
        "replace",
        "gradient",
        "curvature",
        "geometry",
        "parameters",
        "copy",
    }
    | {f"rule:{kind}" for kind in RULE_KINDS}
)
_REFUSALS = (CnnvizError, RuntimeError, ValueError, TypeError, IndexError)
"""What a network may raise that is run in a way that it is not made for."""
_Recorded: TypeAlias = tuple[Recorder, dict[str, torch.Tensor], list[Node]]
_OF_SCRIPTS = frozenset({BLEND, "gradient"})


def wrap(
    native: object,
    *,
    input_shape: Shape | Mapping[str, Shape] | None = None,
    output: Output = None,
    activation: Literal["softmax", "sigmoid", "none"] | None = None,
) -> TorchModel:
    """Put a PyTorch network behind the ``Model`` protocol.

    Parameters
    ----------
    native : nn.Module or torch.export.ExportedProgram
        The network; it is never changed.  Compiled and data-parallel ones are run on one device,
        uncompiled.  TorchScript offers gradients at the input only.
    input_shape : tuple of (int or None), or mapping of str to tuple
        Shape of the input without the batch axis, channels last, such as (224, 224, 3); one for
        each input, by the name of the argument, where there are several.  Without it, `layers` is
        known only after the first input.
    output : str, int or callable, optional
        Which of several outputs is the main one: a key, a position, or a function of what the
        network returns.  By default the tensor; of a mapping "logits" or "out"; else the first
        floating-point tensor.
    activation : {"softmax", "sigmoid", "none"}, optional
        What turns the scores into probabilities, where the network does not end in it.

    Returns
    -------
    TorchModel

    Raises
    ------
    UnsupportedModelError
        If the object is no such network, or its parameters hold no values.
    ParameterError
        If an argument does not fit the network.

    Warns
    -----
    UserWarning
        If a batch normalisation keeps no running statistics: then the samples of a batch influence
        each other.
    """
    if not accepts(native):
        raise UnsupportedModelError(
            f"{type(native).__name__} is not a network of PyTorch",
            "a torch.nn.Module or a torch.export.ExportedProgram",
            "put the function into the forward of an nn.Module whose attributes are its layers",
        )
    if activation not in (None, *_ACTIVATIONS):
        raise ParameterError(
            f"activation is {activation!r}",
            f"one of {', '.join(_ACTIVATIONS)}, or None to find it",
            "leave it out, unless the network's scores are to be read otherwise",
        )
    batch = None
    if isinstance(native, nn.Module):
        network = unwrapped(native)
    else:
        shapes, batch = exported_inputs(native)
        network = unflattened(native)
        input_shape = input_shape or shapes
    if isinstance(network, SpecNetwork):
        input_shape = input_shape or network.input_shapes
    check_loaded(network)
    if any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
        for module in network.modules()
    ):
        warnings.warn(
            "a batch normalisation of the network keeps no running statistics "
            "(track_running_stats=False), so the samples of a batch influence each other: explain "
            "one picture at a time",
            UserWarning,
            stacklevel=2,
        )
    inputs = declared_inputs(network, input_shape)
    return TorchModel(Network(network, inputs, output, activation, batch))


def unwrapped(native: nn.Module) -> nn.Module:
    """Take the wrappers of ``torch.compile`` and of data parallelism off a network.

    Parameters
    ----------
    native : nn.Module
        A network.

    Returns
    -------
    nn.Module
        The user's own.
    """
    while True:
        if "_orig_mod" in native._modules:
            native = native._orig_mod
        elif isinstance(native, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            native = native.module
        else:
            return native


class TorchModel:
    """A PyTorch network behind the ``Model`` protocol; made by `wrap`.

    Parameters
    ----------
    network : Network
        The network, with what is known of it.
    """

    framework = "torch"

    def __init__(self, network: Network) -> None:
        self._network = network
        scripted = isinstance(network.module, torch.jit.ScriptModule)
        self.capabilities = _OF_SCRIPTS if scripted else _ALL

    @property
    def activation(self) -> str:
        """What turns the logits into probabilities; "softmax" as long as no input was seen."""
        return self._network.activation

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The named inputs, in the order of the call."""
        return MappingProxyType(self._network.inputs)

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Every call of every layer, in the order in which the calls end."""
        return self._network.structure().layers

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network, without gradients; see `cnnviz_core.model.Model.forward`."""
        network, replace = self._network, replace or {}
        arrays = network.checked(x)
        structure = network.structure(arrays)
        layers = [node for node in capture if not is_special(node)]
        self._need_layers([*replace, *layers])
        with network.isolated(arrays), torch.no_grad():
            values = self._values_once(arrays, structure, layers, replace)
            if values is None:
                for new in replace.values():
                    check_few(new)
                values = self._values(arrays, structure, layers, replace)
        for node in capture:
            if node not in values:
                values[node] = np.array(arrays[network.input_of(node)])
        return Trace(values)

    def _values(
        self,
        arrays: Mapping[str, Batch],
        structure: Structure,
        layers: Sequence[str],
        replace: Mapping[str, Replacement],
        spread: Sequence[Watch] = (),
    ) -> dict[str, Array]:
        """Run the network, and give its ends and the values of some layers."""
        network = self._network
        values: dict[str, Array] = {}
        done: set[str] = set()

        def swap(node: str, new: Replacement) -> Action:
            def act(value: torch.Tensor) -> torch.Tensor:
                first = structure.has_channels_first(node, value)
                if isinstance(new, Ablated) and spread:
                    done.add(node)
                    return ablated(new, value, node, channels_first=first)
                # An array is compared with the old value's shape only.
                old = to_array(value if callable(new) else value[:1], channels_first=first)
                if callable(new):
                    array = check_replacement(new(old), old, node)
                else:
                    like = np.broadcast_to(old, (len(value), *old.shape[1:]))
                    array = check_replacement(new, like, node)
                done.add(node)
                return to_tensor(array, value, channels_first=first)

            return act

        def keep(node: str) -> Action:
            def act(value: torch.Tensor) -> None:
                first = structure.has_channels_first(node, value)
                values[node] = to_array(made(value), channels_first=first)
                done.add(node)

            return act

        watches = [*spread]
        watches += [
            network.watch(structure, node, swap(node, new)) for node, new in replace.items()
        ]
        watches += [network.watch(structure, node, keep(node)) for node in layers]
        with watching(watches):
            ends = network.run(network.tensors(arrays), structure)
            ends = {node: made(value) for node, value in ends.items()}
        _check_called([*replace, *layers], done)
        return values | _ends(ends, structure)

    def _values_once(
        self,
        arrays: Mapping[str, Batch],
        structure: Structure,
        layers: Sequence[str],
        replace: Mapping[str, Replacement],
    ) -> dict[str, Array] | None:
        """Run the network as `_values` does, equal samples once up to the layer that is replaced.

        None where there are none, or the network is not made for it.
        """
        spread = spread_at(self._network, structure, arrays, list(replace))
        if spread is None:
            return None
        try:
            if not spread.is_sound():
                return None
            values = self._values(spread.arrays, structure, layers, replace, [spread.watch])
        except MemoryError:
            raise
        except _REFUSALS as error:
            spread.reject(error)
            return None
        return values if spread.gives(values) else None

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Compute a vector-Jacobian product; see `cnnviz_core.model.Model.pullback`."""
        check_steps(rule)
        for need in rule.needs:
            self._need(need, f"the rule {rule.name!r}")
        network = self._network
        arrays = network.checked(x)
        structure = network.structure(arrays)
        wrt = list(dict.fromkeys(wrt))
        with network.isolated(arrays):
            records = None if about_gradients(rule) else _records(rule)
            found = None
            if records is None and of in (LOGITS, OUTPUT):
                found = self._recorded_once(arrays, structure, of, wrt)
            if found is None:
                found = self._recorded(arrays, structure, of, wrt, records)
            recorder, ends, nodes = found
            root, leaves = recorder.roots[of], [recorder.leaves[node] for node in wrt]
            between = f"between {of!r} and {', '.join(map(repr, wrt))}"
            descent = None
            if records is None:
                apply_rule(rule, nodes, between)
            else:
                from cnnviz_torch.flow import Flow
                from cnnviz_torch.relevance import Descent

                flow = Flow.between(root, leaves, recorder.inputs, nodes)
                descent = Descent(rule, flow, records, self._paths(), between)
            first = structure.has_channels_first(of, root)
            value = to_array(root, channels_first=first)
            given = cotangent(value) if callable(cotangent) else cotangent
            seed = to_tensor(check_cotangent(given, value, of), root, channels_first=first)
            gradients = (descent.run if descent else _differentiated)(root, seed, leaves)
        values = {**_ends(ends, structure), of: value}
        results = {}
        for node, leaf, gradient in zip(wrt, leaves, gradients, strict=True):
            first = structure.has_channels_first(node, leaf)
            results[node] = to_array(gradient, channels_first=first)
            if not is_special(node):
                values[node] = _array(leaf, first)
        return Pullback(values, results, descent.unruled if descent else ())

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Differentiate twice; see `cnnviz_core.model.CurvedModel.curvature`."""
        self._need("curvature", "a second derivative")
        network = self._network
        arrays = network.checked(x)
        structure = network.structure(arrays)
        with network.isolated(arrays):
            with twice_differentiable():
                recorder, ends, nodes = self._recorded(arrays, structure, of, [wrt])
            root, leaf = recorder.roots[of], recorder.leaves[wrt]
            first_of = structure.has_channels_first(of, root)
            first_wrt = structure.has_channels_first(wrt, leaf)
            value = to_array(root, channels_first=first_of)
            start = to_array(leaf, channels_first=first_wrt)
            given = check_cotangent(_given(cotangent, value), value, of)
            along = check_direction(_given(direction, start), start, wrt)
            gradient, tangent, bend = bent(
                root,
                leaf,
                to_tensor(given, root, channels_first=first_of),
                to_tensor(along, leaf, channels_first=first_wrt),
                nodes,
            )
        values = {**_ends(ends, structure), of: value}
        if not is_special(wrt):
            values[wrt] = start
        return Curvature(
            values,
            to_array(gradient, channels_first=first_wrt),
            to_array(tangent, channels_first=first_of),
            to_array(bend, channels_first=first_wrt),
        )

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what operations read; see `cnnviz_core.model.SpatialModel.geometry`."""
        from cnnviz_torch.geometry import geometry_of

        self._need("geometry", "a receptive field")
        network = self._network
        arrays = network.sample(x)
        structure = network.structure(arrays)
        layers = [node for node in nodes if not is_special(node)]
        edges: dict[str, GradientEdge] = {}

        def note(node: str) -> Action:
            def act(value: torch.Tensor) -> None:
                if value.requires_grad:
                    edges[node] = get_gradient_edge(value)

            return act

        recorder = Recorder(everywhere=True)
        inputs = {node: network.input_of(node) for node in (wrt, *nodes) if _is_input(node)}
        watches = [network.watch(structure, node, note(node)) for node in layers]
        with network.isolated(arrays):
            fed = recorder.feed(network.tensors(arrays), inputs)
            with recorder.recording(), watching(watches):
                ends = network.run(fed, structure)
            for node, value in {**ends, **recorder.leaves}.items():
                if node in nodes:
                    note(node)(value)
            leaf = recorder.leaves[wrt]
            return geometry_of(leaf, structure.has_channels_first(wrt, leaf), edges)

    def _recorded_once(
        self, arrays: Mapping[str, Batch], structure: Structure, of: str, wrt: Sequence[str]
    ) -> _Recorded | None:
        """Run the network as `_recorded` does, equal samples once up to the layer.

        None where there are none, or the network is not made for it.
        """
        spread = spread_at(self._network, structure, arrays, wrt)
        if spread is None:
            return None
        try:
            found = self._recorded(spread.arrays, structure, of, wrt, spread=[spread.watch])
            recorder, ends, _ = found
            right = spread.is_sound(ends) and spread.gives({**ends, **recorder.leaves})
        except _REFUSALS as error:
            spread.reject(error)
            return None
        return found if right else None

    def _recorded(
        self,
        arrays: Mapping[str, Batch],
        structure: Structure,
        of: str,
        wrt: Sequence[str],
        records: Records | None = None,
        spread: Sequence[Watch] = (),
    ) -> _Recorded:
        """Run the network forward, recorded from the nodes in `wrt` on.

        Usually one pass does.  Where the network's own code has switched recording off on the way
        (a frozen backbone called under ``no_grad``), a second one is recorded throughout; as is the
        only one where records are kept too, which tell constants from what depends on the input.
        """
        network = self._network
        inputs = {node: network.input_of(node) for node in wrt if is_special(node)}
        if of not in (LOGITS, OUTPUT) and is_special(of):
            raise UnknownLayerError(
                f"{of!r} is not a value that the network computes",
                f"{LOGITS!r}, {OUTPUT!r} or a layer's name",
                "differentiate one of these",
            )
        layers = [node for node in wrt if node not in inputs]
        self._need_layers([*layers, *([] if is_special(of) else [of])])
        for everywhere in (False, True) if records is None else (True,):
            recorder = Recorder(everywhere)
            watches = [*spread]
            own = bool(spread)
            watches += [network.watch(structure, node, recorder.leaf(node, own)) for node in layers]
            if not is_special(of):
                watches.append(network.watch(structure, of, recorder.root(of)))
            fed = recorder.feed(network.tensors(arrays), inputs)
            with recorder.recording(), watching(watches), records or nullcontext():
                ends = network.run(fed, structure)
            recorder.roots |= ends
            _check_called([*wrt, of], {*recorder.leaves, *recorder.roots})
            found = ways(recorder.roots[of], [recorder.leaves[node] for node in wrt])
            complete = all(found.reached) and not found.checkpointed
            if complete and (everywhere or not recorder.interrupted):
                return recorder, ends, found.nodes
        if found.checkpointed:
            raise UnsupportedModelError(
                f"a reentrant checkpoint hides what lies between {of!r} and the nodes to "
                f"differentiate with respect to ({', '.join(map(repr, wrt))})",
                "a network without reentrant checkpoints",
                "call torch.utils.checkpoint with use_reentrant=False, or switch it off",
            )
        node = next(n for n, hit in zip(wrt, found.reached, strict=True) if not hit)
        raise UnknownLayerError(
            f"{of!r} does not depend on {node!r}, as far as torch can differentiate",
            "a node on the way from the input to the one that is differentiated",
            "choose an earlier layer; see that the network's forward does not detach its values "
            "or run in inference_mode",
        )

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `cnnviz_core.model.Model.parameters`."""
        self._need("parameters", "reading a layer's arrays")
        _, arrays = self._found(layer)
        return arrays

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> TorchModel:
        """Copy the network; see `cnnviz_core.model.CopyableModel.copied`."""
        self._need("copy", "a copy of the network")
        arrays: dict[str, dict[str, Array]] = {}
        for layer, given in parameters.items():
            name, own = self._found(layer)
            arrays.setdefault(name, {}).update(check_parameters(given, own, layer))
        return TorchModel(self._network.twin(copied(self._network.module, arrays)))

    def prepared(self, x: Inputs, samples: int | None = None) -> Model:
        """Make a faster copy; see `cnnviz_core.model.PreparableModel.prepared`."""
        from cnnviz_torch.program.prepared import prepared

        self._need(PREPARE, "a faster copy")
        return prepared(self, x)

    def _found(self, layer: str) -> tuple[str, dict[str, Array]]:
        """Give the name and the arrays of a layer, of which a node may be named."""
        known = {name: module for name, _, module in named_layers(self._network.module)}
        name = layer if layer in known else find_layer(self.layers, layer).path
        # Some parametrizations change when they are read while they are being trained.
        with isolated(self._network.module, random=False):
            return name, arrays_of(known[name])

    def _paths(self) -> dict[nn.Module, str]:
        """Name the network's layers, by their modules."""
        return {module: name for name, _, module in named_layers(self._network.module)}

    def _need_layers(self, nodes: Collection[str]) -> None:
        """Check that the network lets its layers be looked at, where this is asked for."""
        if nodes:
            self._need("capture", f"looking at {', '.join(map(repr, nodes))}")

    def _need(self, capability: str, what: str) -> None:
        """Check that the network offers something."""
        if capability not in self.capabilities:
            raise MissingCapabilityError(
                f"{what} needs {capability!r}, which this {type(self._network.module).__name__} "
                "does not offer",
                f"a need among {', '.join(map(repr, sorted(self.capabilities)))}",
                "wrap the nn.Module that it was made from, or use a method that looks at the "
                "input only, such as saliency or occlusion",
            )


def _records(rule: BackwardRule) -> Records:
    """Make what keeps for a rule of relevance what operations are given."""
    from cnnviz_torch.records import Records
    from cnnviz_torch.relevance import needs_results

    return Records(needs_results(rule))


def _is_input(node: str) -> bool:
    """Tell whether a node is one of the inputs."""
    return is_special(node) and node not in (LOGITS, OUTPUT)


def _given(asked: Cotangent, value: Array) -> Array:
    """Give an array, or what a function makes of a copy of the value."""
    return asked(value.copy()) if callable(asked) else asked


def _differentiated(
    root: torch.Tensor, cotangent: torch.Tensor, leaves: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Multiply by the transposed derivative of a value by others."""
    if not leaves:
        return ()
    return torch.autograd.grad(root, leaves, cotangent, materialize_grads=True)


def _array(value: torch.Tensor, channels_first: bool) -> Array:
    """Copy a value, of which all rows may be one in memory."""
    if value.ndim > 1 and len(value) > 1 and value.stride(0) == 0:
        return np.repeat(to_array(value[:1], channels_first=channels_first), len(value), axis=0)
    return to_array(value, channels_first=channels_first)


def _ends(ends: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Array]:
    """Copy the output and the logits."""
    first = structure.channels_first
    return {node: to_array(value, channels_first=first) for node, value in ends.items()}


def _check_called(nodes: Iterable[str], called: Collection[str]) -> None:
    """Check that every layer that was asked for was called."""
    for node in nodes:
        if node not in called:
            raise UnknownLayerError(
                f"layer {node!r} was not called in this forward pass, although it was in the first",
                "a layer that is called for every input",
                "choose another layer",
            )
