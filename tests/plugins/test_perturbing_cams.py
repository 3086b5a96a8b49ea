"""Score-CAM and its kin, Ablation-CAM and FullGrad against their formulas, written plainly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cnnviz_cam.ablation_cam
from cnnviz_core.errors import TargetError, UnknownLayerError
from cnnviz_core.explainer import passes_of
from cnnviz_core.layers import on_grid
from cnnviz_core.masks import FeatureMasks
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Neuron, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

SCORED = ["score-cam", "is-cam", "ss-cam"]
SHORT = {
    "score-cam": {},
    "is-cam": {"steps": 3},
    "ss-cam": {"draws": 3, "sigma": 0.4},
    "ablation-cam": {},
}


def case(name="plain", n=2, seed=5, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


MODEL, X = case()
TARGETS = [ClassScore(3), Contrast(1, 4)]


def explain(method, model=MODEL, x=X, targets=TARGETS, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def features_of(layer, model=MODEL, x=X):
    return on_grid(model.forward(x, capture=(layer,))[layer], model.layers[layer])


class Counting:
    """A model that notes how many samples each call has."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **more):
        self.calls.append(len(x))
        return self.model.forward(x, **more)


# ------------------------------------------------------------------------------ the formulas


def bilinear(grid, size):
    """Interpolate linearly along each axis between the centres of the pixels."""
    for axis, new in enumerate(size):
        old = grid.shape[axis]
        centres = [(i + 0.5) * old / new - 0.5 for i in range(new)]
        grid = np.apply_along_axis(
            lambda line, c=centres: np.interp(c, range(len(line)), line), axis, grid
        )
    return grid


def mask_of(grid, size):
    up = bilinear(grid, size)
    low, high = up.min(), up.max()
    return (up - low) / (high - low) if high > low else np.zeros(size)


def softmax(values):
    e = np.exp(np.array(values))
    return e / e.sum()


def score_by_formula(seen, x, target, channels, model=MODEL):
    """Weight the channels as the paper does: `seen` makes the pictures that a mask leads to."""
    score = lambda picture: target.score(model.forward(picture[None]).logits[0])  # noqa: E731
    baseline = score(np.zeros_like(x))
    increases = [
        np.mean(
            [score(picture) - baseline for picture in seen(mask_of(grid, x.shape[:-1])[..., None])]
        )
        for grid in channels
    ]
    return softmax(increases)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "conv2", "relu2"])
@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_score_cam_is_its_formula(layer, batch_size):
    maps = explain("score-cam", layer=layer, batch_size=batch_size)
    features = features_of(layer)
    for n, target in enumerate(TARGETS):
        channels = np.moveaxis(features[n], -1, 0)
        weights = score_by_formula(lambda m, x=X[n]: [m * x], X[n], target, channels)
        np.testing.assert_allclose(maps.extras["weights"][n], weights, rtol=1e-10)
        expected = sum(w * a for w, a in zip(weights, channels, strict=True))
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(maps.terms()[n].sum(-1), maps.raw[n], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["signal", "volume"])
@pytest.mark.parametrize("method", SCORED)
def test_signals_and_volumes_are_masked_likewise(name, method):
    model, x = case(name)
    targets = [ClassScore(1), ClassScore(0)]
    maps = explain(method, model, x, targets, **SHORT[method])
    draws = np.random.default_rng(0).standard_normal((3, *x.shape[1:-1], 1))
    seen = {
        "score-cam": lambda m, x: [m * x],
        "is-cam": lambda m, x: [m * x * i / 3 for i in (1, 2, 3)],
        "ss-cam": lambda m, x: [(m + 0.4 * d) * x for d in draws],
    }[method]
    for n, target in enumerate(targets):
        channels = np.moveaxis(features_of(maps.layer, model, x)[n], -1, 0)
        weights = score_by_formula(lambda m, x=x[n]: seen(m, x), x[n], target, channels, model)
        expected = sum(w * a for w, a in zip(weights, channels, strict=True))
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", SCORED)
def test_the_fill_shows_where_the_mask_is_zero(method):
    maps = explain(method, fill=0.3, layer="pool1", **SHORT[method])
    draws = np.random.default_rng(0).standard_normal((3, 12, 9, 1))
    seen = {
        "score-cam": lambda m, x: [m * x + (1 - m) * 0.3],
        "is-cam": lambda m, x: [s * m * x + (1 - s * m) * 0.3 for s in (1 / 3, 2 / 3, 1)],
        "ss-cam": lambda m, x: [(m + d) * x + (1 - m - d) * 0.3 for d in 0.4 * draws],
    }[method]
    channels = np.moveaxis(features_of("pool1")[1], -1, 0)
    weights = score_by_formula(lambda m: seen(m, X[1]), X[1], TARGETS[1], channels)
    np.testing.assert_allclose(maps.extras["weights"][1], weights, rtol=1e-10)


