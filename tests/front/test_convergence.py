"""How the maps of sampling methods became stable, in one call."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz.demo import network, scenes
from cnnviz_core.errors import ParameterError

SAMPLING = {
    "rise": {"samples": 120, "cells": 3},
    "lime": {"samples": 120, "segments": 9},
    "kernel-shap": {"samples": 300, "segments": 30},
    "hsic": {"samples": 140, "cells": 3},
    "sobol": {"samples": 32, "cells": 2},
}


@pytest.mark.parametrize(("method", "params"), SAMPLING.items())
def test_the_plot_tells_of_every_map(method, params):
    pictures = [picture.pixels for picture, _ in scenes()[:2]]
    found = cnnviz.explain(network(), pictures, method, **params)
    figure = found.convergence()
    axes = next(axes for axes in figure.axes if axes.lines)  # the other leads to the names
    history = found.extras["history"]
    assert history.shape[0] == len(axes.lines) == 2
    for line, each in zip(axes.lines, history, strict=True):
        counts, errors = each[np.isfinite(each).all(1)].T
        assert len(counts) >= 2
        # Other maps may have been looked at in between.
        drawn = np.interp(counts, line.get_xdata(), line.get_ydata())
        np.testing.assert_allclose(drawn, 100 * errors)


def test_it_is_saved_and_read_back(tmp_path):
    scene = scenes()[0][0]
    found = cnnviz.explain(network(), scene.pixels, "rise", samples=60, cells=3)
    found.save(tmp_path / "rise.npz")
    read = cnnviz.Explanation.load(tmp_path / "rise.npz")
    np.testing.assert_array_equal(read.extras["history"], found.extras["history"])
    assert read.convergence().axes


def test_a_method_that_does_not_sample_says_so():
    scene = scenes()[0][0]
    with pytest.raises(ParameterError, match="grad-cam keeps no history"):
        cnnviz.explain(network(), scene.pixels, "grad-cam").convergence()
