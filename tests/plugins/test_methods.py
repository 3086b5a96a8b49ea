"""What each method must obey, on the NumPy model and with its formula written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ParameterError, TargetError, UnsupportedModelError
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


def occlusion_by_loops(x, target, window, stride, fill):
    height, width = x.shape[:2]
    score = target.score(MODEL.forward(x[None]).logits[0])
    total, times = np.zeros((height, width)), np.zeros((height, width))
    rows = [*range(0, height - window, stride), height - window]
    columns = [*range(0, width - window, stride), width - window]
    for i in rows:
        for j in columns:
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
