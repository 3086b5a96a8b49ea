"""Running parts of a traced graph: values, and their derivatives, the first with a rule."""

from __future__ import annotations

import contextvars
import copy
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import tensorflow as tf

from cnnviz_core.blended import Batch
from cnnviz_core.checks import check_cotangent, check_direction, out_of_memory
from cnnviz_core.errors import ArrayError, UnknownLayerError, UnsupportedModelError
from cnnviz_core.fast import fast_paths
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, Cotangent, as_float, input_node
from cnnviz_core.rules import BackwardRule, check_steps
from cnnviz_core.spatial import Geometry
from cnnviz_tf.blending import to_tensor
from cnnviz_tf.execution import as_traced
from cnnviz_tf.folding import Folded
from cnnviz_tf.geometry import geometry_of
from cnnviz_tf.kinds import Facts
from cnnviz_tf.logits import scores_before
from cnnviz_tf.preparing import folded_arrays, folded_layers, rebuilt
from cnnviz_tf.recent import Recent
from cnnviz_tf.relevance import hand_down, plan, unruled
from cnnviz_tf.repeats import earliest, repeats_of, shared_tensors
from cnnviz_tf.rules import (
    check_applicable,
    check_applied,
    differentiable_ops,
    in_force,
    is_about_rectifiers,
    relu_step,
)
from cnnviz_tf.second import check_differentiable_twice, twice, without_second_derivative
from cnnviz_tf.tails import affine_in
from cnnviz_tf.trace import Traced

__all__ = ["Graph", "within_memory"]

_FUNCTIONS: Final = 64
"""How many functions are kept: each is a copy of its part of the graph."""

_PROGRAMS: Final = 256
"""How many backward passes, and the like, a graph takes; nothing can be taken from it again."""