@pytest.mark.parametrize("steps", [2, 7])
def test_is_cam_averages_the_scores_on_the_way(steps):
    maps = explain("is-cam", steps=steps, batch_size=3)
    for n, target in enumerate(TARGETS):
        channels = np.moveaxis(features_of("relu2")[n], -1, 0)
        seen = lambda m, x=X[n]: [i / steps * m * x for i in range(1, steps + 1)]  # noqa: E731
        weights = score_by_formula(seen, X[n], target, channels)
        np.testing.assert_allclose(maps.extras["weights"][n], weights, rtol=1e-10)


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("noise_on", ["features", "input"])
def test_ss_cam_averages_the_scores_over_noise(noise_on, seed):
    maps = explain("ss-cam", noise_on=noise_on, sigma=0.2, draws=4, seed=seed, batch_size=5)
    rng = np.random.default_rng(seed)
    draws = [
        rng.standard_normal((12, 9, 1) if noise_on == "features" else (12, 9, 3)) for _ in range(4)
    ]
    for n, target in enumerate(TARGETS):
        channels = np.moveaxis(features_of("relu2")[n], -1, 0)
        if noise_on == "features":
            seen = lambda m, x=X[n]: [(m + 0.2 * d) * x for d in draws]  # noqa: E731
        else:
            seen = lambda m, x=X[n]: [m * x + 0.2 * (x.max() - x.min()) * d for d in draws]  # noqa: E731
        weights = score_by_formula(seen, X[n], target, channels)
        np.testing.assert_allclose(maps.extras["weights"][n], weights, rtol=1e-10)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("is-cam", {"steps": 1}),
        ("ss-cam", {"sigma": 0.0, "draws": 3}),
        ("ss-cam", {"sigma": 0.0, "draws": 3, "noise_on": "input"}),
        ("score-cam", {"channels": 8}),
        ("score-cam", {"channels": 99}),
    ],
)
def test_what_is_score_cam(method, params):
    expected = explain("score-cam")
    found = explain(method, **params)
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-12)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-12)


def test_what_is_added_to_all_scores_changes_no_weight():
    net = NETS["plain"]()
    shifted = replace(net, parameters={**net.parameters, "fc.bias": net.parameters["fc.bias"] + 7})
    found = explain("score-cam", ReferenceModel(shifted, "float64"), targets=[ClassScore(2)] * 2)
    expected = explain("score-cam", targets=[ClassScore(2)] * 2)
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-10)


def test_the_weights_sum_to_one():
    for method in SCORED:
        weights = explain(method, **SHORT[method]).extras["weights"]
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
        assert weights.min() > 0


def test_huge_scores_do_not_overflow():
    net = NETS["plain"]()
    loud = replace(
        net, parameters={**net.parameters, "fc.weight": net.parameters["fc.weight"] * 1e6}
    )
    weights = explain("score-cam", ReferenceModel(loud, "float64")).extras["weights"]
    np.testing.assert_allclose(weights.sum(-1), 1)


def dead(channel):
    """Give a network of which one channel is always 0."""
    net = NETS["plain"]()
    bias = net.parameters["conv2.bias"].copy()
    bias[channel] = -1e3
    return ReferenceModel(
        replace(net, parameters={**net.parameters, "conv2.bias": bias}), "float64"
    )


