"""Many data sets of the same pictures are summed up at once as each would be on its own."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.metric import resampled
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.metrics import _explained
from cnnviz_metrics._rows import counted, mean, ratio, total
from support.metrics import brief_metric

METRICS = get_registry().metrics
ROWS = 8
COUNTS = arrays(np.float64, (3, ROWS), elements=st.integers(0, 4).map(float))


@functools.cache
def records_of(name):
    """The records of eight pictures: five of which something is known, and three of them again."""
    measured = brief_metric(name).measure(_explained())
    return {key: np.asarray(values)[[0, 1, 2, 3, 4, 0, 2, 3]] for key, values in measured.items()}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_fast_way(name):
    assert hasattr(brief_metric(name), "resample")


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None)
@given(counts=COUNTS, unknown=st.sets(st.integers(0, ROWS - 1)))
def test_counts_are_repeated_rows(name, counts, unknown):
    metric, records = brief_metric(name), {}
    for key, values in records_of(name).items():
        records[key] = values.astype(np.float64)
        records[key][list(unknown)] = np.nan
    found = resampled(metric, records, counts)
    for row, times in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(ROWS), times)
        alone = metric.summarise({key: values[rows] for key, values in records.items()})
        together = {key: values[row] for key, values in found.items()}
        assert list(together) == list(alone)
        np.testing.assert_allclose(
            list(together.values()), list(alone.values()), rtol=1e-12, atol=1e-14
        )


@given(
    counts=COUNTS,
    values=arrays(np.float64, (ROWS, 2), elements=st.sampled_from([0.5, -3.0, 1e6, np.inf])),
)
def test_means_are_those_of_repeated_rows(counts, values):
    """Also where a row is infinite, which counts for nothing where it does not stand."""
    found = mean(counts, values)
    for row, times in enumerate(counts.astype(int)):
        rows = np.repeat(values, times, axis=0)
        expected = rows.mean(axis=0) if len(rows) else np.full(2, np.nan)
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


def test_many_rows_are_summed_piece_by_piece():
    rng = np.random.default_rng(0)
    values, counts = rng.random((9000, 2, 3)), rng.integers(0, 3, (2, 9000)).astype(float)
    expected = np.einsum("rn,nij->rij", counts, values)
    np.testing.assert_allclose(total(counts, values), expected, rtol=1e-12)
    marks = values > 0.5
    np.testing.assert_array_equal(total(counts, marks), np.einsum("rn,nij->rij", counts, marks))


def test_rows_that_are_not_known_take_their_counts_with_them():
    counts, one, two = counted(
        np.array([[1.0, 2, 3]]), np.array([5, np.nan, 7]), np.array([[1.0, 2], [3, 4], [5, np.nan]])
    )
    assert (counts.tolist(), one.tolist(), two.tolist()) == ([[1.0]], [5.0], [[1.0, 2.0]])


def test_a_share_of_nothing_is_not_a_number():
    np.testing.assert_array_equal(ratio(np.array([1.0, 0]), np.array([2.0, 0])), [0.5, np.nan])
