"""Signals and volumes as pictures."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz.colours import colourise
from cnnviz.rendering import SIDE, draw_signal, draw_volume, hottest
from cnnviz_core.errors import ArrayError, ParameterError

HOT = colourise(np.ones(1))[0]
INK = (245, 247, 249)


def pixels(image):
    return np.asarray(image.convert("RGB"))


def area(scene):
    """What is inside the axes: the first and the last row and column of the plot's own colour."""
    rows, columns = np.nonzero((pixels(scene.ground) == (0x1C, 0x21, 0x26)).all(-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def flat(length, channels=1):
    """A signal at the middle of its axis, so that its top rows are free of lines."""
    return np.zeros((length, channels))


def test_heat_lies_in_bands_behind_the_line():
    heat = np.zeros(10)
    heat[7] = 1
    scene = draw_signal(flat(10), heat, alpha=1)
    drawn, ground = pixels(scene.overlay()), pixels(scene.ground)
    y0, y1, x0, x1 = area(scene)
    edges = x0 + np.arange(11) * (x1 - x0) / 10
    row = y0 + 5
    changed = np.flatnonzero((drawn[row] != ground[row]).any(-1))
    assert abs(changed.min() - edges[7]) <= 1
    assert abs(changed.max() + 1 - edges[8]) <= 1
    np.testing.assert_array_equal(drawn[row, changed], np.tile(HOT, (len(changed), 1)))
    # The line is there, with a dark rim on both sides.
    middle = drawn[y0:y1, round(edges[7] + edges[8]) // 2]
    assert (np.abs(middle.astype(int) - INK).max(-1) < 20).any()
    assert (middle.max(-1) < 60).any()


def test_a_line_follows_its_values():
    values = np.array([0.0, 0, 0, 10, 0, 0, 0, 0, -10, 0])
    scene = draw_signal(values[:, None], np.zeros(10))
    y0, y1, x0, x1 = area(scene)
    light = (np.abs(pixels(scene.ground).astype(int) - INK).max(-1) < 60)[y0:y1, x0:x1]
    rows, columns = np.nonzero(light)
    step = (x1 - x0) / 10
    assert abs(columns[rows.argmin()] - 3.5 * step) < 4
    assert abs(columns[rows.argmax()] - 8.5 * step) < 4


@pytest.mark.parametrize("signed", [False, True])
def test_no_hot_position_of_a_long_signal_is_lost(signed):
    heat = np.zeros(100_000)
    heat[12_345] = -1 if signed else 1
    scene = draw_signal(flat(100_000), heat, alpha=1, signed=signed)
    y0, _, x0, x1 = area(scene)
    row = pixels(scene.overlay())[y0 + 5]
    end = colourise(np.array([heat[12_345]]), signed=signed)[0]
    (found,) = np.flatnonzero((row == end).all(-1))
    assert abs(found - x0 - 0.12345 * (x1 - x0)) <= 1


def test_no_spike_of_a_long_signal_is_lost():
    values = flat(100_000)
    values[70_000] = 1
    scene = draw_signal(values, np.zeros(100_000))
    y0, y1, x0, x1 = area(scene)
    upper = pixels(scene.ground)[y0 : (y0 + y1) // 2, x0:x1].max(-1) > 150
    columns = np.flatnonzero(upper.sum(0) > 20)
    assert abs(columns.mean() - 0.7 * (x1 - x0)) < 3


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 24, 25, 70])
def test_every_channel_is_drawn(channels):
    """Leaving one out, or making it flat, changes the drawing."""
    values = np.random.default_rng(0).normal(size=(30, channels))
    drawn = pixels(draw_signal(values, np.zeros(30)).ground)
    for channel in {0, channels // 2, channels - 1}:
        other = values.copy()
        other[:, channel] = other[::-1, channel]
        assert (pixels(draw_signal(other, np.zeros(30)).ground) != drawn).any()


def test_channels_in_lanes_keep_to_them():
    values = np.random.default_rng(0).normal(size=(50, 8))
    scene = draw_signal(values, np.zeros(50))
    y0, y1, x0, x1 = area(scene)
    light = (pixels(scene.ground)[y0:y1, x0 + 20 : x1 - 20] > 200).all(-1)
    lane = (y1 - y0) / 8
    for channel in range(8):
        inside = light[round(channel * lane) + 1 : round((channel + 1) * lane) - 1]
        # From left to right one line, of one channel, crosses each lane.
        assert (inside.any(0)).mean() > 0.8


@pytest.mark.parametrize("channels", [1, 6, 40])
def test_intervals_are_where_their_bands_are(channels):
    heat = np.zeros(40)
    heat[10:13] = 1
    scene = draw_signal(flat(40, channels), heat, alpha=1, intervals=[[10, 13]])
    changed = (pixels(scene.overlay()) != pixels(scene.ground)).any(-1)
    columns, rows = np.flatnonzero(changed.any(0)), np.flatnonzero(changed.any(1))
    x0, y0, x1, y1 = scene.frames[0]
    assert abs(np.array([x0, x1]) - [columns.min(), columns.max() + 1]).max() <= 1
    assert (rows.min(), rows.max() + 1) == (y0, y1)


@pytest.mark.parametrize("values", [np.zeros((1, 1)), np.zeros((9, 3)), np.full((3, 30), -7.5)])
def test_signals_without_any_change_are_drawn(values):
    scene = draw_signal(values, np.ones(len(values)))
    assert scene.overlay().width == SIDE


def test_without_heat_or_opacity_the_ground_is_left():
    values = np.random.default_rng(0).normal(size=(30, 2))
    scene = draw_signal(values, np.ones(30), alpha=0)
    assert scene.overlay().tobytes() == scene.ground.tobytes()
    voxels = np.full((3, 4, 5, 3), 90, np.uint8)
    scene = draw_volume(voxels, np.ones((3, 4, 5)), alpha=0)
    assert scene.overlay().tobytes() == scene.ground.tobytes()


def centres(scene, shape, side=SIDE):
    """Where the voxels' centres of the three slices lie in a drawing, found by their size."""
    depth, height, width = shape
    px = max(12, round(side / 48))
    scale = (side - 4 * px) / (2 * width + height)
    found, x = [], (side - scale * (2 * width + height) - 2 * px) / 2
    for rows, columns in ((height, width), (depth, width), (depth, height)):
        y = 2 * px + (np.arange(rows) + 0.5) * scale
        found.append((np.rint(y).astype(int), np.rint(x + (np.arange(columns) + 0.5) * scale)))
        x += columns * scale + px
    return [np.ix_(rows, columns.astype(int)) for rows, columns in found]


def test_the_slices_are_those_of_the_volume():
    shape = (7, 8, 6)
    voxels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scene = draw_volume(voxels, np.zeros(shape), (2, 5, 1))
    slices = voxels[2], voxels[:, 5], voxels[:, :, 1]
    for place, expected in zip(centres(scene, shape), slices, strict=True):
        np.testing.assert_array_equal(pixels(scene.ground)[place], expected)


def test_the_slices_meet_in_the_hottest_voxel():
    shape = (7, 8, 6)
    heat = np.zeros(shape)
    heat[4, 6, 2] = 1
    scene = draw_volume(np.full((*shape, 3), 60, np.uint8), heat, alpha=1)
    for place, at in zip(centres(scene, shape), ((6, 2), (4, 2), (4, 6)), strict=True):
        hot = (pixels(scene.overlay())[place] == HOT).all(-1)
        assert np.argwhere(hot).tolist() == [list(at)]


def test_marks_say_where_the_other_slices_are():
    shape, at = (7, 8, 6), (2, 5, 1)
    scene = draw_volume(np.zeros((*shape, 3), np.uint8), np.zeros(shape), at)
    marked = (pixels(scene.ground) == (0xA9, 0xB2, 0xBB)).all(-1)
    cuts = ((5, 1), (2, 1), (2, 5))
    for (rows, columns), (row, column) in zip(centres(scene, shape), cuts, strict=True):
        step = rows[1, 0] - rows[0, 0]
        left, bottom = columns[0, 0] - step // 2 - 3, rows[-1, 0] + step // 2 + 3
        beside = np.flatnonzero(marked[:, left]).mean()
        assert abs(beside - rows[row, 0]) < 2
        below = np.flatnonzero(marked[bottom, left : columns[0, -1] + step // 2])
        assert abs(below.mean() + left - columns[0, column]) < 2


def test_where_a_map_is_hottest():
    map = np.zeros((3, 4, 5))
    assert hottest(map) == (1, 2, 2)
    map[0, 3, 1], map[2, 0, 4] = 1, -2
    assert hottest(map) == (2, 0, 4)
    map[1, 1, 1] = np.nan
    assert hottest(map) == (1, 2, 2)
    assert hottest(np.array([0, 1, 3, 3])) == (2,)


@pytest.mark.parametrize("shape", [(200, 3, 4), (1, 1, 1), (2, 300, 3), (64, 96, 80)])
def test_volumes_of_any_shape_make_a_drawing_of_a_sensible_size(shape):
    heat = np.random.default_rng(0).random(shape)
    drawn = draw_volume(np.zeros((*shape, 3), np.uint8), heat).overlay()
    assert drawn.width == SIDE
    assert drawn.height < 1.2 * SIDE


def test_small_drawings_keep_their_letters():
    for side in (160, 300):
        scene = draw_signal(flat(30, 3), np.zeros(30), side=side)
        assert scene.ground.width == side
        assert draw_volume(np.zeros((3, 4, 5, 3), np.uint8), np.zeros((3, 4, 5)), side=side)


def test_what_does_not_fit():
    with pytest.raises(ArrayError, match=r"\(9,\)"):
        draw_signal(flat(10), np.zeros(9))
    with pytest.raises(ArrayError, match=r"\(4, 3, 5\)"):
        draw_volume(np.zeros((3, 4, 5, 3), np.uint8), np.zeros((4, 3, 5)))
    with pytest.raises(ParameterError, match="alpha"):
        draw_signal(flat(10), np.zeros(10), alpha=2)
    with pytest.raises(ParameterError, match="alpha"):
        draw_volume(np.zeros((3, 4, 5, 3), np.uint8), np.zeros((3, 4, 5)), alpha=2)
