"""Exhibits drawn on figures: what is drawn, where, and that nothing else is touched."""

from __future__ import annotations

import io
import itertools
import re

import matplotlib
import numpy as np
import pytest
from front.shown import curves, gallery, matrix, pixels, table
from PIL import Image

from cnnviz.exhibiting import draw, written
from cnnviz.figures import tiles
from cnnviz.figures.canvas import INK
from cnnviz.figures.lines import text_width, wrapped
from cnnviz.figures.matrix import fields_of
from cnnviz.wording import gallery_note
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Curves, Gallery, Line, Matrix, Table, Tile

KINDS = {"gallery": gallery, "curves": curves, "matrix": matrix, "table": table}


def rendered(figure):
    return np.asarray(Image.open(io.BytesIO(written([figure], ".png"))))


def texts(figure):
    """Give the texts of a figure as its SVG has them, in one."""
    svg = written([figure], ".svg").decode()
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def places_of(picture, sheet):
    """Find where a picture is in a sheet, pixel by pixel."""
    tall, wide = picture.shape[:2]
    first = np.all(sheet[: -tall + 1, : -wide + 1] == picture[0, 0], axis=-1)
    return [
        (int(y), int(x))
        for y, x in np.argwhere(first)
        if np.array_equal(sheet[y : y + tall, x : x + wide], picture)
    ]


@pytest.mark.parametrize("dpi", [72, 100, 150, 163])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (11, 7), (32, 64), (1, 9)])
def test_pixels_of_tiny_tiles_become_squares_of_whole_pixels(dpi, height, width):
    tile = pixels(height, width)
    sheet = rendered(draw([Gallery(((None, Tile(tile)), (Tile(tile), None)), side=90)], dpi=dpi))
    times = round(90 * dpi / 100) // max(height, width)
    assert times >= 1
    magnified = tile.repeat(times, axis=0).repeat(times, axis=1)
    assert len(places_of(magnified, sheet)) == 2


def test_many_tiles_lie_in_order_and_apart():
    tile = [pixels(5, 5, seed) for seed in range(64)]
    rows = [[Tile(tile[8 * i + j]) for j in range(8)] for i in range(8)]
    sheet = rendered(draw([Gallery(rows, side=20)], dpi=100))
    found = [places_of(each.repeat(4, axis=0).repeat(4, axis=1), sheet) for each in tile]
    assert all(len(each) == 1 for each in found)
    places = np.array(found).reshape(8, 8, 2)
    assert len(np.unique(places[..., 0])) == len(np.unique(places[..., 1])) == 8
    assert (np.diff(places[..., 0], axis=0) > 20).all()
    assert (np.diff(places[..., 1], axis=1) > 20).all()


def test_photographs_are_scaled_smoothly_to_the_side():
    photo = pixels(300, 200)
    sheet = rendered(draw([Gallery(((Tile(photo),),), side=150)], dpi=100))
    smooth = Image.fromarray(photo).resize((100, 150), Image.Resampling.LANCZOS)
    assert len(places_of(np.asarray(smooth), sheet)) == 1


def test_colours_of_heat_are_those_of_overlays():
    from cnnviz.colours import colourise
    from cnnviz.pictures import overlay

    heat, photo = np.linspace(0, 1, 100).reshape(10, 10), pixels(100, 100)
    alone = tiles.drawn(Tile(heat=heat), (40, 40), {})
    assert np.array_equal(alone[::4, ::4], colourise(heat))
    stretched = Image.fromarray(heat.astype(np.float32)).resize((100, 100), Image.BILINEAR)
    over = tiles.drawn(Tile(photo, heat=heat), (100, 100), {})
    assert np.array_equal(over, np.asarray(overlay(photo, np.asarray(stretched))))
    cold = tiles.drawn(Tile(photo, heat=-np.ones((1, 1)), signed=True, fine=True), (100, 100), {})
    assert cold[..., 2].mean() > cold[..., 0].mean()


def test_each_class_has_the_colour_of_its_legend():
    from PIL import ImageColor

    tile = Tile(classes=np.array([[0, 0, 1], [2, -1, 0]]), legend=("ant", "bee", "cat", "dog"))
    colours, others = tiles.class_colours([tile])
    assert list(colours) == ["ant", "bee", "cat"]
    assert others == ()
    drawn = tiles.drawn(tile, (6, 4), colours)
    for place, name in {(0, 0): "ant", (0, 2): "bee", (1, 0): "cat"}.items():
        shown = drawn[2 * place[0], 2 * place[1]]
        assert tuple(shown) == ImageColor.getrgb(colours[name])
    assert len(set(map(tuple, drawn.reshape(-1, 3)))) == 4
    # A class keeps its colour in a tile with another legend.
    again = tiles.drawn(Tile(classes=[[0]], legend=("cat",)), (1, 1), colours)
    assert tuple(again[0, 0]) == ImageColor.getrgb(colours["cat"])