class Graph:
    """A traced network, and the functions pruned from it so far.

    Parameters
    ----------
    traced : Traced
        The network's graph.
    activation : str, optional
        What turns the scores into probabilities, where that is not to be detected.

    Attributes
    ----------
    nodes : mapping of str to Node
        Every call of every layer.
    activation : str
        "softmax", "sigmoid" or "none".
    """

    def __init__(self, traced: Traced, activation: str | None = None) -> None:
        self._function = traced.function
        self._inputs = traced.inputs
        self.nodes = traced.nodes
        found = scores_before(traced.output)
        scores, detected = found or (traced.output, "softmax")
        self.activation = activation or detected
        self._tensors: dict[str, tf.Tensor] = {
            INPUT: next(iter(traced.inputs.values())),
            **{input_node(name): tensor for name, tensor in traced.inputs.items()},
            **{name: node.tensor for name, node in traced.nodes.items()},
            LOGITS: scores if self.activation == detected else traced.output,
            OUTPUT: traced.output,
        }
        self._lock = threading.RLock()
        self._programs: dict[Hashable, _Program] = {}
        self._shared: dict[Hashable, list[tf.Tensor] | None] = {}
        self._layers: dict[Hashable, list[Folded]] = {}
        self._functions: Recent[Any] = Recent(_FUNCTIONS)
        self._stand_in: Callable[[Any], Any] | None = None
        self._seeds: dict[Hashable, tuple[tf.Tensor, tf.Tensor]] = {}
        self._facts: Facts | None = None
        self._unruled: dict[Hashable, tuple[str, ...]] = {}

    @property
    def is_full(self) -> bool:
        """Whether so much was added to the graph that it had better be traced anew."""
        return len(self._programs) >= _PROGRAMS

    def __contains__(self, node: str) -> bool:
        return node in self._tensors

    def reading(self, stand_in: Callable[[Any], Any]) -> Graph:
        """Give the same graph, and what is pruned from it, reading other variables.

        Parameters
        ----------
        stand_in : callable
            From what the graph captures, such as a variable's resource, to what is captured in its
            place.

        Returns
        -------
        Graph
        """
        other = copy.copy(self)
        other._stand_in = stand_in
        return other

    def static_shape(self, node: str) -> tuple[int | None, ...] | None:
        """Give what the graph knows of a node's shape.

        Parameters
        ----------
        node : str
            A node.

        Returns
        -------
        tuple of (int or None), or None
            Without the batch axis; None if not even the rank is known.
        """
        shape = self._tensors[node].shape
        return None if shape.rank is None else tuple(shape)[1:]

    def in_order(self, nodes: Iterable[str]) -> list[str]:
        """Sort nodes in the order in which they are computed.

        Parameters
        ----------
        nodes : iterable of str
            Nodes of the graph.

        Returns
        -------
        list of str
        """
        order = {node: i for i, node in enumerate([*self.nodes, LOGITS, OUTPUT])}
        return sorted(nodes, key=lambda node: order.get(node, -1))

    def affine_nodes(self) -> frozenset[str]:
        """Find the layers of whose values the logits are an affine function.

        Returns
        -------
        frozenset of str
            Those of which it is known.
        """
        nodes = {name: self._tensors[name] for name in self.nodes}
        with self._lock:
            return affine_in(self._tensors[LOGITS], nodes)

    def dtype(self, node: str) -> np.dtype[Any]:
        """Give the type of a node's values at the boundary.

        Parameters
        ----------
        node : str
            A node.

        Returns
        -------
        numpy.dtype
            float32 or float64.
        """
        return np.dtype("float64" if self._tensors[node].dtype == tf.float64 else "float32")

    def values(
        self,
        inputs: Mapping[str, Batch],
        nodes: Sequence[str],
        replace: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Compute the values at nodes.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked.
        nodes : sequence of str
            The nodes.
        replace : mapping of str to ndarray, optional
            Values to put in the place of nodes'; only what comes after is computed.

        Returns
        -------
        dict of str to ndarray
        """
        new = {self._tensors[node].ref(): array for node, array in (replace or {}).items()}
        inputs = {name: new.pop(self._inputs[name].ref(), inputs[name]) for name in self._inputs}
        feeds = [reference.deref() for reference in new]

        def build() -> _Program:
            return _Program(feeds, [self._tensors[node] for node in nodes])

        given = [
            tf.cast(to_tensor(array), feed.dtype)
            for feed, array in zip(feeds, new.values(), strict=True)
        ]
        results = self._results(("values", tuple(nodes), tuple(new)), build, inputs, given)
        return dict(zip(nodes, results, strict=True))

    def folded_values(
        self,
        inputs: Mapping[str, Batch],
        nodes: Sequence[str],
        arrays: dict[Hashable, list[tf.Tensor]],
    ) -> dict[str, Array] | None:
        """Compute the values at nodes by fewer operations, equal but for rounding.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked.
        nodes : sequence of str
            The nodes.
        arrays : dict of list of tf.Tensor
            The folded weights of earlier calls; those that are missing are computed, and added.

        Returns
        -------
        dict of str to ndarray, or None
            None if there is nothing to fold on the way to these nodes.
        """
        fetches, sources = [self._tensors[node] for node in nodes], list(self._inputs.values())
        key, graph = ("folded", tuple(nodes)), self._function.graph

        def build() -> _Program:
            self._facts = self._facts or Facts(graph, sources)
            self._layers[key] = folded_layers(fetches, self._facts)
            with graph.as_default():
                return _Program(folded_arrays(self._layers[key]), fetches)

        with self._lock:
            program = self._program(key, build)
        if not program.feeds:
            return None
        known = (self._function, *nodes)
        if known not in arrays:
            weights = self._once(("arrays", key), lambda: self._prune([], program.feeds))
            arrays[known] = _run(weights, [])
        function = self._once(
            key,
            lambda: rebuilt(self._function, sources, fetches, self._layers[key], program.feeds),
        )
        given = [*map(to_tensor, inputs.values()), *arrays[known]]
        return dict(zip(nodes, _arrays(_run(function, given, rewritten=True)), strict=True))

    def shapes(self, inputs: Mapping[str, Batch], nodes: Sequence[str]) -> dict[str, Any]:
        """Compute the shapes of nodes' values.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked.
        nodes : sequence of str
            The nodes.

        Returns
        -------
        dict of str to tuple of int
            With the batch axis.
        """

        def build() -> Any:
            with self._function.graph.as_default():
                shapes = [tf.shape(self._tensors[node]) for node in nodes]
            return self._prune(list(self._inputs.values()), shapes)

        function = self._once(("shapes", tuple(nodes)), build)
        shapes = _arrays(_run(function, [*map(to_tensor, inputs.values())]))
        return {n: tuple(int(m) for m in s) for n, s in zip(nodes, shapes, strict=True)}

    def pullback(
        self,
        inputs: Mapping[str, Batch],
        cotangent: Cotangent,
        of: str,
        wrt: Sequence[str],
        rule: BackwardRule,
    ) -> tuple[dict[str, Array], dict[str, Array], tuple[str, ...]]:
        """Compute a vector-Jacobian product, and the values on its way, in one run.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked.
        cotangent : ndarray or callable
            What multiplies the value at `of`.
        of : str
            The node that is differentiated.
        wrt : sequence of str
            The nodes with respect to which it is differentiated.
        rule : BackwardRule
            How the gradient, or relevance, passes operations.

        Returns
        -------
        values : dict of str to ndarray
            At `of`, `LOGITS`, `OUTPUT`, and the nodes in `wrt` that are no inputs.
        gradients : dict of str to ndarray
            At every node in `wrt`.
        unruled : tuple of str
            The operations for which the rule has no step, if it is to say so.

        Raises
        ------
        RuleError
            If the rule cannot be obeyed.
        """
        check_steps(rule)
        nodes = list(dict.fromkeys([of, LOGITS, OUTPUT, *wrt]))
        nodes = [node for node in nodes if not node.startswith(INPUT)]
        plain = is_about_rectifiers(rule)
        steps = relu_step(rule) if plain else replace(rule, name="")
        key = ("pullback", of, tuple(wrt), steps)

        def build() -> _Program:
            if plain:
                ticket, gradients = self._differentiate(of, wrt, rule)
            else:
                ticket, gradients, self._unruled[key] = self._redistribute(of, wrt, rule)
            fetches = [*(self._tensors[node] for node in nodes), *gradients]
            return _Program([ticket], fetches, earliest([self._tensors[node] for node in wrt]))

        with _Request(cotangent, of, check_cotangent) as ticket:
            results = self._results(key, build, inputs, [ticket])
        return (
            dict(zip(nodes, results, strict=False)),
            dict(zip(wrt, results[len(nodes) :], strict=True)),
            self._unruled.get(key, ()),
        )

    def _redistribute(
        self, of: str, wrt: Sequence[str], rule: BackwardRule
    ) -> tuple[tf.Tensor, list[tf.Tensor], tuple[str, ...]]:
        """Add a backward pass under a rule of relevance: also what the rule has no step for."""
        top, ends = self._tensors[of], [self._tensors[node] for node in wrt]
        for node, end in zip(wrt, ends, strict=True):
            if end is not top and not differentiable_ops(top, [end]):
                raise _unrelated(of, node)
        graph = self._function.graph
        self._facts = self._facts or Facts(graph, self._inputs.values())
        between = f"between {of!r} and {', '.join(map(repr, wrt))}"
        way, steps = plan(top, ends, self._facts, rule, between)
        with graph.as_default():
            ticket, seed = self._asked("cotangent", of)
            arrived = hand_down(top, seed, way, steps, rule)
            found = [arrived.get(end.ref()) for end in ends]
            found = [
                tf.zeros_like(end) if one is None else tf.identity(one)
                for end, one in zip(ends, found, strict=True)
            ]
        return ticket, found, unruled(rule, steps)

    def _differentiate(
        self, of: str, wrt: Sequence[str], rule: BackwardRule
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Add a backward pass to the graph: the ticket's placeholder and the gradients."""
        top, ends = self._tensors[of], [self._tensors[node] for node in wrt]
        step, ops = relu_step(rule), differentiable_ops(top, ends)
        between = f"{of!r} and {', '.join(map(repr, wrt))}"
        if step is not None and ops:
            check_applicable(rule, ops, between)
        with self._function.graph.as_default():
            ticket, seed = self._asked("cotangent", of)
            with in_force(step) as applied:
                gradients = tf.gradients(top, ends, grad_ys=seed)
            gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
        for node, gradient in zip(wrt, gradients, strict=True):
            if gradient is None:
                raise _unrelated(of, node)
        if step is not None:
            check_applied(rule, applied, ops, between)
        return ticket, gradients

    def curvature(
        self,
        inputs: Mapping[str, Batch],
        cotangent: Cotangent,
        direction: Cotangent,
        of: str,
        wrt: str,
    ) -> tuple[dict[str, Array], Array, Array, Array]:
        """Compute the derivative of a vector-Jacobian product in a direction, in one run.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked.
        cotangent : ndarray or callable
            What multiplies the value at `of`.
        direction : ndarray or callable
            Which way the value at `wrt` moves.
        of : str
            The node that is differentiated.
        wrt : str
            The node with respect to which it is differentiated.

        Returns
        -------
        values : dict of str to ndarray
            At `of`, `LOGITS`, `OUTPUT`, and `wrt` unless it is an input.
        gradient, tangent, bend : ndarray
            As in `cnnviz_core.model.Curvature`.
        """
        nodes = list(dict.fromkeys([of, LOGITS, OUTPUT, wrt]))
        nodes = [node for node in nodes if not node.startswith(INPUT)]

        def build() -> Any:
            tickets, derivatives = self._differentiate_twice(of, wrt)
            feeds = [*self._inputs.values(), *tickets]
            return self._prune(feeds, [*(self._tensors[node] for node in nodes), *derivatives])

        function = self._once(("curvature", of, wrt), build)
        with (
            _Request(cotangent, of, check_cotangent) as one,
            _Request(direction, wrt, check_direction) as two,
        ):
            results = _arrays(_run(function, [*map(to_tensor, inputs.values()), one, two]))
        gradient, tangent, bend = results[len(nodes) :]
        return dict(zip(nodes, results, strict=False)), gradient, tangent, bend

    def _differentiate_twice(
        self, of: str, wrt: str
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Add a backward pass and one through it: the tickets' placeholders and the derivatives.

        The gradient is linear in the cotangent, so the second pass gives the tangent there.
        """
        top, end = self._tensors[of], self._tensors[wrt]
        check_differentiable_twice(differentiable_ops(top, [end]))
        with twice(self._function.graph):
            ticket, seed = self._asked("cotangent", of)
            other, along = self._asked("direction", wrt)
            (gradient,) = tf.gradients(top, end, grad_ys=seed)
            if gradient is None:
                raise _unrelated(of, wrt)
            gradient = tf.convert_to_tensor(gradient)
            try:
                tangent, bend = tf.gradients(
                    gradient,
                    [seed, end],
                    grad_ys=along,
                    stop_gradients=[seed],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            except (LookupError, NotImplementedError, TypeError) as error:
                raise without_second_derivative(error) from error
            return (ticket, other), (
                gradient,
                tf.convert_to_tensor(tangent),
                tf.convert_to_tensor(bend),
            )

    def _asked(self, what: str, node: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Give what asks for a cotangent or a direction, added to the graph when first needed."""
        if (what, node) not in self._seeds:
            self._seeds[what, node] = _seed(self._tensors[node])
        return self._seeds[what, node]

    def geometry(self, inputs: Mapping[str, Batch], nodes: Sequence[str], wrt: str) -> Geometry:
        """Tell which places the operations between an input and some nodes read.

        Parameters
        ----------
        inputs : mapping of str to (ndarray or Blended)
            Every input, checked; its sizes count.
        nodes : sequence of str
            The nodes.
        wrt : str
            The input's node.

        Returns
        -------
        Geometry
        """

        def measured(
            shapes: list[tf.Tensor], numbers: list[tf.Tensor]
        ) -> tuple[list[Array], list[Array]]:
            def build() -> Any:
                with self._function.graph.as_default():
                    found = [tf.shape(tensor) for tensor in shapes]
                return self._prune(list(self._inputs.values()), [*found, *numbers])

            if not shapes and not numbers:
                return [], []
            key = ("measured", *(tensor.name for tensor in (*shapes, *numbers)))
            function = self._once(key, build)
            results = _arrays(_run(function, [*map(to_tensor, inputs.values())]))
            return results[: len(shapes)], results[len(shapes) :]

        source = self._tensors[wrt]
        name = next(name for name, tensor in self._inputs.items() if tensor is source)
        tensors = {node: self._tensors[node] for node in nodes}
        return geometry_of(source, inputs[name].shape, tensors, measured)

    def _results(
        self,
        key: Hashable,
        build: Callable[[], _Program],
        inputs: Mapping[str, Batch],
        given: Sequence[tf.Tensor],
    ) -> list[Array]:
        """Run a program; what repeated rows have in common only once, where the graph allows it."""
        repeats = repeats_of(inputs) if fast_paths() else None
        found = None if repeats is None else self._parted(key, build, given, *repeats)
        if found is None:

            def whole() -> Any:
                program = self._program(key, build)
                return self._prune([*self._inputs.values(), *program.feeds], program.fetches)

            found = _run(self._once(key, whole), [*map(to_tensor, inputs.values()), *given])
        return _arrays(found)

    def _parted(
        self,
        key: Hashable,
        build: Callable[[], _Program],
        given: Sequence[tf.Tensor],
        distinct: Mapping[str, Array],
        row_of: Array,
    ) -> list[tf.Tensor] | None:
        """Run a program for the distinct rows, and what is left of it for all; if that can be."""
        sources = list(self._inputs.values())
        with self._lock:
            program = self._program(key, build)
            if key not in self._shared:
                self._shared[key] = shared_tensors(
                    program.fetches, sources, ends=program.ends, given=program.feeds
                )
            shared = self._shared[key]
        if shared is None:
            return None
        values: list[tf.Tensor] = []
        if shared:
            function = self._once(("before", key), lambda: self._prune(sources, shared))
            values = _run(function, [*map(to_tensor, distinct.values())])
            rows = len(next(iter(distinct.values())))
            if any(value.shape[0] != rows for value in values):
                self._shared[key] = None  # its first axis is not that of samples
                return None
            values = [tf.gather(value, row_of) for value in values]
        known = dict(zip((tensor.ref() for tensor in shared), values, strict=True))
        rest = [tensor for tensor in program.fetches if tensor.ref() not in known]
        if rest:
            feeds = [*shared, *program.feeds]
            function = self._once(("after", key), lambda: self._prune(feeds, rest))
            results = _run(function, [*values, *given])
            known |= dict(zip((tensor.ref() for tensor in rest), results, strict=True))
        return [known[tensor.ref()] for tensor in program.fetches]

    def _prune(self, feeds: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor]) -> Any:
        """Cut a function out of the graph; it takes as many arguments as there are feeds."""
        signature = tuple(tf.TensorSpec(t.shape, t.dtype) for t in feeds)
        return self._function.prune(feeds, fetches, input_signature=(signature, {}))

    def _once(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """Give a pruned function, built when it is first asked for."""
        with self._lock:  # tf.gradients and prune change the graph
            function = self._functions.once(key, build)
        if self._stand_in is None:
            return function
        other = copy.copy(function)  # the same code, with captures of its own
        other.set_external_captures([self._stand_in(c) for c in function.captured_inputs])
        return other

    def _program(self, key: Hashable, build: Callable[[], _Program]) -> _Program:
        """Give a program, added to the graph when it is first asked for; the lock is held."""
        if key not in self._programs:
            self._programs[key] = build()
        return self._programs[key]


@dataclass(frozen=True)
class _Program:
    """What is computed of a graph, from its inputs and some more tensors.

    Attributes
    ----------
    feeds : list of tf.Tensor
        What is given beside the inputs.
    fetches : list of tf.Tensor
        What is computed.
    ends : list of tf.Tensor
        The tensors by which it is differentiated.
    """

    feeds: list[tf.Tensor]
    fetches: list[tf.Tensor]
    ends: list[tf.Tensor] = field(default_factory=list)


@contextmanager
def within_memory(inputs: Mapping[str, Batch]) -> Iterator[None]:
    """Say it in cnnviz's way where TensorFlow runs out of memory.

    Parameters
    ----------
    inputs : mapping of str to (ndarray or Blended)
        What the network is run with.

    Yields
    ------
    None

    Raises
    ------
    OutOfMemoryError
        If the memory does not suffice.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise out_of_memory(inputs, error.message) from error


def _unrelated(of: str, wrt: str) -> UnknownLayerError:
    """Say that a node does not depend on another."""
    return UnknownLayerError(
        f"{of!r} does not depend on {wrt!r}, or not in a way that has a gradient",
        "a node on the way from the input to the one that is differentiated",
        "choose another layer",
    )


def _run(function: Any, fed: Sequence[tf.Tensor], *, rewritten: bool = False) -> list[tf.Tensor]:
    """Run a pruned function, as it was traced or as TensorFlow rewrites it to be faster."""
    try:
        with nullcontext() if rewritten else as_traced():
            results: list[tf.Tensor] = function(*fed)
    except tf.errors.InvalidArgumentError as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in fed if t.shape.rank)
        lines = [line for line in error.message.splitlines() if not line.startswith("\t")]
        absent = next((line for line in lines if "No OpKernel" in line), None)
        if absent is not None:
            raise UnsupportedModelError(
                f"TensorFlow has no code for one of the network's operations here: {absent}",
                "operations that TensorFlow can compute on this device in this type",
                "use the network in float32, or on a GPU",
            ) from error
        raise ArrayError(
            f"the network cannot compute with arrays of the shape {shapes}: {' '.join(lines[-1:])}",
            "an input that every layer can take",
            "resize the input to what the network was trained with",
        ) from error
    return results


def _arrays(tensors: Iterable[tf.Tensor]) -> list[Array]:
    """Give tensors in the boundary's types."""
    return [as_float(tensor.numpy()) for tensor in tensors]


# ---------------------------------------------- the cotangent and the direction, inside the run

_REQUESTS: Final[dict[int, _Request]] = {}
_TICKETS: Final = itertools.count()


class _Request:
    """One run's cotangent or direction, which the graph asks for when it knows the value.

    So one that depends on the value costs no second forward pass.  What the caller's
    function raises is kept while the run ends, and raised when the context is left.
    """

    def __init__(
        self, asked: Cotangent, node: str, check: Callable[[Array, Array, str], Array]
    ) -> None:
        self._asked = asked
        self._node = node
        self._check = check
        self._context = contextvars.copy_context()
        self._error: BaseException | None = None
        self._ticket = next(_TICKETS)

    def __enter__(self) -> tf.Tensor:
        _REQUESTS[self._ticket] = self
        return tf.constant(self._ticket, tf.int64)

    def __exit__(self, *_: object) -> None:
        del _REQUESTS[self._ticket]
        if self._error is not None:
            raise self._error

    def answer(self, value: Array) -> Array:
        """Give the array for a value."""
        try:
            given = self._asked
            if callable(given):
                given = self._context.run(given, value.copy())
            return self._check(given, value, self._node)
        except BaseException as error:
            self._error = error
            return np.zeros_like(value)


def _answer(ticket: Array, value: Array) -> Array:
    """Answer a graph that asks for its run's cotangent or direction."""
    return _REQUESTS[int(ticket)].answer(value)


def _seed(top: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Add to the graph what asks for an array like a value: the ticket's placeholder, the array."""
    ticket = tf.compat.v1.placeholder(tf.int64, [])
    boundary = tf.float64 if top.dtype == tf.float64 else tf.float32
    asked = tf.numpy_function(_answer, [ticket, tf.cast(top, boundary)], boundary)
    asked.set_shape(top.shape)
    return ticket, tf.cast(asked, top.dtype)
