"""The example scripts that need PyTorch run, in a small setting."""

from __future__ import annotations

import pytest

from support.examples import run


@pytest.mark.slow
def test_the_table_of_photographs(test_data):
    small = ["--limit", 3, "--resamples", 5]
    printed = run("localisation_table.py", *small, CNNVIZ_TEST_DATA=str(test_data))
    lines = [line.split() for line in printed.splitlines() if "[" in line]
    assert len(lines) == 12
    cam, grad_cam = ([line[1:] for line in lines if line[0] == m] for m in ("CAM", "Grad-CAM"))
    assert cam == grad_cam  # the networks end in pooling and one linear layer
