"""Colours, overlays, boxes and sheets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from cnnviz.colours import COLOURS, SIGNED_COLOURS, colourise
from cnnviz.pictures import (
    FOUND,
    Cell,
    Outline,
    contact_sheet,
    draw_boxes,
    encode,
    heat_layer,
    overlay,
    percent,
    stamp,
)
from cnnviz_core.errors import ArrayError, ParameterError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
BOX_COLOUR = (0x3F, 0xD8, 0xFF)


def luminance(rgb):
    return np.asarray(rgb) @ [0.213, 0.715, 0.072]


# Colours.


def test_colours_are_matplotlib_s():
    import matplotlib

    values = np.linspace(0, 1, 256)
    for name in ("viridis", "turbo", COLOURS):
        expected = matplotlib.colormaps[name](values, bytes=True)[:, :3]
        assert np.array_equal(colourise(values, name), expected)


def test_heat_gets_brighter():
    assert (np.diff(luminance(colourise(np.linspace(0, 1, 256)))) > -0.5).all()


def test_signed_heat_is_dark_at_zero_and_told_apart_by_its_sign():
    values = np.linspace(-1, 1, 257)
    colours = colourise(values, signed=True).astype(int)
    assert luminance(colours).argmin() in (127, 128, 129)
    red, blue = colours[:, 0], colours[:, 2]
    assert (red[160:] > blue[160:]).all()
    assert (red[:97] < blue[:97]).all()


@given(st.floats(-10, 10))
def test_what_lies_beyond_takes_the_end_s_colour(value):
    assert np.array_equal(colourise([value]), colourise([min(max(value, 0), 1)]))
    clipped = colourise([min(max(value, -1), 1)], signed=True)
    assert np.array_equal(colourise([value], signed=True), clipped)


def test_unknown_colours():
    with pytest.raises(ParameterError) as info:
        colourise([0.5], "infermo")
    assert "'inferno'" in info.value.remedy
    assert np.array_equal(colourise([0.5], SIGNED_COLOURS), colourise([0], signed=True))


def test_nan_has_no_colour():
    with pytest.raises(ArrayError, match="NaN"):
        colourise([np.nan])


# Overlays.


def test_cold_places_are_clear_and_hotter_ones_more_opaque():
    heat = np.linspace(0, 1, 101)[None]
    for fine in (False, True):
        opacity = heat_layer(heat, alpha=0.8, fine=fine)[0, :, 3].astype(int)
        assert opacity[0] == 0
        assert opacity[-1] == round(0.8 * 255)
        assert (np.diff(opacity) >= 0).all()
        signed = heat_layer(-heat, alpha=0.8, fine=fine, signed=True)[0, :, 3]
        assert np.array_equal(signed, opacity)


def test_alpha_zero_is_the_photograph():
    heat = RNG.random((60, 80))
    for fine in (False, True):
        assert np.array_equal(np.asarray(overlay(PHOTO, heat, alpha=0, fine=fine)), PHOTO)


def test_an_overlay_mixes_photograph_and_colour():
    heat = np.ones((60, 80))
    hot = colourise(1.0)
    assert np.array_equal(np.asarray(overlay(PHOTO, heat, alpha=1))[5, 6], hot)
    mixed = np.asarray(overlay(PHOTO, heat, alpha=0.5)).astype(float)
    ground = 2 * mixed - hot
    # What is left of the photograph is darker and greyer, but the same scene.
    assert np.corrcoef(luminance(ground).ravel(), luminance(PHOTO).ravel())[0, 1] > 0.999
    assert luminance(ground).mean() < luminance(PHOTO).mean()
    assert np.ptp(ground, axis=-1).mean() < np.ptp(PHOTO.astype(float), axis=-1).mean()


def test_the_photograph_is_dimmed_by_the_stated_share():
    grey = np.full((4, 4, 3), 200, np.uint8)
    cold = np.zeros((4, 4))
    assert abs(np.asarray(overlay(grey, cold, alpha=1.0)).astype(int) - 160).max() <= 1
    assert abs(np.asarray(overlay(grey, cold, alpha=1.0, fine=True)).astype(int) - 70).max() <= 1
    assert abs(np.asarray(overlay(grey, cold, alpha=0.5)).astype(int) - 180).max() <= 1


def test_the_photograph_is_greyed_by_the_stated_share():
    colour = np.broadcast_to(np.array([200, 100, 50], np.uint8), (4, 4, 3))
    grey = luminance(colour[0, 0])
    for fine, kept, light in ((False, 0.45, 0.8), (True, 0.2, 0.35)):
        cold = np.asarray(overlay(colour, np.zeros((4, 4)), alpha=1.0, fine=fine))
        expected = (grey + (colour - grey) * kept) * light
        assert np.abs(cold - expected).max() <= 1.5


def test_overlay_refuses_what_does_not_fit():
    with pytest.raises(ArrayError, match=r"\(3, 4\)"):
        overlay(PHOTO, np.zeros((3, 4)))
    for alpha in (-0.1, 1.1):
        with pytest.raises(ParameterError, match="alpha"):
            overlay(PHOTO, np.zeros((60, 80)), alpha=alpha)


# Boxes.


@given(st.integers(2, 30), st.integers(2, 30), st.integers(4, 40), st.integers(4, 25))
def test_a_box_is_drawn_on_its_outermost_pixels(x0, y0, width, height):
    drawn = np.asarray(
        draw_boxes(np.full((60, 80, 3), 128, np.uint8), [(x0, y0, x0 + width, y0 + height)])
    )
    rows, columns = np.nonzero((drawn == BOX_COLOUR).all(-1))
    assert (columns.min(), columns.max() + 1) == (x0, x0 + width)
    assert (rows.min(), rows.max() + 1) == (y0, y0 + height)


def test_the_picture_is_left_as_it_is():
    image = Image.fromarray(PHOTO)
    draw_boxes(image, [(5, 5, 20, 20)], labels=["cat"])
    stamp(image, "a note")
    assert np.array_equal(np.asarray(image), PHOTO)


def test_no_boxes_change_nothing():
    assert np.array_equal(np.asarray(draw_boxes(PHOTO, np.zeros((0, 4), int))), PHOTO)


def test_boxes_at_the_border_and_beyond():
    for box in ((0, 0, 80, 60), (-20, -20, 10, 10), (79, 59, 80, 60), (200, 200, 210, 210)):
        for labels in ((), ("a label",)):
            assert draw_boxes(PHOTO, [box], labels=labels).size == (80, 60)


def test_a_label_is_written_beside_its_box():
    plain = np.asarray(draw_boxes(PHOTO, [(10, 30, 40, 50)]))
    named = np.asarray(draw_boxes(PHOTO, [(10, 30, 40, 50)], labels=["cat"]))
    rows, columns = np.nonzero((plain != named).any(-1))
    assert rows.max() < 31
    assert columns.min() >= 10


def test_a_note_is_written_on_the_foot_of_the_picture():
    large = np.full((200, 300, 3), 128, np.uint8)
    changed = (np.asarray(stamp(large, "all zero: nothing found")) != large).any(-1)
    assert not changed[10:-40, 10:-10].any()
    assert changed[-20:, 50:-50].any()
    tiny = np.full((20, 20, 3), 128, np.uint8)
    changed = (np.asarray(stamp(tiny, "all zero: nothing found")) != tiny).any(-1)
    assert changed[0].all()
    assert not changed[1:-1, 1:-1].any()


# Sheets.


def found_colours(sheet, colour):
    return (np.asarray(sheet) == colour).all(-1)


def flat(colour, size=(30, 40)):
    return np.broadcast_to(np.array(colour, np.uint8), (*size, 3))


def test_a_sheet_shows_every_picture_in_its_place():
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 0, 250)]]
    sheet = contact_sheet([[Cell(flat(c)) for c in row] for row in colours], cell=100)
    places = {}
    for i, row in enumerate(colours):
        for j, colour in enumerate(row):
            rows, columns = np.nonzero(found_colours(sheet, colour))
            assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (75, 100)
            places[i, j] = rows.min(), columns.min()
    assert places[0, 0][0] == places[0, 1][0] < places[1, 0][0] == places[1, 1][0]
    assert places[0, 0][1] == places[1, 0][1] < places[0, 1][1] == places[1, 1][1]


def test_words_make_a_sheet_larger_and_cover_no_picture():
    cells = [[Cell(flat((250, 0, 0))), Cell(flat((0, 250, 0)))]]
    bare = contact_sheet(cells, cell=100)
    worded = contact_sheet(
        [[Cell(flat((250, 0, 0)), "a caption\nin two lines"), Cell(flat((0, 250, 0)), "b")]],
        column_titles=["left", "right, with a long name that needs lines"],
        row_titles=["a row"],
        title="A title",
        footer="A footer",
        cell=100,
    )
    assert worded.width > bare.width
    assert worded.height > bare.height
    for colour in ((250, 0, 0), (0, 250, 0)):
        assert found_colours(bare, colour).sum() == found_colours(worded, colour).sum() == 7500


def test_a_missing_picture_leaves_its_place_empty():
    cells = [
        [Cell(flat((250, 0, 0))), None],
        [Cell(None, note="cannot run"), Cell(flat((0, 9, 0)))],
    ]
    full = [[Cell(flat((250, 0, 0)))] * 2, [Cell(flat((0, 9, 0)))] * 2]
    assert contact_sheet(cells, cell=100).size == contact_sheet(full, cell=100).size
    alone = [cells[0], [Cell(None, note="cannot run"), None]]
    rows = np.flatnonzero((np.asarray(contact_sheet(alone, cell=100)) != 255).any((1, 2)))
    assert np.ptp(rows) > 75 + 40
    ragged = [[Cell(flat((250, 0, 0)))], full[1]]
    assert contact_sheet(ragged, cell=100).size == contact_sheet(full, cell=100).size


def test_outlines_follow_the_picture_s_scale():
    cell = Cell(flat((250, 0, 0), (50, 50)), outlines=[Outline((10, 20, 30, 40))])
    sheet = contact_sheet([[cell]], cell=200)
    rows, columns = np.nonzero(found_colours(sheet, BOX_COLOUR))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (80, 80)
    red_rows, red_columns = np.nonzero(found_colours(sheet, (250, 0, 0)))
    assert rows.min() - red_rows.min() == 80
    assert columns.min() - red_columns.min() == 40


def test_tiny_pictures_keep_their_pixels():
    pixels = RNG.integers(0, 200, (8, 8, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet([[Cell(pixels)]], cell=96))
    rows, columns = np.nonzero((sheet != 255).any(-1))
    picture = sheet[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(picture, pixels.repeat(12, 0).repeat(12, 1))


def test_portraits_and_landscapes_share_a_sheet():
    cells = [[Cell(flat((250, 0, 0), (90, 10))), Cell(flat((0, 250, 0), (10, 90)))]]
    sheet = contact_sheet(cells, cell=90)
    for colour, size in (((250, 0, 0), (90, 10)), ((0, 250, 0), (10, 90))):
        rows, columns = np.nonzero(found_colours(sheet, colour))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == size


def test_letters_that_pillow_s_font_lacks_are_drawn_all_the_same():
    def written(text):
        sheet = contact_sheet([[Cell(flat((250, 0, 0)), text)]], cell=100)
        return np.asarray(sheet).tobytes()

    # Pillow's own font has one and the same mark for both.
    mark = ImageFont.load_default(12).getmask
    assert bytes(mark("ü")) == bytes(mark("ж"))
    assert written("ü") != written("ж")


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([], {}),
        ([[None, None]], {}),
        ([[Cell(flat((1, 2, 3)))]], {"column_titles": ["a", "b"]}),
        ([[Cell(flat((1, 2, 3)))]], {"row_titles": ["a", "b"]}),
        ([[Cell(flat((1, 2, 3)))]], {"cell": 5}),
    ],
)
def test_a_sheet_that_does_not_fit_together(rows, options):
    with pytest.raises(ParameterError):
        contact_sheet(rows, **options)


def test_encoded_pictures_can_be_read():
    image = Image.fromarray(PHOTO)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(image)))), PHOTO)
    smooth = Image.fromarray(np.dstack([np.mgrid[:60, :80].sum(0)] * 3).astype(np.uint8))
    for format in ("JPEG", "WEBP"):
        read = np.asarray(Image.open(io.BytesIO(encode(smooth, format))))
        assert abs(read.astype(int) - np.asarray(smooth)).max() <= 4


def test_percent():
    assert [percent(p) for p in (0, 0.004, 0.01, 0.555, 1)] == [
        "< 1 %",
        "< 1 %",
        "1 %",
        "56 %",
        "100 %",
    ]


def test_the_colour_of_boxes_is_the_one_tested_here():
    assert "#{:02x}{:02x}{:02x}".format(*BOX_COLOUR) == FOUND
