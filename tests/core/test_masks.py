"""Descriptions of masks against plain loops, and how few of them are alive at a time."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import filling
from cnnviz_core.maps import min_max, resize
from cnnviz_core.mask_forms import Drawn
from cnnviz_core.masks import FeatureMasks, GridMasks, SegmentMasks, WindowMasks, drawn
from cnnviz_core.perturb import scored_batches
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.windows import Windows

SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple)
SHAPES = st.sampled_from(["box", "disc"])
SEGMENTS = np.array([[0, 0, 2], [1, 2, 2]])


def kinds(size, seed=0):
    """Describe masks of each kind."""
    rng = np.random.default_rng(seed)
    grid = tuple(rng.integers(1, 5, len(size)))
    return {
        "window": WindowMasks(Windows.over(size, 3, 1)),
        "kept window": WindowMasks(Windows.over(size, 4, 2, "disc"), keep=True),
        "segments": SegmentMasks(rng.integers(0, 4, size), rng.integers(0, 2, (7, 4))),
        "shares": SegmentMasks(rng.integers(0, 4, size), rng.random((5, 4))),
        "grid": GridMasks(rng.random((9, *grid)), size),
        "coarse grid": GridMasks(rng.integers(0, 2, (3, *grid)), size, "nearest"),
        "features": FeatureMasks(rng.normal(size=(*grid, 5)), size),
    }


@settings(max_examples=30)
@given(SIZES, st.integers(0, 99), st.integers(1, 10))
def test_made_in_slices_they_are_what_they_are_made_whole(size, seed, batch_size):
    for masks in kinds(size, seed).values():
        whole = drawn(masks, 0, len(masks))
        assert whole.shape == (len(masks), *size)
        assert whole.dtype == np.float32
        assert whole.min() >= 0
        assert whole.max() <= 1
        assert masks.form(0, len(masks)).shape == whole.shape
        starts = range(0, len(masks), batch_size)
        batches = [drawn(masks, start, start + batch_size) for start in starts]
        # Matrix products of other sizes are rounded otherwise.
        atol = 2e-7 if isinstance(masks, GridMasks | FeatureMasks) else 0
        np.testing.assert_allclose(np.concatenate(batches), whole, rtol=0, atol=atol)
        last = len(masks) - 1
        np.testing.assert_allclose(drawn(masks, last, last + 1)[0], whole[last], rtol=0, atol=atol)


@settings(max_examples=30)
@given(SIZES, SHAPES, st.integers(1, 9), st.booleans())
def test_windows_are_taken_away_or_alone_kept(size, shape, side, keep):
    windows = Windows.over(size, side, 1, shape)
    made = drawn(WindowMasks(windows, keep), 0, len(windows))
    for index, mask in enumerate(made):
        part, inside = windows.place(index)
        expected = np.zeros(size)
        expected[part] = inside
        np.testing.assert_array_equal(mask, expected if keep else 1 - expected)


def test_segments_are_kept_as_much_as_is_said():
    kept = np.array([[1, 0, 0.25], [0, 1, 1]])
    made = drawn(SegmentMasks(SEGMENTS, kept), 0, 2)
    for mask, row in zip(made, kept, strict=True):
        for pixel, segment in np.ndenumerate(SEGMENTS):
            assert mask[pixel] == row[segment]


def test_grids_are_resized():
    values = np.array([[[1, 0], [0, 1]]])
    nearest = drawn(GridMasks(values, (4, 6), "nearest"), 0, 1)[0]
    np.testing.assert_array_equal(nearest, np.kron(values[0], np.ones((2, 3))))
    along = [np.interp((np.arange(n) + 0.5) * 2 / n - 0.5, [0, 1], [0, 1]) for n in (4, 6)]
    expected = [[(1 - a) * (1 - b) + a * b for b in along[1]] for a in along[0]]
    np.testing.assert_allclose(drawn(GridMasks(values, (4, 6)), 0, 1)[0], expected, atol=1e-6)


def test_feature_maps_are_resized_and_brought_to_the_unit_range():
    features = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    features[..., 2] = -7
    noise = np.random.default_rng(1).normal(size=(6, 9))
    plain = drawn(FeatureMasks(features, (6, 9)), 0, 5)
    for k, mask in enumerate(plain):
        expected = min_max(resize(features[None, ..., k], (6, 9)))[0] if k != 2 else 0
        np.testing.assert_allclose(mask, np.broadcast_to(expected, (6, 9)), atol=1e-6)
    changed = drawn(FeatureMasks(features, (6, 9), 0.25, noise), 1, 4)
    np.testing.assert_allclose(changed, 0.25 * plain[1:4] + noise, atol=1e-6)


@pytest.mark.parametrize(
    ("segments", "kept", "message"),
    [
        (SEGMENTS, np.ones((4, 2)), "there is a segment 2, and 2 are told of"),
        (SEGMENTS, np.ones(3), "segments of the shape"),
        (SEGMENTS - 1, np.ones((4, 3)), "segments of the shape"),
        (SEGMENTS[:0], np.ones((4, 3)), "segments of the shape"),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments, kept, message):
    with pytest.raises(ArrayError, match=message):
        SegmentMasks(segments, kept)


# ------------------------------------------------------------------------------- memory


class Counting:
    """Masks that count how many of them are alive."""

    def __init__(self, masks):
        self.masks, self.size = masks, masks.size
        self.alive = self.most = 0

    def __len__(self):
        return len(self.masks)

    def form(self, start, stop):
        made = drawn(self.masks, start, stop)
        self.alive += len(made)
        self.most = max(self.most, self.alive)
        weakref.finalize(made, self.gone, len(made))
        return Drawn(made)

    def gone(self, n):
        self.alive -= n


@pytest.mark.parametrize("kind", kinds((12, 9)))
@pytest.mark.parametrize("fill", [0.0, "inpaint"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_no_more_than_two_batches_are_alive(kind, fill, batch_size):
    net = NETS["plain"]()
    x = random_input(net, 1)["image"][0]
    masks = Counting(kinds((12, 9))[kind])
    scored = scored_batches(
        ReferenceModel(net), x, [ClassScore(0)], masks, filling(x, fill), batch_size=batch_size
    )
    for _ in scored:
        pass
    assert masks.most <= 2 * batch_size  # one that is used, one that is made
    del _
    assert masks.alive == 0


def peak(n, batch_size, fill):
    """Measure the memory that scoring by `n` masks takes at its most, in bytes."""
    net = NETS["plain"]()
    x = random_input(net, 1)["image"][0]
    model = ReferenceModel(net)
    masks = GridMasks(np.random.default_rng(0).random((n, 2, 2)), (12, 9))
    tracemalloc.start()
    try:
        for _ in scored_batches(
            model, x, [ClassScore(0)], masks, filling(x, fill), batch_size=batch_size
        ):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fill", [0.0, "inpaint"])
def test_the_peak_follows_the_batch_and_not_the_number_of_masks(fill):
    peak(8, 8, fill)  # what is cached
    few, many, wide = peak(32, 8, fill), peak(512, 8, fill), peak(512, 64, fill)
    assert many < 1.1 * few
    assert 4 * many < wide < 9 * many
