"""Boxes around what masks take away, and what lies within windows, against masks drawn whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.blended import Blended
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, NumPyArrays, Separable, draw
from cnnviz_core.masks import FeatureMasks, GridMasks, SegmentMasks, WindowMasks
from cnnviz_core.reached import blended_within, drawn_within, reached, windows_of
from cnnviz_core.windows import Windows

SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple)


def forms(size, seed=0):
    """Describe masks of each kind."""
    rng = np.random.default_rng(seed)
    grid = tuple(rng.integers(1, 5, len(size)).tolist())
    window = WindowMasks(Windows.over(size, 3, 2))
    masks = {
        "window": window,
        "disc": WindowMasks(Windows.over(size, 3, 1, "disc")),
        "kept window": WindowMasks(Windows.over(size, 4, 2), keep=True),
        "segments": SegmentMasks(rng.integers(0, 6, size), rng.integers(0, 2, (7, 6))),
        "shares": SegmentMasks(rng.integers(0, 4, size), rng.choice([0.25, 1.0], (5, 4))),
        "grid": GridMasks(rng.integers(0, 2, (9, *grid)).astype(float), size),
        "coarse grid": GridMasks(rng.integers(0, 2, (3, *grid)), size, "nearest"),
        "features": FeatureMasks(rng.normal(size=(*grid, 5)), size),
    }
    inner = window.form(0, 3)
    levels = GridMasks(rng.integers(0, 3, (6, *grid)).astype(float), size, "nearest").form(0, 6)
    return {name: each.form(0, len(each)) for name, each in masks.items()} | {
        "stretched": replace(levels, stretch=True),
        "drawn": Drawn(rng.integers(0, 2, (4, *size))),
        "shifted": Affine(inner, 0.5, rng.random(size)),
        "halved": Affine(inner, 0.5, 0.5),
        "of a constant": Affine(inner, 0.0, 1.0),
        "too little": Separable(
            np.ones((2, *(1 for _ in size))), [np.full((1, n), 0.5) for n in size]
        ),
    }


def inside(boxes, size):
    """Mark what lies in boxes, (n, *size)."""
    marked = np.ones((len(boxes), *size), dtype=bool)
    for axis, n in enumerate(size):
        at = np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(size))])
        start, stop = (boxes[:, axis, end].reshape(-1, *(1 for _ in size)) for end in (0, 1))
        marked &= (at >= start) & (at < stop)
    return marked


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 999))
def test_outside_of_its_box_a_mask_is_one(size, seed):
    for name, form in forms(size, seed).items():
        boxes = reached(form)
        assert boxes.shape == (len(form), len(size), 2), name
        assert boxes.min() >= 0
        assert (boxes[..., 1] <= size).all()
        mask = draw(form, NumPyArrays(np.float64))
        np.testing.assert_allclose(mask[~inside(boxes, size)], 1, atol=1e-6, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 999))
def test_the_box_of_what_is_given_exactly_is_the_smallest(size, seed):
    every = forms(size, seed)
    for name in ("window", "disc", "segments", "shares", "drawn", "halved"):
        boxes, mask = reached(every[name]), draw(every[name], NumPyArrays(np.float64))
        for box, one in zip(boxes, mask != 1, strict=True):
            places = np.argwhere(one)
            smallest = np.zeros_like(box)
            if len(places):
                smallest = np.stack([places.min(0), places.max(0) + 1], axis=-1)
            np.testing.assert_array_equal(box, smallest, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 999))
def test_within_windows_masks_and_samples_are_what_they_are_elsewhere(size, seed):
    rng = np.random.default_rng(seed)
    extent = tuple(int(rng.integers(1, n + 1)) for n in size)
    for name, form in forms(size, seed).items():
        starts = np.stack(
            [rng.integers(0, n - e + 1, len(form)) for n, e in zip(size, extent, strict=True)], -1
        )
        batch = Blended(rng.normal(size=(*size, 2)), form, rng.normal(size=2))
        masks = draw(form, NumPyArrays(np.float64))
        for found, whole in (
            (drawn_within(form, starts, extent, np.float64), masks),
            (blended_within(batch, starts, extent), np.asarray(batch)),
        ):
            for k, start in enumerate(starts):
                at = tuple(slice(s, s + e) for s, e in zip(start, extent, strict=True))
                np.testing.assert_allclose(found[k], whole[k][at], atol=1e-12, err_msg=name)


def test_a_fill_of_the_size_of_the_sample_is_cut_too():
    rng = np.random.default_rng(0)
    form = Labelled(np.arange(12).reshape(3, 4), rng.integers(0, 2, (2, 12)))
    batch = Blended(rng.normal(size=(3, 4, 2)), form, rng.normal(size=(3, 4, 2)))
    found = blended_within(batch, np.array([[0, 1], [1, 2]]), (2, 2))
    whole = np.asarray(batch)
    np.testing.assert_array_equal(found, [whole[0, 0:2, 1:3], whole[1, 1:3, 2:4]])


def test_windows_are_cut_along_the_first_axes():
    values = np.arange(24).reshape(4, 3, 2)
    cut = windows_of(values, np.array([[0, 1], [2, 0]]), (2, 2))
    np.testing.assert_array_equal(cut, [values[0:2, 1:3], values[2:4, 0:2]])


@pytest.mark.parametrize("keep", [0, 1])
def test_nothing_is_drawn_to_find_boxes_of_windows_and_segments(keep, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("masks were drawn")

    monkeypatch.setattr("cnnviz_core.reached.draw", forbidden)
    form = Labelled(np.arange(6).reshape(2, 3), np.full((1, 6), keep))
    assert reached(form).tolist() == [[[0, 2 - 2 * keep], [0, 3 - 3 * keep]]]
    windows = WindowMasks(Windows.over((8, 8), 3, 1), keep=bool(keep)).form(0, 1)
    assert reached(windows).tolist() == [[[0, 3], [0, 3]]] if not keep else [[[0, 8], [0, 8]]]
