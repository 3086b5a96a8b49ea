"""The conformance kit for metrics: checks that any metric must pass, run on NumPy alone.

Examples
--------
::

    from cnnviz_core.testing.metrics import parametrize_with_checks

    @parametrize_with_checks([HitRate(), HitRate(tolerance=3)])
    def test_hit_rate(metric, check):
        check(metric)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from cnnviz_core.explainer import Explainer, Maps
from cnnviz_core.metric import Annotation, Explained, Metric, resampled
from cnnviz_core.model import INPUT, LOGITS, Array, Model
from cnnviz_core.parameters import parameters_of
from cnnviz_core.targets import ClassScore, Target, scores_of
from cnnviz_core.testing.nets import plain
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["CHECKS", "parametrize_with_checks"]

_SHAPE: Final = (12, 9, 3)
_CLASSES: Final = (3, 0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class _GradientTimesInput:
    """A method for the checks: signed, of the input's size, and different for every target."""

    needs: frozenset[str] = frozenset({"gradient"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Multiply the gradient of each target's score by the input."""

        def cotangent(logits: Array) -> Array:
            return np.stack([t.gradient(v) for t, v in zip(targets, logits, strict=True)])

        back = model.pullback(x, cotangent)
        scores = scores_of(targets, back.values[LOGITS])
        return Maps(raw=back.gradients[INPUT] * x, scores=scores, targets=tuple(targets))


def _annotations(n: int) -> tuple[Annotation, ...]:
    """Annotate pictures in every way: boxes, masks, both and nothing."""
    mask = np.zeros(_SHAPE[:2], np.uint8)
    mask[2:7, 1:6], mask[7, 1:6] = 1, 255
    given = [
        Annotation(3, np.array([[1, 2, 6, 7]]), mask, name="all"),
        Annotation(0, np.array([[0, 0, 4, 3], [5.5, 6.25, 9, 12]]), name="two boxes"),
        Annotation(3, mask=mask, difficult=True, name="a mask"),
        Annotation(
            1, np.array([[-3, 4, 20, 9]]), picture=(30, 20), part=(1, 3, 19, 27), name="a part"
        ),
        Annotation(name="nothing"),
    ]
    return tuple(given[i % len(given)] for i in range(n))


def _explained(n: int = 5, *, start: int = 0, dtype: str = "float64", flat: bool = False) -> Any:
    """Give pictures that were explained, each the same whatever the batch around it."""
    model = ReferenceModel(plain(), dtype)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(start + n, *_SHAPE)).astype(dtype)[start:]
    x.flags.writeable = False
    targets = tuple(ClassScore(_CLASSES[(start + i) % 5]) for i in range(n))
    explainer: Explainer = _GradientTimesInput()
    maps = explainer.explain(model, x, targets)
    if flat:
        maps = dataclasses.replace(maps, raw=np.zeros_like(maps.raw))
    annotations = _annotations(start + n)[start:]
    return Explained(model, explainer, x, maps, annotations, batch_size=3)


def _check_record(record: Mapping[str, Array], n: int) -> None:
    """Check the form of a record."""
    assert record, "measure() returned no number at all"
    for name, values in record.items():
        values = np.asarray(values)
        assert values.shape[:1] == (n,), f"{name!r} has the shape {values.shape} for {n} pictures"
        assert values.dtype.kind in "fiub", f"{name!r} has the type {values.dtype}"


def check_it_is_a_frozen_dataclass(metric: Metric) -> None:
    """A metric is a frozen dataclass whose fields are parameters with defaults."""
    assert dataclasses.is_dataclass(metric)
    assert type(metric).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert isinstance(metric.needs, frozenset)
    parameters_of(type(metric))
    type(metric)()


def check_it_gives_a_record_for_each_picture(metric: Metric) -> None:
    """Records have one row a picture, of the same shapes whatever the batch."""
    five, one = metric.measure(_explained()), metric.measure(_explained(1))
    _check_record(five, 5)
    _check_record(one, 1)
    assert {k: np.shape(v)[1:] for k, v in five.items()} == {
        k: np.shape(v)[1:] for k, v in one.items()
    }


def check_a_picture_is_measured_alone(metric: Metric) -> None:
    """What is said of a picture does not depend on those around it."""
    together = metric.measure(_explained())
    for i in range(5):
        alone = metric.measure(_explained(1, start=i))
        for name, values in alone.items():
            np.testing.assert_allclose(
                values[0], together[name][i], rtol=1e-6, atol=1e-9, err_msg=f"{name}, picture {i}"
            )


def check_it_measures_the_same_again(metric: Metric) -> None:
    """The same picture gets the same record every time."""
    one, two = metric.measure(_explained()), metric.measure(_explained())
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def check_float32_measures_alike(metric: Metric) -> None:
    """A network in float32 is measured without an error, to numbers of the same shapes."""
    record = metric.measure(_explained(dtype="float32"))
    _check_record(record, 5)


def check_a_flat_map_is_measured(metric: Metric) -> None:
    """A map that is zero everywhere is no error."""
    _check_record(metric.measure(_explained(flat=True)), 5)


def check_it_sums_up(metric: Metric) -> None:
    """The records of a data set give numbers, and the order of the pictures does not matter."""
    records = {k: np.asarray(v) for k, v in metric.measure(_explained()).items()}
    summary = metric.summarise(records)
    assert summary, "summarise() returned no number at all"
    assert all(isinstance(value, (int, float)) for value in summary.values()), summary
    order = np.random.default_rng(1).permutation(5)
    again = metric.summarise({k: v[order] for k, v in records.items()})
    assert list(again) == list(summary)
    np.testing.assert_allclose(list(again.values()), list(summary.values()), rtol=1e-9)


def check_it_can_be_resampled(metric: Metric) -> None:
    """A data set in which each picture stands twice has the same numbers."""
    records = {k: np.asarray(v) for k, v in metric.measure(_explained()).items()}
    twice = {k: np.concatenate([v, v]) for k, v in records.items()}
    one, two = metric.summarise(records), metric.summarise(twice)
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-9)


