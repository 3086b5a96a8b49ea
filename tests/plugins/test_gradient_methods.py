"""What the gradient methods must obey, each with its formula written plainly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cnnviz_core.blurring import blurred
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import passes_of
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Pullback, Trace
from cnnviz_core.netspec import NetSpec
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast, Predicted, Weighted
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["plain"]()
MODEL = ReferenceModel(NET, "float64")
X = random_input(NET, 3, seed=5)["image"].astype(np.float64)
TARGETS = [ClassScore(3), Contrast(1, 4), ClassScore(0)]

NOISY = ("smoothgrad", "smoothgrad-squared", "vargrad")
PATHS = ("integrated-gradients", "blur-integrated-gradients", "guided-integrated-gradients")
COMPLETE = (*PATHS, "expected-gradients")
BRIEF = {
    **{method: {"samples": 4} for method in NOISY},
    **{method: {"steps": 6} for method in PATHS},
    "expected-gradients": {"samples": 5},
    "gradient-x-input": {},
}


class Powers:
    """A model of inputs of any shape: logit k is the sum of a[k] * x ** (k + 1)."""

    framework = "numpy"
    capabilities = frozenset({"gradient"})
    activation = "none"
    inputs: dict = {}
    layers: dict = {}

    def __init__(self, coefficients):
        self.a = coefficients  # (K, ...)

    def forward(self, x, *, capture=(), replace=None):
        terms = [(a * x ** (k + 1)).reshape(len(x), -1).sum(1) for k, a in enumerate(self.a)]
        logits = np.stack(terms, axis=1)
        return Trace({LOGITS: logits, OUTPUT: logits})

    def pullback(self, x, cotangent, *, of=LOGITS, wrt=(INPUT,), rule=None):
        trace = self.forward(x)
        c = cotangent(trace.logits).reshape(len(x), -1, *(1,) * (x.ndim - 1))
        slopes = [c[:, k] * (k + 1) * a * x**k for k, a in enumerate(self.a)]
        return Pullback(trace.values, {INPUT: np.sum(slopes, axis=0)})


class Counting:
    """A model that counts the samples that pass through another."""

    def __init__(self, model):
        self.model, self.forwards, self.pullbacks, self.seen = model, 0, 0, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **kwargs):
        self.forwards += len(x)
        return self.model.forward(x, **kwargs)

    def pullback(self, x, *args, **kwargs):
        self.pullbacks += len(x)
        self.seen.append(x)
        return self.model.pullback(x, *args, **kwargs)


def run(method, model=MODEL, x=X, targets=TARGETS, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def slope(x, target, model=MODEL):
    back = model.pullback(x[None], lambda v: target.gradient(v[0])[None])
    return back.gradients[INPUT][0]


def value(x, target, model=MODEL):
    return target.score(model.forward(x[None]).logits[0])


def sums(maps):
    return maps.raw.reshape(len(maps.raw), -1).sum(1)


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


# Gradient times input, and the moments of noisy gradients.


def test_gradient_x_input_is_the_input_times_saliency():
    close(run("gradient-x-input").raw, X * run("saliency").raw)


def noisy_slopes(x, target, noise, samples, seed):
    rng = np.random.default_rng(seed)
    deviation = noise * (x.max() - x.min())
    return [slope(x + deviation * rng.normal(size=x.shape), target) for _ in range(samples)]


@pytest.mark.parametrize(
    ("method", "moment"), [("smoothgrad", np.mean), ("vargrad", np.var)], ids=["mean", "variance"]
)
def test_moments_are_their_formulas(method, moment):
    maps = run(method, noise=0.2, samples=7, seed=4, batch_size=5)
    for n, target in enumerate(TARGETS):
        close(maps.raw[n], moment(noisy_slopes(X[n], target, 0.2, 7, 4), axis=0))


def test_smoothgrad_squared_is_its_formula():
    maps = run("smoothgrad-squared", noise=0.2, samples=7, seed=4)
    for n, target in enumerate(TARGETS):
        close(maps.raw[n], np.mean(np.square(noisy_slopes(X[n], target, 0.2, 7, 4)), axis=0))


def test_smoothgrad_of_one_copy_without_noise_is_the_gradient():
    np.testing.assert_array_equal(run("smoothgrad", samples=1, noise=0).raw, run("saliency").raw)


def test_the_mean_square_is_the_squared_mean_plus_the_variance():
    mean, square, variance = (run(method, samples=9, seed=2).raw for method in NOISY)
    close(square - mean**2, variance)


def test_the_variance_does_not_cancel():
    # Gradients of 1e8 that vary by about 1: the difference of two moments keeps no digit.
    x = np.random.default_rng(0).uniform(size=(1, 4, 3, 2))
    model = Powers(np.stack([np.full(x.shape[1:], 1e8), np.full(x.shape[1:], 0.5)]))
    both = [Weighted(np.ones(2))]
    plain = [Weighted(np.array([0.0, 1.0]))]
    with_offset = run("vargrad", model, x, both).raw
    np.testing.assert_allclose(with_offset, run("vargrad", model, x, plain).raw, rtol=1e-5)


def test_the_variance_of_one_copy_is_zero():
    assert not run("vargrad", samples=1).raw.any()


def test_a_constant_sample_has_no_range_and_gets_no_noise():
    flat = np.full_like(X, 0.3)
    close(run("smoothgrad", x=flat).raw, run("saliency", x=flat).raw)


@pytest.mark.parametrize(("method", "power"), [("smoothgrad", 1), ("smoothgrad-squared", 2)])
def test_moments_of_float32_are_rounded_once(method, power):
    rng = np.random.default_rng(0)
    a, x = (rng.normal(size=(2, 6, 5, 2)).astype(np.float32) for _ in range(2))
    model, targets = Counting(Powers(a)), [ClassScore(1)] * 2
    raw = run(method, model, x, targets, samples=9).raw
    slopes = [
        model.model.pullback(seen, lambda v: np.eye(2, dtype=v.dtype)[[1] * len(v)])
        for seen in model.seen
    ]
    each = np.concatenate([s.gradients[INPUT] for s in slopes]).reshape(9, *x.shape)
    assert each.dtype == np.float32
    expected = (each.astype(np.float64) ** power).sum(0) / 9
    np.testing.assert_array_equal(raw, expected.astype(np.float32))


# The path methods.


def gauss_legendre(x, start, target, steps, model=MODEL):
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros_like(x)
    for u, w in zip(nodes, weights, strict=True):
        total += w / 2 * slope(start + (u + 1) / 2 * (x - start), target, model)
    return (x - start) * total


@pytest.mark.parametrize("baseline", [0.0, -0.4, "mean", "blur", "array", "colour"])
def test_integrated_gradients_are_their_formula(baseline):
    rng = np.random.default_rng(1)
    given = {
        "array": rng.normal(size=X.shape[1:]),
        "colour": rng.normal(size=X.shape[-1]),
    }.get(baseline, baseline)
    maps = run("ig", baseline=given, steps=8, batch_size=7)
    for n, target in enumerate(TARGETS):
        if baseline == "mean":
            start = np.broadcast_to(X[n].mean((0, 1)), X[n].shape)
        elif baseline == "blur":
            start = gaussian_filter(X[n], 12 / 5, mode="reflect", axes=(0, 1))
        else:
            start = np.broadcast_to(given, X[n].shape)
        expected = gauss_legendre(X[n], start, target, 8)
        close(maps.raw[n], expected)
        gap = expected.sum() - (value(X[n], target) - value(start, target))
        assert maps.extras["completeness_gap"][n] == pytest.approx(gap, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(9, 2), (4, 5, 3), (3, 4, 2, 2)]),
    power=st.integers(1, 6),
    baseline=st.floats(-2, 2),
    seed=st.integers(0, 99),
)
def test_integrated_gradients_of_polynomials_are_exact(shape, power, baseline, seed):
    # 3 nodes integrate a gradient of degree up to 5.
    rng = np.random.default_rng(seed)
    x, a = rng.normal(size=(2, *shape)), rng.normal(size=(power, *shape))
    maps = run("ig", Powers(a), x, [ClassScore(power - 1)] * 2, steps=3, baseline=float(baseline))
    np.testing.assert_allclose(maps.raw, a[-1] * (x**power - baseline**power), atol=1e-9)
    np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-9)


def polyline(x, target, sigmas, mode, model=MODEL):
    axes = tuple(range(x.ndim - 1))
    blurs = [x, *(gaussian_filter(x, s, mode=mode, axes=axes) for s in sigmas[1:])]
    return sum(
        (near - far) * slope((near + far) / 2, target, model) for near, far in pairwise(blurs)
    )


@pytest.mark.parametrize(("edges", "mode"), [("mirror", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize("largest", [None, 1.5])
def test_blur_integrated_gradients_are_their_formula(edges, mode, largest):
    maps = run("blur-ig", max_sigma=largest, steps=6, edges=edges, batch_size=7)
    sigmas = (largest or 12 / 5) * (np.arange(7) / 6) ** 2
    for n, target in enumerate(TARGETS):
        expected = polyline(X[n], target, sigmas, mode)
        close(maps.raw[n], expected)
        start = gaussian_filter(X[n], sigmas[-1], mode=mode, axes=(0, 1))
        gap = expected.sum() - (value(X[n], target) - value(start, target))
        assert maps.extras["completeness_gap"][n] == pytest.approx(gap, abs=1e-10)


def test_blur_integrated_gradients_are_the_limit_of_the_authors_sum():
    # Theirs: gradients at the beginnings of equal steps, times a finite difference of the blur.
    x = np.random.default_rng(3).normal(size=(1, 9, 8, 2))
    model = Powers(np.random.default_rng(4).normal(size=(3, 9, 8, 2)))
    target, steps, largest = ClassScore(2), 2000, 3.0
    total = np.zeros_like(x[0])
    for k in range(steps):
        s = k * largest / steps
        here, there = (blurred(x, s + ds, "zero")[0] for ds in (0, 1e-4))
        total -= largest / steps * (there - here) / 1e-4 * slope(here, target, model)
    found = run("blur-ig", model, x, [target], max_sigma=largest, edges="zero", steps=400).raw[0]
    # A sampled kernel jumps where its cut-off takes in another value, which the derivative misses.
    np.testing.assert_allclose(found, total, atol=0.02 * np.abs(total).max())


def guided(x, start, target, steps, fraction, max_dist, rule, model=MODEL):
    """The path of Kapishnikov et al., value by value, with the way that is left as L1 distance."""
    here, total = start.copy(), np.zeros_like(x)
    whole = np.abs(x - start).sum()
    at_once = math.floor(fraction * (x.size - 1)) + 1
    for step in range(1, steps + 1):
        gradient = slope(here, target, model)
        low = start + (x - start) * max(step / steps - max_dist, 0)
        high = start + (x - start) * min(step / steps + max_dist, 1)
        before = here.copy()
        behind = np.abs(here - start) < np.abs(low - start)
        here[behind] = low[behind]
        aim = whole * (1 - step / steps)
        waiting = [i for i in np.ndindex(x.shape) if not np.isclose(here[i], high[i], atol=1e-12)]
        waiting.sort(key=lambda i: abs(gradient[i]))
        while waiting and np.abs(x - here).sum() > aim + 1e-12 * whole:
            last = abs(gradient[waiting[min(at_once, len(waiting)) - 1]])
            chosen = [i for i in waiting if abs(gradient[i]) <= last]
            waiting = waiting[len(chosen) :]
            possible = sum(abs(high[i] - here[i]) for i in chosen)
            part = min((np.abs(x - here).sum() - aim) / possible, 1.0)
            for i in chosen:
                here[i] += part * (high[i] - here[i])
        then = slope(here, target, model)
        total += (here - before) * (gradient if rule == "left" else (gradient + then) / 2)
    np.testing.assert_allclose(here, x, atol=1e-10)
    return total


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("max_dist", [0.0, 0.02, 0.3, 1.0])
def test_guided_integrated_gradients_are_their_formula(fraction, max_dist):
    rule = "left" if fraction == 0.1 else "trapezoid"
    how = {"fraction": fraction, "max_dist": max_dist, "rule": rule}
    maps = run("guided-ig", steps=9, baseline=0.1, batch_size=2, **how)
    for n, target in enumerate(TARGETS):
        start = np.full_like(X[n], 0.1)
        expected = guided(X[n], start, target, 9, **how)
        close(maps.raw[n], expected, 1e-9)
        gap = expected.sum() - (value(X[n], target) - value(start, target))
        assert maps.extras["completeness_gap"][n] == pytest.approx(gap, abs=1e-9)


def test_values_of_equal_gradient_move_together():
    # A gradient of two values only, and of zeros where the baseline is the sample.
    x = np.random.default_rng(5).normal(size=(1, 6, 5, 2))
    x[0, :2] = 0
    a = np.where(np.random.default_rng(6).uniform(size=(2, 6, 5, 2)) < 0.5, 0.0, 1.0)
    model, target = Powers(a), Weighted(np.array([1.0, 0.5]))
    raw = run("guided-ig", model, x, [target], steps=7, max_dist=0.4).raw[0]
    close(raw, guided(x[0], np.zeros_like(x[0]), target, 7, 0.25, 0.4, "trapezoid", model))


def test_a_guided_path_kept_to_the_straight_line_is_its_riemann_sum():
    raw = run("guided-ig", steps=12, max_dist=0.0, rule="left").raw
    for n, target in enumerate(TARGETS):
        expected = X[n] * np.mean([slope(k / 12 * X[n], target) for k in range(12)], axis=0)
        close(raw[n], expected)


def test_a_sample_that_is_its_baseline_has_no_attribution():
    x = np.full_like(X, 0.5)
    for method in ("ig", "guided-ig"):
        maps = run(method, x=x, baseline=0.5, steps=5)
        assert not maps.raw.any()
        np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-12)


# Expected gradients.


def expected_by_loops(x, target, draw, samples, seed, noise=0.0):
    rng, total, scores = np.random.default_rng(seed), np.zeros_like(x), []
    for _ in range(samples):
        start = draw(x, rng)
        along = rng.uniform()
        end = x + noise * (x.max() - x.min()) * rng.normal(size=x.shape) if noise else x
        total += (end - start) * slope(start + along * (end - start), target)
        scores.append(value(start, target))
    return total / samples, np.mean(scores)


BACKGROUND = random_input(NET, 4, seed=8)["image"].astype(np.float64)
DRAWS = {
    "background": lambda x, rng: BACKGROUND[rng.integers(4)],
    "uniform": lambda x, rng: x.min() + (x.max() - x.min()) * rng.uniform(size=x.shape),
    "normal": lambda x, rng: np.clip(
        x + (x.max() - x.min()) / 2 * rng.normal(size=x.shape), x.min(), x.max()
    ),
    "blur": lambda x, rng: gaussian_filter(x, rng.uniform(0, 12 / 5), axes=(0, 1)),
}


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("draw", DRAWS)
def test_expected_gradients_are_their_formula(draw, noise):
    how = {"background": BACKGROUND} if draw == "background" else {"baseline": draw}
    maps = run("gradient-shap", samples=6, seed=3, noise=noise, batch_size=7, **how)
    for n, target in enumerate(TARGETS):
        expected, reference = expected_by_loops(X[n], target, DRAWS[draw], 6, 3, noise)
        close(maps.raw[n], expected)
        gap = expected.sum() - (value(X[n], target) - reference)
        assert maps.extras["completeness_gap"][n] == pytest.approx(gap, abs=1e-10)


def test_the_expectation_over_one_baseline_tends_to_integrated_gradients():
    start = BACKGROUND[0]
    many = run("expected-gradients", background=start[None], samples=1000, batch_size=200).raw
    exact = run("ig", baseline=start, steps=200).raw
    assert np.abs(many - exact).max() < 0.1 * np.abs(exact).max()


# What all have in common.


@pytest.mark.parametrize("method", COMPLETE)
def test_of_a_linear_network_it_is_the_gradient_times_the_way(method):
    net = NETS["smooth"]()  # convolutions and averages only
    model = ReferenceModel(net, "float64")
    x = random_input(net, 2, seed=8)["image"].astype(np.float64)
    targets = [ClassScore(2), Contrast(0, 1)]
    maps = run(method, model, x, targets, **BRIEF[method])
    if method.startswith("blur"):
        way = x - blurred(x, 8 / 5)
    elif method.startswith("expected"):
        rng = np.random.default_rng(0)
        low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
        starts = []
        for _ in range(5):
            starts.append(low + (high - low) * rng.uniform(size=x.shape[1:]))
            rng.uniform()
        way = x - np.mean(starts, axis=0)
    else:
        way = x
    close(maps.raw, way * run("saliency", model, x, targets).raw)
    np.testing.assert_allclose(maps.extras["completeness_gap"], 0, atol=1e-10)


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("net", ["plain", "residual"])
def test_the_gap_shrinks_with_the_work(method, net):
    spec = NETS[net]()
    model = ReferenceModel(spec, "float64")
    x = random_input(spec, 6, seed=1)["image"].astype(np.float64)
    targets = [ClassScore(n % 5) for n in range(6)]
    size = "samples" if method.startswith("expected") else "steps"
    # A guided path that may leave the line runs along kinks, where steps do not get better.
    more = {"max_dist": 0.0} if method.startswith("guided") else {}

    def gap(n):
        maps = run(method, model, x, targets, batch_size=200, **{size: n}, **more)
        return np.sqrt(np.mean(maps.extras["completeness_gap"] ** 2))

    assert gap(160) < gap(5) / 2


@pytest.mark.parametrize("max_dist", [0.02, 0.2, 1.0])
def test_the_gap_of_a_guided_path_shrinks_with_the_steps_where_gradients_are_continuous(max_dist):
    x = np.random.default_rng(3).normal(size=(4, 9, 8, 2))
    model = Powers(np.random.default_rng(4).normal(size=(3, 9, 8, 2)))

    def gap(steps):
        how = {"steps": steps, "max_dist": max_dist, "rule": "left"}
        maps = run("guided-ig", model, x, [ClassScore(2)] * 4, **how)
        return np.sqrt(np.mean(maps.extras["completeness_gap"] ** 2))

    assert gap(160) < gap(10) / 8


@pytest.mark.parametrize("max_dist", [0.02, 0.2])
def test_along_kinks_both_ends_of_a_step_tell_more_than_its_beginning(max_dist):
    x = random_input(NET, 12, seed=1)["image"].astype(np.float64)
    targets = [ClassScore(n % 5) for n in range(12)]

    def gap(rule):
        maps = run("guided-ig", x=x, targets=targets, steps=50, max_dist=max_dist, rule=rule)
        return np.sqrt(np.mean(maps.extras["completeness_gap"] ** 2))

    assert gap("trapezoid") < gap("left") / 3


def test_the_gap_is_the_sum_less_the_difference_of_scores():
    maps = run("ig", steps=2, baseline=0.2)
    at_baseline = MODEL.forward(np.full_like(X, 0.2)).logits
    difference = [s - t.score(v) for s, t, v in zip(maps.scores, TARGETS, at_baseline, strict=True)]
    assert np.abs(maps.extras["completeness_gap"]).max() > 1e-3
    close(maps.extras["completeness_gap"], sums(maps) - difference)


@pytest.mark.parametrize("method", [*NOISY, "expected-gradients"])
def test_the_seed_decides_the_numbers(method):
    first, again, other = (run(method, seed=seed, **BRIEF[method]).raw for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("method", BRIEF)
def test_the_batch_size_changes_nothing(method):
    if method == "gradient-x-input":
        return
    raws = [run(method, batch_size=size, **BRIEF[method]).raw for size in (1, 2, 4, 100)]
    for raw in raws[1:]:
        close(raw, raws[0])


@pytest.mark.parametrize("method", [m for m in BRIEF if m != "gradient-x-input"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_work_is_what_was_said_and_never_more_than_a_batch_at_once(method, batch_size):
    explainer = get_registry().explainer(method, batch_size=batch_size, **BRIEF[method])
    model, told = Counting(MODEL), []
    with listening(lambda what, done, total: told.append((what, done, total))):
        explainer.explain(model, X, TARGETS)
    assert model.forwards + 3 * model.pullbacks == 3 * passes_of(explainer, MODEL, X)
    assert max(map(len, model.seen)) <= batch_size
    for what in {what for what, _, _ in told}:
        done = [d for w, d, _ in told if w == what]
        assert done == sorted(done)
        assert done[-1] == next(total for w, _, total in told if w == what)


@pytest.mark.parametrize("method", [*NOISY, *COMPLETE])
def test_the_predicted_class_is_that_of_the_sample_itself(method):
    rng = np.random.default_rng(6)
    model, x = Powers(rng.normal(size=(4, 6, 5, 2))), rng.normal(size=(3, 6, 5, 2))
    classes = [ClassScore(int(c)) for c in model.forward(x).logits.argmax(-1)]
    predicted = run(method, model, x, [Predicted()] * 3, **BRIEF[method])
    named = run(method, model, x, classes, **BRIEF[method])
    np.testing.assert_array_equal(predicted.raw, named.raw)
    assert list(predicted.targets) == classes
    # Where the gradients are taken, another class comes first.
    explainer, asked = get_registry().explainer(method, **BRIEF[method]), Counting(model)
    explainer.explain(asked, x, classes)
    first = model.forward(np.concatenate(asked.seen)).logits.argmax(-1).reshape(-1, 3)
    assert (first != [c.index for c in classes]).any()


@pytest.mark.parametrize("method", BRIEF)
def test_one_sample_in_a_batch_is_the_sample_alone(method):
    whole = run(method, **BRIEF[method])
    for n in range(3):
        alone = run(method, x=X[n : n + 1], targets=TARGETS[n : n + 1], **BRIEF[method])
        close(alone.raw[0], whole.raw[n])
        for name, values in whole.extras.items():
            close(alone.extras[name][0], values[n], 1e-9)


@pytest.mark.parametrize("method", BRIEF)
def test_a_scaled_score_scales_the_result(method):
    weights = np.random.default_rng(2).normal(size=5)
    once = run(method, targets=[Weighted(weights)] * 3, **BRIEF[method])
    thrice = run(method, targets=[Weighted(3 * weights)] * 3, **BRIEF[method])
    factor = 9 if method in ("smoothgrad-squared", "vargrad") else 3
    close(thrice.raw, factor * once.raw, 1e-9)


@pytest.mark.parametrize("method", ["gradient-x-input", *PATHS])
def test_a_flipped_network_sees_the_flipped_picture_flipped(method):
    net = NETS["branches"]()
    mirrored = {k: v[:, ::-1] if v.ndim == 4 else v for k, v in net.parameters.items()}
    flipped = NetSpec(net.inputs, net.ops, mirrored, "flipped")
    x = random_input(net, 2, seed=3)["image"].astype(np.float64)
    targets = [ClassScore(0), ClassScore(2)]
    one = run(method, ReferenceModel(net, "float64"), x, targets, **BRIEF[method])
    two = run(method, ReferenceModel(flipped, "float64"), x[:, :, ::-1], targets, **BRIEF[method])
    close(two.raw[:, :, ::-1], one.raw, 1e-9)


@pytest.mark.parametrize("shape", [(16, 2), (6, 5, 3), (4, 5, 3, 2)])
@pytest.mark.parametrize("method", BRIEF)
def test_signals_pictures_and_volumes(method, shape):
    rng = np.random.default_rng(7)
    model = Powers(rng.normal(size=(3, *shape)))
    x = rng.normal(size=(2, *shape))
    maps = run(method, model, x, [ClassScore(2), ClassScore(1)], **BRIEF[method])
    assert maps.raw.shape == x.shape
    assert np.isfinite(maps.raw).all()
    assert maps.raw.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", BRIEF)
def test_the_result_has_the_type_of_the_input_and_the_input_stays(method, dtype):
    x = X.astype(dtype)
    x.flags.writeable = False
    maps = run(method, ReferenceModel(NET, np.dtype(dtype).name), x, **BRIEF[method])
    assert maps.raw.dtype == dtype
    close(maps.raw, run(method, **BRIEF[method]).raw, 1e-10 if dtype == np.float64 else 2e-5)


@pytest.mark.parametrize(("edges", "mode"), [("mirror", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize("shape", [(1500, 2), (7, 9, 3), (5, 4, 6, 2)])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 11.0])
def test_a_blur_is_that_of_scipy_along_all_axes_but_the_channels(shape, sigma, edges, mode):
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = blurred(x, sigma, edges)
    assert found.dtype == np.float64
    axes = tuple(range(len(shape) - 1))
    for n in range(2):
        expected = gaussian_filter(x[n].astype(np.float64), sigma, mode=mode, axes=axes)
        np.testing.assert_allclose(found[n], expected, atol=1e-12)


def test_a_mirrored_blur_keeps_the_mean_and_none_keeps_all():
    close(blurred(X, 3.0).mean((1, 2)), X.mean((1, 2)))
    np.testing.assert_array_equal(blurred(X, 0.0), X)


@pytest.mark.parametrize("method", ["ig", "guided-ig"])
@pytest.mark.parametrize("shape", [(3, 12, 9, 3), (9, 12, 3), (4,)])
def test_a_baseline_that_does_not_fit_is_refused(method, shape):
    with pytest.raises(ArrayError, match=r"\(12, 9, 3\)"):
        run(method, baseline=np.zeros(shape))


@pytest.mark.parametrize("shape", [(12, 9, 3), (2, 9, 12, 3), (2, 1, 1, 3)])
def test_a_background_that_does_not_fit_is_refused(shape):
    with pytest.raises(ArrayError, match=r"\(B, 12, 9, 3\)"):
        run("expected-gradients", background=np.zeros(shape))


def test_parameters_out_of_range_are_refused():
    for params in ({"noise": -0.1}, {"samples": 0}, {"seed": -1}, {"batch_size": 0}):
        with pytest.raises(ParameterError):
            get_registry().explainer("smoothgrad", **params)
    with pytest.raises(ParameterError, match="array"):
        get_registry().explainer("ig", baseline="median")


@pytest.mark.parametrize(
    ("alias", "method"),
    [
        ("input-x-gradient", "gradient-x-input"),
        ("gradient-times-input", "gradient-x-input"),
        ("ig", "integrated-gradients"),
        ("gradient-shap", "expected-gradients"),
        ("gradientshap", "expected-gradients"),
    ],
)
def test_methods_are_found_under_their_other_names(alias, method):
    registry = get_registry()
    assert type(registry.explainer(alias)) is type(registry.explainer(method))
