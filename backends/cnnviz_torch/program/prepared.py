"""A network on a private list of its operations: the same values, in less time."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from cnnviz_core.ablated import Ablated
from cnnviz_core.blended import Batch, Blended
from cnnviz_core.checks import check_cotangent, check_replacement
from cnnviz_core.delegate import Delegate
from cnnviz_core.fast import fast_paths
from cnnviz_core.increment import Increment
from cnnviz_core.layers import find_layer, is_special
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    Array,
    Cotangent,
    Inputs,
    Model,
    Pullback,
    Replacement,
    Trace,
)
from cnnviz_core.repeated import repeated_rows
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_torch.ablating import ablated, made
from cnnviz_torch.arrays import to_array, to_tensor
from cnnviz_torch.graph import ways
from cnnviz_torch.network import Network
from cnnviz_torch.program.derivatives import differentiates
from cnnviz_torch.program.feeding import as_tensor, device_of, fed, running
from cnnviz_torch.program.fusing import activations_fused, fused
from cnnviz_torch.program.increment import increment
from cnnviz_torch.program.lowering import channels_last, normalisations_folded
from cnnviz_torch.program.noting import Trial, noted
from cnnviz_torch.program.pieces import most_at_once
from cnnviz_torch.program.program import Program, Size, Unrunnable
from cnnviz_torch.program.tape import Untaped
from cnnviz_torch.program.unchanged import Unchanged
from cnnviz_torch.rules import about_gradients, apply_rule
from cnnviz_torch.trace import Structure

__all__ = ["Prepared", "prepared"]


class _Networked(Model, Protocol):
    """The model of the network itself."""

    _network: Network


def prepared(model: _Networked, x: Inputs) -> Model:
    """Make a private copy of a network's operations, for inputs of one shape.

    Parameters
    ----------
    model : TorchModel
        The network.
    x : ndarray (N, ...), or mapping of str to ndarray
        An input, of which the first sample is run.

    Returns
    -------
    Model
        The model itself where the operations cannot be repeated: they differ from input to input,
        draw random numbers, or do not give what the network gave.

    Raises
    ------
    ArrayError
        If `x` does not fit.
    """
    network = model._network
    arrays = network.sample(x)
    structure = network.structure(arrays)
    if torch.is_autocast_enabled(device_of(network).type):
        return model
    try:
        program, trial = noted(network, structure, arrays)
    except Untaped:
        return model
    for lowered in (channels_last(normalisations_folded(program)), program):
        for joined in (fused(lowered), lowered):
            if trial.passed(network, joined, trial.unseen):
                return Prepared(model, structure, lowered, joined, trial)
    return model


class Prepared(Delegate):
    """A network's operations as a private program; made by `prepared`.

    What the program cannot do (inputs of another shape, rules of relevance, values that folding
    took away) is asked of the network itself; as is everything once its weights have changed.

    Parameters
    ----------
    model : TorchModel
        The network.
    structure : Structure
        What is known of it.
    program : Program
        Its operations.
    fused : Program
        The same, faster, not to be differentiated.
    trial : Trial
        Samples to try it on.
    """

    def __init__(
        self,
        model: _Networked,
        structure: Structure,
        program: Program,
        fused: Program,
        trial: Trial,
    ) -> None:
        super().__init__(model)
        self._network = model._network
        self._structure = structure
        self._program = program
        self._fused = fused
        self._example = trial.first(1)
        self._unchanged = Unchanged(self._network.module)
        self._lock = threading.Lock()
        self._most = most_at_once(fused)
        self._differentiable: bool | None = None
        self._sample: tuple[Array, Increment[torch.Tensor]] | None = None

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `cnnviz_core.model.Model.forward`."""
        arrays = self._network.checked(x)
        arrayed = {n: v for n, v in (replace or {}).items() if not (callable(v) or is_special(n))}
        if self._fits(arrays) and len(arrayed) == len(replace or {}):
            try:
                found = self._forward(arrays, list(dict.fromkeys(capture)), arrayed)
            except Unrunnable:
                found = None
            if found is not None:
                return found
        return self._model.forward(x, capture=capture, replace=replace)

    def _forward(
        self, arrays: Mapping[str, Batch], capture: Sequence[str], replace: Mapping[str, Array]
    ) -> Trace | None:
        """Run the program forward; None where it does not make the values."""
        asked = [node for node in capture if not _is_input(node)]
        program = self._able([*asked, *replace])
        if program is None or self._are_mixed_up(asked, replace):
            return None
        if not asked and not replace and (found := self._locally(arrays)) is not None:
            values = found
        else:
            values = self._in_pieces(program, arrays, asked, replace)
        for node in capture:
            if _is_input(node):
                values[node] = np.array(arrays[self._network.input_of(node)])
        return Trace(values)

    def _in_pieces(
        self,
        program: Program,
        arrays: Mapping[str, Batch],
        asked: Sequence[str],
        replace: Mapping[str, Array],
    ) -> dict[str, Array]:
        """Give values of a batch, of which as many samples are run at once as are fast."""
        n = len(next(iter(arrays.values())))
        whole = replace or device_of(self._network).type != "cpu" or n <= self._most
        if whole or not all(_each_sample(program, self._slot(node)) for node in asked):
            return self._values(program, arrays, asked, replace)
        parts = [
            self._values(
                program, {k: batch[i : i + self._most] for k, batch in arrays.items()}, asked, {}
            )
            for i in range(0, n, self._most)
        ]
        return {node: np.concatenate([part[node] for part in parts]) for node in parts[0]}

    def _values(
        self,
        program: Program,
        arrays: Mapping[str, Batch],
        asked: Sequence[str],
        replace: Mapping[str, Array],
    ) -> dict[str, Array]:
        """Give values of a batch."""
        slots = {node: self._slot(node) for node in (OUTPUT, LOGITS, *asked)}
        n = len(next(iter(arrays.values())))
        with running(self._network, arrays), torch.no_grad():
            put = {
                self._slot(node): self._replacement(program, node, value, n)
                for node, value in replace.items()
            }
            made = self._known(program, arrays, put, set(slots.values()), n)
            return {node: self._array(node, made[slot]) for node, slot in slots.items()}

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
        arrays = self._network.checked(x)
        nodes = list(dict.fromkeys(wrt))
        ends = (OUTPUT, LOGITS)
        plain = nodes and not _is_input(of) and not any(node in ends for node in nodes)
        if plain and about_gradients(rule) and self._fits(arrays):
            layers = [node for node in (of, *nodes) if not _is_input(node)]
            if self._able(layers, fused=False) and self._is_differentiable():
                try:
                    found = self._pullback(arrays, cotangent, of, nodes, rule)
                except Unrunnable:
                    found = None
                if found is not None:
                    return found
        return self._model.pullback(x, cotangent, of=of, wrt=wrt, rule=rule)

    def _pullback(
        self,
        arrays: Mapping[str, Batch],
        cotangent: Cotangent,
        of: str,
        wrt: Sequence[str],
        rule: BackwardRule,
    ) -> Pullback | None:
        """Differentiate the program; None where `of` does not depend on a node in `wrt`."""
        program, n = self._program, len(next(iter(arrays.values())))
        ends = {node: self._slot(node) for node in (of, LOGITS, OUTPUT)}
        asked = {node: self._slot(node) for node in wrt}
        with running(self._network, arrays):
            # The gradient with respect to a value that follows from another one passes through it.
            own = {s for s in asked.values() if s not in _after_others(program, s, asked.values())}
            with torch.no_grad():
                first = own | program.before(own, ends.values())
                known = self._once(program, arrays, first, n)
            leaves = {slot: known[slot].detach().requires_grad_() for slot in own}
            with torch.enable_grad():
                wanted = {*ends.values(), *asked.values()} - own
                found = program.run({**known, **leaves}, wanted, n) | leaves
            root, targets = found[ends[of]], [found[slot] for slot in asked.values()]
            if not all(value.requires_grad for value in (root, *targets)):
                return None
            between = ways(root, targets)
            if not all(between.reached):
                return None
            apply_rule(rule, between.nodes, f"between {of!r} and {', '.join(map(repr, wrt))}")
            value = self._array(of, root)
            given = cotangent(value) if callable(cotangent) else cotangent
            channels_first = self._structure.has_channels_first(of, root)
            seed = to_tensor(check_cotangent(given, value, of), root, channels_first=channels_first)
            try:
                gradients = torch.autograd.grad(root, targets, seed, materialize_grads=True)
            except RuntimeError as error:
                raise Unrunnable(str(error)) from None
            values = {node: self._array(node, found[slot]) for node, slot in ends.items()}
            values |= {
                node: self._array(node, found[slot])
                for node, slot in asked.items()
                if not is_special(node)
            }
            results = zip(wrt, gradients, strict=True)
            return Pullback(values, {node: self._array(node, each) for node, each in results})

    def _locally(self, arrays: Mapping[str, Batch]) -> dict[str, Array] | None:
        """Give the ends for a sample under masks, computed where these reach; None if it is none.

        The values of the last sample are kept, since many batches of masks follow each other.
        """
        ((name, batch), *others) = arrays.items()
        if others or not isinstance(batch, Blended) or not fast_paths():
            return None
        if batch.ndim < 3 or self._network.takes_channels_last(name):
            return None
        with running(self._network, arrays), torch.no_grad():
            known = self._sample
            if known is None or not _is_same(known[0], batch.sample):
                known = self._sample = (batch.sample.copy(), self._increment(name, batch.sample))
            values = known[1].run(batch)
            return {
                node: self._array(node, value)
                for node, value in zip((OUTPUT, LOGITS), values, strict=True)
            }

    def _increment(self, name: str, sample: Array) -> Increment[torch.Tensor]:
        """Compute a clean sample, to compute it again only where a mask reaches."""
        network, whole = self._network, self._fused
        # In windows, weights laid out for whole pictures and sums that read two values do not pay.
        program = activations_fused(self._program)
        wanted = [program.marks[node] for node in (OUTPUT, LOGITS)]
        most = self._most if device_of(network).type == "cpu" else None

        def plain(batch: Blended) -> list[torch.Tensor]:
            step = most or len(batch)
            parts = [batch[i : i + step] for i in range(0, len(batch), step)]
            found = [
                whole.run(fed(network, whole, {name: part}), set(wanted), len(part))
                for part in parts
            ]
            return [torch.cat([each[slot] for each in found]) for slot in wanted]

        given = fed(network, program, {name: sample[None]})
        return increment(program, given, wanted, program.inputs[name], plain)

    def _known(
        self,
        program: Program,
        arrays: Mapping[str, Batch],
        put: Mapping[int, torch.Tensor],
        wanted: set[int],
        n: int,
    ) -> dict[int, torch.Tensor]:
        """Run a program, with some values put in the place of its own."""
        if not put:
            return program.run(fed(self._network, program, arrays), wanted, n)
        needed = program.before(put, wanted)
        known = self._once(program, arrays, needed, n) if needed else {}
        return program.run({**known, **put}, wanted, n)

    def _once(
        self, program: Program, arrays: Mapping[str, Batch], wanted: set[int], n: int
    ) -> dict[int, torch.Tensor]:
        """Run a program; samples that are the same are run once and repeated."""
        inputs = set(program.inputs.values())
        alone = not wanted <= inputs and all(_each_sample(program, slot) for slot in wanted)
        rows = _rows(arrays) if alone else None
        if rows is None:
            return program.run(fed(self._network, program, arrays), wanted, n)
        first, row_of = rows
        fewer = {name: batch[first] for name, batch in arrays.items()}
        found = program.run(fed(self._network, program, fewer), wanted, len(first))
        at = torch.from_numpy(row_of)
        return {slot: value[at.to(value.device)] for slot, value in found.items()}

    def _replacement(self, program: Program, node: str, value: Array, n: int) -> torch.Tensor:
        """Give what is put in the place of a node's value."""
        slot = self._slot(node)
        shape = program.shape(slot, n)
        like = torch.empty(0, dtype=program.dtypes[slot], device=device_of(self._network))
        first = self._structure.has_channels_first(node, torch.empty(shape, device="meta"))
        if first:
            shape = (shape[0], *shape[2:], shape[1])
        if isinstance(value, Ablated):
            size = [shape[0], shape[-1], *shape[1:-1]] if first else shape
            like = like.new_empty(1).expand(size)
            return ablated(value, like, node, channels_first=first)
        kind = np.float64 if like.dtype == torch.float64 else np.float32
        array = check_replacement(value, np.broadcast_to(kind(0), shape), node)
        return as_tensor(array, like, first)

    def _are_mixed_up(self, asked: Sequence[str], replaced: Collection[str]) -> bool:
        """Tell whether a replacement would be put in the place of another node's value, too."""
        slots = {self._slot(node): self._name(node) for node in replaced}
        if self._structure.head is not None and self._slot(OUTPUT) in slots:
            return True  # there is no head then
        others = (slots.get(self._slot(node), self._name(node)) for node in (*asked, *replaced))
        return any(a != self._name(b) for a, b in zip(others, (*asked, *replaced), strict=True))

    def _array(self, node: str, value: torch.Tensor) -> Array:
        """Copy a value, channels last."""
        first = self._structure.has_channels_first(node, value)
        return to_array(made(value), channels_first=first)

    def _name(self, node: str) -> str:
        """Give the name under which a node is marked."""
        return node if is_special(node) else find_layer(self._structure.layers, node).name

    def _slot(self, node: str) -> int:
        """Give the slot of a node, which may be an input."""
        if _is_input(node):
            return self._program.inputs[self._network.input_of(node)]
        return self._program.marks[self._name(node)]

    def _able(self, nodes: Collection[str], fused: bool = True) -> Program | None:
        """Give the fastest program that makes the values of some nodes."""
        names = {self._name(node) for node in nodes}
        for program in (self._fused, self._program) if fused else (self._program,):
            if names <= program.marks.keys():
                return program
        return None

    def _fits(self, arrays: Mapping[str, Batch]) -> bool:
        """Tell whether the program is for this input, and for what the network is now."""
        return (
            all(array.shape[1:] == self._example[name].shape[1:] for name, array in arrays.items())
            and not torch.is_autocast_enabled(device_of(self._network).type)
            and self._unchanged.holds()
        )

    def _is_differentiable(self) -> bool:
        """Tell whether the program's gradients are the network's; the first time, this is tried."""
        with self._lock:
            if self._differentiable is None:
                self._differentiable = differentiates(
                    self._network, self._structure, self._program, self._example
                )
            return self._differentiable


def _rows(arrays: Mapping[str, Batch]) -> tuple[Array, Array] | None:
    """Find the distinct samples of a batch; None where all are, or several inputs vary."""
    if len(arrays) > 1:
        return None
    (batch,) = arrays.values()
    if isinstance(batch, Blended):
        return None
    first, row_of = repeated_rows(batch)
    return (first, row_of) if len(first) < len(batch) else None


def _each_sample(program: Program, slot: int) -> bool:
    """Tell whether a value has one row for each sample."""
    shape = program.shapes[slot]
    return bool(shape) and shape[0] == Size(1)


def _after_others(program: Program, slot: int, slots: Collection[int]) -> set[int]:
    """Give what follows from others than one slot."""
    others = set(slots) - {slot}
    return program.after(others) - others if others else set()


def _is_same(one: Array, two: Array) -> bool:
    """Tell whether two samples are the same."""
    return one.dtype == two.dtype and np.array_equal(one, two)


def _is_input(node: str) -> bool:
    """Tell whether a node is one of the inputs."""
    return is_special(node) and node not in (LOGITS, OUTPUT)
