"""Both backends on one network, and a report of how near they came."""

from __future__ import annotations

import numpy as np
import pytest

REACHED: dict[str, float] = {}


@pytest.fixture
def near():
    """Compare two arrays relative to the largest value, and note the difference reached."""

    def compare(what, actual, expected, rtol):
        assert actual.shape == expected.shape, what
        scale = max(float(np.abs(expected).max()), 1e-30)
        error = float(np.abs(actual.astype(np.float64) - expected).max()) / scale
        REACHED[what] = max(REACHED.get(what, 0.0), error)
        assert error <= rtol, f"{what}: differs by {error:.2e} of the largest value"

    return compare


def pytest_terminal_summary(terminalreporter):
    """Print how near the backends came."""
    if REACHED:
        terminalreporter.section("largest relative difference between the backends")
        for what, error in sorted(REACHED.items()):
            terminalreporter.write_line(f"{what:<44} {error:.1e}")
