"""One method gives the same numbers on PyTorch, on TensorFlow, and on the NumPy reference.

Values and gradients are compared on every network, in single and in double precision.  So methods,
which are made of nothing else, need not all be compared on each: every method is on the networks
that between them have every structure, and of the methods that ask the same of a network a few are
on all the others.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest

import cnnviz
import cnnviz.demo
import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz.preprocess import prepare
from cnnviz_core.errors import CnnvizError
from cnnviz_core.explainer import present
from cnnviz_core.inputs import OneInput
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD
from cnnviz_core.targets import (
    ClassProbability,
    ClassScore,
    Contrast,
    Neuron,
    Predicted,
    Similarity,
    Weighted,
)
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import brief

BACKENDS = {"torch": cnnviz_torch, "tensorflow": cnnviz_tf}
METHODS = list(get_registry().explainers)
WITHOUT_RECTIFIERS = ("smooth", "swish")
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def representatives():
    """Give two methods of each family, of those that need the same of a network."""
    alike = defaultdict(list)
    for method in METHODS:
        spec = get_registry().spec(method)
        alike[spec.family, spec.needs].append(method)
    return [m for methods in alike.values() for m in dict.fromkeys((methods[0], methods[-1]))]


REPRESENTATIVES = representatives()

PICTURES = ("strided", "residual", "branches", "swish")
"""Networks that have every kind of operation that there is in networks on pictures."""

NO_PICTURES = ("signal", "volume", "tokens")

CASES = list(product(NETS, TOLERANCE))
EVERY_METHOD = [*product(PICTURES, TOLERANCE), *product(NO_PICTURES, ["float64"])]
FEW_METHODS = [case for case in CASES if case not in EVERY_METHOD]


def models(name, dtype):
    """Build a network on every backend; of several inputs all but the first are held."""
    net = NETS[name]()
    built = {
        **{key: b.model.wrap(b.build.build(net, dtype=dtype)) for key, b in BACKENDS.items()},
        "numpy": ReferenceModel(net, dtype),
    }
    first, *others = net.inputs
    if not others:
        return built
    drawn = random_input(net, 1, seed=12)
    held = {other: drawn[other].astype(dtype) for other in others}
    return {key: OneInput(model, first, held) for key, model in built.items()}


@pytest.fixture(scope="module")
def case(request):
    """A network on every backend, and a batch."""
    name, dtype = request.param
    x = next(iter(random_input(NETS[name](), 3, seed=11).values())).astype(dtype)
    return name, models(name, dtype), x, dtype


on_every_network = pytest.mark.parametrize("case", CASES, indirect=True, ids="-".join)


def test_no_structure_is_left_out():
    def kinds(names):
        return {op.kind for name in names for op in NETS[name]().ops}

    heads = {"softmax", "sigmoid"}
    assert kinds(PICTURES) | heads == kinds(set(NETS) - set(NO_PICTURES))
    for name, method in REFUSED:
        assert name in (*PICTURES, *NO_PICTURES) or method in REPRESENTATIVES


@on_every_network
def test_activations(case, near):
    _, built, x, dtype = case
    for model in built.values():
        model.forward(x)
    common = [n for n in built["numpy"].layers if all(n in m.layers for m in built.values())]
    traces = {key: m.forward(x, capture=common) for key, m in built.items()}
    assert len(common) >= 5
    for node, expected in traces["torch"].values.items():
        for other in ("tensorflow", "numpy"):
            actual = traces[other][node]
            assert actual.dtype == expected.dtype == np.dtype(dtype)
            near(f"{dtype} activations, torch and {other}", actual, expected, TOLERANCE[dtype])


@on_every_network
@pytest.mark.parametrize("rule", [STANDARD, GUIDED, DECONVNET], ids=lambda r: r.name)
def test_gradients(case, rule, near):
    name, built, x, dtype = case
    if rule is not STANDARD and name in WITHOUT_RECTIFIERS:
        for model in built.values():
            with pytest.raises(CnnvizError):
                model.pullback(x, np.ones_like, rule=rule)
        return
    for model in built.values():
        model.forward(x)
    wrt = [INPUT] if rule is not STANDARD else [INPUT, next(iter(built["numpy"].layers))]
    back = {k: m.pullback(x, lambda v: np.cos(v + 1), wrt=wrt, rule=rule) for k, m in built.items()}
    for node in wrt:
        for other in ("tensorflow", "numpy"):
            near(
                f"{dtype} {rule.name} gradients, torch and {other}",
                back[other].gradients[node],
                back["torch"].gradients[node],
                TOLERANCE[dtype],
            )


@pytest.mark.parametrize("case", EVERY_METHOD, indirect=True, ids="-".join)
@pytest.mark.parametrize("method", METHODS)
def test_maps_of_every_method(case, method, near):
    compare_maps(*case, method, near)


@pytest.mark.parametrize("case", FEW_METHODS, indirect=True, ids="-".join)
@pytest.mark.parametrize("method", REPRESENTATIVES)
def test_maps_on_other_networks(case, method, near):
    compare_maps(*case, method, near)


def compare_maps(name, built, x, dtype, method, near):
    """Compare what a method makes of a network on every backend, or that it refuses it on all."""
    explainer = brief(method)
    # Some methods are about single classes only.
    for last in (Contrast(0, 2), ClassScore(2)):
        targets = [Predicted(), ClassScore(1), last]
        results = {key: outcome(explainer, model, x, targets) for key, model in built.items()}
        kinds = {type(r).__name__ for r in results.values()}
        if kinds != {"TargetError"}:
            break
    assert len(kinds) == 1, f"the backends disagree: {results}"
    if kinds != {"Maps"}:
        assert (name, method) in REFUSED, results["numpy"]
        return
    assert (name, method) not in REFUSED
    for other in ("tensorflow", "numpy"):
        near(
            f"{dtype} {method}, torch and {other}",
            results[other].raw,
            results["torch"].raw,
            TOLERANCE[dtype],
        )
        assert results[other].layer == results["torch"].layer
        assert results[other].targets == results["torch"].targets
        shown = [
            present(results[k].raw, x.shape[1:-1], results[k].presentation)
            for k in (other, "torch")
        ]
        assert shown[0][1] == shown[1][1]


REFUSED = {
    ("strided", "cam"),
    ("two_inputs", "cam"),
    *(
        (net, method)
        for net in WITHOUT_RECTIFIERS
        for method in ("guided-backprop", "deconvnet", "guided-grad-cam")
    ),
    ("tokens", "lrp"),
    ("tokens", "deep-taylor"),
    ("signal", "xrai"),
    ("volume", "xrai"),
}
"""Networks that a method refuses, on every backend alike."""


def outcome(explainer, model, x, targets):
    """Give a method's result, or its refusal."""
    try:
        return explainer.explain(model, x, targets)
    except CnnvizError as error:
        return error