def test_a_constant_channel_has_a_mask_of_zeros():
    model = dead(5)
    assert not features_of("relu2", model)[..., 5].any()
    weights = explain("score-cam", model).extras["weights"]
    channels = np.moveaxis(features_of("relu2", model)[0], -1, 0)
    expected = score_by_formula(lambda m: [m * X[0]], X[0], TARGETS[0], channels, model)
    np.testing.assert_allclose(weights[0], expected, rtol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", SCORED)
def test_only_the_channels_that_vary_most_are_asked_about(method, channels):
    found = explain(method, channels=channels, **SHORT[method]).extras["weights"]
    for n in range(2):
        spread = [features_of("relu2")[n, ..., k].std() for k in range(8)]
        asked = sorted(range(8), key=lambda k: -spread[k])[:channels]
        assert set(np.flatnonzero(found[n])) == set(asked)
        # The scores of those that are left are the same, so their ratios are.
        whole = explain(method, **SHORT[method]).extras["weights"][n, asked]
        np.testing.assert_allclose(found[n, asked], whole / whole.sum(), rtol=1e-10)


# ------------------------------------------------------------------------------ Ablation-CAM


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2", "relu2"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_ablation_cam_is_its_formula(layer, batch_size):
    maps = explain("ablation-cam", layer=layer, batch_size=batch_size)
    for n, target in enumerate(TARGETS):
        x, expected = X[n : n + 1], 0
        for k in range(MODEL.layers[layer].shape[-1]):
            without = features_of(layer, x=x)
            a = without[0, ..., k].copy()
            without[..., k] = 0
            gone = MODEL.forward(x, replace={layer: without}).logits[0]
            weight = target.score(MODEL.forward(x).logits[0]) - target.score(gone)
            np.testing.assert_allclose(maps.extras["weights"][n, k], weight, atol=1e-12)
            expected = expected + weight * a
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "signal", "volume"])
def test_before_pooling_and_a_linear_layer_the_drop_is_weight_times_mean(name):
    model, x = case(name)
    maps = explain("ablation-cam", model, x, [ClassScore(0), ClassScore(2)])
    features = features_of(maps.layer, model, x)
    means = features.mean(tuple(range(1, features.ndim - 1)))
    weights = model.parameters("fc")["weight"][:, [0, 2]].T
    np.testing.assert_allclose(maps.extras["weights"], weights * means, atol=1e-12)


def test_a_negative_score_does_not_turn_the_map_over():
    net = NETS["plain"]()
    low = replace(net, parameters={**net.parameters, "fc.bias": net.parameters["fc.bias"] - 50})
    found = explain("ablation-cam", ReferenceModel(low, "float64"), targets=[ClassScore(1)] * 2)
    assert (found.scores < 0).all()
    expected = explain("ablation-cam", targets=[ClassScore(1)] * 2)
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-10)
    # The paper's own weights are the drops as a share of the score.
    paper = found.extras["weights"] / found.scores[:, None]
    np.testing.assert_allclose(
        paper * found.scores[:, None], expected.extras["weights"], atol=1e-12
    )


def test_channels_that_are_zero_are_not_asked_about():
    model = Counting(dead(5))
    maps = explain("ablation-cam", model, X[:1], [ClassProbability(3)])
    assert maps.extras["weights"][0, 5] == 0
    assert sum(model.calls) == 1 + sum(features_of("relu2", dead(5), X[:1]).any((0, 1, 2)))


def test_of_the_channels_the_largest_are_ablated():
    found = explain("ablation-cam", channels=3, layer="pool1").extras["weights"]
    whole = explain("ablation-cam", layer="pool1").extras["weights"]
    for n in range(2):
        squares = [(features_of("pool1")[n, ..., k] ** 2).sum() for k in range(6)]
        asked = sorted(range(6), key=lambda k: -squares[k])[:3]
        np.testing.assert_allclose(found[n, asked], whole[n, asked], atol=1e-12)
        assert set(np.flatnonzero(found[n])) == set(asked)


def test_tokens_are_ablated_before_they_are_laid_out_on_the_grid():
    model, x = case("tokens")
    layer = next(n for n, i in model.layers.items() if i.grid and len(i.shape) == len(i.grid))
    maps = explain("ablation-cam", model, x, [ClassScore(0), ClassScore(1)], layer=layer)
    assert maps.raw.shape == (2, *model.layers[layer].grid)
    value = model.forward(x, capture=(layer,))[layer]
    for n in range(2):
        for k in range(value.shape[-1]):
            without = value[n : n + 1].copy()
            without[..., k] = 0
            gone = model.forward(x[n : n + 1], replace={layer: without}).logits[0, n]
            drop = maps.scores[n] - gone
            np.testing.assert_allclose(maps.extras["weights"][n, k], drop, atol=1e-12)


# --------------------------------------------------------------------------- work and memory


@pytest.mark.parametrize("method", SHORT)
def test_passes_are_what_is_said_beforehand(method):
    for channels in (None, 3):
        explainer = get_registry().explainer(
            method, channels=channels, layer="conv2", **SHORT[method]
        )
        model = Counting(MODEL)
        explainer.explain(model, X[:1], TARGETS[:1])
        assert sum(model.calls) == passes_of(explainer, MODEL, X[:1])


