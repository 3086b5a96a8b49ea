"""What each method must obey, on the NumPy model and with its formula written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnsupportedModelError
from cnnviz_core.maps import resize
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import ClassScore, Contrast, Neuron
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["plain"]()
MODEL = ReferenceModel(NET, "float64")
X = random_input(NET, 2, seed=5)["image"].astype(np.float64)
TARGETS = [ClassScore(3), Contrast(1, 4)]


def run(method, model=MODEL, x=X, targets=TARGETS, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def test_the_mean_of_cam_is_the_score_without_the_bias():
    bias = NET.parameters["fc.bias"]
    means = run("cam").raw.mean((1, 2))
    scores = run("cam").scores
    np.testing.assert_allclose(means, scores - [bias[3], bias[1] - bias[4]], atol=1e-12)


def test_grad_cam_is_proportional_to_cam():
    np.testing.assert_allclose(run("grad-cam").raw * 6 * 4, run("cam").raw, atol=1e-12)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "conv2"])
def test_grad_cam_is_its_formula(layer):
    maps = run("grad-cam", layer=layer)
    for n, target in enumerate(TARGETS):
        back = MODEL.pullback(X[n : n + 1], lambda v, t=target: t.gradient(v[0])[None], wrt=[layer])
        features, gradient = back.values[layer][0], back.gradients[layer][0]
        expected = sum(
            gradient[..., k].mean() * features[..., k] for k in range(features.shape[-1])
        )
        np.testing.assert_allclose(maps.raw[n], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["strided", "softmax_head"])
def test_cam_checks_its_assumption(name):
    net = NETS[name]()
    model, x = ReferenceModel(net), random_input(net, 1)["image"]
    if name == "softmax_head":  # the scores before the softmax are linear in the means
        assert run("cam", model, x, [ClassScore(0)]).raw.shape == (1, 6, 4)
    else:
        with pytest.raises(UnsupportedModelError, match="grad-cam"):
            run("cam", model, x, [ClassScore(0)])


def test_cam_at_another_layer_is_refused():
    with pytest.raises(UnsupportedModelError, match="relu1"):
        run("cam", layer="relu1")


def test_cam_explains_classes_only():
    with pytest.raises(TargetError, match="conv1"):
        run("cam", targets=[Neuron("conv1", (0,))] * 2)


def test_guided_grad_cam_is_the_product_of_both():
    guided = run("guided-backprop").raw
    where = resize(np.maximum(run("grad-cam").raw, 0), (12, 9))
    np.testing.assert_allclose(run("guided-grad-cam").raw, guided * where[..., None], atol=1e-12)


def test_guided_backprop_differs_from_the_gradient():
    gradient, guided = run("saliency").raw, run("guided-backprop").raw
    assert not np.allclose(gradient, guided)
    expected = MODEL.pullback(
        X, lambda v: np.stack([t.gradient(r) for t, r in zip(TARGETS, v, strict=True)]), rule=GUIDED
    )
    np.testing.assert_array_equal(guided, expected.gradients[INPUT])


def test_the_gradient_is_a_finite_difference():
    gradient = run("saliency").raw
    direction = np.random.default_rng(1).normal(size=X.shape)
    up, down = (MODEL.forward(X + s * direction).logits for s in (1e-6, -1e-6))
    for n, target in enumerate(TARGETS):
        slope = (target.score(up[n]) - target.score(down[n])) / 2e-6
        assert (gradient[n] * direction[n]).sum() == pytest.approx(slope, rel=1e-6)


def starts(size, window, stride):
    return [*range(0, size - window, stride), size - window]


def occlusion_by_loops(x, target, window, stride, fill):
    height, width = x.shape[:2]
    score = target.score(MODEL.forward(x[None]).logits[0])
    total, times = np.zeros((height, width)), np.zeros((height, width))
    for i in starts(height, window, stride):
        for j in starts(width, window, stride):
            covered = x.copy()
            covered[i : i + window, j : j + window] = fill
            drop = score - target.score(MODEL.forward(covered[None]).logits[0])
            total[i : i + window, j : j + window] += drop
            times[i : i + window, j : j + window] += 1
    return total / times


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 3), (5, 5), (9, 2)])
@pytest.mark.parametrize("fill", ["mean", 0.5])
def test_occlusion_is_its_definition(window, stride, fill):
    maps = run("occlusion", window=window, stride=stride, fill=fill, batch_size=7)
    for n, target in enumerate(TARGETS):
        colour = X[n].mean((0, 1)) if fill == "mean" else fill
        expected = occlusion_by_loops(X[n], target, window, stride, colour)
        np.testing.assert_allclose(maps.raw[n], expected, atol=1e-10)


def test_a_window_over_the_whole_picture_is_one_drop():
    raw = run("occlusion", window=99, fill=0.0).raw
    blank = MODEL.forward(np.zeros_like(X)).logits
    for n, target in enumerate(TARGETS):
        drop = run("occlusion", window=99).scores[n] - target.score(blank[n])
        np.testing.assert_allclose(raw[n], drop, atol=1e-10)


def test_disjoint_windows_of_a_linear_network_sum_to_its_score():
    net = NETS["smooth"]()  # convolutions and averages only
    model = ReferenceModel(net, "float64")
    x = random_input(net, 1, seed=8)["image"].astype(np.float64)[:, :8, :6]
    wide = np.concatenate([x, x[:, :, :1]], 2)  # 8 x 7; windows of 1 tile any size
    raw = run("occlusion", model, wide, [ClassScore(1)], window=1, stride=1, fill=0.0).raw
    blank = model.forward(np.zeros_like(wide)).logits[0, 1]
    score = model.forward(wide).logits[0, 1]
    assert raw.sum() == pytest.approx(score - blank, rel=1e-9)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ParameterError, match="never be covered"):
        run("occlusion", window=3, stride=4)


@pytest.mark.parametrize(("window", "stride"), [(5, 2), (7, 7), (1, 1), (99, 1)])
@pytest.mark.parametrize("fill", ["mean", 0.5])
def test_occlusion_of_signals_slides_along_time(window, stride, fill):
    model, x = other("signal")
    raw = run("occlusion", model, x, window=window, stride=stride, fill=fill, batch_size=5).raw
    assert raw.shape == (2, 41)
    length = min(window, 41)
    for n, target in enumerate(TARGETS):
        total, times = np.zeros(41), np.zeros(41)
        for i in starts(41, length, stride):
            covered = x[n].copy()
            covered[i : i + length] = x[n].mean(0) if fill == "mean" else fill
            logits = model.forward(np.stack([x[n], covered])).logits
            total[i : i + length] += target.score(logits[0]) - target.score(logits[1])
            times[i : i + length] += 1
        np.testing.assert_allclose(raw[n], total / times, atol=1e-10)


def test_occlusion_of_volumes_slides_along_three_axes():
    model, x = other("volume")
    targets = [ClassScore(3), Contrast(1, 2)]
    raw = run("occlusion", model, x, targets, window=3, stride=2).raw
    assert raw.shape == (2, 7, 8, 6)
    for n, target in enumerate(targets):
        total, times = np.zeros((7, 8, 6)), np.zeros((7, 8, 6))
        for i in starts(7, 3, 2):
            for j in starts(8, 3, 2):
                for k in starts(6, 3, 2):
                    covered = x[n].copy()
                    covered[i : i + 3, j : j + 3, k : k + 3] = x[n].mean((0, 1, 2))
                    logits = model.forward(np.stack([x[n], covered])).logits
                    drop = target.score(logits[0]) - target.score(logits[1])
                    total[i : i + 3, j : j + 3, k : k + 3] += drop
                    times[i : i + 3, j : j + 3, k : k + 3] += 1
        np.testing.assert_allclose(raw[n], total / times, atol=1e-10)


def test_an_axis_shorter_than_the_window_is_covered_whole():
    model, x = other("volume")  # 7 x 8 x 6
    raw = run("occlusion", model, x, [ClassScore(0)] * 2, window=7, stride=7, fill=0.0).raw
    assert np.ptp(raw, axis=(1, 3)).max() == 0  # one window along the first and the last axis
    assert np.ptp(raw, axis=2).min() > 0


@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_occlusion_says_how_many_passes_it_takes(name):
    model, x = other(name)
    explainer = get_registry().explainer("occlusion", window=3, stride=2)
    seen = []
    forward = model.forward
    model.forward = lambda x, **more: seen.append(len(x)) or forward(x, **more)
    explainer.explain(model, x[:1], [ClassScore(1)])
    assert explainer.passes(model, x) == sum(seen)


def test_occlusion_of_vectors_is_refused():
    with pytest.raises(ArrayError, match="signals or volumes"):
        run("occlusion", MODEL, X[:, 0, 0])


@pytest.mark.parametrize("name", ["signal", "volume"])
@pytest.mark.parametrize("method", ["saliency", "guided-backprop", "deconvnet"])
def test_gradients_have_the_inputs_shape(name, method):
    model, x = other(name)
    maps = run(method, model, x, [ClassScore(1), ClassScore(2)])
    assert maps.raw.shape == x.shape
    assert np.abs(maps.raw).max() > 0


@pytest.mark.parametrize("name", ["signal", "volume", "swish", "tokens"])
def test_the_mean_of_cam_is_the_score_on_any_grid(name):
    """On the tokens too: their layer norm is pooled over the grid of the patches."""
    model, x = other(name)
    targets = [ClassScore(3), Contrast(1, 2)]
    maps = run("cam", model, x, targets)
    grid = model.layers[maps.layer].grid
    assert maps.raw.shape == (2, *grid)
    bias = NETS[name]().parameters["fc.bias"]
    means = maps.raw.mean(tuple(range(1, maps.raw.ndim)))
    np.testing.assert_allclose(means, maps.scores - [bias[3], bias[1] - bias[2]], atol=1e-12)
    grad_cam = run("grad-cam", model, x, targets).raw
    np.testing.assert_allclose(grad_cam * np.prod(grid), maps.raw, atol=1e-12)


def other(name):
    """A network on something other than pictures, and a batch for it."""
    net = NETS[name]()
    (x,) = random_input(net, 2, seed=5).values()
    return ReferenceModel(net, "float64"), x.astype(np.float64)
