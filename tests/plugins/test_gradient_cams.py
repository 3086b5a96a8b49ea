"""Class activation maps made of gradients: their papers' formulas, written plainly, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_cam.finer_cam import FinerCAM
from cnnviz_cam.shapley_cam import ShapleyCAM, _Rest
from cnnviz_cam.smooth_grad_cam_plus_plus import SmoothGradCAMPlusPlus
from cnnviz_core.errors import MissingCapabilityError, TargetError
from cnnviz_core.explainer import passes_of
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import LOGITS, OUTPUT, Curvature
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import (
    ClassProbability,
    ClassScore,
    Contrast,
    Neuron,
    Predicted,
    Weighted,
    probabilities,
)
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

ONE_PASS = [
    "grad-cam++",
    "xgrad-cam",
    "hires-cam",
    "layer-cam",
    "grad-cam-elementwise",
    "counterfactual-grad-cam",
]
LAYERS = [
    *(("plain", layer) for layer in ("conv1", "relu1", "pool1", "conv2", "relu2")),
    *(("strided", layer) for layer in ("relu1", "conv2", "pool2")),
    *(("residual", layer) for layer in ("bn1a", "relu1a", "relu@1")),
    *(("branches", layer) for layer in ("relu0", "concat")),
    *(("signal", layer) for layer in ("relu1", "pool2")),
    *(("volume", layer) for layer in ("relu1", "relu2")),
]


def made(name, n=5, dtype="float64"):
    """A network, a batch for it, and a target of another kind for each sample."""
    net = NETS[name]()
    x = next(iter(random_input(net, n, seed=5).values())).astype(dtype)
    model = ReferenceModel(net, dtype)
    classes = model.forward(x).logits.shape[1]
    weights = np.random.default_rng(3).normal(size=classes)
    targets = [ClassScore(2), Contrast(1, 0), ClassProbability(1), Weighted(weights), Predicted()]
    return model, x, targets[:n]


def run(method, model, x, targets, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def at(model, sample, target, layer):
    """One sample's feature maps, and the target's gradient with respect to them."""
    back = model.pullback(sample[None], lambda v: target.gradient(v[0])[None], wrt=[layer])
    return back.values[layer][0], back.gradients[layer][0]


def near(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def positions(features):
    return list(np.ndindex(features.shape[:-1]))


def plus_plus(a, first, second, third):
    shown = np.zeros(a.shape[:-1])
    for k in range(a.shape[-1]):
        total, weight = sum(a[p][k] for p in positions(a)), 0.0
        for p in positions(a):
            denominator = 2 * second[p][k] + total * third[p][k]
            alpha = second[p][k] / denominator if denominator != 0 else 0.0
            weight += alpha * max(first[p][k], 0)
        shown += weight * a[..., k]
    return shown


def grad_cam(a, g):
    return sum(g[..., k].mean() * a[..., k] for k in range(a.shape[-1]))


def xgrad_cam(a, g):
    shown = np.zeros(a.shape[:-1])
    for k in range(a.shape[-1]):
        total = sum(a[p][k] for p in positions(a))
        if total != 0:
            shown += sum(a[p][k] / total * g[p][k] for p in positions(a)) * a[..., k]
    return shown


def by_position(term):
    def shown(a, g):
        result = np.zeros(a.shape[:-1])
        for p in positions(a):
            result[p] = sum(term(a[p][k], g[p][k]) for k in range(a.shape[-1]))
        return result

    return shown


FORMULAS = {
    "grad-cam++": lambda a, g: plus_plus(a, g, g**2, g**3),
    "xgrad-cam": xgrad_cam,
    "hires-cam": by_position(lambda a, g: a * g),
    "layer-cam": by_position(lambda a, g: a * max(g, 0)),
    "grad-cam-elementwise": by_position(lambda a, g: max(a * g, 0)),
    "counterfactual-grad-cam": lambda a, g: grad_cam(a, -g),
}


@pytest.mark.parametrize("method", ONE_PASS)
@pytest.mark.parametrize(("net", "layer"), LAYERS)
def test_each_method_is_its_papers_formula(method, net, layer):
    model, x, targets = made(net)
    maps = run(method, model, x, targets, layer=layer)
    assert maps.layer == layer
    for sample, target, raw in zip(x, targets, maps.raw, strict=True):
        near(raw, FORMULAS[method](*at(model, sample, target, layer)))


@pytest.mark.parametrize("method", [*ONE_PASS, "finer-cam", "smooth-grad-cam++"])
@pytest.mark.parametrize("net", ["plain", "signal", "volume"])
def test_the_raw_map_is_the_sum_of_its_terms(method, net):
    model, x, _ = made(net)
    maps = run(method, model, x, [ClassScore(i % 3) for i in range(5)])
    near(maps.terms().sum(-1), maps.raw, 1e-12)


@pytest.mark.parametrize("method", [*ONE_PASS, "finer-cam", "smooth-grad-cam++"])
def test_the_type_of_the_input_is_kept(method):
    exact = run(method, *made("plain", 1)[:2], [ClassScore(2)])
    single = run(method, *made("plain", 1, "float32")[:2], [ClassScore(2)])
    assert (exact.raw.dtype, single.raw.dtype) == (np.float64, np.float32)
    near(single.raw, exact.raw, 1e-5)


@pytest.mark.parametrize("method", ["grad-cam++", "smooth-grad-cam++"])
def test_gradients_whose_cubes_vanish_in_single_precision_still_weigh(method):
    model, x, _ = made("plain", 1, "float32")
    quiet = {"noise": 0.0, "samples": 1} if method.startswith("smooth") else {}
    tiny, small = (
        run(method, model, x, [Weighted(scale * np.eye(5)[2])], **quiet).raw
        for scale in (1e-25, 1e-10)
    )
    # Of gradients so small alpha is 1/2, whatever the features.
    assert np.abs(small).max() > 0
    near(tiny * np.float32(1e15), small, 1e-5)


@parametrize_with_checks(
    [
        FinerCAM(weighting="probability", references=1),
        ShapleyCAM(utility="rest"),
        SmoothGradCAMPlusPlus(samples=3, batch_size=4, noise=0.5),
    ]
)
def test_other_parameters(explainer, check):
    check(explainer)


def test_methods_that_weight_one_gradient_share_one_pass():
    class Counting(ReferenceModel):
        passes = 0

        def pullback(self, x, cotangent, **kwargs):
            self.passes += 1
            return super().pullback(x, cotangent, **kwargs)

    _, x, targets = made("plain")
    model = Counting(NETS["plain"](), "float64")
    memo = MemoModel(model, x)
    for method in ["grad-cam", *ONE_PASS]:
        run(method, memo, x, targets)
    assert model.passes == 1


# What holds on a network that ends in global average pooling and a linear layer.


def pooled_net(channels, classes, size, seed, positive=False):
    rng = np.random.default_rng(seed)
    kernel = int(rng.integers(1, 4))
    head = rng.normal(size=(channels, classes))
    return NetSpec(
        {"image": (*size, 2)},
        (
            Op("conv", "conv", ("image",)),
            Op("relu", "relu", ("conv",)),
            Op("gap", "gap", ("relu",)),
            Op("fc", "linear", ("gap",)),
        ),
        {
            "conv.weight": rng.normal(size=(kernel, kernel, 2, channels)),
            "conv.bias": rng.normal(size=channels),
            "fc.weight": np.abs(head) + 0.1 if positive else head,
            "fc.bias": rng.normal(size=classes),
        },
    )


nets = st.builds(
    pooled_net,
    st.integers(1, 6),
    st.integers(1, 4),
    st.tuples(st.integers(4, 7), st.integers(4, 7)),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(nets, st.integers(1, 3))
def test_all_cams_agree_where_the_gradient_is_the_same_everywhere(net, n):
    x = random_input(net, n, seed=n)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    targets = [ClassScore(i % net.shapes()["fc"][0]) for i in range(n)]
    found = {
        method: run(method, model, x, targets, layer="relu").raw
        for method in ("cam", "grad-cam", "hires-cam", "xgrad-cam")
    }
    grid = net.shapes()["relu"][:2]
    scale = np.abs(found["cam"]).max() + 1e-300
    for method in ("grad-cam", "hires-cam", "xgrad-cam"):
        np.testing.assert_allclose(
            found[method] * np.prod(grid) / scale, found["cam"] / scale, atol=1e-12
        )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_where_all_gradients_are_positive_nothing_is_cut_off(channels, seed):
    net = pooled_net(channels, 3, (6, 5), seed, positive=True)
    x = random_input(net, 3, seed=1)["image"].astype(np.float64)
    model, targets = ReferenceModel(net, "float64"), [ClassScore(i) for i in range(3)]
    hires, layer, elementwise = (
        run(method, model, x, targets, layer="relu").raw
        for method in ("hires-cam", "layer-cam", "grad-cam-elementwise")
    )
    np.testing.assert_array_equal(layer, hires)
    np.testing.assert_array_equal(elementwise, hires)


@pytest.mark.parametrize("net", ["plain", "volume"])
def test_after_a_rectifier_layer_cam_is_the_elementwise_map(net):
    model, x, targets = made(net)
    layer, elementwise = (
        run(method, model, x, targets, layer="relu1").raw
        for method in ("layer-cam", "grad-cam-elementwise")
    )
    near(elementwise, layer, 1e-14)


@pytest.mark.parametrize("layer", ["relu1", "conv2"])
def test_hires_cam_sums_to_what_xgrad_cam_sums_to(layer):
    model, x, targets = made("plain")
    hires, xgrad = (
        run(method, model, x, targets, layer=layer).raw for method in ("hires-cam", "xgrad-cam")
    )
    near(xgrad.sum((1, 2)), hires.sum((1, 2)))


def test_the_sum_of_hires_cam_is_the_score_without_the_bias():
    model, x, _ = made("plain")
    maps = run("hires-cam", model, x, [ClassScore(i) for i in range(5)], layer="relu2")
    near(maps.raw.sum((1, 2)), maps.scores - model.parameters("fc")["bias"])


def test_the_counterfactual_map_is_grad_cams_negated():
    model, x, targets = made("residual")
    against, wherefore = (
        run(method, model, x, targets) for method in ("counterfactual-grad-cam", "grad-cam")
    )
    np.testing.assert_array_equal(against.raw, -wherefore.raw)
    np.testing.assert_array_equal(against.scores, wherefore.scores)


def test_a_channel_without_features_weighs_nothing():
    net = NETS["plain"]()
    arrays = {**net.parameters, "conv2.bias": net.parameters["conv2.bias"] - 99 * np.eye(8)[3]}
    model = ReferenceModel(NetSpec(net.inputs, net.ops, arrays), "float64")
    _, x, targets = made("plain")
    for method in ONE_PASS:
        maps = run(method, model, x, targets, layer="relu2")
        assert np.isfinite(maps.raw).all()
        assert np.abs(maps.raw).max() > 0
        assert not maps.terms()[..., 3].any()


# What a positive factor of the score does.

HOMOGENEOUS = [
    "grad-cam",
    "xgrad-cam",
    "hires-cam",
    "layer-cam",
    "grad-cam-elementwise",
    "counterfactual-grad-cam",
]
"""A multiple of the score multiplies the map."""
NOT_HOMOGENEOUS = ["grad-cam++", "smooth-grad-cam++"]
"""Their alpha depends on the score's size, so a multiple of the score gives another map."""