def test_where_there_are_no_classes_the_picture_is_seen():
    photo = pixels(70, 70)
    tile = Tile(photo, classes=[[-1, 0]], legend=("ant",))
    drawn = tiles.drawn(tile, (70, 70), {"ant": "#ff0000"})
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    assert np.array_equal(drawn[:, :35], np.repeat(grey[:, :35, None], 3, axis=2))
    assert (drawn[:, 35:, 0] > drawn[:, 35:, 1]).all()


def test_many_classes_share_a_colour_that_says_so():
    n = len(tiles.PALETTE)
    for count, shared in ((n, 0), (n + 1, 2), (40, 40 - n + 1)):
        classes = np.repeat(np.arange(count), np.arange(count, 0, -1))[None]
        tile = Tile(classes=classes, legend=[f"class {k}" for k in range(count)])
        colours, others = tiles.class_colours([tile])
        assert len(others) == shared
        # The rarest ones share.
        assert others == tuple(f"class {k}" for k in range(count - shared, count))
        own = [colour for name, colour in colours.items() if name not in others]
        assert len(set(own)) == len(own)
        assert tiles.OTHER not in own
        legend = texts(draw([Gallery(((tile,),))]))
        assert (f"{shared} others" in legend) == bool(shared)


def test_colours_of_classes_differ_for_the_colour_blind():
    from PIL import ImageColor

    # Viénot, Brettel and Mollon (1999): how dichromats see, for linear RGB.
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    linear = (np.array([ImageColor.getrgb(c) for c in tiles.PALETTE[:8]]) / 255) ** 2.2
    for eye in (np.eye(3), protan, deutan):
        seen = 255 * np.clip(linear @ eye.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[~np.eye(8, dtype=bool)].min() > 25


def test_boxes_are_drawn_where_they_are():
    plain = Tile(np.full((200, 200, 3), 120, np.uint8))
    boxed = Tile(plain.pixels, boxes=((50, 20, 150, 120),))
    before, after = (
        rendered(draw([Gallery(((tile,),), side=200)], dpi=100)) for tile in (plain, boxed)
    )
    y, x = np.nonzero((before != after).any(-1))
    corner = np.argwhere((before == 120).all(-1))[0]
    found = [x.min() - corner[1], y.min() - corner[0], x.max() - corner[1], y.max() - corner[0]]
    assert np.abs(np.array(found) - (50, 20, 150, 120)).max() <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_pyplot_or_of_the_settings_is_left(kind):
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        changed = written([draw([KINDS[kind]()])], ".svg")
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
    assert changed == written([draw([KINDS[kind]()])], ".svg")


def test_words_of_all_kinds_are_text_in_vector_files():
    figure = draw([make() for make in KINDS.values()], title="A title", footer="At the foot")
    words = texts(figure)
    for expected in (
        *("A title", "At the foot", "All kinds of tiles", "first", "above", "A note below."),
        *("Äpfel im Korb", "signed $x_1$", "a box", "ant", "bee"),
        *("conv1", "conv2", "rotation (degrees)", "distance", "as it is", "−30"),
        *("an ant of many words", "true", "predicted", "26 pictures"),
        *("probability", "one.png", "12.5", "The worst first."),
    ):
        assert expected in words


def test_a_title_is_written_once():
    assert texts(draw([table()], title="Mistakes")).count("Mistakes") == 1


def test_letters_that_the_font_lacks_do_not_warn():
    figure = draw([Gallery(((Tile(pixels(80, 80), caption="猫 in 東京"),),), side=120)])
    assert rendered(figure).shape[2] == 3
    assert "猫" in texts(figure)


def test_curves_have_their_values_bands_and_gaps():
    axes = draw([curves()]).axes
    (plot,) = [each for each in axes if each.get_label() == "Distances"]
    first, second = (line for line in plot.lines if line.get_label() in ("conv1", "conv2"))
    assert np.array_equal(first.get_ydata(), curves().lines[0].y)
    assert np.isnan(second.get_ydata()[1])
    assert first.get_color() != second.get_color()
    (band,) = plot.collections
    assert band.get_paths()[0].get_extents().y1 == pytest.approx(1.1)
    marks = sorted(line.get_xdata()[0] for line in plot.lines if line.get_linestyle() == "--")
    assert marks == [0.0, 2.0]


def test_pictures_lie_below_their_places():
    figure = draw([curves()], dpi=100)
    plot, words = figure.axes[1:]
    for image, (x, _) in zip(words.images, curves().pictures, strict=True):
        left, right, _, _ = image.get_extent()
        middle = words.transData.transform(((left + right) / 2, 0))[0]
        assert abs(middle - plot.transData.transform((x, 0))[0]) <= 1
    sides = [image.get_extent()[:2] for image in words.images]
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(sides))


