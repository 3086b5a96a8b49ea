"""How the conformance kit compares arrays."""

from __future__ import annotations

import numpy as np

from cnnviz_core.model import Array

__all__ = ["assert_close"]


def assert_close(actual: Array, expected: Array, rtol: float, what: str = "") -> None:
    """Compare two arrays, relative to the largest magnitude of the expected one.

    Parameters
    ----------
    actual, expected : ndarray
        Of one shape.
    rtol : float
        The largest difference allowed, as a fraction of ``max |expected|``.
    what : str
        What is compared, for the message.

    Raises
    ------
    AssertionError
        If the shapes differ, or a value differs by more.
    """
    assert np.shape(actual) == np.shape(expected), (
        f"{what}: shape {np.shape(actual)}, expected {np.shape(expected)}"
    )
    scale = float(np.max(np.abs(expected))) if np.size(expected) else 0.0
    error = (
        float(np.max(np.abs(np.asarray(actual, np.float64) - expected)))
        if scale
        else float(np.max(np.abs(actual), initial=0))
    )
    assert error <= rtol * (scale or 1.0), (
        f"{what}: differs by {error:.3g}, that is {error / (scale or 1):.3g} of the largest value; "
        f"{rtol:.3g} is allowed"
    )
