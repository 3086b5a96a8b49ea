"""What a faster copy keeps, forgets and notices; its operations one by one."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz_core.errors import MissingCapabilityError, OutOfMemoryError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, preparable
from cnnviz_core.testing.blending import described, soft_forms
from cnnviz_torch.model import wrap
from cnnviz_torch.program.prepared import Prepared
from cnnviz_torch.program.program import Size

SHAPE = (12, 10, 3)


def chain(depth=6):
    """Make a network whose values are all of one size, with norms that are no identities."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3, padding=1)]
    for _ in range(depth):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return network


def pair(network=None):
    model = wrap(network or chain(), input_shape=SHAPE)
    x = np.random.default_rng(0).random((4, *SHAPE), np.float32)
    prepared = model.prepared(x)
    assert isinstance(prepared, Prepared)
    return model, prepared, x


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Held(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                key = tensor.untyped_storage().data_ptr()
                self.alive[key] = tensor.untyped_storage().nbytes()
                weakref.finalize(tensor, self.alive.pop, key, None)
        self.most = max(self.most, sum(self.alive.values()))
        return result


def most_held(ask):
    with Held() as held:
        ask()
    return held.most


def test_values_are_forgotten_when_nobody_reads_them_any_more():
    """A deeper network does not need more memory."""
    shallow, deep = (pair(chain(depth))[1] for depth in (3, 12))
    x = np.ones((8, *SHAPE), np.float32)
    few, many = (most_held(lambda m=m: m.forward(x)) for m in (shallow, deep))
    assert many <= 1.1 * few
    assert many <= 1.1 * most_held(lambda: deep._model.forward(x))


def test_a_gradient_holds_no_more_than_the_networks():
    model, prepared, x = pair()
    prepared.pullback(x, np.cos)
    own, theirs = (most_held(lambda m=m: m.pullback(x, np.cos)) for m in (prepared, model))
    assert own <= 1.1 * theirs


def test_nothing_is_left_of_a_prepared_model():
    """It is gone when it is dropped, without the garbage collector; and so is the network."""
    network = chain()
    model, prepared, x = pair(network)
    prepared.forward(x, capture=["3"], replace={"0": np.zeros((4, 12, 10, 8), np.float32)})
    prepared.pullback(x, np.cos, wrt=[INPUT, "3"])
    prepared.forward(described(x[0], soft_forms(SHAPE[:2])["labelled"], 0.5))
    gc.collect()
    gc.disable()
    try:
        watched = [weakref.ref(prepared), weakref.ref(prepared._program)]
        watched += [weakref.ref(t) for t in prepared._fused.constants.values()][-1:]
        del prepared
        assert [ref() for ref in watched] == [None] * 3
        weight = weakref.ref(network[0].weight)
        del model, network
        assert weight() is None
    finally:
        gc.enable()


def test_preparing_leaves_nothing_behind():
    """Nor does it where it cannot be done."""

    class Drawing(nn.Sequential):
        def forward(self, x):
            return super().forward(x + torch.rand(()))

    gc.collect()
    gc.disable()
    try:
        for make in (chain, lambda: Drawing(*chain())):
            network = make()
            weight = weakref.ref(network[0].weight)
            wrap(network, input_shape=SHAPE).prepared(np.ones((1, *SHAPE), np.float32))
            del network
            assert weight() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("change", ["in place", "loaded", "another tensor", "another layer"])
def test_weights_that_change_are_noticed(change):
    """From then on the network itself is asked; nothing is mixed."""
    network = chain()
    model, prepared, x = pair(network)
    prepared.pullback(x, np.cos)
    with torch.no_grad():
        if change == "in place":
            network[2].running_mean.add_(0.3)
        elif change == "loaded":
            network.load_state_dict({k: v * 1.25 for k, v in network.state_dict().items()})
        elif change == "another tensor":
            network[1].weight.data = network[1].weight * 2
        else:
            network[-1] = nn.Linear(8, 4)
    np.testing.assert_array_equal(prepared.forward(x).logits, model.forward(x).logits)
    a, b = (m.pullback(x, np.cos).gradients[INPUT] for m in (prepared, model))
    np.testing.assert_array_equal(a, b)


def test_what_was_folded_is_of_its_own():
    """The network's weights are neither written to nor copied where nothing is folded."""
    network = chain()
    _, prepared, _ = pair(network)
    mine = {t.data_ptr() for t in prepared._program.constants.values()}
    assert network[-1].weight.data_ptr() in mine
    names = {call.name for call in prepared._program.calls}
    assert not any("batch_norm" in name for name in names)


def test_two_threads_may_ask_one_prepared_model():
    model, prepared, x = pair()
    expected = [model.forward(x + k).logits for k in range(4)]
    slopes = [model.pullback(x + k, np.cos).gradients[INPUT] for k in range(4)]
    found, errors = {}, []

    def ask(k):
        try:
            for _ in range(5):
                found[k] = prepared.forward(x + k).logits
                found[k, "slope"] = prepared.pullback(x + k, np.cos).gradients[INPUT]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for k in range(4):
        close(found[k], expected[k])
        close(found[k, "slope"], slopes[k])


def test_under_autocast_the_network_is_asked():
    model, prepared, x = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(prepared.forward(x).logits, model.forward(x).logits)
        assert model.prepared(x) is model


def test_in_inference_mode_and_without_gradients_it_works_as_ever():
    model, _, x = pair()
    for block in (torch.inference_mode, torch.no_grad):
        with block():
            prepared = model.prepared(x)
            assert isinstance(prepared, Prepared)
            close(prepared.forward(x).logits, model.forward(x).logits)
            a, b = (m.pullback(x, np.cos).gradients[INPUT] for m in (prepared, model))
            close(a, b)


def test_what_the_program_cannot_run_the_network_is_asked(monkeypatch):
    """Also where memory does not suffice for either, with the error that says so."""
    model, prepared, x = pair()

    def fails(*args, **kwargs):
        raise RuntimeError("an operation's own")

    fused = prepared._fused
    given, ends = fused.inputs.values(), (fused.marks[node] for node in (OUTPUT, LOGITS))
    with torch.no_grad():
        steps = fused._schedule(frozenset(given), frozenset(ends))
    for step in steps:
        object.__setattr__(step, "op", fails)
    np.testing.assert_array_equal(prepared.forward(x).logits, model.forward(x).logits)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(model._network.module, "forward", full)
    with pytest.raises(OutOfMemoryError):
        prepared.forward(x)


def test_a_prepared_model_is_not_prepared_again():
    _, prepared, _ = pair()
    with pytest.raises(MissingCapabilityError, match="prepare"):
        preparable(prepared)


def test_a_program_of_a_fixed_batch_is_left_alone():
    program = torch.export.export(chain().eval(), (torch.ones(2, 3, 12, 10),))
    model = wrap(program)
    x = np.ones((2, *SHAPE), np.float32)
    prepared = model.prepared(x)
    close(prepared.forward(x).logits, model.forward(x).logits)


def test_a_program_of_any_batch():
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        chain().eval(), (torch.ones(2, 3, 12, 10),), dynamic_shapes=[{0: batch}]
    )
    model = wrap(program)
    for n in (1, 3, 5):
        x = np.random.default_rng(n).random((n, *SHAPE), np.float32)
        prepared = model.prepared(x)
        close(prepared.forward(x).logits, model.forward(x).logits)


def test_shapes_grow_with_the_batch():
    _, prepared, _ = pair()
    program = prepared._program
    (slot,) = program.inputs.values()
    assert program.shapes[slot] == (Size(1), 3, 12, 10)
    assert program.shape(slot, 7) == (7, 3, 12, 10)


def test_rectifiers_overwrite_what_nobody_reads():
    """In a forward pass all do; where a derivative is taken, those behind what forgets."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sigmoid(), nn.Flatten(), nn.Linear(320, 2)
    )
    _, prepared, _ = pair(network)
    program = prepared._program
    given, wanted = frozenset(program.inputs.values()), frozenset([program.marks[OUTPUT]])
    for recorded, expected in ((False, {"relu_", "sigmoid_"}), (True, {"relu_"})):
        with torch.set_grad_enabled(recorded):
            steps = program._schedule(given, wanted)
        names = {step.op._schema.name.rpartition(":")[2] for step in steps}
        assert {name for name in names if name.endswith("_")} == expected


def test_a_value_that_is_asked_for_is_not_overwritten():
    model, prepared, x = pair()
    nodes = list(model.layers)
    plain, fast = (m.forward(x, capture=nodes) for m in (model, prepared))
    for node in nodes:
        close(fast[node], plain[node])