def check_many_data_sets_are_summed_up_alike(metric: Metric) -> None:
    """Many data sets of the same pictures have the numbers that each has on its own."""
    records = {k: np.asarray(v) for k, v in metric.measure(_explained()).items()}
    counts = np.array([[1, 1, 1, 1, 1], [0, 3, 1, 1, 2], [2, 0, 3, 1, 1], [0, 0, 0, 0, 4], [0] * 5])
    found = resampled(metric, records, counts.astype(np.float64))
    for row, times in enumerate(counts):
        alone = metric.summarise({k: np.repeat(v, times, axis=0) for k, v in records.items()})
        assert list(found) == list(alone)
        together = [values[row] for values in found.values()]
        np.testing.assert_allclose(together, list(alone.values()), rtol=1e-9, atol=1e-12)


def check_nothing_to_measure_is_not_a_number(metric: Metric) -> None:
    """Of no picture at all there is no number, and that is no error."""
    records = {k: np.asarray(v)[:0] for k, v in metric.measure(_explained()).items()}
    assert all(math.isnan(value) for value in metric.summarise(records).values())


def check_it_tells_its_cost(metric: Metric) -> None:
    """Passes and explanations, where they are told, are numbers that are not negative."""
    explained = _explained()
    for name in ("passes", "explanations"):
        tells = getattr(metric, name, None)
        assert tells is None or tells(explained.model, explained.x) >= 0, name


CHECKS: Final[tuple[Callable[[Metric], None], ...]] = (
    check_it_is_a_frozen_dataclass,
    check_it_gives_a_record_for_each_picture,
    check_a_picture_is_measured_alone,
    check_it_measures_the_same_again,
    check_float32_measures_alike,
    check_a_flat_map_is_measured,
    check_it_sums_up,
    check_it_can_be_resampled,
    check_many_data_sets_are_summed_up_alike,
    check_nothing_to_measure_is_not_a_number,
    check_it_tells_its_cost,
)
"""What any metric must pass."""


def parametrize_with_checks(metrics: Sequence[Metric]) -> Any:
    """Make a test of each check for each metric.

    Parameters
    ----------
    metrics : sequence of Metric
        What to check.

    Returns
    -------
    decorator
        For a test function with the arguments `metric` and `check`.
    """
    import pytest

    cases = [
        pytest.param(
            metric,
            partial(check),
            id=f"{type(metric).__name__}-{check.__name__.removeprefix('check_')}",
        )
        for metric in metrics
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("metric", "check"), cases)
