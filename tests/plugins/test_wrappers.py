"""Methods made of other methods: identities, and their formulas in plain loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    TargetError,
    UnknownLayerError,
    UnknownMethodError,
    UnsupportedModelError,
)
from cnnviz_core.explainer import Maps, Presentation, passes_of, present
from cnnviz_core.layers import AUTO
from cnnviz_core.maps import resize
from cnnviz_core.memo import MemoModel
from cnnviz_core.netspec import NetSpec
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_wrapper.augmentation import Augmentation
from cnnviz_wrapper.eigen_smoothing import EigenSmoothing
from cnnviz_wrapper.gaussian_smoothing import GaussianSmoothing
from cnnviz_wrapper.layer_fusion import LayerFusion
from cnnviz_wrapper.noise_tunnel import NoiseTunnel
from cnnviz_wrapper.wrapping import Wrapper
from support.methods import bearable

MODEL = ReferenceModel(NETS["plain"](), "float64")
X = random_input(NETS["plain"](), 3, seed=5)["image"].astype(np.float64)
LOGITS = MODEL.forward(X).logits
TARGETS = [ClassScore(3), Contrast(1, 4), ClassScore(0)]

POSITIVE = Presentation()
REGISTRY = get_registry()
WRAPPERS = [name for name, spec in REGISTRY.explainers.items() if spec.family == "wrapper"]
METHODS = [name for name, spec in REGISTRY.explainers.items() if spec.family != "wrapper"]


def run(method, model=MODEL, x=X, targets=TARGETS, **params):
    return REGISTRY.explainer(method, **params).explain(model, x, targets)


def one_picture(name):
    """Give a network with one input that is no vector, its batch and its targets."""
    net = NETS[name]()
    (shape,) = net.inputs.values()
    x = random_input(net, 2, seed=3)[next(iter(net.inputs))].astype(np.float64)
    assert len(shape) > 1
    return ReferenceModel(net, "float64"), x, [ClassScore(0), ClassScore(2)]


ONE_INPUT = [name for name in NETS if len(NETS[name]().inputs) == 1]


@dataclass(frozen=True)
class Double:
    """An inner method that gives what it is told to."""

    raw: object = None
    terms: object = None
    presentation: Presentation = POSITIVE
    layer: str = AUTO
    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model, x, targets):
        raw = self.raw[self.layer] if isinstance(self.raw, dict) else self.raw
        terms = None if self.terms is None else lambda: self.terms
        return Maps(raw=raw, layer=self.layer, presentation=self.presentation, terms=terms)


@pytest.fixture
def inside(monkeypatch):
    """Put a double inside every wrapper."""

    def put(**fields):
        monkeypatch.setattr(Wrapper, "inner_at", lambda self, layer: Double(layer=layer, **fields))

    return put


# noise-tunnel


@pytest.mark.parametrize("of", ["grad-cam", "saliency", "occlusion(window=4)"])
@pytest.mark.parametrize("samples", [1, 7])
def test_the_mean_without_noise_is_the_method(of, samples):
    inner = REGISTRY.configured(of).explain(MODEL, X, TARGETS)
    outer = run("noise-tunnel", of=of, samples=samples, noise=0.0)
    np.testing.assert_allclose(outer.raw, inner.raw, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(outer.scores, inner.scores)
    assert outer.presentation == inner.presentation
    assert outer.layer == inner.layer


def test_the_variance_without_noise_is_zero():
    assert np.abs(run("noise-tunnel", of="saliency", combine="variance", noise=0.0).raw).max() == 0


def noisy_gradients(samples, noise, seed):
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        draw = rng.standard_normal(X.shape[1:])
        found = []
        for x, target in zip(X, TARGETS, strict=True):
            noisy = x + draw * noise * (x.max() - x.min())
            back = MODEL.pullback(noisy[None], lambda v, t=target: t.gradient(v[0])[None])
            found.append(back.gradients["@input"][0])
        yield np.stack(found)


@pytest.mark.parametrize(
    ("combine", "formula"),
    [
        ("mean", lambda g: g.mean(0)),
        ("mean-square", lambda g: (g**2).mean(0)),
        ("variance", lambda g: ((g - g.mean(0)) ** 2).mean(0)),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_noise_tunnels_of_the_gradient_are_smooth_grad_its_square_and_var_grad(
    combine, formula, batch_size
):
    how = {"samples": 5, "noise": 0.3, "seed": 11}
    expected = formula(np.stack(list(noisy_gradients(**how))))
    found = run("noise-tunnel", of="saliency", combine=combine, batch_size=batch_size, **how)
    np.testing.assert_allclose(found.raw, expected, rtol=1e-10, atol=1e-13)
    assert found.presentation.sign == ("absolute" if combine == "mean" else "positive")


@pytest.mark.parametrize(
    ("method", "combine"),
    [("smoothgrad", "mean"), ("smoothgrad-squared", "mean-square"), ("vargrad", "variance")],
)
def test_they_are_the_methods_of_these_names_draw_for_draw(method, combine):
    how = {"samples": 4, "noise": 0.2, "seed": 7}
    expected = run(method, **how).raw
    found = run("noise-tunnel", of="saliency", combine=combine, **how).raw
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_the_moments_of_a_method_hang_together():
    moments = {
        how: run("noise-tunnel", of="grad-cam", combine=how, samples=9).raw
        for how in ("mean", "mean-square", "variance")
    }
    expected = moments["variance"] + moments["mean"] ** 2
    np.testing.assert_allclose(moments["mean-square"], expected, rtol=1e-12)


def test_the_variance_survives_a_mean_that_is_much_larger(inside):
    draws = iter(np.random.default_rng(0).normal(size=(4, 3, 6, 4)))
    values = []

    class Far(Double):
        def explain(self, model, x, targets):
            values.append(1e9 + next(draws))
            return Maps(raw=values[-1])

    explainer = NoiseTunnel(combine="variance", samples=4, batch_size=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wrapper, "inner_at", lambda self, layer: Far())
        found = explainer.explain(MODEL, X, TARGETS).raw
    np.testing.assert_allclose(found, np.var(values, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("wrapper", "change"),
    [
        (
            NoiseTunnel(of="saliency", samples=1),
            lambda x: (
                x
                + np.random.default_rng(0).standard_normal(x.shape[1:])
                * (0.15 * np.ptp(x, axis=(1, 2, 3), keepdims=True))
            ),
        ),
        (Augmentation(of="saliency", multiply=0.0), lambda x: x[:, :, ::-1]),
    ],
)
def test_the_predicted_class_is_the_one_predicted_of_the_sample_itself(wrapper, change):
    net = NETS["plain"]()
    undecided = {**net.parameters, "fc.bias": net.parameters["fc.bias"] - LOGITS.mean(0)}
    model = ReferenceModel(NetSpec(net.inputs, net.ops, undecided, "undecided"), "float64")
    logits, changed = model.forward(X).logits, model.forward(change(X)).logits
    assert (logits.argmax(-1) != changed.argmax(-1)).any()
    named = [ClassScore(int(c)) for c in logits.argmax(-1)]
    asked = wrapper.explain(model, X, [Predicted()] * len(X))
    np.testing.assert_array_equal(asked.raw, wrapper.explain(model, X, named).raw)
    assert list(asked.targets) == named
    np.testing.assert_array_equal(asked.scores, logits.max(-1))


def test_another_seed_is_other_noise():
    one, two = (run("noise-tunnel", samples=2, seed=seed).raw for seed in (0, 1))
    assert not np.allclose(one, two)


def test_noise_goes_with_each_samples_range():
    flat = np.stack([np.full_like(X[0], 0.25), X[1], X[2]])
    outer = run("noise-tunnel", of="saliency", x=flat, samples=3)
    np.testing.assert_allclose(outer.raw[0], run("saliency", x=flat).raw[0], rtol=1e-12)


# test-time augmentation


@pytest.mark.parametrize("of", ["grad-cam", "saliency", "occlusion(window=4)"])
def test_augmentation_by_the_identity_alone_is_the_method(of):
    inner = REGISTRY.configured(of).explain(MODEL, X, TARGETS)
    outer = run("tta", of=of, flip=False, multiply=0.0)
    np.testing.assert_array_equal(outer.raw, inner.raw)
    np.testing.assert_array_equal(outer.scores, inner.scores)
    assert outer.presentation == inner.presentation
    assert outer.layer == inner.layer


@pytest.mark.parametrize("net", ONE_INPUT)
@pytest.mark.parametrize("of", ["grad-cam", "saliency"])
def test_the_map_of_a_mirrored_sample_is_the_mirrored_map_on_any_network(net, of):
    model, x, targets = one_picture(net)
    axis = x.ndim - 2
    plain = run("tta", model, x, targets, of=of).raw
    mirrored = run("tta", model, np.flip(x, axis), targets, of=of).raw
    np.testing.assert_allclose(mirrored, np.flip(plain, axis), rtol=1e-10, atol=1e-13)
    alone = run(of, model, x, targets).raw
    alone_mirrored = run(of, model, np.flip(x, axis), targets).raw
    assert not np.allclose(alone_mirrored, np.flip(alone, axis), rtol=1e-3)


@pytest.mark.parametrize("of", ["grad-cam", "saliency"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("multiply", [0.0, 0.25])
def test_augmentation_is_its_formula(of, flip, multiply):
    found = run("tta", of=of, flip=flip, multiply=multiply, batch_size=4).raw
    results = []
    for factor in {1.0, 1 - multiply, 1 + multiply}:
        results.append(run(of, x=X * factor).raw)
        if flip:
            results.append(run(of, x=X[:, :, ::-1] * factor).raw[:, :, ::-1])
    assert len(results) == (2 if flip else 1) * (3 if multiply else 1)
    np.testing.assert_allclose(found, np.mean(results, axis=0), rtol=1e-10, atol=1e-13)


def test_a_target_about_a_position_is_mirrored_with_the_copy():
    targets = [Neuron("conv2", (1, 0, 3))] * 3
    there = [Neuron("conv2", (1, 3, 3))] * 3  # the grid is 6 x 4
    found = run("tta", of="saliency", targets=targets, multiply=0.0)
    back = run("saliency", x=X[:, :, ::-1], targets=there).raw[:, :, ::-1]
    expected = (run("saliency", targets=targets).raw + back) / 2
    np.testing.assert_allclose(found.raw, expected, rtol=1e-10, atol=1e-13)
    assert list(found.targets) == targets


def test_positions_that_are_tokens_are_not_mirrored():
    model, x, _ = one_picture("tokens")
    node = next(
        name
        for name, info in model.layers.items()
        if info.grid is not None and len(info.shape) == 2 and info.kind == "norm"
    )
    targets = [Neuron(node, (2, 1))] * 2
    with pytest.raises(TargetError, match="flip=False"):
        run("tta", model, x, targets, of="saliency")
    assert run("tta", model, x, targets, of="saliency", flip=False).raw.shape == x.shape


def test_samples_without_a_spatial_axis_are_not_mirrored():
    with pytest.raises(ArrayError, match="flip=False"):
        run("tta", x=np.zeros((3, 5)))


# eigen-smoothing


@pytest.mark.parametrize("of", ["grad-cam", "grad-cam(layer=relu1)", "saliency"])
@pytest.mark.parametrize("centre", [True, False])
def test_the_component_is_that_of_the_whole_decomposition(of, centre):
    inner = REGISTRY.configured(of).explain(MODEL, X, TARGETS)
    terms = inner.raw if inner.terms is None else inner.terms()
    found = run("eigen-smoothing", of=of, centre=centre)
    assert found.raw.shape == terms.shape[:-1]
    for n in range(len(X)):
        matrix = terms[n].reshape(-1, terms.shape[-1])
        whole = matrix.sum(1)
        if centre:
            matrix = matrix - matrix.mean(0)
        _, s, vt = np.linalg.svd(matrix)
        expected = matrix @ vt[0]
        expected *= np.sign(np.corrcoef(expected, whole)[0, 1] if centre else expected @ whole)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.raw[n].ravel(), expected, rtol=1e-8, atol=1e-10 * scale)
        assert found.extras["explained"][n] == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-10)


@pytest.mark.parametrize("channels", [1, 5, 40])
def test_terms_of_rank_one_are_proportional_to_the_map(inside, channels):
    rng = np.random.default_rng(channels)
    maps, weights = rng.normal(size=(3, 6, 4)), rng.normal(size=(3, channels))
    terms = maps[..., None] * weights[:, None, None]
    whole = terms.sum(-1)
    inside(raw=whole, terms=terms)
    length = np.linalg.norm(weights, axis=-1) / np.abs(weights.sum(-1))
    plain = EigenSmoothing(centre=False).explain(MODEL, X, TARGETS)
    np.testing.assert_allclose(plain.raw, whole * length[:, None, None], rtol=1e-9, atol=1e-12)
    centred = EigenSmoothing().explain(MODEL, X, TARGETS)
    around = whole - whole.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(centred.raw, around * length[:, None, None], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plain.extras["explained"], 1, rtol=1e-12)


def test_of_one_channel_eigen_smoothing_is_the_method(inside):
    raw = np.random.default_rng(2).normal(size=(3, 12, 9, 1))
    inside(raw=raw)
    found = EigenSmoothing(centre=False).explain(MODEL, X[..., :1], TARGETS).raw
    np.testing.assert_allclose(found, raw[..., 0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4, 8), (2, 3, 30)])
def test_the_component_has_more_energy_than_any_other_weighting(inside, shape):
    terms = np.random.default_rng(4).normal(size=(1, *shape))
    inside(raw=terms.sum(-1), terms=terms)
    best = EigenSmoothing(centre=False).explain(MODEL, X[:1], TARGETS[:1]).raw
    weights = np.random.default_rng(5).normal(size=(200, shape[-1]))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    others = terms.reshape(-1, shape[-1]) @ weights.T
    assert (best**2).sum() > (others**2).sum(0).max()
    assert (best * terms.sum(-1)).sum() > 0


def test_terms_of_nothing_give_nothing_and_those_of_infinity_say_so(inside):
    terms = np.random.default_rng(6).normal(size=(3, 6, 4, 8))
    terms[0], terms[1, 2, 3, 4] = 0, np.inf
    inside(raw=terms.sum(-1), terms=terms)
    maps = EigenSmoothing().explain(MODEL, X, TARGETS)
    _, status = present(maps.raw, (12, 9), maps.presentation)
    assert status == ["all-zero", "non-finite", "ok"]
    assert np.abs(maps.raw[0]).max() == 0
    assert maps.extras["explained"][0] == 0


def test_terms_that_cancel_out_have_a_sign_all_the_same(inside):
    half = np.random.default_rng(7).normal(size=(3, 6, 4, 1))
    inside(raw=np.zeros((3, 6, 4)), terms=np.concatenate([half, -half], -1))
    found = EigenSmoothing(centre=False).explain(MODEL, X, TARGETS).raw.reshape(3, -1)
    assert (found[range(3), np.abs(found).argmax(1)] > 0).all()


@pytest.mark.parametrize("of", ["occlusion(window=6, stride=6)", "layer-fusion(of=grad-cam)"])
def test_a_map_that_is_no_sum_of_terms_is_refused(of):
    with pytest.raises(ParameterError, match="not a sum of terms"):
        run("eigen-smoothing", of=of)


# gaussian-smoothing


def smoothed(raw, sigma=0.1, of=POSITIVE, x=X):
    """Smooth what an inner method gives."""
    with pytest.MonkeyPatch.context() as patch:
        inner = Double(raw=raw, presentation=of)
        patch.setattr(Wrapper, "inner_at", lambda self, layer: inner)
        return GaussianSmoothing(sigma=sigma).explain(MODEL, x, TARGETS[: len(x)])


@pytest.mark.parametrize("of", ["saliency", "grad-cam", "gradient-x-input", "occlusion(window=4)"])
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.15, 1.0])
def test_smoothing_is_scipys_gaussian_of_the_map_that_is_shown(of, sigma):
    inner = REGISTRY.configured(of).explain(MODEL, X, TARGETS)
    shown, _ = present(inner.raw, (12, 9), inner.presentation)
    found = run("gaussian-smoothing", of=of, sigma=sigma)
    expected = [gaussian_filter(each, 12 * sigma) for each in shown] if sigma else shown
    np.testing.assert_allclose(found.raw, expected, rtol=1e-9, atol=1e-12 * shown.max())
    again, _ = present(found.raw, (12, 9), found.presentation)
    np.testing.assert_array_equal(again, found.raw)
    assert (found.layer, found.targets) == (inner.layer, inner.targets)
    np.testing.assert_array_equal(found.scores, inner.scores)


def test_magnitudes_are_smoothed_and_do_not_cancel_out():
    """Saliency that alternates in sign from pixel to pixel is a plain of its magnitude."""
    chequers = (-1.0) ** np.indices((12, 9)).sum(0)
    raw = np.repeat(chequers[None], 3, 0)
    found = smoothed(raw, of=Presentation(sign="absolute"))
    np.testing.assert_allclose(found.raw, np.ones((3, 12, 9)), rtol=1e-12)
    assert found.presentation.sign == "positive"
    signed = smoothed(raw, sigma=0.3, of=Presentation(sign="signed"))
    assert np.abs(signed.raw).max() < 0.05
    assert signed.presentation.sign == "signed"


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.7])
@pytest.mark.parametrize("size", [(31,), (12, 9), (5, 6, 7)])
def test_smoothing_keeps_the_sum_and_constants_and_is_linear_and_mirrors(size, sigma):
    rng = np.random.default_rng(len(size))
    a, b = rng.normal(size=(2, 1, *size))
    x, signed = np.zeros((1, *size, 2)), Presentation(sign="signed")

    def smooth(raw):
        return smoothed(raw, sigma, signed, x).raw

    np.testing.assert_allclose(smooth(a).sum(), a.sum(), rtol=1e-10)
    np.testing.assert_allclose(smooth(np.full_like(a, 2.5)), 2.5, rtol=1e-12)
    np.testing.assert_allclose(smooth(3 * a - b), 3 * smooth(a) - smooth(b), atol=1e-12)
    for axis in range(1, a.ndim):
        mirrored = smooth(np.flip(a, axis))
        np.testing.assert_allclose(mirrored, np.flip(smooth(a), axis), atol=1e-12)


def test_the_width_is_a_share_of_the_longest_side():
    """So a point has the variance that the share says, along every axis, in pixels."""
    x = np.zeros((1, 61, 101, 1))
    point = np.zeros((1, 61, 101))
    point[0, 30, 50] = 1
    heat = smoothed(point, 0.05, x=x).raw[0]
    for axis, n in ((1, 61), (0, 101)):
        offsets = np.arange(n) - n // 2
        assert (heat.sum(axis) * offsets**2).sum() == pytest.approx((0.05 * 101) ** 2, rel=0.01)


def test_smoothing_of_nothing_is_nothing_and_infinity_is_told_of():
    raw = np.random.default_rng(3).random((3, 12, 9))
    raw[0], raw[2, 3, 3] = -1, np.inf
    found = smoothed(raw)
    _, status = present(found.raw, (12, 9), found.presentation)
    assert status == ["all-zero", "ok", "non-finite"]


# layer-fusion


@pytest.mark.parametrize("layer", ["relu1", "conv2"])
def test_fusion_of_one_layer_is_the_positive_part_of_its_own_map_scaled(layer):
    positive = np.maximum(run("grad-cam", layer=layer).raw, 0)
    tops = positive.max((1, 2))
    found = run("layer-fusion", of="grad-cam", layer=layer, tanh="none")
    assert tops.max() > 0
    expected = positive / np.where(tops > 0, tops, 1)[:, None, None]
    np.testing.assert_allclose(found.raw, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.extras["maxima"], tops[:, None])
    raised = run("layer-fusion", of="grad-cam", layer=layer, gamma=3.0)
    np.testing.assert_allclose(raised.raw, np.tanh(3 * expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("combine", "fuse"),
    [
        ("max", lambda m: np.max(m, 0)),
        ("mean", lambda m: np.mean(m, 0)),
        ("sum", lambda m: np.sum(m, 0)),
        ("min", lambda m: np.min(m, 0)),
        ("product", lambda m: np.prod(m, 0)),
    ],
)
@pytest.mark.parametrize("tanh", ["shallow", "all", "none"])
def test_fusion_is_its_formula(inside, combine, fuse, tanh):
    # A sample of 24 x 18: a grid of 3 x 2 has at most a position for 8 pixels, 4 x 2 has more.
    x = np.random.default_rng(0).normal(size=(2, 24, 18, 3))
    raws = {
        "relu1": np.random.default_rng(1).normal(size=(2, 12, 9)),
        "pool1": np.random.default_rng(2).normal(size=(2, 4, 2)),
        "conv2": np.random.default_rng(3).normal(size=(2, 3, 2)),
    }
    inside(raw=raws)
    explainer = LayerFusion(layer="pool1, relu1,conv2", combine=combine, tanh=tanh)
    found = explainer.explain(MODEL, x, TARGETS[:2])
    raised = {"none": (), "all": raws, "shallow": ("relu1", "pool1")}[tanh]
    for n in range(2):
        each = []
        for name, raw in raws.items():
            positive = np.maximum(raw[n], 0) / raw[n].max()
            scaled = np.tanh(2 * positive) if name in raised else positive
            each.append(resize(scaled[None], (12, 9))[0])
        np.testing.assert_allclose(found.raw[n], fuse(each), rtol=1e-12, atol=1e-15)
    assert found.layer == "relu1, pool1, conv2"
    np.testing.assert_array_equal(
        found.extras["maxima"], np.stack([raw.max((1, 2)) for raw in raws.values()], 1)
    )
    assert found.presentation.sign == "positive"


def test_the_largest_value_fused_is_that_of_no_layer_less():
    both = run("layer-fusion", of="grad-cam", layer="relu1, conv2").raw
    assert both.shape == (3, 12, 9)
    for layer in ("relu1", "conv2"):
        alone = resize(run("layer-fusion", of="grad-cam", layer=layer).raw, (12, 9))
        assert (both >= alone - 1e-15).all()
    assert both.min() >= 0
    assert both.max() <= 1


def test_auto_is_the_last_layers_of_each_resolution():
    assert run("layer-fusion", of="grad-cam").layer == "relu1, relu2"
    assert run("layer-fusion", of="grad-cam", stages=1).layer == "relu2"
    # `stages` is about auto only.
    assert run("layer-fusion", of="grad-cam", stages=1, layer="conv*").layer == "conv1, conv2"


def test_no_layers_scale_decides(inside):
    maps = {
        "relu1": np.random.default_rng(1).normal(size=(3, 12, 9)),
        "conv2": np.random.default_rng(2).normal(size=(3, 6, 4)),
    }
    inside(raw=maps)
    explainer = LayerFusion(layer="relu1, conv2")
    expected = explainer.explain(MODEL, X, TARGETS).raw
    inside(raw={"relu1": maps["relu1"] * 1e-9, "conv2": maps["conv2"] * 1e6})
    np.testing.assert_allclose(explainer.explain(MODEL, X, TARGETS).raw, expected, rtol=1e-12)


def test_a_layer_with_nothing_positive_adds_nothing_and_infinity_is_told_of(inside):
    maps = {
        "relu1": np.random.default_rng(1).normal(size=(3, 12, 9)),
        "conv2": np.random.default_rng(2).normal(size=(3, 6, 4)),
    }
    maps["relu1"][0] = -1
    maps["conv2"][:2] = -1
    maps["conv2"][2, 3, 3] = np.nan
    inside(raw=maps)
    found = LayerFusion(layer="relu1, conv2").explain(MODEL, X, TARGETS)
    _, status = present(found.raw, (12, 9), found.presentation)
    assert status == ["all-zero", "ok", "non-finite"]
    alone = LayerFusion(layer="relu1").explain(MODEL, X, TARGETS).raw[1]
    np.testing.assert_array_equal(found.raw[1], alone)


@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_fusion_shows_magnitudes_only_of_methods_that_do(inside, sign):
    raw = np.random.default_rng(1).normal(size=(3, 12, 9, 3))
    inside(raw={"relu1": raw}, presentation=Presentation(sign=sign, reduce="sum"))
    found = LayerFusion(layer="relu1", tanh="none").explain(MODEL, X, TARGETS)
    flat = raw.sum(-1)
    shown = np.abs(flat) if sign == "absolute" else np.maximum(flat, 0)
    expected = shown / shown.max((1, 2), keepdims=True)
    np.testing.assert_allclose(found.raw, expected, rtol=1e-12)
    assert found.presentation.sign == "positive"


def test_fusion_asks_for_each_layer_once_and_shares_with_the_method():
    asked = []

    class Counting(ReferenceModel):
        def pullback(self, x, cotangent, **how):
            asked.append(how["wrt"])
            return super().pullback(x, cotangent, **how)

    model = MemoModel(Counting(NETS["plain"](), "float64"), X)
    run("grad-cam", model)
    run("layer-fusion", model, of="grad-cam")
    assert sorted(asked) == [("relu1",), ("relu2",)]


# all of them


@pytest.mark.parametrize("wrapper", ["noise-tunnel", "tta"])
def test_whole_numbers_are_not_rounded_to_whole_numbers(wrapper):
    whole = np.round(X * 2).astype(np.int64)
    found = run(wrapper, x=whole, of="saliency").raw
    expected = run(wrapper, x=whole.astype(np.float32), of="saliency").raw
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrapper", ["noise-tunnel", "tta"])
def test_every_method_that_runs_works_inside(wrapper, method):
    model = ReferenceModel(NETS["plain"](), "float32")
    x, targets = X[:2].astype(np.float32), [ClassScore(3), ClassScore(1)]
    small = bearable(method)
    try:
        inner = run(method, model, x, targets, **small)
    except (MissingCapabilityError, UnsupportedModelError):
        pytest.skip("it does not run on this network")
    few = {"samples": 2} if wrapper == "noise-tunnel" else {"multiply": 0.0}
    of = f"{method}({', '.join(f'{name}={value}' for name, value in small.items())})"
    outer = run(wrapper, model, x, targets, of=of, **few)
    assert outer.raw.shape == inner.raw.shape
    assert outer.raw.dtype == inner.raw.dtype == np.float32
    assert outer.layer == inner.layer
    assert outer.presentation == inner.presentation
    assert np.isfinite(outer.raw).all()
    np.testing.assert_allclose(outer.scores, inner.scores, rtol=1e-5)


@parametrize_with_checks(
    [
        NoiseTunnel(of="saliency", samples=3, combine="variance"),
        NoiseTunnel(of="occlusion(window=6, stride=3)", samples=2, combine="mean-square"),
        Augmentation(of="occlusion(window=6, stride=3)", multiply=0.0),
        EigenSmoothing(of="saliency", centre=False),
        GaussianSmoothing(of="saliency", sigma=0.2),
        LayerFusion(of="grad-cam", combine="mean"),
        NoiseTunnel(of="eigen-smoothing", samples=2),
        Augmentation(of="noise-tunnel(of=saliency, samples=2)"),
        LayerFusion(of="test-time-augmentation(multiply=0.2)"),
        GaussianSmoothing(of="layer-fusion(of=grad-cam)"),
    ]
)
def test_others_than_the_defaults_pass_the_checks(explainer, check):
    by_layer = check.__name__ == "check_wrong_layer_is_reported"
    if by_layer and ("saliency" in explainer.of or "occlusion" in explainer.of):
        with pytest.raises(ParameterError, match="looks at no layer"):
            check(explainer)
    else:
        check(explainer)


@pytest.mark.parametrize("net", ["signal", "volume", "tokens"])
@pytest.mark.parametrize(
    ("wrapper", "of"),
    [(wrapper, "grad-cam") for wrapper in WRAPPERS]
    + [(wrapper, "saliency") for wrapper in WRAPPERS if wrapper != "layer-fusion"],
)
def test_any_rank_of_input_will_do(net, wrapper, of):
    model, x, targets = one_picture(net)
    maps = run(wrapper, model, x, targets, of=of)
    inner = run(of, model, x, targets)
    if wrapper == "gaussian-smoothing":
        assert maps.raw.shape == x.shape[:-1]
    elif wrapper == "eigen-smoothing":
        assert maps.raw.shape == inner.raw.shape[: x.ndim - 1]
    elif wrapper != "layer-fusion":
        assert maps.raw.shape == inner.raw.shape
    shown, _ = present(maps.raw, x.shape[1:-1], maps.presentation)
    assert shown.shape == x.shape[:-1]
    assert np.isfinite(shown).all()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_to_a_model_what_its_method_is(wrapper):
    def made(of):
        return REGISTRY.explainer(wrapper, of=of)

    assert made("grad-cam").needs == {"capture", "gradient"}
    assert not made("grad-cam").class_agnostic
    if wrapper != "layer-fusion":
        assert made("occlusion").needs == frozenset()
        assert made("guided-backprop").needs == {"gradient", "rule:relu"}
    assert made("noise-tunnel(of=grad-cam)").needs == {"capture", "gradient"}


@dataclass(frozen=True)
class Blind(Double):
    class_agnostic: ClassVar[bool] = True


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_a_method_says_of_itself_is_handed_on(wrapper, monkeypatch):
    monkeypatch.setattr(Wrapper, "inner_at", lambda self, layer: Blind(layer=layer))
    assert REGISTRY.explainer(wrapper).class_agnostic
    monkeypatch.setattr(Wrapper, "inner_at", lambda self, layer: Double(layer=layer))
    assert not REGISTRY.explainer(wrapper).class_agnostic


def test_the_work_is_known_beforehand(monkeypatch):
    def work(wrapper, **params):
        return passes_of(REGISTRY.explainer(wrapper, **params), MODEL, X)

    monkeypatch.setattr(Double, "passes", lambda self, model, x: 5, raising=False)
    monkeypatch.setattr(Wrapper, "inner_at", lambda self, layer: Double(layer=layer))
    assert work("noise-tunnel", samples=4) == 1 + 4 * 5
    assert work("tta") == 1 + 6 * 5
    assert work("tta", flip=False) == 1 + 3 * 5
    assert work("eigen-smoothing") == 5
    assert work("gaussian-smoothing") == 5
    assert work("layer-fusion") == 2 * 5
    monkeypatch.delattr(Double, "passes")
    assert work("noise-tunnel", samples=4) == 1 + 4
    assert work("layer-fusion", layer="conv1, relu1, conv2") == 3
    monkeypatch.setattr(Double, "needs", frozenset({"gradient"}))
    assert work("noise-tunnel", samples=4) == 1 + 4 * 3
    assert work("layer-fusion", layer="conv1, relu1, conv2") == 3 * 3


@pytest.mark.parametrize(("batch_size", "at_once"), [(1, 3), (3, 3), (8, 6), (100, 12)])
def test_memory_is_bounded_by_the_batch_size(batch_size, at_once):
    sizes = []

    class Measuring(ReferenceModel):
        def pullback(self, x, cotangent, **how):
            sizes.append(len(x))
            return super().pullback(x, cotangent, **how)

    run("noise-tunnel", Measuring(NETS["plain"]()), samples=4, batch_size=batch_size)
    assert max(sizes) == at_once
    assert sum(sizes) == 12


def test_progress_is_told():
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        run("noise-tunnel", samples=5, batch_size=6)
        run("layer-fusion", of="grad-cam")
    assert told == [
        *(("noise-tunnel of grad-cam", done, 5) for done in (2, 4, 5)),
        *(("layers of grad-cam", done, 2) for done in (1, 2)),
    ]


def test_the_layer_and_the_batch_size_reach_the_method():
    at = run("noise-tunnel", samples=2, layer="conv1")
    assert at.layer == "conv1"
    assert at.raw.shape == (3, 12, 9)
    assert run("noise-tunnel", samples=2, of="grad-cam(layer=conv1)").layer == "conv1"
    assert NoiseTunnel(of="occlusion", batch_size=5).inner.batch_size == 5
    assert NoiseTunnel(of="occlusion(batch_size=3)", batch_size=5).inner.batch_size == 3


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_cannot_be_wrapped_is_told(wrapper):
    with pytest.raises(UnknownMethodError, match="grad-cam"):
        run(wrapper, of="gradcam2")
    with pytest.raises(UnknownMethodError):
        _ = REGISTRY.explainer(wrapper, of="gradcam2").needs
    with pytest.raises(ParameterError, match="parentheses"):
        run(wrapper, of="noise-tunnel(of=occlusion(window=3))")
    with pytest.raises(ParameterError, match="no parameter 'windows'"):
        run(wrapper, of="occlusion(windows=3)")
    with pytest.raises(ParameterError, match="looks at no layer"):
        run(wrapper, of="saliency", layer="conv1")
    with pytest.raises(ParameterError, match="names another"):
        run(wrapper, of="grad-cam(layer=relu1)", layer="conv1")


def test_fusion_is_of_methods_that_look_at_a_layer():
    with pytest.raises(ParameterError, match=r"^saliency looks at no layer"):
        run("layer-fusion", of="saliency")
    with pytest.raises(UnknownLayerError, match="grid"):
        run("layer-fusion", of="grad-cam", layer="conv1, fc")


@pytest.mark.parametrize(
    ("wrapper", "wrong"),
    [
        ("noise-tunnel", {"samples": 0}),
        ("noise-tunnel", {"noise": -0.1}),
        ("noise-tunnel", {"combine": "median"}),
        ("tta", {"multiply": 1.0}),
        ("gaussian-smoothing", {"sigma": -0.01}),
        ("gaussian-smoothing", {"sigma": 1.5}),
        ("layer-fusion", {"stages": 0}),
        ("layer-fusion", {"gamma": 0.0}),
        ("layer-fusion", {"combine": "median"}),
    ],
)
def test_parameters_are_checked(wrapper, wrong):
    with pytest.raises(ParameterError):
        REGISTRY.explainer(wrapper, **wrong)


@pytest.mark.parametrize(
    ("wrapper", "params"),
    [
        ("noise-tunnel", {"samples": 2}),
        ("tta", {"flip": False}),
        ("gaussian-smoothing", {}),
        ("layer-fusion", {"layer": "patches, add"}),
    ],
)
def test_what_a_reader_must_know_is_handed_on(wrapper, params):
    net = NETS["tokens"]()
    (x,) = random_input(net, 2).values()
    targets = [ClassScore(0)] * 2
    made = get_registry().explainer(wrapper, of="lrp(unknown=gradient)", **params)
    notes = made.explain(ReferenceModel(net), x, targets).notes
    assert notes
    assert len(set(notes)) == len(notes)
    assert all("norm2" in note for note in notes)
    assert (len(notes) == 2) == (wrapper == "layer-fusion")  # the later layer has one norm above it


def test_auto_is_the_methods_own_default():
    net = NETS["plain"]()
    (x,) = random_input(net, 2).values()
    made = get_registry().explainer("noise-tunnel", of="lrp", samples=2)
    assert made.explain(ReferenceModel(net), x, [ClassScore(0)] * 2).raw.shape == x.shape
