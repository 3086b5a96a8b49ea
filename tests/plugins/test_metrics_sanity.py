"""The sanity check on the reference model: its parts, its draws, its correlations, its theorems."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.stats
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st

from cnnviz_cam.centre_gaussian import CentreGaussian
from cnnviz_cam.grad_cam import GradCAM
from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import ArrayError, MissingCapabilityError, OutOfMemoryError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.inputs import OneInput
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.model import copyable
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_gradient.saliency import Saliency
from cnnviz_metrics.sanity import (
    SanityCheck,
    cascade,
    independent,
    random_arrays,
    randomised_parts,
    rank_correlation,
    structural_similarity,
)

RNG = np.random.default_rng(0)
RESIDUAL = [
    ("fc",),
    ("bn2b", "conv2b"),
    ("bn2a", "conv2a"),
    ("bn1b", "conv1b"),
    ("bn1a", "conv1a"),
    ("bn0", "stem"),
]


@parametrize_with_checks(
    [SanityCheck(), SanityCheck("independent", "shuffled"), SanityCheck(parts=1)]
)
def test_they_are_metrics(metric, check):
    check(metric)


def batch(explainer, name="residual", n=2, **known):
    net = NETS[name]()
    model = known.pop("model", None) or ReferenceModel(net, "float64")
    x = random_input(net, n, seed=5)["image"].astype(np.float64)
    targets = tuple(ClassScore(i % 3) for i in range(n))
    maps = explainer.explain(model, x, targets)
    return Explained(model, explainer, x, maps, (Annotation(),) * n, **known)


@dataclass(frozen=True)
class Edges:
    """A method that shows where the picture changes, whatever the network."""

    needs = frozenset()

    def explain(self, model, x, targets):
        down = np.abs(np.diff(x, axis=1, prepend=0)).sum(-1)
        return Maps(down, targets=tuple(targets), presentation=Presentation(sign="signed"))


# ------------------------------------------------------------------------------- the parts


def test_parts_go_from_the_top_down_with_their_normalisations():
    explained = batch(Edges())
    assert randomised_parts(explained.model, explained.x) == RESIDUAL


@pytest.mark.parametrize(
    ("asked", "sizes"), [(1, [6]), (2, [3, 3]), (4, [2, 1, 1, 2]), (9, [1] * 6)]
)
def test_parts_are_about_equally_large(asked, sizes):
    explained = batch(Edges())
    parts = randomised_parts(explained.model, explained.x, asked)
    ends = np.cumsum([0, *sizes])
    expected = [sum(RESIDUAL[a:b], ()) for a, b in itertools.pairwise(ends)]
    assert parts == expected


def test_a_layer_that_is_called_often_is_in_one_part():
    rng = np.random.default_rng(1)
    arrays = {"conv.weight": rng.normal(size=(3, 3, 3, 3)), "fc.weight": rng.normal(size=(3, 4))}
    ops = (
        Op("first", "conv", ("image",), "conv"),
        Op("second", "conv", ("first",), "conv"),
        Op("gap", "gap", ("second",)),
        Op("fc", "linear", ("gap",)),
    )
    net = NetSpec({"image": (7, 8, 3)}, ops, arrays)
    parts = randomised_parts(ReferenceModel(net), random_input(net)["image"])
    assert parts == [("fc",), ("conv",)]


def test_a_network_that_learned_nothing_has_no_parts():
    net = NETS["plain"]()
    ones = {key: np.ones_like(value) for key, value in net.parameters.items()}
    model = ReferenceModel(replace(net, parameters=ones))
    with pytest.raises(ArrayError, match="trained"):
        randomised_parts(model, random_input(net)["image"])


# ------------------------------------------------------------------------------- the draws


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_draws_have_the_layers_mean_and_deviation(dtype):
    arrays = {"weight": RNG.normal(3, 0.5, (40, 500)).astype(dtype)}
    drawn = random_arrays(arrays, "fc")["weight"]
    assert drawn.dtype == dtype
    assert drawn.shape == (40, 500)
    np.testing.assert_allclose(drawn.mean(), arrays["weight"].mean(), rtol=0.01)
    np.testing.assert_allclose(drawn.std(), arrays["weight"].std(), rtol=0.02)
    correlation = np.corrcoef(drawn.ravel(), arrays["weight"].ravel())[0, 1]
    assert abs(correlation) < 0.03


def test_shuffled_weights_are_the_layers_own():
    arrays = {"weight": RNG.normal(size=(3, 3, 4, 5)), "bias": RNG.normal(size=5)}
    drawn = random_arrays(arrays, "conv", "shuffled")
    for name, values in arrays.items():
        assert drawn[name].shape == values.shape
        assert not np.array_equal(drawn[name], values)
        np.testing.assert_array_equal(np.sort(drawn[name], None), np.sort(values, None))


@pytest.mark.parametrize("draw", ["normal", "shuffled"])
def test_draws_depend_on_the_seed_the_layer_and_the_array(draw):
    arrays = {"weight": RNG.normal(size=(4, 6)), "scale": RNG.normal(size=(4, 6))}
    arrays["scale"] = arrays["weight"].copy()
    first = random_arrays(arrays, "a", draw, 1)
    np.testing.assert_array_equal(first["weight"], random_arrays(arrays, "a", draw, 1)["weight"])
    for other in (
        first["scale"],
        random_arrays(arrays, "b", draw, 1)["weight"],
        random_arrays(arrays, "a", draw, 2)["weight"],
    ):
        assert not np.array_equal(other, first["weight"])


def test_what_was_not_learned_is_left_alone():
    values = RNG.normal(size=4)
    arrays = {
        "scale": values,
        "shift": np.zeros(4),
        "mean": values,
        "variance": values**2,
        "epsilon": np.full(4, 1e-5),
        "relative_position_index": np.arange(4.0),
    }
    assert set(random_arrays(arrays, "bn")) == {"scale"}


# ------------------------------------------------------------------------------- the copies


def test_in_a_cascade_what_is_random_stays_random():
    explained = batch(Edges())
    model, x = explained.model, explained.x
    parts = randomised_parts(model, x)
    for done, copy in enumerate(cascade(model, parts, seed=3), start=1):
        for k, part in enumerate(parts):
            for path in part:
                own, found = model.parameters(path), copy.parameters(path)
                drawn = random_arrays(own, path, seed=3) if k < done else {}
                for name, values in found.items():
                    np.testing.assert_array_equal(values, drawn.get(name, own[name]))


def test_independently_one_part_is_random_at_a_time():
    model, parts = batch(Edges()).model, RESIDUAL
    for k, copy in enumerate(independent(model, parts, draw="shuffled")):
        for j, part in enumerate(parts):
            changed = [
                not np.array_equal(
                    copy.parameters(path)["weight"], model.parameters(path)["weight"]
                )
                for path in part
                if "weight" in model.parameters(path)
            ]
            assert changed == [j == k] * len(changed)


def test_delegates_hand_it_on():
    net = NETS["two_inputs"]()
    model, x = ReferenceModel(net), random_input(net, 1)
    arrays = {"fc": {"bias": np.arange(5.0)}}
    one = OneInput(model, "image", {"vector": x["vector"]})
    copy = copyable(one).copied(arrays)
    assert list(copy.inputs) == ["image"]
    expected = model.copied(arrays).forward(x).logits
    np.testing.assert_array_equal(copy.forward(x["image"]).logits, expected)
    np.testing.assert_array_equal(
        copyable(Delegate(model)).copied(arrays).forward(x).logits, expected
    )


def test_a_model_that_cannot_be_copied_says_so():
    model = Offering(ReferenceModel(NETS["plain"]()), frozenset({"capture", "parameters"}))
    with pytest.raises(MissingCapabilityError, match="copy"):
        copyable(model)
    with pytest.raises(MissingCapabilityError, match="copy"):
        model.copied({})


# ------------------------------------------------------------------------------- likeness


@given(st.integers(0, 2**20))
def test_the_rank_correlation_is_spearmans(seed):
    maps, others = np.random.default_rng(seed).integers(-4, 5, (2, 3, 4, 5)).astype(float)
    found = rank_correlation(maps, others)
    for row in range(3):
        expected = scipy.stats.spearmanr(maps[row].ravel(), others[row].ravel()).statistic
        np.testing.assert_allclose(found[row], expected, atol=1e-12)


@given(st.integers(0, 2**20))
def test_only_the_order_counts(seed):
    maps, others = np.random.default_rng(seed).normal(size=(2, 3, 4, 5))
    found = rank_correlation(maps, others)
    np.testing.assert_allclose(rank_correlation(np.exp(3 * maps), others), found, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(-maps, others), -found, atol=1e-12)
    np.testing.assert_array_equal(rank_correlation(maps, maps), 1)
    np.testing.assert_array_equal(rank_correlation(maps, -maps), -1)


def test_flat_maps_and_maps_that_are_not_finite():
    flat, map = np.zeros((1, 3, 3)), RNG.normal(size=(1, 3, 3))
    assert rank_correlation(flat, flat + 2) == 1
    assert rank_correlation(flat, map) == rank_correlation(map, flat) == 0
    assert structural_similarity(flat, flat + 2) == 1
    bad = map.copy()
    bad[0, 1, 1] = np.inf
    for measure in (rank_correlation, structural_similarity):
        assert np.isnan(measure(bad, map))
        assert np.isnan(measure(map, bad))
        with pytest.raises(ArrayError, match="same shape"):
            measure(map, np.zeros((1, 3, 4)))


@pytest.mark.parametrize(("size", "window"), [((20, 9), 7), ((6, 9), 5), ((3, 4), 3), ((8,), 7)])
def test_the_structural_similarity_is_that_of_scikit_image(size, window):
    maps, others = RNG.random((2, 2, *size))
    for m in (*maps, *others):
        m.flat[0], m.flat[-1] = 0, 1
    expected = [
        skimage.metrics.structural_similarity(a, b, win_size=window, data_range=1)
        for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(maps, others), expected, rtol=1e-12)
    np.testing.assert_allclose(structural_similarity(5 * maps - 2, others), expected, rtol=1e-9)


def test_maps_that_are_too_small_have_no_structure():
    assert np.isnan(structural_similarity(np.ones((1, 2, 9)), np.ones((1, 2, 9))))


# ------------------------------------------------------------------------------- the metric


@pytest.mark.parametrize("order", ["cascade", "independent"])
@pytest.mark.parametrize("explainer", [CentreGaussian(), Edges()])
def test_a_method_that_ignores_the_network_fails(explainer, order):
    metric = SanityCheck(order)
    record = metric.measure(batch(explainer))
    for values in record.values():
        np.testing.assert_allclose(values, np.ones((2, 7)), rtol=1e-12)
    assert set(np.round(list(metric.summarise(record).values()), 12)) == {1}


@pytest.mark.parametrize("order", ["cascade", "independent"])
@pytest.mark.parametrize("explainer", [Saliency(), GradCAM()])
def test_it_is_the_plain_formula(explainer, order):
    explained = batch(explainer, seed=2)
    record = SanityCheck(order, "shuffled").measure(explained)
    net, own = NETS["residual"](), explained.maps.raw
    arrays = dict(net.parameters)
    for done, part in enumerate(RESIDUAL, start=1):
        if order == "independent":
            arrays = dict(net.parameters)
        for path in part:
            drawn = random_arrays(explained.model.parameters(path), path, "shuffled", 2)
            arrays |= {f"{path}.{name}": values for name, values in drawn.items()}
        other = ReferenceModel(replace(net, parameters=arrays), "float64")
        raw = explainer.explain(other, explained.x, explained.maps.targets).raw
        for row in range(2):
            for name, change in (("signed", np.asarray), ("magnitude", np.abs)):
                expected = scipy.stats.spearmanr(
                    change(own[row]).ravel(), change(raw[row]).ravel()
                ).statistic
                np.testing.assert_allclose(record[name][row, done], expected, atol=1e-9)
    for values in record.values():
        np.testing.assert_allclose(values[:, 0], 1, rtol=1e-12)


def test_the_gradient_passes():
    summary = SanityCheck().summarise(SanityCheck().measure(batch(Saliency(), n=4)))
    assert list(summary) == ["correlation", "magnitude_correlation", "ssim", "last_correlation"]
    assert abs(summary["correlation"]) < 0.4
    assert abs(summary["last_correlation"]) < 0.2


def test_the_end_of_a_cascade_does_not_depend_on_its_parts():
    explained = batch(Saliency())
    ends = [SanityCheck(parts=k).measure(explained)["signed"][:, -1] for k in (1, 3, None)]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9)
    np.testing.assert_allclose(ends[2], ends[0], rtol=1e-9)


def test_the_network_is_untouched_also_by_a_method_that_fails():
    @dataclass(frozen=True)
    class Failing(Edges):
        def explain(self, model, x, targets):
            if model is not trained:
                raise ZeroDivisionError("on a copy")
            return super().explain(model, x, targets)

    trained = ReferenceModel(NETS["residual"](), "float64")
    explained = batch(Failing(), model=trained)
    before = [trained.parameters(path) for part in RESIDUAL for path in part]
    with pytest.raises(ZeroDivisionError):
        SanityCheck().measure(explained)
    after = [trained.parameters(path) for part in RESIDUAL for path in part]
    for one, two in zip(before, after, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_it_tells_how_often_the_method_runs():
    said = []
    explained, metric = batch(Edges()), SanityCheck(parts=4)
    with listening(lambda *told: said.append(told)):
        metric.measure(explained)
    assert said == [("sanity check", k, 4) for k in (1, 2, 3, 4)]
    assert metric.explanations(explained.model, explained.x) == 4


class Counting(ReferenceModel):
    """A model that says how often it was copied."""

    copies = 0

    def copied(self, parameters):
        type(self).copies += 1
        copy = super().copied(parameters)
        copy.__class__ = Counting
        return copy


@pytest.mark.parametrize("order", ["cascade", "independent"])
@pytest.mark.parametrize(("room", "made"), [(2**30, 6), (2, 6 + 2 * 4), (0, 3 * 6)])
def test_copies_are_kept_from_batch_to_batch(monkeypatch, order, room, made):
    """As many as there is room for, and what is measured is the same, bit for bit."""
    model, metric = Counting(NETS["residual"](), "float64"), SanityCheck(order, "shuffled")
    kept = {}
    monkeypatch.setattr(Counting, "copies", 0)
    if room == 2:
        room *= sum(a.nbytes for p in RESIDUAL for k in p for a in model.parameters(k).values())
    monkeypatch.setattr("cnnviz_metrics.sanity._ROOM", room)
    batches = [batch(explainer, model=model, kept=kept) for explainer in (Saliency(), GradCAM())]
    found = [metric.measure(explained) for explained in (*batches, batches[0])]
    assert Counting.copies == made
    for explained, record in zip(batches, found, strict=False):
        alone = metric.measure(replace(explained, kept={}))
        for name, values in record.items():
            np.testing.assert_array_equal(values, alone[name])


def test_where_memory_ends_nothing_is_kept_any_more():
    @dataclass(frozen=True)
    class Greedy(Edges):
        def explain(self, model, x, targets):
            if model is not trained and len(x) > 1:
                raise OutOfMemoryError("the memory is full", "a smaller batch", "pass one")
            return super().explain(model, x, targets)

    trained, kept, metric = ReferenceModel(NETS["residual"](), "float64"), {}, SanityCheck()
    with pytest.raises(OutOfMemoryError):
        metric.measure(batch(Greedy(), model=trained, kept=kept))
    metric.measure(batch(Greedy(), model=trained, kept=kept, n=1))
    (copies,) = kept.values()
    assert copies.made == []


def test_its_curves():
    for metric, x in ((SanityCheck(parts=4), [0, 0.25, 0.5, 0.75, 1]),
                      (SanityCheck("independent", parts=4), [0, 1, 2, 3, 4])):  # fmt: skip
        record = {name: np.array(v) for name, v in metric.measure(batch(Saliency())).items()}
        record["ssim"][1, 2] = np.nan
        (curves,) = metric.curves(record)
        assert curves.x.tolist() == x
        assert [line.name for line in curves.lines] == [
            "rank correlation",
            "rank correlation of magnitudes",
            "structural similarity",
        ]
        np.testing.assert_allclose(curves.lines[0].y, record["signed"].mean(0))
        np.testing.assert_allclose(curves.lines[2].y, record["ssim"][0])
        assert metric.curves({name: v[:0] for name, v in record.items()}) == ()
