"""A network of TensorFlow or Keras behind the `Model` protocol."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from cnnviz_core.blended import BLEND, Batch
from cnnviz_core.checks import (
    check_inputs,
    check_parameters,
    check_replacement,
    no_room_for_a_copy,
)
from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import (
    ArrayError,
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
    UnknownLayerError,
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
from cnnviz_core.rules import RULE_KINDS, STANDARD, BackwardRule
from cnnviz_core.spatial import Geometry
from cnnviz_tf.copying import StandIns
from cnnviz_tf.entry import DeclaredShape, Entry, entry_of
from cnnviz_tf.graph import Graph, within_memory
from cnnviz_tf.layers import describe
from cnnviz_tf.parameters import arrays_of
from cnnviz_tf.recent import Recent
from cnnviz_tf.trace import OutputSelector, Traced, trace

__all__ = ["TensorFlowModel", "wrap"]

_ACTIVATIONS = ("softmax", "sigmoid", "none")

_SIZES = 8
"""How many graphs are kept, where each picture size needs one of its own."""

_SAME = 1e-5
"""How far two graphs of one network may differ, as a part of the largest value."""

_MANY = 512
"""From how many samples on a copy is worth the seconds that its graph takes to make."""

Shapes: TypeAlias = Mapping[str, tuple[int | None, ...]]
"""The shape of every input, without batch."""


def wrap(
    native: object,
    *,
    input_shape: DeclaredShape | None = None,
    output: OutputSelector = None,
    activation: str | None = None,
) -> TensorFlowModel:
    """Put a network of TensorFlow or Keras behind the `Model` protocol.

    The network is traced once, when it is first needed; its weights are read at every call, so a
    change of them shows at once.  After a change of its structure, wrap it again.

    Parameters
    ----------
    native : object
        A Keras model or layer, what ``tf.saved_model.load`` gives, a ``tf.Module``, or a function
        of TensorFlow.
    input_shape : tuple of (int or None), or mapping of str to such, optional
        The input's shape without batch, channels last, such as (224, 224, 3); for several inputs
        one for each name.  Needed only where the network does not say.
    output : str, int or callable, optional
        Which of several outputs is the main one: a key, an index, or a function that picks the
        tensor.  By default the key "logits", "out", or the first floating tensor.
    activation : {"softmax", "sigmoid", "none"}, optional
        What turns scores into probabilities, where the network's end does not show it.

    Returns
    -------
    TensorFlowModel

    Raises
    ------
    UnsupportedModelError
        If it is no network, is not built, or belongs to Keras on another engine.
    ParameterError
        If `activation` is unknown.
    ArrayError
        If `input_shape` contradicts the network.

    Examples
    --------
    >>> import keras
    >>> net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> wrap(net).layers["conv"].shape
    (6, 6, 4)
    """
    if activation not in (None, *_ACTIVATIONS):
        raise ParameterError(
            f"activation is {activation!r}",
            f"one of {', '.join(map(repr, _ACTIVATIONS))}, or None to detect it",
            "pass one of these, or leave it out",
        )
    return TensorFlowModel(entry_of(native, input_shape), output, activation)


class TensorFlowModel:
    """A network of TensorFlow or Keras, as explainers see it; made by `wrap`.

    Parameters
    ----------
    entry : Entry
        How the network is called.
    output : str, int or callable, optional
        Which of several outputs is the main one.
    activation : str, optional
        What turns scores into probabilities, where that is not to be detected.
    """

    framework = "tensorflow"

    def __init__(self, entry: Entry, output: OutputSelector, activation: str | None) -> None:
        self._entry = entry
        self._output = output
        self._activation = activation
        self._inputs = MappingProxyType(dict(entry.inputs))
        self._lock = threading.Lock()
        self._any_batch = entry.batch is None
        self._graphs: Recent[Graph] = Recent(_SIZES)
        self._first: Shapes | None = None
        self._opens = True
        self._compared = False
        self._layers: Mapping[str, LayerInfo] | None = None
        self._seen: dict[str, tuple[int, ...]] | None = None

    # ---------------------------------------------------------------- what it says of itself

    @property
    def capabilities(self) -> frozenset[str]:
        """What this very network offers."""
        offered = {BLEND, PREPARE, "capture", "replace", "gradient", "curvature", "geometry"}
        offered |= {f"rule:{kind}" for kind in RULE_KINDS}
        return frozenset(offered if self._entry.root is None else {*offered, "parameters", "copy"})

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The named inputs, in the order of the call."""
        return self._inputs

    @property
    def activation(self) -> str:
        """What turns the scores into probabilities."""
        return self._activation or self._graph().activation

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Every call of every layer, in the order in which the calls end."""
        if self._layers is None:
            graph = self._graph()
            shapes = {name: graph.static_shape(name) for name in graph.nodes}
            if any(shape is None or None in shape for shape in shapes.values()):
                full = graph.shapes(self._example(), list(graph.nodes))
                shapes = {name: shape[1:] for name, shape in full.items()}
            ranks = [len(shape) for shape in self._known_shapes().values()]
            self._layers = describe(graph.nodes, shapes, ranks, graph.affine_nodes())
        return self._layers

    # ---------------------------------------------------------------- operations

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network, without gradients; see `Model.forward`."""
        inputs = self._checked(x)
        graph = self._graph(inputs)
        self._check_nodes(graph, [*capture, *(replace or {})])
        nodes = list(dict.fromkeys([OUTPUT, LOGITS, *capture]))
        new: dict[str, Array] = {}
        with within_memory(inputs):
            for node in graph.in_order(replace or {}):
                new[node] = self._replacement(graph, inputs, node, replace[node], new)
            return Trace(graph.values(inputs, nodes, new))

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Compute a vector-Jacobian product, and the values on its way; see `Model.pullback`."""
        inputs = self._checked(x)
        graph = self._graph(inputs)
        self._check_nodes(graph, [of, *wrt])
        ends = list(dict.fromkeys(wrt))
        with within_memory(inputs):
            return Pullback(*graph.pullback(inputs, cotangent, of, ends, rule))

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
        inputs = self._checked(x)
        graph = self._graph(inputs)
        self._check_nodes(graph, [of, wrt])
        with within_memory(inputs):
            return Curvature(*graph.curvature(inputs, cotangent, direction, of, wrt))

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what operations read; see `cnnviz_core.model.SpatialModel.geometry`."""
        inputs = self._example() if x is None else self._checked(x)
        inputs = {name: array[: self._entry.batch or 1] for name, array in inputs.items()}
        graph = self._graph(inputs)
        self._check_nodes(graph, [*nodes, wrt])
        with within_memory(inputs):
            return graph.geometry(inputs, nodes, wrt)

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `Model.parameters`."""
        return arrays_of(self._found(layer))

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> TensorFlowModel:
        """Copy the network; see `cnnviz_core.model.CopyableModel.copied`."""
        self._need_layers()
        changed = [
            (self._found(layer), check_parameters(given, self.parameters(layer), layer), layer)
            for layer, given in parameters.items()
        ]
        return CopiedModel(self, changed)

    def prepared(self, x: Inputs, samples: int | None = None) -> Model:
        """Give a model that runs faster; see `cnnviz_core.model.PreparableModel.prepared`."""
        if samples is not None and samples < _MANY:
            return self
        inputs = self._checked(x)
        one = {name: array[: self._entry.batch or 1] for name, array in inputs.items()}
        made = PreparedModel(self)
        try:
            found, expected = made.forward(one), self.forward(one)
        except (CnnvizError, tf.errors.OpError):
            return self  # such as a fused operation that this device cannot run
        pays = made.folds and all(
            _is_same(found[node], value) for node, value in expected.values.items()
        )
        return made if pays else self

    def folded(
        self, x: Inputs, capture: Sequence[str], arrays: dict[Hashable, list[tf.Tensor]]
    ) -> Trace | None:
        """Run the network in fewer operations; see `cnnviz_tf.graph.Graph.folded_values`."""
        inputs = self._checked(x)
        graph = self._graph(inputs)
        self._check_nodes(graph, capture)
        nodes = list(dict.fromkeys([OUTPUT, LOGITS, *capture]))
        with within_memory(inputs):
            values = graph.folded_values(inputs, nodes, arrays)
        return None if values is None else Trace(values)

    def _found(self, layer: str) -> Any:
        """Give the layer of Keras that bears a name, or of which a node is named."""
        self._need_layers()
        if layer not in self._entry.layers:
            layer = find_layer(self.layers, layer).path
        return self._entry.layers[layer]

    def _need_layers(self) -> None:
        """Check that the network has layers of Keras."""
        if self._entry.root is None:
            raise MissingCapabilityError(
                "an exported network does not say which arrays belong to which layer",
                "a Keras model",
                "load the network's own code or its .keras file",
            )

    # ---------------------------------------------------------------- inputs and graphs

    def _checked(self, x: Inputs) -> dict[str, Batch]:
        """Check the input, and remember the first shapes seen."""
        inputs = check_inputs(self._inputs, x, blended=True)
        batch = len(next(iter(inputs.values())))
        if self._entry.batch not in (None, batch):
            raise ArrayError(
                f"a batch of {batch} was given to a network exported for batches of "
                f"{self._entry.batch}",
                f"exactly {self._entry.batch} samples",
                "export the network with a batch size of None, or pass that many samples",
            )
        if self._seen is None:
            self._seen = {name: array.shape[1:] for name, array in inputs.items()}
        return inputs

    def _known_shapes(self) -> Shapes:
        """Give the input shapes for which the network is traced when no input is at hand."""
        shapes = {name: info.shape for name, info in self._inputs.items()}
        if None not in shapes.values():
            return shapes
        shapes = self._seen or self._entry.built
        if shapes is None:
            raise ArrayError(
                "the network does not say what input it takes",
                "the input's shape, such as (224, 224, 3)",
                "pass input_shape= when wrapping it, or run forward once",
            )
        return shapes

    def _example(self) -> dict[str, Array]:
        """Give an input of one sample, or as many as the network takes."""
        for shapes in (self._known_shapes(), self._seen, self._entry.built):
            if shapes and not any(None in shape for shape in shapes.values()):
                return {
                    name: np.zeros((self._entry.batch or 1, *shape), self._inputs[name].dtype)
                    for name, shape in shapes.items()
                }
        raise ArrayError(
            "the shapes of the layers depend on the input's, which the network leaves open: "
            f"{dict(self._known_shapes())}",
            "an input shape without None",
            "pass input_shape= when wrapping the network, or run forward once",
        )

    def _graph(self, inputs: Mapping[str, Batch] | None = None) -> Graph:
        """Give the network's graph for an input, traced when it is first asked for."""
        shapes = {name: info.shape for name, info in self._inputs.items()}
        if None in shapes.values():
            given = inputs and {name: array.shape[1:] for name, array in inputs.items()}
            shapes = given or self._known_shapes()
        batch = self._entry.batch or (len(next(iter(inputs.values()))) if inputs else 1)
        with self._lock:
            return self._open_graph(shapes, batch) or self._graph_of(shapes, batch)

    def _graph_of(self, shapes: Shapes, batch: int) -> Graph:
        """Give the graph for inputs of some shapes; the lock is held."""

        def key() -> tuple[object, ...]:
            return (None if self._any_batch else batch, *shapes.items())

        def made() -> Graph:
            return Graph(traced, self._activation)

        known = self._graphs.get(key())
        if known is None or known.is_full:
            self._graphs.pop(key(), None)
            traced = self._trace(shapes, batch)  # which may find that it must know the batch
        return self._graphs.once(key(), made)

    def _open_graph(self, shapes: Shapes, batch: int) -> Graph | None:
        """Give a graph for pictures of any size, if the size was seen to change and there is one.

        It serves all sizes, where a graph for each would be traced again and again.
        """
        first = self._first = self._first or shapes
        if not self._opens or shapes == first:
            return None
        opened = {name: (*[None] * (len(shape) - 1), shape[-1]) for name, shape in first.items()}
        if any(len(s) != len(opened[n]) or s[-1] != opened[n][-1] for n, s in shapes.items()):
            return None
        try:
            graph = self._graph_of(opened, batch)
            self._opens = self._compared or self._agree(graph, first, batch)
        except (CnnvizError, TypeError, ValueError, tf.errors.OpError):
            self._opens = False
        self._compared = True
        return graph if self._opens else None

    def _agree(self, graph: Graph, shapes: Shapes, batch: int) -> bool:
        """Tell whether a graph gives what the one for some shapes does; code may ask for sizes."""
        rng = np.random.default_rng(0)
        x = {
            name: rng.random((batch, *(n or 1 for n in shape))).astype(self._inputs[name].dtype)
            for name, shape in shapes.items()
        }
        expected = self._graph_of(shapes, batch).values(x, [OUTPUT])[OUTPUT]
        found = graph.values(x, [OUTPUT])[OUTPUT]
        return _is_same(found, expected)

    def _trace(self, shapes: Shapes, batch: int) -> Traced:
        """Trace the network for batches of any size, or of this one where it must know the size."""
        if not self._any_batch:
            return trace(self._entry, shapes, batch, self._output)
        try:
            return trace(self._entry, shapes, None, self._output)
        except CnnvizError:
            raise
        except (TypeError, ValueError) as error:  # such as reshape(x, (x.shape[0], -1))
            try:
                traced = trace(self._entry, shapes, batch, self._output)
            except Exception:
                raise error from None
            self._any_batch = False
            return traced

    # ---------------------------------------------------------------- nodes

    def _check_nodes(self, graph: Graph, nodes: Sequence[str]) -> None:
        """Check that nodes are the graph's."""
        for node in nodes:
            if node in graph:
                continue
            if is_special(node):
                raise UnknownLayerError(
                    f"the network has no input {node.removeprefix(f'{INPUT}:')!r}",
                    f"one of {', '.join(map(repr, self._inputs))}",
                    "name one of these",
                )
            find_layer(self.layers, node)

    def _replacement(
        self,
        graph: Graph,
        inputs: Mapping[str, Batch],
        node: str,
        given: Replacement,
        new: Mapping[str, Array],
    ) -> Array:
        """Give the array to put in the place of a node's value."""
        shape = graph.static_shape(node)
        if callable(given) or shape is None or None in shape:
            value = graph.values(inputs, [node], new)[node]
            given = given(value.copy()) if callable(given) else given
        else:
            batch = len(next(iter(inputs.values())))
            value = np.broadcast_to(np.zeros((), graph.dtype(node)), (batch, *shape))
        return check_replacement(given, value, node)


