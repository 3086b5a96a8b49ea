"""What crosses the boundary of a model is checked alike, whether it is an array or described."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.blended import Blended
from cnnviz_core.checks import check_inputs, out_of_memory
from cnnviz_core.errors import ArrayError, CnnvizError
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, NumPyArrays, Separable
from cnnviz_core.model import InputInfo
from cnnviz_core.testing.blending import hard_forms, soft_forms

SIZE = (4, 5)
X = np.random.default_rng(0).normal(size=(*SIZE, 3))
FORMS = soft_forms(SIZE) | {f"hard, {name}": form for name, form in hard_forms(SIZE).items()}
ANY = {"input": InputInfo("input", None)}
GOOD = Blended(X, Drawn(np.ones((2, *SIZE))), np.zeros(3))
NAN = np.full(SIZE, np.nan)
LABELS = np.zeros(SIZE, int)


def problem(inputs, x, **how):
    """Give what an input is refused for."""
    with pytest.raises(ArrayError) as caught:
        check_inputs(inputs, x, **how)
    return caught.value


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_described_batch_is_handed_on_or_made(form, dtype):
    inputs = {"input": InputInfo("input", (None, 5, 3), dtype)}
    batch = Blended(X, form, np.zeros(3))
    described = check_inputs(inputs, batch, blended=True)["input"]
    assert isinstance(described, Blended)
    assert described.masks is form
    assert described.sample.dtype == described.fill.dtype == described.dtype == dtype
    made = check_inputs(inputs, batch)["input"]
    assert isinstance(made, np.ndarray)
    assert made.dtype == dtype
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, np.asarray(described))
    np.testing.assert_allclose(made, np.asarray(batch), rtol=1e-5, atol=1e-6)


def test_integers_are_made_real_before_they_are_blended():
    batch = Blended(np.full((*SIZE, 1), 4), Drawn(np.full((1, *SIZE), 0.5)), np.array(1))
    np.testing.assert_array_equal(check_inputs(ANY, batch)["input"], np.float32(2.5))


def test_each_of_several_inputs_may_be_described():
    inputs = {name: InputInfo(name, None) for name in ("one", "two")}
    array = np.ones((2, 7))
    given = check_inputs(inputs, {"two": GOOD, "one": array}, blended=True)
    assert list(given) == ["one", "two"]
    assert isinstance(given["two"], Blended)
    assert "different batch sizes" in str(problem(inputs, {"two": GOOD[:1], "one": array}))


@pytest.mark.parametrize("blended", [True, False])
@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, sample=X * np.nan),
        replace(GOOD, fill=np.array(np.inf)),
        replace(GOOD, masks=Drawn(np.stack([NAN, NAN]))),
        replace(GOOD, masks=Labelled(LABELS, np.full((2, 1), np.nan))),
        replace(GOOD, masks=Separable(np.ones((2, 1, 1)), [NAN[:1, :4], np.ones((1, 5))])),
        replace(GOOD, masks=Separable(np.full((2, 1, 1), np.nan), [np.ones((1, n)) for n in SIZE])),
        replace(GOOD, masks=Affine(GOOD.masks, np.nan)),
        replace(GOOD, masks=Affine(GOOD.masks, 1.0, NAN)),
        replace(GOOD, masks=Affine(Affine(Drawn(np.stack([NAN, NAN]))), 0.0)),
    ],
)
def test_what_describes_a_batch_is_finite(bad, blended):
    told = problem(ANY, bad, blended=blended)
    assert "values that are NaN or infinite" in told.problem
    assert told.remedy == problem(ANY, X[None] * np.nan).remedy


@pytest.mark.parametrize("blended", [True, False])
def test_a_description_is_refused_as_the_array_is(blended):
    inputs = {"input": InputInfo("input", (4, 5, 3))}
    for bad in (
        replace(GOOD, sample=X[:, :4], masks=Drawn(np.ones((2, 4, 4)))),
        replace(GOOD, sample=X[..., :2], fill=np.array(0)),
        replace(GOOD, sample=X[0], masks=Drawn(np.ones((2, 5)))),
        GOOD[:0],
    ):
        array = np.zeros(bad.shape)
        assert str(problem(inputs, bad, blended=blended)) == str(problem(inputs, array))
    text = replace(GOOD, fill=np.array("white"))
    assert problem(inputs, text).remedy == problem(inputs, np.array([["white"]])).remedy


@pytest.mark.parametrize("blended", [True, False])
def test_the_parts_of_a_description_fit_each_other(blended):
    for bad in (
        replace(GOOD, masks=Drawn(np.ones((2, 1, 1)))),
        replace(GOOD, masks=Drawn(np.ones((2, 5, 4)))),
        replace(GOOD, fill=np.ones(4)),
        replace(GOOD, fill=np.ones((2, *X.shape))),
    ):
        told = problem(ANY, bad, blended=blended)
        assert "masks of the sample's size" in told.expected
        assert str(X.shape) in told.problem
    for fill in (0.0, np.ones(1), np.ones(3), np.ones((5, 1)), np.ones((4, 1, 3)), X):
        check_inputs(ANY, replace(GOOD, fill=np.asarray(fill)))


def test_the_masks_are_not_drawn_to_be_checked(monkeypatch):
    monkeypatch.setattr(NumPyArrays, "array", None)
    check_inputs(ANY, GOOD, blended=True)


def test_memory_that_does_not_suffice_is_an_error_of_both_kinds():
    error = out_of_memory({"input": GOOD, "other": np.ones((2, 7))}, "9 GiB wanted\n1 GiB there")
    assert isinstance(error, CnnvizError)
    assert isinstance(error, MemoryError)
    assert "(2, 4, 5, 3) and (2, 7): 9 GiB wanted" in error.problem
    assert "there" not in error.problem
    assert "batch_size='auto'" in error.remedy


def test_a_repeated_sample_stays_one_in_memory():
    sample = np.arange(12.0).reshape(2, 2, 3)
    inputs = {"x": InputInfo("x", (2, 2, 3), "float32")}
    found = check_inputs(inputs, np.broadcast_to(sample, (5, 2, 2, 3)))["x"]
    assert found.strides[0] == 0
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack([sample] * 5))
    with pytest.raises(ArrayError, match=r"NaN|finite"):
        check_inputs(inputs, np.broadcast_to(np.full((2, 2, 3), np.nan), (5, 2, 2, 3)))
