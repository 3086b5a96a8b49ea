"""The contract of metrics: what they are given, and the kit that checks them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.metric import Annotation, Explained, Metric, resampled
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.metrics import CHECKS, parametrize_with_checks
from cnnviz_core.testing.nets import plain
from cnnviz_core.testing.reference import ReferenceModel

X = np.random.default_rng(0).normal(size=(2, 12, 9, 3))


@dataclass(frozen=True)
class Coarse:
    """A method whose map is a coarse grid of the sample itself."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model, x, targets):
        return Maps(raw=x[:, ::4, ::3, 0], targets=tuple(targets), presentation=Presentation())


def explained(**changed):
    model, targets = ReferenceModel(plain()), (ClassScore(1), ClassScore(0))
    given = {
        "model": model,
        "explainer": Coarse(),
        "x": X,
        "maps": Coarse().explain(model, X, targets),
        "annotations": (Annotation(), Annotation()),
    }
    return Explained(**{**given, **changed})


def test_maps_are_shown_as_the_method_shows_them():
    batch = explained()
    assert (len(batch), batch.size, batch.shown.shape) == (2, (12, 9), (2, 12, 9))
    assert batch.shown.dtype == np.float64
    assert batch.shown.min() >= 0  # the positive part, at the method's own resolution
    assert batch.maps.raw.min() < 0
    maps, shown = batch.again(X[::-1], batch.maps.targets)
    np.testing.assert_array_equal(shown, batch.shown[::-1])
    np.testing.assert_array_equal(maps.raw, batch.maps.raw[::-1])


def test_another_network_can_be_asked():
    asked = []

    @dataclass(frozen=True)
    class Noting(Coarse):
        def explain(self, model, x, targets):
            asked.append(model)
            return super().explain(model, x, targets)

    batch, other = explained(explainer=Noting()), ReferenceModel(plain())
    batch.again(X, batch.maps.targets)
    batch.again(X, batch.maps.targets, other)
    assert asked == [batch.model, other]


@pytest.mark.parametrize(
    "changed",
    [
        {"x": X[:1]},
        {"annotations": (Annotation(),)},
        {"maps": Maps(raw=X[..., 0])},
    ],
)
def test_as_many_of_each_are_wanted(changed):
    with pytest.raises(ArrayError, match="pictures have"):
        explained(**changed)


@pytest.mark.parametrize(
    "boxes", [[[3, 1, 3, 5]], [[0, 0, 4, 4], [2, 5, 3, 4]], [[0, 0, np.nan, 4]]]
)
def test_boxes_have_an_area(boxes):
    with pytest.raises(ArrayError, match="a box of cat has no area"):
        Annotation(boxes=np.array(boxes), name="cat")


def test_a_box_alone_is_a_list_of_one():
    np.testing.assert_array_equal(Annotation(boxes=np.array([1, 2, 3, 4])).boxes, [[1, 2, 3, 4]])
    assert Annotation().boxes.shape == (0, 4)


# ----------------------------------------------------------------------------------- the kit


