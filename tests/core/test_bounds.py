from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.bounds import bounds_of
from cnnviz_core.errors import ParameterError


def test_bounds_are_one_value_or_one_for_each_channel():
    assert bounds_of(None, None, 3) is None
    assert bounds_of(-1.0, np.array([1.0, 2.0, 3.0]), 3) == ((-1.0,), (1.0, 2.0, 3.0))
    assert bounds_of(np.zeros(3), np.ones(3), 3) == ((0.0,), (1.0,))
    assert bounds_of(0.5, 0.5, 1) == ((0.5,), (0.5,))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, None, "both or neither"),
        (None, np.ones(3), "both or neither"),
        (np.zeros(2), 1.0, r"low has the shape \(2,\), and the input has 3 channels"),
        (0.0, np.ones((3, 1)), r"high has the shape \(3, 1\)"),
        (1.0, 0.0, "not below low"),
        (0.0, np.array([1.0, -1.0, 1.0]), "not below low"),
    ],
)
def test_bounds_that_do_not_fit_are_reported(low, high, message):
    with pytest.raises(ParameterError, match=message):
        bounds_of(low, high, 3)
