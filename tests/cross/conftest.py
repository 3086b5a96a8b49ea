"""Both backends on one network, and a report of how near they came."""

from __future__ import annotations

import numpy as np
import pytest

REACHED = "difference between the backends"
"""Under which name a test's report has what it reached, from whichever process it comes."""


@pytest.fixture
def near(record_property):
    """Compare two arrays, value by value or as a whole, and note the difference reached."""

    def compare(what, actual, expected, rtol, *, as_a_whole=False):
        assert actual.shape == expected.shape, what
        size = np.linalg.norm if as_a_whole else lambda a: np.abs(a).max()
        scale = max(float(size(expected)), 1e-30)
        error = float(size(actual.astype(np.float64) - expected)) / scale
        record_property(REACHED, (what, error))
        assert error <= rtol, f"{what}: differs by {error:.2e} (relative)"

    return compare


def pytest_terminal_summary(terminalreporter):
    """Print how near the backends came."""
    largest: dict[str, float] = {}
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for name, found in (pair for r in reports for pair in getattr(r, "user_properties", ())):
        if name == REACHED:
            what, error = found
            largest[what] = max(largest.get(what, 0.0), error)
    if largest:
        terminalreporter.section("largest relative difference between the backends")
        for what, error in sorted(largest.items()):
            terminalreporter.write_line(f"{what:<56} {error:.1e}")