def test_pictures_for_which_there_is_no_room_are_left_out():
    x = np.arange(200.0)
    exhibit = curves(
        x=x, lines=(Line("a", x),), y_range=None, pictures=[(k, Tile(pixels(4, 4))) for k in x]
    )
    images = draw([exhibit], dpi=100).axes[2].images
    assert 5 < len(images) < 40
    assert images[0].get_size() >= (32, 32)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_names_at_the_ends_of_curves_are_legible(level):
    flat = [Line(f"layer {k}", np.full(3, level)) for k in range(30)]
    figure = draw([Curves(np.arange(3.0), flat, title="flat", y_range=(0, 1))], dpi=100)
    names = [t for t in figure.axes[2].texts if t.get_text().startswith("layer")]
    heights = sorted(text.get_position()[1] for text in names)
    assert len(names) == 30
    assert np.diff(heights).min() >= 12
    assert heights[0] >= 0
    assert heights[-1] <= figure.axes[2].get_ylim()[0]
    assert {text.get_color() for text in names} == {INK}


@pytest.mark.parametrize("count", [1, 7, 8, 13, 21, 22, 40])
def test_no_two_lines_look_the_same_and_names_stand_by_a_piece_of_their_line(count):
    x = np.linspace(0, 1, 30)
    lines = [Line(f"method {k}", np.exp(-x * k) * (1 - x)) for k in range(count)]
    _, plot, words = draw([Curves(x, lines, title="decay")], dpi=100).axes
    looks = [(line.get_color(), line._unscaled_dash_pattern) for line in plot.lines]
    assert len({str(look) for look in looks}) == count
    texts = {t.get_text(): t.get_position()[1] for t in words.texts if "method" in t.get_text()}
    samples = [line for line in words.lines if line.get_linewidth() > 1]
    for k, (line, sample) in enumerate(zip(plot.lines, samples, strict=True)):
        # All lines end at 0, so their names stand in the order of their means, the first on top.
        assert sample.get_color() == line.get_color()
        assert sample.get_linestyle() == line.get_linestyle()
        assert abs(texts[f"method {k}"] - sample.get_ydata()[0]) < 12
    heights = [texts[f"method {k}"] for k in range(count)]
    assert heights == sorted(heights)


def test_numbers_of_a_matrix():
    def text(values):
        return [[field.text for field in row] for row in fields_of(np.array(values))]

    assert text([[3, 0], [-1, 12]]) == [["3", "0"], ["−1", "12"]]
    assert text([[0.25, np.nan]]) == [["0.25", ""]]
    assert text([[1200.5, 3.0]]) == [["1.2e+03", "3"]]
    assert text([[True, False]]) == [["1", "0"]]


def test_fields_of_a_matrix_are_legible_and_in_order():
    def light(colour):
        return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) @ (0.299, 0.587, 0.114)

    (row,) = fields_of(np.arange(11.0)[None])
    lights = [light(field.ground) for field in row]
    assert lights == sorted(lights, reverse=True)
    assert all(abs(light(field.ink) - light(field.ground)) > 90 for field in row[1:])
    cold, none, hot = (light(field.ground) for field in fields_of(np.array([[-2.0, 0, 2.0]]))[0])
    assert none > 240
    assert max(cold, hot) < 60


@pytest.mark.parametrize("n", [2, 8, 20, 60])
def test_matrices_of_any_size_are_drawn(n):
    labels = [f"class number {k}" for k in range(n)]
    figure = draw([Matrix(np.arange(n * n).reshape(n, n), labels, labels, title="m")], dpi=100)
    (image,) = figure.axes[1].images
    assert np.array_equal(image.get_array(), np.arange(n * n).reshape(n, n))
    shown = {text.get_text() for text in figure.axes[2].texts}
    assert set(labels) <= shown
    assert (str(n * n - 1) in shown) == (n <= 20)
    bounds = figure.axes[2].get_tightbbox(figure.canvas.get_renderer())
    assert bounds.x0 >= 0
    assert bounds.y0 >= 0


