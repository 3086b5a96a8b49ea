"""How the maps of sampling methods became stable, in one call."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz.demo import network, scenes
from cnnviz_core.errors import ParameterError


def test_the_plot_tells_of_every_map():
    pictures = [picture.pixels for picture, _ in scenes()[:2]]
    found = cnnviz.explain(network(), pictures, "rise", samples=120, cells=3)
    figure = found.convergence()
    axes = next(axes for axes in figure.axes if axes.lines)  # the other leads to the names
    history = found.extras["history"]
    assert history.shape[0] == len(axes.lines) == 2
    for line, each in zip(axes.lines, history, strict=True):
        known = np.isfinite(each[:, 0])
        np.testing.assert_allclose(line.get_xdata(), each[known, 0])
        np.testing.assert_allclose(line.get_ydata(), 100 * each[known, 1])


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
