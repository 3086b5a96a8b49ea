"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine is slow; a slow example is no failure.
settings.register_profile("cnnviz", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("cnnviz")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real weights and photographs; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CNNVIZ_TEST_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"no test data in {folder}; set CNNVIZ_TEST_DATA to their folder")
    return folder