def test_columns_of_a_table_are_aligned():
    figure = draw([table()], dpi=100)
    where = {t.get_text(): t for t in figure.axes[1].texts}
    assert where["one.png"].get_position()[0] == where["picture"].get_position()[0]
    for text in ("0.25", "12.5"):
        assert where[text].get_ha() == "right"
        assert where[text].get_position()[0] == where["probability"].get_position()[0]


def test_a_width_is_kept_and_what_is_shown_fits():
    rows = [[Tile(pixels(120, 120), caption=f"tile {k}") for k in range(10)]]
    figure = draw([Gallery(rows, side=192), table(), matrix(), curves()], width=6.0, dpi=100)
    assert figure.get_size_inches()[0] == 6.0
    for axes in figure.axes:
        for image in axes.images:
            assert image.get_extent()[1] <= 600
    natural = draw([Gallery(rows, side=192)], dpi=100)
    assert natural.get_size_inches()[0] > 10


def test_long_words_break_and_long_texts_end_in_an_ellipsis():
    lines = wrapped("ILSVRC2012_val_00000023.JPEG of a folder", 10, 100, 9)
    assert "".join(lines).replace(" ", "") == "ILSVRC2012_val_00000023.JPEGofafolder"
    assert all(text_width(line, 10) <= 100 for line in lines)
    assert lines[0].endswith("_")
    short = wrapped("word " * 50, 10, 100, 3)
    assert len(short) == 3
    assert short[-1].endswith("…")
    assert text_width(short[-1], 10) <= 100
    assert wrapped("two\nlines", 10, 100, 3) == ("two", "lines")
    assert wrapped("", 10, 100, 3) == ()


def test_long_captions_wrap_below_their_tile():
    tile = Tile(pixels(100, 100), caption="a caption that is much wider than the picture above it")
    field = draw([Gallery(((tile, tile),), side=100)], dpi=100).axes[1]
    lines = [text.get_text() for text in field.texts]
    assert len(lines) == 6
    assert all(text_width(line, 10) <= 100 for line in lines)


def test_letters_are_as_wide_as_they_are_measured():
    figure = draw([], title="The quick brown fox, jumping: ÄÖÜ")
    (text,) = figure.axes[0].texts
    wide = text.get_window_extent(figure.canvas.get_renderer()).width
    measured = text_width(text.get_text(), text.get_fontsize() * 150 / 72)
    assert wide == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(
    "exhibit",
    [
        Gallery(()),
        Gallery(((None, None),)),
        Gallery(((), (Tile(pixels(3, 3)),))),
        Curves(np.array([]), ()),
        Curves(np.array([1.0]), (Line("dot", np.array([2.0])),)),
        Curves(np.arange(3.0), (Line("nothing", np.full(3, np.nan)),)),
        Table(("a",), ()),
        Table((), ()),
        Matrix(np.zeros((2, 2)), ("a", "b"), ("a", "b")),
        Matrix(np.full((1, 2), np.nan), ("a",), ("a", "b")),
    ],
)
def test_what_holds_little_is_drawn_without_a_warning(exhibit):
    assert rendered(draw([exhibit])).size


def test_sizes_that_cannot_be_are_refused():
    for wrong in ({"dpi": 0}, {"dpi": float("nan")}, {"width": -1}):
        with pytest.raises(ParameterError, match="is no size"):
            draw([table()], **wrong)
    rows = [[Tile(pixels(100, 100))]] * 400
    with pytest.raises(ParameterError, match="figures"):
        draw([Gallery(rows)])


def test_files_are_the_same_each_time():
    for suffix in (".png", ".svg", ".pdf"):
        first, second = (written([draw([gallery(), curves()])], suffix) for _ in range(2))
        assert first == second


def test_signed_heat_has_a_key():
    heat = np.eye(3)
    plain, signed = (
        Gallery(((Tile(heat=heat, signed=s),),), note="A note.") for s in (False, True)
    )
    assert gallery_note(plain) == "A note."
    assert gallery_note(signed) == "A note. Orange is positive, blue negative."
    over_pixels = Tile(np.zeros((3, 3, 3), np.uint8), signed=True)
    assert gallery_note(Gallery(((over_pixels, None),))) == ""
