"""Whether there is anything to see in a map, and what holds for all map maths."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import numpy as np
import pytest

from cnnviz_core import maps
from cnnviz_core.errors import ArrayError


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ([-1.0, 2.0], "ok"),
        ([0.0, 1e-40], "ok"),
        ([-1.0, 0.0], "all-negative"),
        ([-1.0, -2.0], "all-negative"),
        ([0.0, 0.0], "all-zero"),
        ([0.0, -0.0], "all-zero"),
        ([np.nan, 1.0], "non-finite"),
        ([np.inf, 1.0], "non-finite"),
        ([-np.inf, -1.0], "non-finite"),
    ],
)
def test_status_where_the_positive_part_is_shown(raw, status):
    raw = np.array([raw, [1.0, 1.0]])
    assert maps.map_status(raw, maps.relu(raw)) == [status, "ok"]


def test_every_map_of_a_batch_has_a_status_of_its_own():
    raw = np.array([[-1.0, 2.0], [-1.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [3.0, -np.inf]])
    expected = ["ok", "all-negative", "all-zero", "non-finite", "non-finite"]
    order = [4, 1, 0, 3, 2, 0]
    found = maps.map_status(raw[order], maps.relu(raw[order]))
    assert found == [expected[i] for i in order]
    assert {type(status) for status in found} == {str}


def test_a_negative_map_that_is_shown_is_fine():
    raw = np.array([[-1.0, -2.0], [0.0, 0.0]])
    assert maps.map_status(raw, raw) == ["ok", "all-zero"]
    assert maps.map_status(raw, np.abs(raw)) == ["ok", "all-zero"]


def test_what_is_lost_on_the_way_is_not_called_negative():
    assert maps.map_status(np.array([[-1.0, 1.0]]), np.zeros((1, 2))) == ["all-zero"]
    assert maps.map_status(np.array([[1.0, 1.0]]), np.array([[np.nan, 1.0]])) == ["non-finite"]


def test_raw_and_shown_may_have_different_sizes_but_not_different_samples():
    raw = np.ones((2, 4, 4, 3))
    assert maps.map_status(raw, np.ones((2, 9, 9))) == ["ok", "ok"]
    assert maps.map_status(raw[:0], np.ones((0, 9, 9))) == []
    with pytest.raises(ArrayError, match="2 samples and shown 1"):
        maps.map_status(raw, np.ones((1, 9, 9)))


FUNCTIONS = {
    "weight_channels": lambda a: maps.weight_channels(a, a[:, 0, 0]),
    "weight_channels, each value": lambda a: maps.weight_channels(a, a),
    "channel_means": maps.channel_means,
    "combine": lambda a: maps.combine([a, a]),
    "relu": maps.relu,
    "resize": lambda a: maps.resize(a, (5, 2)),
    "resize, one axis": lambda a: maps.resize(a, (3, 5)),
    "resize, none": lambda a: maps.resize(a, (3, 4)),
    "resize, bicubic": lambda a: maps.resize(a[..., 0], (5, 9), "bicubic"),
    "min_max": maps.min_max,
    "scale_to_max": maps.scale_to_max,
    "symmetric": maps.symmetric,
    "percentile_clip": lambda a: maps.percentile_clip(a, 50),
} | {
    f"reduce_channels, {how}": lambda a, how=how: maps.reduce_channels(a, how)
    for how in ("max-abs", "sum", "mean", "sum-abs", "mean-abs", "l2")
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("given", "returned"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("i8", "f4"), ("u1", "f4"), ("?", "f4")],
)
def test_types_and_arguments(function, given, returned):
    values = np.random.default_rng(0).integers(0, 2, (2, 3, 4, 5)).astype(given)
    values.flags.writeable = False
    result = function(values)
    assert result.dtype == returned
    assert result.flags.writeable
    assert not np.shares_memory(result, values)
    np.testing.assert_allclose(result, function(values.astype(np.float64)), atol=1e-5)


MODULES = ["boxes", "channels", "normalise", "resize", "status"]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_are_right(module):
    results = doctest.testmod(importlib.import_module(f"cnnviz_core.maps.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_function_can_be_had_from_the_package():
    for module in MODULES:
        source = importlib.import_module(f"cnnviz_core.maps.{module}")
        for name in source.__all__:
            if callable(getattr(source, name)) and name.islower():
                assert getattr(maps, name) is getattr(source, name)
                assert name in maps.__all__


def test_the_import_is_light():
    code = "import sys, cnnviz_core.maps; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"scipy", "skimage", "matplotlib", "PIL", "torch", "tensorflow", "keras"}
