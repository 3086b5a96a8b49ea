"""From an item to a network's input: where boxes and masks go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

import cnnviz
from cnnviz.datasets import annotation_of, dataset_of, open_dataset, prepare_item
from cnnviz.datasets.preparing import mask_to_input
from cnnviz.images import read_picture
from cnnviz.preprocess import Geometry, prepare
from cnnviz_core.errors import ParameterError
from cnnviz_core.preprocessing import Preprocessing

sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)


def white(size, box):
    """A black picture that is white in a box."""
    picture = np.zeros((*size, 3), np.uint8)
    x0, y0, x1, y1 = box
    picture[y0:y1, x0:x1] = 255
    return picture


@st.composite
def boxed(draw, least=1):
    """A picture's size, and a box of whole pixels in it."""
    height, width = draw(st.integers(max(8, least), 60)), draw(st.integers(max(8, least), 60))
    x0, y0 = draw(st.integers(0, width - least)), draw(st.integers(0, height - least))
    x1 = draw(st.integers(x0 + least, width))
    y1 = draw(st.integers(y0 + least, height))
    return (height, width), (x0, y0, x1, y1)


@given(
    boxed(),
    st.one_of(st.none(), st.integers(8, 50), st.tuples(*[st.integers(8, 50)] * 2)),
    st.tuples(*[st.integers(8, 50)] * 2),
)
def test_what_is_white_in_the_picture_is_in_the_box_of_the_input(picture, resize, size):
    """Pixels brighter than half lie inside the box, to half a pixel, wherever it went."""
    original, box = picture
    pixels = white(original, box)
    steps = Preprocessing(size=size, resize=resize)
    x, geometry = prepare(read_picture(pixels), steps)
    (item,) = dataset_of([pixels], boxes=[[box]])
    annotation, problems = annotation_of(item, geometry)
    rows, columns = np.nonzero(x[..., 0] > 0.5)
    if not len(annotation.boxes):
        assert [p.kind for p in problems] == ["not visible"]
        assert len(rows) == 0
        return
    ((x0, y0, x1, y1),) = annotation.boxes
    height, width = size
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assume(len(rows))
    assert columns.min() >= x0 - 0.5
    assert columns.max() + 1 <= x1 + 0.5
    assert rows.min() >= y0 - 0.5
    assert rows.max() + 1 <= y1 + 0.5


@given(boxed(least=6), st.integers(20, 60), st.integers(20, 60))
def test_the_box_of_the_input_is_no_larger_than_what_is_white(picture, height, width):
    """The other way round: a box that grows is filled, to half a pixel of the picture's."""
    original, box = picture
    pixels = white(original, box)
    x, geometry = prepare(read_picture(pixels), Preprocessing(size=(height, width)))
    assume(height >= original[0] and width >= original[1])
    (item,) = dataset_of([pixels], boxes=[[box]])
    ((x0, y0, x1, y1),) = annotation_of(item, geometry)[0].boxes
    rows, columns = np.nonzero(x[..., 0] >= 0.499)
    assert columns.min() <= x0 + 1
    assert columns.max() + 1 >= x1 - 1
    assert rows.min() <= y0 + 1
    assert rows.max() + 1 >= y1 - 1


@st.composite
def geometries(draw):
    original, resized, size = draw(sizes), draw(sizes), draw(sizes)
    offset = tuple(
        -((s - r) // 2) if s > r else round((r - s) / 2) for s, r in zip(size, resized, strict=True)
    )
    return Geometry(original, resized, offset, size)


@given(geometries(), st.integers(0, 9))
def test_masks_follow_the_pixels_centres(geometry, seed):
    """One by one: the input's pixel centre, taken back, lies on the pixel whose value it has."""
    mask = np.random.default_rng(seed).choice([0, 1, 255], geometry.original).astype(np.uint8)
    moved = mask_to_input(mask, geometry)
    assert moved.shape == geometry.size
    assert moved.dtype == np.uint8
    for row in range(geometry.size[0]):
        for column in range(geometry.size[1]):
            centre = np.array([[column, row, column + 1, row + 1]])
            x0, y0, x1, y1 = geometry.boxes_to_original(centre)[0]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if not (0 < x < geometry.original[1] and 0 < y < geometry.original[0]):
                assert moved[row, column] == 0
            elif min(abs(x - round(x)), abs(y - round(y))) > 1e-9:
                assert moved[row, column] == mask[int(y), int(x)]


@given(boxed(), st.integers(1, 5), st.tuples(*[st.integers(-9, 40)] * 2), sizes)
def test_masks_agree_with_how_maps_are_laid_over_the_picture(picture, factor, offset, size):
    """A mask that is brought to a finer input, and back as a map is, is what the input shows."""
    original, box = picture
    inside = white(original, box)[..., 0] > 0
    geometry = Geometry(original, tuple(factor * n for n in original), offset, size)
    assume(
        all(o < factor * n and o + s > 0 for o, n, s in zip(offset, original, size, strict=True))
    )
    seen = geometry.map_to_original(np.ones(size), "nearest") > 0
    back = geometry.map_to_original(mask_to_input(inside.astype(float), geometry), "nearest")
    assert np.array_equal(back, inside & seen)


@given(geometries())
def test_the_part_says_where_the_input_lies(geometry):
    """A linear map from the part to the input takes boxes where the geometry takes them."""
    (item,) = dataset_of([np.zeros(geometry.original)])
    part = annotation_of(item, geometry)[0].part
    x0, y0, x1, y1 = part or (0, 0, geometry.original[1], geometry.original[0])
    height, width = geometry.size
    point = np.array([[3.0, 4.0, 5.0, 7.0]])
    expected = (point - [x0, y0, x0, y0]) * (
        np.tile([width, height], 2) / np.tile([x1 - x0, y1 - y0], 2)
    )
    assert np.allclose(geometry.boxes_to_input(point), expected)
    assert (part is None) == (geometry.offset == (0, 0) and geometry.size == geometry.resized)


def test_a_resize_and_a_crop_by_hand():
    pixels = np.zeros((100, 200, 3), np.uint8)
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 90:110] = 1
    mask[:20] = 255
    (item,) = dataset_of(
        [pixels],
        labels=["bee"],
        boxes=[[[90, 40, 110, 60], [0, 0, 20, 100], [60, 0, 120, 100]]],
        masks=[mask],
        difficult=[True],
    )
    _, geometry = prepare(read_picture(pixels), Preprocessing(size=(40, 40), resize=50))
    annotation, problems = annotation_of(item, geometry, 1)
    assert annotation.boxes.tolist() == [[15, 15, 25, 25], [0, 0, 30, 40]]
    expected = np.zeros((40, 40))
    expected[15:25, 15:25] = 1
    expected[:5] = 255
    assert np.array_equal(annotation.mask, expected)
    assert annotation.part == (60, 10, 140, 90)
    assert annotation.picture == (100, 200)
    assert (annotation.label, annotation.difficult) == (1, True)
    assert annotation.name == "picture-1"
    (problem,) = problems
    assert problem.kind == "not visible"
    assert "its box the network sees nothing" in problem.what


