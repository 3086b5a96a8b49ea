"""A network's least and greatest input values, told to the methods that ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnviz
from cnnviz.explaining import batches
from cnnviz.samples import samples_of
from cnnviz.spaces import bounded
from cnnviz.wording import told
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

HOW = cnnviz.Preprocessing(size=(12, 9), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
LOW = (0 - np.array(HOW.mean)) / HOW.std
HIGH = (1 - np.array(HOW.mean)) / HOW.std


@dataclass(frozen=True)
class Boxed:
    """The distance of each value from the least and the greatest that it can have."""

    low: Annotated[float | Array | None, Help("least values")] = None
    high: Annotated[float | Array | None, Help("greatest values")] = None

    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model, x, targets):
        if self.low is None or self.high is None:
            return Maps(raw=np.zeros_like(x))
        return Maps(raw=(x - self.low) * (self.high - x))


@dataclass(frozen=True)
class Unboxed(Boxed):
    """A method that does without, as it is."""

    needs_bounds: ClassVar[bool] = False


@dataclass(frozen=True)
class Tuned:
    """A method whose fields of the same names mean numbers of its own."""

    low: Annotated[float | None, Help("a number")] = None
    high: Annotated[float | None, Help("another")] = None


def run(network, picture, explainer):
    (task,) = batches(network, samples_of(network, picture))
    return task.run("boxed", explainer)


@given(
    st.lists(st.floats(-3, 3), min_size=9, max_size=9).map(lambda v: np.reshape(v, (3, 3))),
    st.integers(0, 2**32 - 1),
)
def test_bounds_are_those_of_the_cube_of_colours(matrix, seed):
    matrix = matrix + 7 * np.eye(3)  # of full rank
    offset = np.array([0.5, -1.0, 2.0])
    low, high = PixelSpace(matrix, offset).bounds()
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T @ matrix + offset
    np.testing.assert_allclose(low, corners.min(0), atol=1e-12)
    np.testing.assert_allclose(high, corners.max(0), atol=1e-12)
    inside = np.random.default_rng(seed).random((50, 3)) @ matrix + offset
    assert (inside >= low - 1e-12).all()
    assert (inside <= high + 1e-12).all()


@pytest.mark.parametrize(
    ("how", "low", "high"),
    [
        (HOW, LOW, HIGH),
        (cnnviz.Preprocessing(scale=1 / 127.5, mean=(1.0,), channels="BGR"), [-1] * 3, [1] * 3),
        (cnnviz.Preprocessing(std=(-0.5,)), [-2] * 3, [0] * 3),
        (lambda pixels: (pixels / 255 - HOW.mean) / HOW.std, LOW, HIGH),
        (lambda pixels: np.repeat(pixels.mean(-1, keepdims=True), 3, -1), [0] * 3, [255] * 3),
    ],
)
def test_a_method_that_asks_is_told_what_the_preprocessing_gives(model, how, low, high):
    network = cnnviz.wrap(model, preprocess=how)
    filled = bounded(Boxed(), network, (12, 9, 3))
    np.testing.assert_allclose(filled.low, low, atol=1e-9)
    np.testing.assert_allclose(filled.high, high, atol=1e-9)


def test_what_is_not_known_or_not_asked_for_is_not_filled(model, network):
    shape = (12, 9, 3)
    assert bounded(Boxed(), cnnviz.wrap(model), shape) == Boxed()
    bent = cnnviz.wrap(model, preprocess=lambda pixels: (pixels / 255.0) ** 3)
    assert bounded(Boxed(), bent, shape) == Boxed()
    assert bounded(Boxed(), network, (12, 9, 5)) == Boxed()
    assert bounded(Boxed(low=-1.0), network, shape) == Boxed(low=-1.0)
    assert bounded(Boxed(low=-1.0, high=2.0), network, shape) == Boxed(low=-1.0, high=2.0)
    assert bounded(Tuned(), network, shape) == Tuned()
    assert bounded(Unboxed(), network, shape) == Unboxed()


def test_what_was_filled_stands_in_the_result_and_gives_it_again(picture):
    network = cnnviz.wrap(ReferenceModel(NETS["plain"]()), preprocess=HOW)
    e = run(network, picture, Boxed())
    np.testing.assert_allclose(e.params["low"], LOW)
    np.testing.assert_allclose(e.params["high"], HIGH)
    assert (e.raw > -1e-5).all()
    assert e.raw.any()
    again = run(cnnviz.wrap(network, preprocess=HOW), picture, Boxed(**e.params))
    np.testing.assert_array_equal(again.raw, e.raw)
    # Numbers for each channel are told, not described.
    assert told(e.params["low"]) == "-2, -1.66667, -2.4"


def test_a_result_of_a_given_box_has_that_box(network, picture):
    e = run(network, picture, Boxed(low=-5.0, high=5.0))
    assert (e.params["low"], e.params["high"]) == (-5.0, 5.0)


@pytest.mark.parametrize(
    ("method", "params"), [("deep-taylor", {}), ("lrp", {"composite": "epsilon-gamma-box"})]
)
def test_the_methods_with_a_box_get_theirs(picture, method, params):
    network = cnnviz.wrap(ReferenceModel(NETS["plain"]()), preprocess=HOW)
    e = cnnviz.explain(network, picture, method, **params)
    np.testing.assert_allclose(e.params["low"], LOW)
    np.testing.assert_allclose(e.params["high"], HIGH)
    again = cnnviz.explain(network, picture, method, **e.params)
    np.testing.assert_array_equal(again.raw, e.raw)
    other = cnnviz.explain(network, picture, method, low=-9.0, high=9.0, **params)
    assert np.abs(other.raw - e.raw).max() > 0.01 * np.abs(e.raw).max()
    compared = cnnviz.compare(network, picture, {method: params})
    np.testing.assert_array_equal(compared[method].raw, e.raw)


@pytest.mark.parametrize("of", ["lrp(composite=epsilon-gamma-box)", "deep-taylor", "xrai"])
@pytest.mark.parametrize("method", ["noise-tunnel", "test-time-augmentation"])
def test_a_method_that_is_made_of_one_tells_it(picture, method, of):
    network = cnnviz.wrap(ReferenceModel(NETS["plain"]()), preprocess=HOW)
    inner = {"of": of, **({"samples": 2} if method == "noise-tunnel" else {})}
    e = cnnviz.explain(network, picture, method, **inner)
    np.testing.assert_allclose(e.params["low"], LOW)
    np.testing.assert_allclose(e.params["high"], HIGH)
    again = cnnviz.explain(network, picture, method, **e.params)
    np.testing.assert_array_equal(again.raw, e.raw)
    other = cnnviz.explain(network, picture, method, low=-9.0, high=9.0, **inner)
    assert np.abs(other.raw - e.raw).max() > 0.01 * np.abs(e.raw).max()


def test_a_method_that_does_not_ask_is_not_told(network, picture):
    e = cnnviz.explain(network, picture, "noise-tunnel", of="saliency", samples=2)
    assert e.params["low"] is None
    with pytest.raises(ParameterError, match="saliency does not ask for bounds"):
        cnnviz.explain(network, picture, "noise-tunnel", of="saliency", low=-1.0, high=1.0)
