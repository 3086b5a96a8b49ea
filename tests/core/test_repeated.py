"""Equal rows of a batch are found: by their bits, wherever they differ, without needless work."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.perturb import distinct_samples
from cnnviz_core.repeated import repeated_rows

ORDERS = [[0], [0, 0, 0], [0, 1, 2], [1, 0, 1, 2, 0, 1]]


def _samples(dtype: str) -> np.ndarray:
    """Three samples that differ in two values each, so that a glance may miss it."""
    x = np.zeros((3, 40, 11, 3), dtype)
    x[1, 17, 5, 1] = x[2, 39, 10, 2] = 1
    return x


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "longdouble", "int64", "uint8", "bool"]
)
@pytest.mark.parametrize("order", ORDERS)
def test_the_distinct_rows_give_the_batch_again(dtype, order):
    x = _samples(dtype)[order]
    first, row_of = repeated_rows(x)
    assert np.array_equal(x[first][row_of], x)
    assert first.tolist() == sorted(order.index(sample) for sample in set(order))


@pytest.mark.parametrize("order", ORDERS)
def test_it_agrees_with_the_plain_comparison(order):
    x = _samples("float32")[order]
    first, row_of = repeated_rows(x)
    groups = [np.flatnonzero(row_of == place).tolist() for place in range(len(first))]
    assert groups == distinct_samples(x)


@pytest.mark.parametrize("view", ["reversed", "every other", "channels first", "cropped"])
def test_views_are_compared_by_their_values(view):
    x = _samples("float32")[[1, 0, 1, 2, 0, 1]]
    views = {
        "reversed": x[:, ::-1],
        "every other": x.repeat(2, axis=0)[::2],
        "channels first": np.moveaxis(x, -1, 1),
        "cropped": x[:, 5:, :, 1:],
    }
    first, row_of = repeated_rows(views[view])
    assert (first.tolist(), row_of.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1, 0])


def test_broadcast_samples_are_not_read():
    """A batch that would fill 8 TB of memory is known to be one sample."""
    x = np.broadcast_to(np.zeros((1000, 1000)), (10**6, 1000, 1000))
    first, row_of = repeated_rows(x)
    assert first.tolist() == [0]
    assert row_of.shape == (10**6,)
    assert not row_of.any()


def test_a_sample_broadcast_within_itself_is_compared():
    x = np.broadcast_to(np.array([1.0, 2.0, 1.0])[:, None], (3, 5))
    assert repeated_rows(x)[1].tolist() == [0, 1, 0]


def test_rows_are_the_same_where_their_bits_are():
    x = np.array([[0.0], [-0.0], [np.nan], [np.nan], [0.0]])
    assert repeated_rows(x)[1].tolist() == [0, 1, 2, 2, 0]


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3,), (3, 0), (0, 0, 2)])
def test_there_may_be_little_to_compare(shape):
    """Rows without values are all the same, and no rows have no samples."""
    first, row_of = repeated_rows(np.zeros(shape))
    assert len(row_of) == shape[0]
    assert len(first) == min(shape[0], 1)