@pytest.mark.parametrize("method", SHORT)
def test_targets_of_one_picture_share_its_passes(method):
    targets = [ClassScore(0), ClassScore(4), Contrast(2, 1), Predicted(1)]
    single, shared = Counting(MODEL), Counting(MODEL)
    how = {"layer": "conv2", **SHORT[method]}
    alone = [explain(method, single, X[:1], [t], **how) for t in targets]
    together = explain(method, shared, np.repeat(X[:1], 4, axis=0), targets, **how)
    np.testing.assert_allclose(together.raw, [m.raw[0] for m in alone], rtol=1e-10, atol=1e-12)
    assert [str(t) for t in together.targets] == [str(m.targets[0]) for m in alone]
    # But for the first pass, over all rows, the calls are those of one target.
    assert shared.calls[1:] == single.calls[1 : len(single.calls) // 4]
    assert shared.calls[0] == 4


@pytest.mark.parametrize(
    ("method", "owner", "name"),
    [
        *((method, FeatureMasks, "form") for method in SCORED),
        ("ablation-cam", cnnviz_cam.ablation_cam, "_ablated"),
    ],
)
def test_no_more_is_made_than_a_batch_at_a_time(monkeypatch, method, owner, name):
    make, model = getattr(owner, name), Counting(MODEL)
    made = []

    def counted(*args):
        each = make(*args)
        made.append(len(each))
        return each

    def told(what, done, total):
        ahead.append(sum(made) % total or total)
        assert ahead[-1] == done

    ahead = []
    monkeypatch.setattr(owner, name, counted)
    with listening(told):
        explain(method, model, layer="conv2", batch_size=3, **SHORT[method])
    assert max(model.calls[1:]) == 3
    assert 2 in model.calls[1:]  # 8 channels: the last batch is ragged
    assert ahead[:3] == [3, 6, 8]


# ------------------------------------------------------------------------------------ FullGrad

LINEAR_AROUND_A_SAMPLE = [
    "plain",
    "residual",
    "branches",
    "softmax_head",
    "sigmoid_head",
    "smooth",
    "signal",
    "volume",
]


class Telling:
    """A model that tells or does not tell the epsilon of its batch normalisations."""

    def __init__(self, model, net, tells):
        self.model, self.net, self.tells = model, net, tells

    def __getattr__(self, name):
        return getattr(self.model, name)

    def parameters(self, layer):
        arrays = dict(self.model.parameters(layer))
        arrays.pop("epsilon", None)
        op = next(op for op in self.net.ops if op.layer == self.model.layers[layer].path)
        return arrays | (
            {"epsilon": np.array(op.attrs["epsilon"])} if "mean" in arrays and self.tells else {}
        )

    def forward(self, x, **more):
        assert not (self.tells and more.get("replace"))
        return self.model.forward(x, **more)


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize("name", LINEAR_AROUND_A_SAMPLE)
def test_the_full_gradient_is_complete(name, tells):
    model, x = case(name, n=5)
    model = Telling(model, NETS[name](), tells)
    targets = [ClassScore(0), ClassScore(1), Contrast(0, 2), Predicted(), ClassScore(2)]
    maps = explain("full-grad", model, x, targets, batch_size=2)
    np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-13)
    assert np.abs(maps.scores).max() > 0.1


@pytest.mark.parametrize("name", ["strided", "depthwise"])
def test_what_relu6_cuts_off_is_what_the_full_gradient_lacks(name):
    model, x = case(name)
    targets = [ClassScore(0), ClassScore(1)]
    gap = explain("full-grad", model, x, targets).extras["completeness_gap"]
    nodes = [n for n, i in model.layers.items() if i.type == "relu6"]
    for n, target in enumerate(targets):
        back = model.pullback(x[n : n + 1], lambda v, t=target: t.gradient(v[0])[None], wrt=nodes)
        capped = sum((back.gradients[k] * 6 * (back.values[k] == 6)).sum() for k in nodes)
        assert abs(capped) > 1e-3
        assert gap[n] == pytest.approx(capped, rel=1e-10)


def test_probabilities_have_no_complete_full_gradient():
    maps = explain("full-grad", targets=[ClassProbability(0), ClassProbability(1)])
    assert np.abs(maps.extras["completeness_gap"]).min() > 1e-3