def normalised(method, scale):
    model, x, _ = made("plain", 3)
    weights = np.random.default_rng(8).normal(size=(3, 5))
    raw = run(method, model, x, [Weighted(scale * w) for w in weights], layer="relu1").raw
    return raw / np.abs(raw).max((1, 2), keepdims=True)


@pytest.mark.parametrize("method", HOMOGENEOUS)
def test_a_multiple_of_the_score_has_the_same_normalised_map(method):
    near(normalised(method, 7.0), normalised(method, 1.0), 1e-12)


@pytest.mark.parametrize("method", NOT_HOMOGENEOUS)
def test_a_multiple_of_the_score_has_another_grad_cam_plus_plus(method):
    assert np.abs(normalised(method, 7.0) - normalised(method, 1.0)).max() > 1e-3


# What a flip of the picture does.


def mirrored_net():
    """A network of symmetric kernels, to which left and right are the same."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(3, 3, 3, 6)), rng.normal(size=(3, 3, 6, 8)) / 3
    pad = {"padding": ((1, 1), (1, 1))}
    return NetSpec(
        {"image": (8, 10, 3)},
        (
            Op("conv1", "conv", ("image",), attrs=pad),
            Op("relu1", "relu", ("conv1",)),
            Op("pool", "maxpool", ("relu1",), attrs={"window": (2, 2)}),
            Op("mix", "conv", ("pool",)),
            Op("conv2", "conv", ("mix",), attrs=pad),
            Op("relu2", "relu", ("conv2",)),
            Op("gap", "gap", ("relu2",)),
            Op("fc", "linear", ("gap",)),
        ),
        {
            "conv1.weight": first + first[:, ::-1],
            "conv1.bias": rng.normal(size=6),
            "mix.weight": rng.normal(size=(1, 1, 6, 6)),
            "conv2.weight": second + second[:, ::-1],
            "fc.weight": rng.normal(size=(8, 4)),
            "fc.bias": rng.normal(size=4),
        },
    )


@pytest.mark.parametrize("layer", ["relu1", "pool", "mix", "relu2"])
@pytest.mark.parametrize("method", [*ONE_PASS, "finer-cam", "smooth-grad-cam++", "shapley-cam"])
def test_the_map_of_the_flipped_picture_is_the_flipped_map(method, layer):
    net = mirrored_net()
    x = random_input(net, 3, seed=6)["image"].astype(np.float64)
    targets = [ClassScore(0), Predicted(), ClassScore(3)]
    # The noise is not flipped with the picture.
    quiet = {"noise": 0.0} if method == "smooth-grad-cam++" else {}
    plain, flipped = (
        run(method, Curved(net), picture, targets, layer=layer, **quiet).raw
        for picture in (x, x[:, :, ::-1])
    )
    near(flipped[:, :, ::-1], plain, 1e-10)


# Finer-CAM.


def nearest(scores, own, count):
    others = [c for c in range(len(scores)) if c != own]
    return sorted(others, key=lambda c: abs(scores[c] - scores[own]))[:count]


@pytest.mark.parametrize(("net", "layer"), LAYERS)
@pytest.mark.parametrize(("references", "strength"), [(1, 1.0), (2, 0.6), (99, 0.25)])
def test_finer_cam_is_the_mean_of_its_comparisons(net, layer, references, strength):
    model, x, _ = made(net)
    logits = model.forward(x).logits
    targets = [ClassScore(0), ClassScore(1), ClassScore(2), Predicted(), ClassScore(1)]
    maps = run(
        "finer-cam", model, x, targets, layer=layer, references=references, strength=strength
    )
    for n, target in enumerate(targets):
        own = target.resolve(logits[n]).index
        compared = nearest(logits[n], own, references)
        assert list(maps.extras["references"][n]) == compared
        each = []
        for other in compared:
            weights = np.eye(logits.shape[1])[own] - strength * np.eye(logits.shape[1])[other]
            each.append(grad_cam(*at(model, x[n], Weighted(weights), layer)))
        near(maps.raw[n], np.mean(each, 0))
        assert maps.targets[n] == ClassScore(own)
        assert maps.scores[n] == pytest.approx(logits[n, own], rel=1e-12)


def test_finer_cam_may_weight_its_comparisons_by_probability():
    model, x, _ = made("plain", 2)
    logits = model.forward(x).logits
    targets = [ClassScore(1), ClassScore(4)]
    maps = run("finer-cam", model, x, targets, weighting="probability", strength=0.8)
    for n, own in enumerate((1, 4)):
        compared = nearest(logits[n], own, 3)

        def score(y, own=own, compared=compared):
            p = probabilities(y, "softmax")[compared]
            return (p * (y[own] - 0.8 * y[compared])).sum() / p.sum()

        step = 1e-5 * np.eye(5)
        slopes = [(score(logits[n] + h) - score(logits[n] - h)) / 2e-5 for h in step]
        near(maps.raw[n], grad_cam(*at(model, x[n], Weighted(np.array(slopes)), "relu2")), 1e-8)


def test_finer_cam_without_strength_is_grad_cam():
    model, x, _ = made("plain")
    targets = [ClassScore(i) for i in range(5)]
    np.testing.assert_array_equal(
        run("finer-cam", model, x, targets, strength=0.0).raw,
        run("grad-cam", model, x, targets).raw,
    )


def test_finer_cam_of_one_reference_is_the_contrast_with_it():
    model, x, _ = made("plain")
    maps = run("finer-cam", model, x, [Predicted()] * 5, references=1, strength=1.0)
    pairs = zip(maps.targets, maps.extras["references"], strict=True)
    contrasts = [Contrast(own.index, int(other[0])) for own, other in pairs]
    near(maps.raw, run("grad-cam", model, x, contrasts).raw, 1e-12)


@pytest.mark.parametrize(
    "target", [Contrast(0, 1), ClassProbability(0), Neuron("conv2", (0,)), Weighted(np.ones(5))]
)
@pytest.mark.parametrize(("method", "params"), [("finer-cam", {}), ("shapley-cam", {"utility": 0})])
def test_what_is_said_of_classes_is_refused_for_other_targets(target, method, params):
    params = {"utility": "rest"} if params else {}
    _, x, _ = made("plain", 1)
    with pytest.raises(TargetError, match="grad-cam, which takes any target"):
        run(method, Curved(NETS["plain"]()), x, [target], layer="relu1", **params)


def test_finer_cam_needs_another_class():
    net = pooled_net(3, 1, (5, 5), 0)
    x = random_input(net, 1)["image"].astype(np.float64)
    with pytest.raises(TargetError, match="single class"):
        run("finer-cam", ReferenceModel(net, "float64"), x, [ClassScore(0)])


# Smooth Grad-CAM++.


@pytest.mark.parametrize(
    ("net", "layer"), [("plain", "relu1"), ("plain", "conv2"), ("signal", "relu2")]
)
def test_smooth_grad_cam_plus_plus_is_its_papers_formula(net, layer):
    model, x, targets = made(net)
    maps = run("smooth-grad-cam++", model, x, targets, layer=layer, samples=4, noise=0.2, seed=9)
    for n, target in enumerate(targets):
        rng, derivatives = np.random.default_rng(9), []
        target = target.resolve(model.forward(x[n : n + 1]).logits[0])
        for _ in range(4):
            draw = rng.standard_normal(x.shape[1:])
            copy = x[n] + 0.2 * (x[n].max() - x[n].min()) * draw
            gradient = at(model, copy, target, layer)[1]
            derivatives.append([gradient, gradient**2, gradient**3])
        features, _ = at(model, x[n], target, layer)
        near(maps.raw[n], plus_plus(features, *np.mean(derivatives, 0)))
        assert maps.targets[n] == target


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus():
    model, x, targets = made("residual")
    for samples in (1, 5):
        smooth = run("smooth-grad-cam++", model, x, targets, noise=0.0, samples=samples)
        near(smooth.raw, run("grad-cam++", model, x, targets).raw)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_how_many_copies_go_through_at_once_changes_nothing_but_the_work(batch_size):
    class Counting(ReferenceModel):
        sizes: list[int] = []

        def pullback(self, x, cotangent, **kwargs):
            self.sizes.append(len(x))
            return super().pullback(x, cotangent, **kwargs)

    _, x, targets = made("plain", 2)
    model = Counting(NETS["plain"](), "float64")
    model.sizes.clear()
    told = []
    with listening(lambda *what: told.append(what)):
        maps = run("smooth-grad-cam++", model, x, targets, samples=7, batch_size=batch_size)
    near(maps.raw, run("smooth-grad-cam++", *made("plain", 2), samples=7).raw, 1e-12)
    assert max(model.sizes) <= max(2, batch_size)
    assert len(model.sizes) == -(-7 // max(1, batch_size // 2))
    assert [done for _, done, _ in told] == [
        min(7, (i + 1) * max(1, batch_size // 2)) for i in range(len(told))
    ]
    assert {(what, total) for what, _, total in told} == {("noisy copies", 7)}


def test_a_noisy_copy_is_asked_about_the_class_that_the_sample_is():
    model, x, _ = made("swish")  # which puts another class first under such noise
    classes, noise = model.forward(x).logits.argmax(1), {"noise": 3.0, "samples": 4}
    asked = run("smooth-grad-cam++", model, x, [Predicted()] * 5, **noise)
    told = run("smooth-grad-cam++", model, x, [ClassScore(int(c)) for c in classes], **noise)
    np.testing.assert_array_equal(asked.raw, told.raw)


def test_another_seed_gives_other_noise():
    one, two = (run("smooth-grad-cam++", *made("plain"), samples=2, seed=s).raw for s in (0, 1))
    assert not np.allclose(one, two)


def test_it_says_beforehand_how_many_passes_it_takes():
    model, x, _ = made("plain")
    explainer = get_registry().explainer("smooth-grad-cam++", samples=6)
    assert passes_of(explainer, model, x) == 1 + 6 * 3


# ShapleyCAM.


def tail(net, layer):
    """The layers after one, as a network of their own."""
    ops = list(net.ops)
    after = next(i for i, op in enumerate(ops) if op.name == layer) + 1
    return ReferenceModel(
        NetSpec({layer: net.shapes()[layer]}, tuple(ops[after:]), net.parameters), "float64"
    )


class Curved(ReferenceModel):
    """The reference model with second derivatives.

    The tangent is exact; what bends is 0, as between piecewise linear layers, unless the network is
    said to be smooth.
    """

    capabilities = ReferenceModel.capabilities | {"curvature"}

    def __init__(self, net, smooth=False):
        super().__init__(net, "float64")
        self.net, self.smooth = net, smooth

    def curvature(self, x, cotangent, direction, *, of=LOGITS, wrt="@input"):
        back = self.pullback(x, cotangent, of=of, wrt=[wrt])
        features = back.values[wrt]
        along = direction(features) if callable(direction) else direction
        tangent = np.zeros_like(back.values[of])
        for index in np.ndindex(tangent.shape[1:]):
            one = np.zeros_like(tangent)
            one[(slice(None), *index)] = 1
            row = self.pullback(x, one, of=of, wrt=[wrt]).gradients[wrt]
            tangent[(slice(None), *index)] = (row * along).reshape(len(x), -1).sum(1)
        bend = np.zeros_like(features)
        if self.smooth:
            given = cotangent(back.values[of]) if callable(cotangent) else cotangent
            rest, h = tail(self.net, wrt), 1e-3

            def gradient(t):
                return rest.pullback(features + t * along, given, of=of).gradients["@input"]

            bend = 8 * (gradient(h) - gradient(-h)) - (gradient(2 * h) - gradient(-2 * h))
            bend /= 12 * h
        return Curvature(back.values, back.gradients[wrt], tangent, bend)


def jacobian(model, sample, layer, of=LOGITS):
    """The derivative (C, h w K) of the scores with respect to the layer."""
    count = model.forward(sample[None])[of].shape[1]
    rows = [
        model.pullback(sample[None], np.eye(count)[[c]], of=of, wrt=[layer]) for c in range(count)
    ]
    return np.stack([row.gradients[layer].ravel() for row in rows])


def shapley(features, gradient, along_hessian):
    """Weight each feature map by the mean of ``G - H A / 2``."""
    weights = gradient - along_hessian / 2
    return grad_cam(features, weights.reshape(features.shape))


@pytest.mark.parametrize(
    ("net", "layer"),
    [("plain", "relu1"), ("plain", "relu2"), ("strided", "pool2"), ("signal", "relu2")],
)
def test_shapley_cam_of_a_probability_is_its_papers_formula(net, layer):
    _, x, _ = made(net, 3)
    model = Curved(NETS[net]())
    maps = run("shapley-cam", model, x, [ClassProbability(c) for c in range(3)], layer=layer)
    for n, sample in enumerate(x):
        features = model.forward(sample[None], capture=[layer])[layer][0]
        jac, p = (
            jacobian(model, sample, layer),
            probabilities(model.forward(sample[None]).logits[0], "softmax"),
        )
        toward = np.eye(len(p))[n] - p
        hessian = p[n] * (np.outer(toward, toward) - np.diag(p) + np.outer(p, p))
        along = jac.T @ hessian @ jac @ features.ravel()
        assert np.abs(along).max() > 1e-3 * np.abs(jac.T @ toward * p[n]).max()
        near(maps.raw[n], shapley(features, p[n] * (jac.T @ toward), along))


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_the_paper_s_utility_adds_the_logarithm_of_the_probability(layer):
    _, x, _ = made("plain", 3)
    model = Curved(NETS["plain"]())
    targets = [ClassScore(0), Predicted(), ClassScore(4)]
    maps = run("shapley-cam", model, x, targets, layer=layer, utility="rest")
    for n, sample in enumerate(x):
        features = model.forward(sample[None], capture=[layer])[layer][0]
        logits = model.forward(sample[None]).logits[0]
        own, p = targets[n].resolve(logits).index, probabilities(logits, "softmax")
        jac = jacobian(model, sample, layer)
        along = jac.T @ (np.outer(p, p) - np.diag(p)) @ jac @ features.ravel()
        near(maps.raw[n], shapley(features, jac.T @ (2 * np.eye(5)[own] - p), along))
        assert maps.targets[n] == ClassScore(own)
        assert maps.scores[n] == pytest.approx(logits[own], rel=1e-12)


def test_the_gradient_of_the_utility_is_that_of_its_score():
    y, step = np.random.default_rng(2).normal(size=6) * 30, 1e-5 * np.eye(6)
    utility = _Rest(4)
    assert utility.score(y) == pytest.approx(y[4] + np.log(probabilities(y, "softmax")[4]))
    slopes = [(utility.score(y + h) - utility.score(y - h)) / 2e-5 for h in step]
    np.testing.assert_allclose(utility.gradient(y), slopes, atol=1e-8)


@pytest.mark.parametrize(
    ("net", "layer", "of", "smooth"),
    [
        ("plain", "relu1", LOGITS, False),
        ("softmax_head", "relu2", OUTPUT, True),
        ("swish", "silu1", LOGITS, True),
        ("swish", "add", LOGITS, True),
    ],
)
def test_shapley_cam_is_a_finite_difference_of_the_scores_gradient(net, layer, of, smooth):
    spec = NETS[net]()
    _, x, _ = made(net, 3)
    model, rest = Curved(spec, smooth), tail(spec, layer)
    classes = model.forward(x)[of].shape[1]
    weights = np.random.default_rng(6).normal(size=classes)
    targets = (
        [Weighted(weights, of=OUTPUT)] * 3
        if of == OUTPUT
        else [ClassProbability(1), ClassProbability(2, "sigmoid"), Weighted(weights)]
    )
    maps = run("shapley-cam", model, x, targets, layer=layer)
    for n, target in enumerate(targets):
        features = model.forward(x[n : n + 1], capture=[layer])[layer]

        def gradient(at, target=target):
            there = rest.pullback(at, lambda v: target.gradient(v[0])[None], of=of)
            return there.gradients["@input"]

        h = 1e-5
        along = (gradient(features * (1 + h)) - gradient(features * (1 - h))) / (2 * h)
        near(maps.raw[n], shapley(features[0], gradient(features)[0], along[0]), 1e-7)
        if smooth:
            assert np.abs(along).max() > 1e-3 * np.abs(gradient(features)).max()


@pytest.mark.parametrize(
    ("net", "layer", "smooth"),
    [("plain", "relu1", False), ("volume", "relu2", False), ("swish", "add", True)],
)
def test_the_reference_models_own_second_derivatives_give_the_same(net, layer, smooth):
    model, x, targets = made(net)
    expected = run("shapley-cam", Curved(NETS[net](), smooth), x, targets, layer=layer).raw
    near(run("shapley-cam", model, x, targets, layer=layer).raw, expected, 1e-9)


def test_shapley_cam_makes_one_pass_more_where_a_score_of_the_batch_is_curved():
    class Counting(Curved):
        passes = 0

        def curvature(self, *args, **kwargs):
            result = super().curvature(*args, **kwargs)
            self.passes = 0
            return result

        def pullback(self, *args, **kwargs):
            self.passes += 1
            return super().pullback(*args, **kwargs)

    _, x, _ = made("plain", 2)
    model = Counting(NETS["plain"]())
    for second, passes in ((Contrast(0, 1), 0), (ClassProbability(1), 1)):
        run("shapley-cam", model, x, [ClassScore(0), second])
        assert model.passes == passes


@pytest.mark.parametrize("layer", ["relu1", "conv2", "relu2"])
def test_shapley_cam_of_a_score_that_is_not_curved_is_grad_cam(layer):
    _, x, _ = made("plain")
    model = Curved(NETS["plain"]())
    targets = [ClassScore(2), Contrast(1, 0), Predicted(), Weighted(np.arange(5.0)), ClassScore(0)]
    shapley_map, grad_cam_map = (
        run(method, model, x, targets, layer=layer) for method in ("shapley-cam", "grad-cam")
    )
    np.testing.assert_array_equal(shapley_map.raw, grad_cam_map.raw)
    np.testing.assert_array_equal(shapley_map.scores, grad_cam_map.scores)


def test_a_model_without_second_derivatives_is_refused():
    class Flat(ReferenceModel):
        capabilities = ReferenceModel.capabilities - {"curvature"}

    _, x, targets = made("plain")
    with pytest.raises(MissingCapabilityError, match="curvature"):
        ShapleyCAM().explain(Flat(NETS["plain"](), "float64"), x, targets)


# Names.


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("GradCAM++", "grad-cam++"),
        ("GradCAMPlusPlus", "grad-cam++"),
        ("grad-cam-pp", "grad-cam++"),
        ("SmoothGradCAMPlusPlus", "smooth-grad-cam++"),
        ("SmoothGradCAMpp", "smooth-grad-cam++"),
        ("GradCAMElementWise", "grad-cam-elementwise"),
        ("XGradCAM", "xgrad-cam"),
        ("LayerCAM", "layer-cam"),
        ("HiResCAM", "hires-cam"),
        ("high-resolution-cam", "hires-cam"),
        ("FinerCAM", "finer-cam"),
        ("ShapleyCAM", "shapley-cam"),
    ],
)
def test_each_method_is_found_under_the_names_by_which_people_know_it(asked, meant):
    registry = get_registry()
    assert type(registry.explainer(asked)) is type(registry.explainer(meant))
