"""Nothing of the user's network or of torch's global state changes, whatever happens."""

from __future__ import annotations

import copy
import random
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.rules import GUIDED
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, native, picture, seeded


class Broken(Residual):
    """Raises in its head when it is told to."""

    broken = False

    def forward(self, x):
        scores = super().forward(x)
        if self.broken:
            raise ZeroDivisionError("in the network")
        return scores


def everything(net):
    """Take down all that a network holds."""
    return {
        "arrays": {k: v.clone() for k, v in net.state_dict().items()},
        "addresses": {k: v.data_ptr() for k, v in net.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "asks": [p.requires_grad for p in net.parameters()],
        "flags": [m.training for m in net.modules()],
        "attributes": [set(vars(m)) for m in net.modules()],
        "hooks": [
            {k: list(h.items()) for k, h in vars(m).items() if "hooks" in k} for m in net.modules()
        ],
        "random": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key, value in before.items():
        if key == "arrays":
            assert all(torch.equal(value[k], after[key][k]) for k in value)
        elif key == "gradients":
            pairs = zip(value, after[key], strict=True)
            assert all(a is b is None or torch.equal(a, b) for a, b in pairs)
        elif key == "random":
            assert torch.equal(value, after[key])
        else:
            assert value == after[key], key


def in_training(seed=0):
    """Give a network in training: mixed flags, gradients, hooks of its owner's."""
    net = seeded(Broken, seed=seed).train()
    net.bn1.eval()
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    net.head.bias.requires_grad_(False)
    net.fired = []
    net.conv1.register_forward_hook(lambda m, a, o: net.fired.append("forward"))
    net.conv1.register_forward_pre_hook(lambda m, a: net.fired.append("before"))
    return net


def asks(model, x):
    """List everything that can be asked of a model."""

    def interrupted(value):
        raise ZeroDivisionError("in the caller's function")

    return {
        "forward": lambda: model.forward(x),
        "capture": lambda: model.forward(x, capture=list(model.layers)),
        "replace": lambda: model.forward(x, replace={"bn1": np.zeros_like}),
        "broken replace": lambda: model.forward(x, replace={"bn1": interrupted}),
        "pullback": lambda: model.pullback(x, np.ones_like, wrt=["bn2", INPUT]),
        "broken cotangent": lambda: model.pullback(x, interrupted, wrt=["bn2"]),
        "rule": lambda: model.pullback(x, np.ones_like, rule=GUIDED),
        "unknown layer": lambda: model.pullback(x, np.ones_like, wrt=["nowhere"]),
        "wrong order": lambda: model.pullback(x, np.ones_like, of="stem", wrt=["bn2"]),
        "bad input": lambda: model.forward(x[..., :2]),
        "parameters": lambda: model.parameters("conv1"),
    }


ASKS = list(asks(None, None))


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("ask", ASKS)
def test_a_network_in_training_stays_what_it_was(ask, broken):
    net = in_training()
    x = picture()
    model = wrap(net)
    model.forward(x)
    question = asks(model, x)[ask]
    net.broken = broken
    before = everything(net)
    try:
        question()
    except Exception:
        failed = True
    else:
        failed = False
    assert_same(before, everything(net))
    says_no = ask in (
        "broken replace",
        "broken cotangent",
        "unknown layer",
        "wrong order",
        "bad input",
    )
    runs = ask not in ("unknown layer", "bad input", "parameters")
    assert failed == (says_no or (broken and runs))


def test_the_first_look_changes_nothing_either():
    for shape in (None, (12, 10, 3)):
        net = in_training()
        before = everything(net)
        model = wrap(net, input_shape=shape)
        if shape is not None:
            assert model.layers
        model.pullback(picture(), np.ones_like)
        assert_same(before, everything(net))


def test_exceptions_of_the_network_come_through():
    net = in_training()
    net.broken = True
    model = wrap(net)
    with pytest.raises(ZeroDivisionError, match="in the network"):
        model.forward(picture())
    with pytest.raises(ZeroDivisionError, match="in the network"):
        model.pullback(picture(), np.ones_like)


def test_a_network_in_training_is_explained_as_in_evaluation():
    net = in_training()
    x = picture()
    in_evaluation = wrap(copy.deepcopy(net).eval()).pullback(x, np.ones_like, wrt=["bn1"])
    actual = wrap(net).pullback(x, np.ones_like, wrt=["bn1"])
    np.testing.assert_array_equal(actual.gradients["bn1"], in_evaluation.gradients["bn1"])


def test_the_owners_hooks_still_fire():
    net = in_training()
    model = wrap(net)
    model.forward(picture())
    net.fired.clear()
    model.forward(picture(), capture=["conv1"])
    assert net.fired == ["before", "forward"]


def test_an_owners_hook_that_changes_the_value_is_obeyed():
    net = seeded(Residual)
    handle = net.conv1.register_forward_hook(lambda m, a, o: 2 * o)
    x = picture()
    doubled = wrap(net).forward(x, capture=["conv1"])["conv1"]
    handle.remove()
    np.testing.assert_allclose(doubled, 2 * wrap(net).forward(x, capture=["conv1"])["conv1"])


def test_an_owners_backward_hook_fires_and_rules_still_work():
    net = seeded(Vgg, inplace=False)
    x = picture()
    expected = wrap(net).pullback(x, np.ones_like, rule=GUIDED).gradients[INPUT]
    fired = []
    net.features[2].register_full_backward_hook(lambda m, gi, go: fired.append(m))
    np.testing.assert_array_equal(
        wrap(net).pullback(x, np.ones_like, rule=GUIDED).gradients[INPUT], expected
    )
    assert fired == [net.features[2]]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_callers_modes(mode):
    net = seeded(Residual)
    x = picture()
    nodes = ["bn1", INPUT]
    expected = wrap(net).pullback(x, np.ones_like, wrt=nodes).gradients
    model = wrap(net)
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = model.pullback(x, np.ones_like, wrt=nodes).gradients
        model.forward(x, capture=["bn1"])
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    for node in nodes:
        np.testing.assert_array_equal(found[node], expected[node])


def test_parameters_made_in_inference_mode():
    net = seeded(Residual)
    x = picture()
    expected = wrap(net).pullback(x, np.ones_like, wrt=["bn1", INPUT])
    with torch.inference_mode():
        made = seeded(Residual)
    assert made.stem.weight.is_inference()
    kept = dict(made.named_parameters())
    model = wrap(made)
    found = model.pullback(x, np.ones_like, wrt=["bn1", INPUT])
    for node in ("bn1", INPUT):
        np.testing.assert_array_equal(found.gradients[node], expected.gradients[node])
    assert all(kept[name] is p for name, p in made.named_parameters())


def test_parameters_made_in_inference_mode_in_two_threads():
    class Slow(Residual):
        """Leaves in the order in which its callers came, where both could come in."""

        def forward(self, x):
            if self.events is not None:
                second_came, first_left = self.events
                if threading.current_thread().name == "first":
                    second_came.wait(0.2)
                else:
                    second_came.set()
                    first_left.wait(10)
            return super().forward(x)

    with torch.inference_mode():
        net = seeded(Slow)
    net.events = None
    model = wrap(net)
    model.forward(picture())
    kept = dict(net.named_parameters())
    net.events = threading.Event(), threading.Event()

    def explain():
        model.pullback(picture(), np.ones_like)
        net.events[1].set()

    threads = [threading.Thread(target=explain, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(kept[name] is p for name, p in net.named_parameters())


def test_a_network_that_draws_random_numbers():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return nn.functional.dropout(self.conv(x), 0.5, training=True).mean((2, 3))

    model = wrap(seeded(Noisy))
    for _ in range(2):
        before = torch.get_rng_state()
        first = model.forward(picture()).output
        assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert not np.array_equal(model.forward(picture()).output, first)


def test_a_network_that_draws_none_leaves_other_threads_generator_alone():
    class Meanwhile(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.drawn = []

        def forward(self, x):
            if self.drawn is not None:
                thread = threading.Thread(target=lambda: self.drawn.append(torch.rand(3)))
                thread.start()
                thread.join()
            return self.conv(x).mean((2, 3))

    net = seeded(Meanwhile)
    model = wrap(net)
    net.drawn = None
    model.forward(picture())
    net.drawn = []
    model.forward(picture())
    model.forward(picture())
    assert not torch.equal(*net.drawn)


def test_threads_restore_training_flags():
    class Slow(Residual):
        """Lets its callers overlap: the first to come is the first to go."""

        def forward(self, x):
            if self.gates is not None:
                mine = self.order.index(threading.current_thread().name)
                self.entered[mine].set()
                assert self.gates[mine].wait(10)
                assert not self.training
                assert not self.bn2.training
            return super().forward(x)

    net = seeded(Slow).train()
    net.gates = None
    model = wrap(net)
    model.forward(picture())
    net.order, net.gates = ["first", "second"], [threading.Event(), threading.Event()]
    net.entered = [threading.Event(), threading.Event()]
    failures = []

    def explain():
        try:
            model.forward(picture(), capture=["bn1"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=explain, name=name) for name in net.order]
    for thread, entered in zip(threads, net.entered, strict=True):
        thread.start()
        assert entered.wait(10)
    net.gates[0].set()
    threads[0].join()
    assert not net.training  # the second one still runs
    net.gates[1].set()
    threads[1].join()
    assert failures == []
    assert all(module.training for module in net.modules())


def test_train_is_not_called():
    class Own(Residual):
        def train(self, mode=True):
            raise AssertionError("the owner's train() was called")

    net = seeded(Residual)
    net.__class__ = Own
    for module in net.modules():
        module.training = True
    wrap(net).forward(picture())
    assert all(module.training for module in net.modules())


def test_pythons_and_numpys_generators_are_left_alone():
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    wrap(seeded(Residual)).pullback(picture(), np.ones_like)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestCompiled:
    @pytest.fixture
    def compiled(self):
        """Give a network, a compiled one of the same weights, and how often it was compiled."""
        from torch._dynamo import reset

        compilations = []

        def backend(graph, inputs):
            compilations.append(graph)
            return graph.forward

        yield backend, compilations
        reset()

    @pytest.mark.parametrize("how", ["torch.compile", "module.compile", "layer.compile"])
    def test_layers_of_a_compiled_network_are_seen(self, how, compiled):
        backend, compilations = compiled
        plain, net = seeded(Residual), seeded(Residual)
        x = picture()
        if how == "torch.compile":
            net = torch.compile(net, backend=backend)
        elif how == "module.compile":
            net.compile(backend=backend)
        else:
            net.conv2 = torch.compile(net.conv2, backend=backend)
        with torch.no_grad():
            net(native(x))
        assert compilations
        n = len(compilations)
        model, expected = wrap(net), wrap(plain)
        model.forward(x)
        expected.forward(x)
        assert dict(model.layers) == dict(expected.layers)
        nodes = ["bn1", "relu@1", "conv2"]
        back, other = (
            m.pullback(x, np.ones_like, wrt=nodes, rule=r)
            for m, r in ((model, GUIDED), (expected, GUIDED))
        )
        for node in nodes:
            np.testing.assert_array_equal(back.values[node], other.values[node])
            np.testing.assert_array_equal(back.gradients[node], other.gradients[node])
        assert len(compilations) == n  # ours were not compiled
        with torch.no_grad():
            net(native(x))
        assert len(compilations) == n  # the owner's still is

    def test_the_stance_is_restored_when_threads_overlap(self, compiled):
        from torch._dynamo import eval_frame

        from cnnviz_torch.isolation import isolated

        net = seeded(Residual)
        first, second = (isolated(net, random=False) for _ in range(2))
        before = eval_frame._stance.stance
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert eval_frame._stance.stance == "force_eager"
        second.__exit__(None, None, None)
        assert eval_frame._stance.stance == before


def test_dynamo_is_not_imported_for_a_plain_network(tmp_path):
    import subprocess

    code = (
        "import sys, numpy as np, torch\n"
        "from cnnviz_torch.model import wrap\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))\n"
        "wrap(net).pullback(np.ones((1, 4, 4, 3)), np.ones_like)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