def own_bias(net, op):
    """Give a layer's bias: its own, or that which a batch normalisation implies."""
    arrays = net.of_layer(op.layer)
    if op.kind == "batchnorm":
        width = np.sqrt(arrays["variance"] + op.attrs["epsilon"])
        return arrays["shift"] - arrays["scale"] * arrays["mean"] / width
    return arrays.get("bias", np.zeros(1))


def rescale(values):
    return (values - values.min()) / (values.max() - values.min()) if np.ptp(values) else 0 * values


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize("psi", ["rescaled", "rescaled-channels", "magnitude", "signed"])
@pytest.mark.parametrize("name", ["plain", "residual", "branches", "depthwise", "volume"])
def test_full_grad_is_its_formula(name, psi, tells):
    net, (model, x) = NETS[name](), case(name)
    model = Telling(model, net, tells)
    targets = [ClassScore(1), Contrast(2, 0)]
    maps = explain("full-grad", model, x, targets, psi=psi)
    assert maps.raw.shape == x.shape[:-1]
    layers = [
        (net.node(op), own_bias(net, op)) for op in net.ops if op.kind in ("conv", "batchnorm")
    ]
    for n, target in enumerate(targets):
        nodes = ["@input", *(node for node, _ in layers)]
        back = model.pullback(x[n : n + 1], lambda v, t=target: t.gradient(v[0])[None], wrt=nodes)
        expected = 0
        for node, factor in [("@input", x[n]), *layers]:
            terms = back.gradients[node][0] * factor
            if psi == "rescaled":
                terms = rescale(np.abs(terms))
            elif psi == "magnitude":
                terms = np.abs(terms)
            for k in range(terms.shape[-1]):
                term = terms[..., k]
                if psi == "rescaled-channels":
                    term = rescale(np.abs(term))
                expected = expected + bilinear(term, x.shape[1:-1])
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-9, atol=1e-12)


def test_signed_terms_of_a_layer_at_the_pictures_size_sum_to_the_score():
    model, x = case("branches")  # no pooling: every grid is the picture's
    maps = explain("full-grad", model, x, [ClassScore(0), ClassScore(1)], psi="signed")
    bias = model.parameters("fc")["bias"][:2]
    np.testing.assert_allclose(maps.raw.sum((1, 2)), maps.scores - bias, atol=1e-12)
    assert maps.presentation.sign == "signed"


def test_layers_that_are_not_on_the_way_to_the_score_are_left_out():
    model, x = case("branches")
    targets = [Neuron("left", (4, 5, 1)), Neuron("left", (2,))]
    maps = explain("full-grad", model, x, targets, batch_size=1)
    np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-12)
    with pytest.raises(UnknownLayerError, match="nowhere"):
        explain("full-grad", model, x, [Neuron("nowhere", (0,))] * 2)


def test_a_picture_of_zeros_has_only_the_terms_of_the_biases():
    maps = explain("full-grad", x=np.zeros_like(X))
    np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-13)
    assert maps.raw.max() > 0


@pytest.mark.parametrize("n", [1, 3, 5])
def test_every_target_is_counted_also_those_after_a_full_batch(n):
    with pytest.raises(TargetError):
        explain("full-grad", x=np.repeat(X, 2, axis=0), targets=[ClassScore(0)] * n, batch_size=2)


@pytest.mark.parametrize("method", [*SHORT, "full-grad"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(method, dtype):
    model, x = case(dtype=dtype)
    maps = explain(method, model, x, **SHORT.get(method, {}))
    assert maps.raw.dtype == maps.scores.dtype == dtype
    assert all(extra.dtype == dtype for extra in maps.extras.values())


@parametrize_with_checks(
    [
        get_registry().explainer(method, **params)
        for method, params in [
            ("score-cam", {"layer": "conv1", "channels": 4, "fill": 0.2, "batch_size": 5}),
            ("ss-cam", {"noise_on": "input", "draws": 2, "sigma": 0.3, "batch_size": 5}),
            ("is-cam", {"steps": 2, "layer": "relu1"}),
            ("ablation-cam", {"layer": "conv1", "channels": 4, "batch_size": 3}),
            ("full-grad", {"psi": "signed", "batch_size": 2}),
            ("full-grad", {"psi": "magnitude"}),
            ("full-grad", {"psi": "rescaled-channels"}),
        ]
    ]
)
def test_the_checks_with_other_parameters(explainer, check):
    check(explainer)