@dataclass(frozen=True)
class Inside:
    """The share of the map inside the boxes."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained):
        shares = np.full(len(explained), np.nan)
        for i, annotation in enumerate(explained.annotations):
            inside = np.zeros(explained.size, bool)
            for x0, y0, x1, y1 in np.rint(annotation.boxes).astype(int):
                inside[y0:y1, x0:x1] = True
            total = explained.shown[i].sum()
            if inside.any() and total:
                shares[i] = explained.shown[i][inside].sum() / total
        return {"share": shares}

    def summarise(self, records):
        known = records["share"][np.isfinite(records["share"])]
        return {"share": float(known.mean()) if len(known) else float("nan")}


@parametrize_with_checks([Inside()])
def test_a_metric_that_keeps_to_the_contract_passes(metric, check):
    assert isinstance(metric, Metric)
    check(metric)


@dataclass(frozen=True)
class Relative(Inside):
    """Measures a picture against those around it."""

    def measure(self, explained):
        shares = super().measure(explained)["share"]
        return {"share": shares / np.nanmax(shares, initial=1e-9)}


@dataclass(frozen=True)
class Summed(Inside):
    """Sums up where it should average."""

    def summarise(self, records):
        return {"share": float(np.nansum(records["share"]))}


@dataclass(frozen=True)
class Ragged(Inside):
    """Records of another shape for every batch."""

    def measure(self, explained):
        return {"share": np.zeros((len(explained), len(explained)))}


@dataclass(frozen=True)
class Drawing(Inside):
    """Draws anew every time."""

    def measure(self, explained):
        return {"share": np.random.random(len(explained))}  # noqa: NPY002


@dataclass(frozen=True)
class Cheap(Inside):
    """Says that it costs less than nothing."""

    def passes(self, model, x):
        return -1


@dataclass(frozen=True)
class Silent(Inside):
    """Finds nothing."""

    def measure(self, explained):
        return {}


@dataclass(frozen=True)
class First(Inside):
    """Takes the first picture for all."""

    def summarise(self, records):
        return {"share": float(records["share"][0]) if len(records["share"]) else float("nan")}


@dataclass(frozen=True)
class Hopeful(Inside):
    """Says 0 where there is nothing."""

    def summarise(self, records):
        return {"share": np.nan_to_num(super().summarise(records)["share"])}


@dataclass(frozen=True)
class Unweighted(Inside):
    """Forgets how often a picture stands in a data set."""

    def resample(self, records, counts):
        known = np.isfinite(records["share"])
        shares = np.where(counts > 0, records["share"], np.nan)[:, known]
        with np.errstate(invalid="ignore"):
            return {"share": np.nansum(shares, 1) / np.isfinite(shares).sum(1)}


@pytest.mark.parametrize(
    ("metric", "caught"),
    [
        (Relative(), "a_picture_is_measured_alone"),
        (Summed(), "it_can_be_resampled"),
        (Ragged(), "it_gives_a_record_for_each_picture"),
        (Drawing(), "it_measures_the_same_again"),
        (Cheap(), "it_tells_its_cost"),
        (Silent(), "it_gives_a_record_for_each_picture"),
        (First(), "it_sums_up"),
        (Hopeful(), "nothing_to_measure_is_not_a_number"),
        (Unweighted(), "many_data_sets_are_summed_up_alike"),
    ],
)
def test_the_kit_catches(metric, caught):
    (check,) = (check for check in CHECKS if check.__name__ == f"check_{caught}")
    with pytest.raises(AssertionError):
        check(metric)


def test_an_explained_batch_can_be_changed_in_one_respect():
    batch = explained()
    assert replace(batch, seed=3).seed == 3


# ---------------------------------------------------------------------------- many data sets


def test_a_metric_that_only_sums_up_is_asked_data_set_after_data_set():
    records = {"share": np.array([0.25, np.nan, 0.75])}
    counts = np.array([[3.0, 1, 1], [0, 2, 0], [0, 0, 2]])
    found = resampled(Inside(), records, counts)["share"]
    np.testing.assert_array_equal(found, [0.375, np.nan, 0.75])


def test_a_metric_that_can_is_asked_once():
    @dataclass(frozen=True)
    class AtOnce(Inside):
        def resample(self, records, counts):
            return {"share": counts @ records["share"]}

        def summarise(self, records):
            raise AssertionError

    found = resampled(AtOnce(), {"share": np.array([1.0, 2.0])}, np.array([[1.0, 1], [0, 2]]))
    assert found["share"].tolist() == [3, 4]


def test_numbers_that_only_some_data_sets_have():
    @dataclass(frozen=True)
    class ByClass(Inside):
        def summarise(self, records):
            return {f"class {label}": 1.0 for label in np.unique(records["label"])}

    counts = np.array([[1.0, 0], [0, 1], [1, 1]])
    found = resampled(ByClass(), {"label": np.array([3, 7])}, counts)
    np.testing.assert_array_equal(found["class 3"], [1, np.nan, 1])
    np.testing.assert_array_equal(found["class 7"], [np.nan, 1, 1])