@pytest.mark.parametrize(
    "target",
    [
        ClassProbability(2),
        ClassProbability(2, "sigmoid"),
        Neuron("conv2", (1, 2, 3)),
        Neuron("conv2", (4,)),
        Similarity(np.arange(1.0, 6)),
        Weighted(np.array([1.0, -1, 0.5, 0, 2])),
    ],
    ids=str,
)
def test_targets(target, near):
    built = models("plain", "float32")
    x = random_input(NETS["plain"](), 2, seed=3)["image"]
    explainer = get_registry().explainer("grad-cam", layer="relu1")
    maps = {key: explainer.explain(m, x, [target] * 2) for key, m in built.items()}
    for other in ("tensorflow", "numpy"):
        near("float32 targets", maps[other].raw, maps["torch"].raw, 1e-4)
        np.testing.assert_allclose(maps[other].scores, maps["torch"].scores, rtol=1e-4)


def demo_models(dtype):
    net = cnnviz.demo.netspec()
    return {
        **{key: b.model.wrap(b.build.build(net, dtype=dtype)) for key, b in BACKENDS.items()},
        "numpy": ReferenceModel(net, dtype),
    }


@pytest.fixture(scope="module")
def demo(request):
    """The demo network on every backend, and two of its scenes in its input space."""
    dtype = request.param
    pictures = [picture for picture, _ in cnnviz.demo.scenes()][:2]
    net = cnnviz.load("demo", backend="numpy")
    x = np.stack([prepare(picture, net.preprocessing)[0] for picture in pictures])
    return demo_models(dtype), x.astype(dtype), dtype


@pytest.mark.parametrize("demo", ["float32"], indirect=True)
@pytest.mark.parametrize("method", METHODS)
def test_the_demo_network(demo, method, near):
    compare_on_the_demo(*demo, method, near)


@pytest.mark.parametrize("demo", ["float64"], indirect=True)
@pytest.mark.parametrize("method", REPRESENTATIVES)
def test_the_demo_network_in_double_precision(demo, method, near):
    compare_on_the_demo(*demo, method, near)


def compare_on_the_demo(built, x, dtype, method, near):
    """Compare what a method makes of the demo network on every backend."""
    wide = {"window": 32, "stride": 16} if method == "occlusion" else {}
    explainer = brief(method, **wide)
    found = {key: explainer.explain(model, x, [Predicted()] * 2) for key, model in built.items()}
    for other in ("tensorflow", "numpy"):
        # NumPy adds up in another order than both frameworks: in float32 a tie of a rectifier or a
        # pool falls the other way there, and moves single values of an input gradient.
        gradients = found["torch"].raw.ndim == x.ndim or method in SUMS_OF_INPUT_GRADIENTS
        flips = other == "numpy" and dtype == "float32" and gradients
        near(
            f"{dtype} demo {method}, torch and {other}{' (Euclidean)' if flips else ''}",
            found[other].raw,
            found["torch"].raw,
            2e-2 if flips else TOLERANCE[dtype],
            as_a_whole=flips,
        )
        assert found[other].targets == found["torch"].targets
        assert found[other].layer == found["torch"].layer


SUMS_OF_INPUT_GRADIENTS = {"full-grad"}


@pytest.mark.parametrize("order", ["torch, tensorflow", "tensorflow, torch"])
def test_either_may_be_imported_first(order):
    import subprocess
    import sys

    code = (
        f"import {order}; import numpy as np, cnnviz\n"
        "x = np.random.default_rng(0).random((1, 128, 128, 3), dtype='float32')\n"
        "maps = [cnnviz.explain(cnnviz.load('demo', backend=b), x, preprocessed=True).raw\n"
        "        for b in ('torch', 'tensorflow')]\n"
        "assert np.abs(maps[0] - maps[1]).max() <= 1e-4 * np.abs(maps[0]).max()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