class CopiedModel(TensorFlowModel):
    """A copy of a network: it runs the network's graphs, and reads variables of its own.

    Parameters
    ----------
    original : TensorFlowModel
        The network, or a copy of one.
    changed : sequence of (keras.Layer, mapping of str to ndarray, str)
        The layers that have other arrays, these arrays, checked, and the layers' names.
    """

    def __init__(
        self,
        original: TensorFlowModel,
        changed: Sequence[tuple[Any, Mapping[str, Array], str]],
    ) -> None:
        super().__init__(original._entry, original._output, original._activation)
        self._lock, self._graphs = original._lock, original._graphs
        self._any_batch = original._any_batch
        self._layers, self._seen = original._layers, original._seen
        layers = [self._entry.root, *self._entry.layers.values()]
        known = original._stand_ins if isinstance(original, CopiedModel) else None
        try:
            self._stand_ins = StandIns(layers, known)
        except tf.errors.ResourceExhaustedError as error:
            raise no_room_for_a_copy(error.message) from error
        for layer, arrays, name in changed:
            self._stand_ins.write(layer, arrays, name)

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `Model.parameters`."""
        return self._stand_ins.arrays_of(self._found(layer))

    def _graph(self, inputs: Mapping[str, Batch] | None = None) -> Graph:
        """Give the original's graph for an input, reading the copy's variables."""
        return super()._graph(inputs).reading(self._stand_ins.stand_in)


class PreparedModel(Delegate):
    """A model with what scales and shifts folded into the layers before, in its forward passes.

    Parameters
    ----------
    model : TensorFlowModel
        The network, whose weights are those of now.
    """

    def __init__(self, model: TensorFlowModel) -> None:
        super().__init__(model)
        self._original = model
        self._folded: dict[Hashable, list[tf.Tensor]] = {}

    @property
    def folds(self) -> bool:
        """Whether something was folded so far."""
        return bool(self._folded)

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network, without gradients; see `Model.forward`."""
        if not replace:
            trace = self._original.folded(x, capture, self._folded)
            if trace is not None:
                return trace
        return self._original.forward(x, capture=capture, replace=replace)


def _is_same(found: Array, expected: Array) -> bool:
    """Tell whether values are those expected, but for rounding."""
    scale = np.abs(expected).max(initial=0)
    return np.allclose(found, expected, rtol=0, atol=_SAME * scale, equal_nan=True)