def test_a_mask_that_is_cut_away():
    mask = np.zeros((10, 30), np.uint8)
    mask[:, :3] = 1
    (item,) = dataset_of([np.zeros((10, 30))], masks=[mask])
    annotation, problems = annotation_of(item, Geometry((10, 30), (10, 30), (0, 10), (10, 10)))
    assert annotation.mask is None
    assert [p.kind for p in problems] == ["not visible"]


def test_an_item_is_prepared_for_a_network(network):
    pixels = white((30, 41), (10, 6, 20, 12))
    (item,) = dataset_of([pixels], labels=["bee"], boxes=[[[10, 6, 20, 12]]], names=["a"])
    made = prepare_item(item, network, {"bee": 1})
    x, geometry = prepare(read_picture(pixels), network.preprocessing)
    assert np.array_equal(made.sample.x, x)
    assert made.sample.geometry == geometry
    assert np.array_equal(made.sample.pixels, pixels)
    assert made.annotation.label == 1
    assert np.allclose(made.annotation.boxes, geometry.boxes_to_input(item.boxes))
    assert made.annotation.part is None
    assert made.problems == ()
    assert prepare_item(item, network).annotation.label is None
    assert prepare_item(item, network, {"ant": 0}).annotation.label is None


def scaled(height, width):
    """A user's preprocessing function."""
    return lambda pixels: np.asarray(Image.fromarray(pixels).resize((width, height))) / 255


def test_a_function_that_keeps_the_ratio_of_sides_shows_the_whole_picture(model):
    (item,) = dataset_of([np.zeros((25, 19, 3))], boxes=[[[2, 4, 19, 25]]])
    made = prepare_item(item, cnnviz.wrap(model, preprocess=scaled(12, 9)))
    assert np.allclose(made.annotation.boxes, [[18 / 19, 48 / 25, 9, 12]])


def test_a_function_that_does_not_says_nothing_of_boxes(model):
    known = cnnviz.wrap(model, preprocess=scaled(12, 9))
    picture = np.zeros((30, 41, 3))
    (item,) = dataset_of([picture], boxes=[[[2, 4, 19, 25]]])
    with pytest.raises(ParameterError, match="made 9 x 12 of picture-1, which is 41 x 30"):
        prepare_item(item, known)
    (item,) = dataset_of([picture], masks=[np.ones((30, 41))])
    with pytest.raises(ParameterError):
        prepare_item(item, known)
    (item,) = dataset_of([picture])
    assert prepare_item(item, known).annotation.boxes.shape == (0, 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_picture(tmp_path, suffix, orientation):
    stored = np.random.default_rng(0).integers(0, 256, (30, 48, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    (item,) = open_dataset(tmp_path)
    upright = read_picture(path)
    assert item.size == upright.size == ((30, 48) if orientation < 5 else (48, 30))
    assert np.array_equal(item.read().pixels, upright.pixels)
    height, width = item.size
    (tmp_path / "d.csv").write_text(f"image,x0,y0,x1,y1\na.{suffix},1,2,{width},{height}\n")
    dataset = open_dataset(tmp_path / "d.csv")
    assert dataset[0].boxes.tolist() == [[1, 2, width, height]]
    assert dataset.problems == ()


def test_boxes_of_a_picture_that_was_annotated_on_its_side_are_left_out(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 48, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    lines = "image,label,x0,y0,x1,y1,width,height\na.jpg,cat,1,2,3,4,{},{}\n"
    for size, boxes, counts in [
        ((30, 48), [[1, 2, 3, 4]], {}),
        ((60, 96), [[0.5, 1, 1.5, 2]], {}),
        ((48, 30), [], {"another size": 1}),
    ]:
        (tmp_path / "d.csv").write_text(lines.format(*size))
        dataset = open_dataset(tmp_path / "d.csv")
        assert dataset[0].boxes.tolist() == boxes
        assert dataset.counts == counts
