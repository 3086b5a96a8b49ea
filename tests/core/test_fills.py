"""What is shown where a sample is taken away, and the pyramid by which holes are filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import filling

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 999)
SHAPES = [(41, 3), (12, 9, 3), (7, 8, 6, 2)]


def sample(size, seed=0, channels=2, dtype="float64"):
    return np.random.default_rng(seed).normal(size=(*size, channels)).astype(dtype)


def holes(size, seed=0, n=4, kept=0.4, soft=False):
    """Draw masks; where `soft`, a part of what is not zero is between 0 and 1."""
    rng = np.random.default_rng(seed + 1)
    masks = (rng.random((n, *size)) < kept).astype(np.float32)
    masks *= np.where(rng.random(masks.shape) < 0.5 * soft, rng.random(masks.shape), 1)
    masks[0].flat[rng.integers(masks[0].size)] = 1  # at least one has something
    return masks


def inpainted(x, masks):
    return filling(x, "inpaint").under(masks)


# ---------------------------------------------------------------------- one for all masks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fixed_fills_are_their_formulas(shape, dtype):
    x = sample(shape[:-1], channels=shape[-1], dtype=dtype)
    axes = tuple(range(len(shape) - 1))
    masks = holes(shape[:-1])
    drawn = np.random.default_rng(7).standard_normal(shape)
    array = sample(shape[:-1], 5, channels=1)
    for fill, expected in [
        (0.25, 0.25),
        ("mean", x.mean(axes)),
        ("blur", gaussian_filter(x.astype("f8"), max(shape[:-1]) / 5, mode="reflect", axes=axes)),
        ("noise", x.mean(axes) + x.std(axes) * drawn),
        (array, array),
    ]:
        values = filling(x, fill, seed=7).under(masks)
        assert values.dtype == dtype
        expected = np.broadcast_to(expected, (4, *shape))
        shown = np.broadcast_to(values, (4, *shape))
        np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-5)


def test_noise_has_the_samples_mean_and_spread():
    x = sample((200, 200)) * [1, 5] + [0, 3]
    noise = filling(x, "noise", seed=3).under(np.zeros((1, 200, 200)))
    np.testing.assert_allclose(noise.mean((0, 1)), x.mean((0, 1)), atol=5 * 5 / 200)
    np.testing.assert_allclose(noise.std((0, 1)), x.std((0, 1)), rtol=0.02)
    assert not np.array_equal(noise, filling(x, "noise", seed=4).under(np.zeros((1, 200, 200))))
    np.testing.assert_array_equal(noise, filling(x, "noise", seed=3).under(np.ones((1, 1))))


@pytest.mark.parametrize("shape", [(4, 3), (9, 12, 2), (2, 12, 9, 2)])
def test_an_array_that_does_not_broadcast_is_refused(shape):
    with pytest.raises(ArrayError, match="the fill has the shape"):
        filling(sample((12, 9)), np.zeros(shape))


# ------------------------------------------------------------------------------ inpainting


def by_loops(x, mask):
    """Push and pull one mask, a position at a time."""
    size = mask.shape
    if not mask.any():
        return np.broadcast_to(x.reshape(-1, x.shape[-1]).mean(0), x.shape)
    half = tuple(-(-n // 2) for n in size)
    known, weight = np.zeros((*half, x.shape[-1])), np.zeros(half)
    for at in np.ndindex(size):
        cell = tuple(i // 2 for i in at)
        known[cell] += mask[at] * x[at]
        weight[cell] += mask[at]
    for cell in np.ndindex(half):
        if weight[cell] > 0:
            known[cell] /= weight[cell]
            weight[cell] = min(weight[cell], 1)
    if max(half) > 1:
        beyond = by_loops(known, weight)
        known = weight[..., None] * known + (1 - weight[..., None]) * beyond
    filled = np.zeros_like(x)
    for at in np.ndindex(size):
        for corner in np.ndindex((2,) * len(size)):
            # Three quarters of the cell itself, a quarter of that on the side where it lies.
            share = np.prod([0.25 if other else 0.75 for other in corner])
            cell = tuple(
                int(np.clip(i // 2 + other * (1 if i % 2 else -1), 0, n - 1))
                for i, other, n in zip(at, corner, half, strict=True)
            )
            filled[at] += share * known[cell]
    return filled


@settings(max_examples=30)
@given(SIZES, SEEDS, st.booleans())
def test_inpainting_is_its_pyramid(size, seed, soft):
    x, masks = sample(size, seed), holes(size, seed, soft=soft)
    for found, mask in zip(inpainted(x, masks), masks, strict=True):
        np.testing.assert_allclose(found, by_loops(x, mask), atol=1e-12)


@given(SIZES, SEEDS, st.booleans(), st.sampled_from(["float32", "float64"]))
def test_a_constant_is_filled_with_itself(size, seed, soft, dtype):
    x = np.full((*size, 2), [0.3, -70], dtype)
    found = inpainted(x, holes(size, seed, soft=soft))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.broadcast_to(x, found.shape), rtol=1e-6)


@given(SIZES, SEEDS)
def test_what_is_filled_in_lies_between_the_kept_values(size, seed):
    x, masks = sample(size, seed), holes(size, seed, kept=0.2)
    for found, mask in zip(inpainted(x, masks), masks, strict=True):
        kept = x[mask > 0] if mask.any() else x.reshape(-1, 2)
        assert (found >= kept.min(0) - 1e-12).all()
        assert (found <= kept.max(0) + 1e-12).all()


@given(SIZES, SEEDS)
def test_what_is_taken_away_has_no_say(size, seed):
    x, masks = sample(size, seed), holes(size, seed, n=1)
    other = np.where(masks[0][..., None] > 0, x, 1e3)
    np.testing.assert_array_equal(inpainted(x, masks), inpainted(other, masks))


@given(SIZES, SEEDS)
def test_each_mask_is_filled_by_itself(size, seed):
    x, masks = sample(size, seed), holes(size, seed)
    together = inpainted(x, masks)
    order = np.random.default_rng(seed).permutation(len(masks))
    np.testing.assert_array_equal(inpainted(x, masks[order]), together[order])
    for found, mask in zip(together, masks, strict=True):
        np.testing.assert_array_equal(inpainted(x, mask[None])[0], found)


@given(SIZES, SEEDS)
def test_inpainting_is_linear_in_the_sample(size, seed):
    x, y, masks = sample(size, seed), sample(size, seed + 1), holes(size, seed)
    expected = 2 * inpainted(x, masks) - 3 * inpainted(y, masks)
    np.testing.assert_allclose(inpainted(2 * x - 3 * y, masks), expected, atol=1e-12)


def test_where_nothing_is_kept_it_is_the_mean_colour():
    x = sample((12, 9))
    found = inpainted(x, np.zeros((2, 12, 9)))
    np.testing.assert_allclose(found, np.broadcast_to(x.mean((0, 1)), (2, 12, 9, 2)), rtol=1e-12)


def test_one_kept_position_is_continued_everywhere():
    x, masks = sample((13, 6)), np.zeros((1, 13, 6))
    masks[0, 4, 5] = 0.1
    expected = np.broadcast_to(x[4, 5], (1, 13, 6, 2))
    np.testing.assert_allclose(inpainted(x, masks), expected, rtol=1e-12)


def test_a_hole_in_a_ramp_is_bridged():
    x = np.linspace(0, 1, 64)[:, None] * np.ones(64) + 0.5 * np.linspace(0, 1, 64)
    masks = np.ones((1, 64, 64))
    masks[0, 20:40, 24:44] = 0
    inside = np.s_[20:40, 24:44]
    wrong = np.abs(inpainted(x[..., None], masks)[0, ..., 0] - x)[inside]
    by_mean = np.abs(filling(x[..., None], "mean").under(masks)[0] - x)[inside]
    assert wrong.mean() < 0.25 * by_mean.mean()
    edge = [wrong[0].mean(), wrong[-1].mean(), wrong[:, 0].mean(), wrong[:, -1].mean()]
    assert max(edge) < 0.05  # a window of 20 spans 0.3 of the ramp and more
