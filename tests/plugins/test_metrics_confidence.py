"""What is lost and gained where a map alone is shown, against the formulas written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.confidence import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    DropInConfidence,
    relative_drops,
    relative_gains,
    shown_by_maps,
)
from cnnviz_metrics.imputation import LinearImputation
from support.changed_pixels import Blind, Counting, case, explained

MODEL, X, MAPS = case(n=6)
TARGETS = [ClassScore(i % 5) for i in range(6)]
METRICS = [AverageDrop, AverageIncrease, AverageGain, DropInConfidence]


@parametrize_with_checks(
    [
        *(metric() for metric in METRICS),
        AverageDrop("top-half", "target"),
        AverageGain("imputed"),
        DropInConfidence("imputed", "target"),
    ]
)
def test_they_are_metrics(metric, check):
    check(metric)


def plainly(shown):
    """Give drop, increase, gain and undivided drop of the probabilities, a picture at a time."""
    drops, rises, gains, losses = [], [], [], []
    for picture, part, target in zip(X, shown, TARGETS, strict=True):
        whole, rest = (np.exp(MODEL.forward(p[None]).logits[0]) for p in (picture, part))
        y, o = whole[target.index] / whole.sum(), rest[target.index] / rest.sum()
        drops.append(max(0, y - o) / y)
        rises.append(float(o > y))
        gains.append(max(0, o - y) / (1 - y))
        losses.append(max(0, y - o))
    return [np.mean(values) for values in (drops, rises, gains, losses)]


def by_definition(showing):
    """Make what is shown, plainly."""
    shown = []
    for x, map in zip(X, MAPS, strict=True):
        scaled = (map - map.min()) / (map.max() - map.min())
        half = map > np.median(map)  # of an even number of different values
        if showing == "imputed":
            filled = LinearImputation(x).under(half[None])[0]
            shown.append(np.where(half[..., None], x, filled))
        else:
            shown.append(x * (scaled * (half if showing == "top-half" else 1))[..., None])
    return np.array(shown)


@pytest.mark.parametrize("showing", ["map-times-input", "top-half", "imputed"])
def test_they_are_their_formulas(showing):
    expected = plainly(by_definition(showing))
    assert min(expected) > 0
    for metric, value in zip(METRICS, expected, strict=True):
        measure = metric(showing)
        records = measure.measure(explained(MODEL, X, MAPS, TARGETS, batch_size=4))
        ((name, found),) = measure.summarise(records).items()
        assert name.endswith("_" + showing.replace("-", "_"))
        assert found == pytest.approx(value, abs=1e-12)


def test_every_variant_has_a_name_of_its_own():
    records = {"whole": np.array([0.5]), "shown": np.array([0.25])}
    names = [
        name
        for metric in METRICS
        for showing in ("map-times-input", "top-half", "imputed")
        for score in ("probability", "target")
        for name in metric(showing, score).summarise(records)
    ]
    assert len(set(names)) == 24
    assert {"average_drop_map_times_input", "average_gain_top_half_of_target"} < set(names)


@pytest.mark.parametrize("metric", METRICS)
def test_scores_that_are_asked_for_are_taken(metric):
    targets = [Contrast(1, 2)] * 6
    records = metric(score="target").measure(explained(MODEL, X, MAPS, targets))
    logits = MODEL.forward(X).logits
    np.testing.assert_allclose(records["whole"], logits[:, 1] - logits[:, 2], rtol=1e-12)
    ours = metric().measure(explained(MODEL, X, MAPS, targets))
    np.testing.assert_array_equal(records["whole"], ours["whole"])


# ------------------------------------------------------------------------------- theorems


def test_shares_are_shares():
    """Drop and gain are never both there, and no more than all can be lost or gained."""
    whole, shown = np.random.default_rng(0).random((2, 500))
    drops, gains = relative_drops(whole, shown), relative_gains(whole, shown)
    assert ((drops == 0) | (gains == 0)).all()
    assert ((drops >= 0) & (drops <= 1) & (gains >= 0) & (gains <= 1)).all()
    # Of the class's complement one is the other.
    np.testing.assert_allclose(relative_gains(1 - whole, 1 - shown), drops, atol=1e-12)


def test_what_cannot_change_does_not():
    assert relative_drops([0.0], [0.5]).tolist() == [0]
    assert relative_gains([1.0], [0.5]).tolist() == [0]
    assert np.isnan(relative_drops([-1.0], [-2.0])).all()
    assert np.isnan(relative_gains([2.0], [3.0])).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_map_of_all_that_matters_loses_nothing(metric):
    """A network that sees only some rows drops and gains nothing if the map shows these rows."""
    model, maps = Blind(MODEL, slice(6, 12)), np.zeros(MAPS.shape)
    maps[:, :6] = 4
    for showing in ("map-times-input", "top-half", "imputed"):
        measure = metric(showing)
        records = measure.measure(explained(model, X, maps, TARGETS))
        np.testing.assert_array_equal(records["whole"], records["shown"])
        assert list(measure.summarise(records).values()) == [0]


@pytest.mark.parametrize("showing", ["map-times-input", "top-half", "imputed"])
def test_scale_and_shift_of_a_map_do_not_matter(showing):
    np.testing.assert_allclose(
        shown_by_maps(X, MAPS, showing), shown_by_maps(X, 7 * MAPS - 3, showing), atol=1e-12
    )


def test_a_map_that_is_the_same_everywhere_shows_nothing():
    assert not shown_by_maps(X, np.ones_like(MAPS)).any()


def test_the_top_half_is_half():
    for pixels in (6, 7):
        x, maps = np.ones((1, pixels, 1)), np.arange(1.0, pixels + 1)[None]
        shown = shown_by_maps(x, maps, "top-half")
        assert (shown != 0).sum() == pixels - pixels // 2
        assert shown[0, -1, 0] == 1


def test_maps_that_are_not_finite_are_left_out():
    maps = MAPS.copy()
    maps[[0, 4], 3, 3] = np.inf, np.nan
    left = [1, 2, 3, 5]
    for metric in METRICS:
        records = metric().measure(explained(MODEL, X, maps, TARGETS, batch_size=2))
        assert np.isnan(records["whole"][[0, 4]]).all()
        rest = {name: values[left] for name, values in records.items()}
        assert metric().summarise(records) == metric().summarise(rest)


def test_maps_must_have_the_samples_size():
    with pytest.raises(ArrayError, match="size"):
        shown_by_maps(X, MAPS[:, 1:])


def test_the_passes_are_told():
    model = Counting(MODEL)
    AverageDrop().measure(explained(model, X, MAPS, TARGETS))
    assert model.seen == len(X) * AverageDrop().passes(MODEL, X)


@pytest.mark.parametrize("name", ["signal", "volume"])
def test_signals_and_volumes_are_measured(name):
    model, x, maps = case(name, 2)
    for showing in ("map-times-input", "top-half"):
        (value,) = (
            AverageDrop(showing)
            .summarise(AverageDrop(showing).measure(explained(model, x, maps)))
            .values()
        )
        assert 0 <= value <= 1
    with pytest.raises(ArrayError, match="imputed"):
        AverageDrop("imputed").measure(explained(model, x, maps))


def test_probabilities_may_be_the_target():
    """A probability that was explained is the same, whatever is asked for."""
    one, two, three = (
        AverageDrop(score=score).measure(explained(MODEL, X, MAPS, [kind(1)] * 6))["shown"]
        for kind, score in (
            (ClassScore, "probability"),
            (ClassProbability, "probability"),
            (ClassProbability, "target"),
        )
    )
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)
