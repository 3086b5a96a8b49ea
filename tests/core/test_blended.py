"""A batch that is described: what it says of itself, and the batch that NumPy makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.blended import Blended, blend
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, NumPyArrays, Separable, draw

RNG = np.random.default_rng(0)
SIZE = (5, 4)
X = RNG.normal(size=(*SIZE, 3)).astype(np.float32)
GRIDS = Separable(RNG.random((6, 2, 3)), [RNG.random((2, 5)), RNG.random((6, 3, 4))])
FORMS = {
    "drawn": Drawn(RNG.random((6, *SIZE))),
    "labelled": Labelled(RNG.integers(0, 3, SIZE), RNG.random((6, 3))),
    "separable": GRIDS,
    "stretched": Separable(GRIDS.values - 0.5, GRIDS.weights, stretch=True),
    "affine": Affine(GRIDS, -1.5, RNG.random(SIZE)),
}


def plain(form):
    """Draw masks by their formulas, written plainly."""
    match form:
        case Drawn(values):
            return values
        case Labelled(labels, values):
            return np.stack([[[v[k] for k in row] for row in labels] for v in values])
        case Affine(inner, scale, shift):
            return np.stack([scale * mask + shift for mask in plain(inner)])
        case Separable(values, (rows, columns), stretch):
            made = [v_rows for v_rows in np.einsum("ngh,gr,nhc->nrc", values, rows, columns)]
            if stretch:
                return np.stack([(m - m.min()) / (m.max() - m.min()) for m in made])
            return np.clip(made, 0, 1)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_masks_are_drawn_by_their_formula(form):
    assert form.shape == (6, *SIZE)
    made = draw(form, NumPyArrays(np.float64))
    np.testing.assert_allclose(made, plain(form), rtol=1e-13, atol=1e-15)
    assert draw(form, NumPyArrays()).dtype == np.float32
    part = form[2:5]
    assert part.shape == (3, *SIZE)
    np.testing.assert_allclose(draw(part, NumPyArrays(np.float64)), made[2:5], rtol=1e-13)


def test_a_constant_mask_stretched_keeps_nothing():
    form = Separable(np.ones((2, 1, 1)), [np.ones((1, 5)), np.ones((1, 4))], stretch=True)
    assert not draw(form, NumPyArrays()).any()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("fill", [np.array(0.5), np.array([1, 2, 3.0]), X[::-1]])
def test_it_stands_for_the_blended_batch(form, fill):
    batch = Blended(X, form, np.asarray(fill, np.float32))
    expected = np.stack([m[..., None] * X + (1 - m[..., None]) * fill for m in plain(form)])
    assert (batch.shape, batch.ndim, batch.dtype, len(batch)) == ((6, 5, 4, 3), 4, np.float32, 6)
    made = np.asarray(batch)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(batch[1:3]), made[1:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(batch, dtype=np.float64), made.astype(np.float64))
    precise = np.asarray(batch.astype(np.float64))
    assert precise.dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(batch, copy=False)


def test_masks_of_zeros_and_ones_select():
    masks = RNG.integers(0, 2, (6, *SIZE))
    made = blend(X, masks, np.float32(1e30))
    np.testing.assert_array_equal(made, np.where(masks[..., None] == 1, X, np.float32(1e30)))
    soft = masks.copy().astype(np.float32)
    soft[0, 0, 0] = 0.5  # not all of them are hard any more: what is kept is still exact
    hard, fill = blend(X, masks, np.float32(7)), np.float32(7)
    np.testing.assert_array_equal(blend(X, soft, fill)[1:], hard[1:])
