"""Preparing pictures as torchvision does, and the way back to their coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cnnviz.images import read_picture
from cnnviz.preprocess import Geometry, prepare
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILTERS = {
    "nearest": Image.NEAREST,
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
}
sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)


def noise(size):
    return RNG.integers(0, 256, (*size, 3), dtype=np.uint8)


def reference(pixels, resize, size, filter):
    """Resize, CenterCrop, ToTensor and Normalize, step by step on a PIL image."""
    image = Image.fromarray(pixels)
    width, height = image.size
    if isinstance(resize, int):
        if width <= height:
            new = (resize, int(resize * height / width))
        else:
            new = (int(resize * width / height), resize)
    else:
        new = resize[::-1]
    image = image.resize(new, filter)
    h, w = size
    pad_x, pad_y = max(0, w - image.width), max(0, h - image.height)
    border = (pad_x // 2, pad_y // 2, (pad_x + 1) // 2, (pad_y + 1) // 2)
    image = ImageOps.expand(image, border, 0)
    left, top = round((image.width - w) / 2), round((image.height - h) / 2)
    image = image.crop((left, top, left + w, top + h))
    return (np.asarray(image, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


@given(sizes, st.one_of(sides, sizes), sizes, st.sampled_from(sorted(FILTERS)))
def test_as_torchvision_s_transforms(original, resize, size, interpolation):
    pixels = noise(original)
    steps = Preprocessing(size=size, resize=resize, interpolation=interpolation, mean=MEAN, std=STD)
    x, geometry = prepare(read_picture(pixels), steps)
    expected = reference(pixels, resize, size, FILTERS[interpolation])
    assert x.shape == expected.shape == (*size, 3)
    assert x.dtype == np.float32
    assert np.abs(x - expected).max() <= 2e-6
    assert geometry.original == original
    assert geometry.size == size


@pytest.mark.parametrize(
    ("original", "size", "resized", "offset"),
    [
        ((480, 640), (224, 224), (256, 341), (16, 58)),
        ((640, 480), (224, 224), (341, 256), (58, 16)),
        ((300, 451), (224, 224), (256, 384), (16, 80)),
        ((256, 256), (224, 224), (256, 256), (16, 16)),
        ((256, 256), (299, 300), (256, 256), (-21, -22)),
    ],
)
def test_the_usual_sizes(original, size, resized, offset):
    _, geometry = prepare(read_picture(noise(original)), Preprocessing(size=size, resize=256))
    assert geometry == Geometry(original, resized, offset, size)


def test_without_sizes_the_picture_keeps_its_own():
    pixels = noise((5, 7))
    x, geometry = prepare(read_picture(pixels), Preprocessing())
    assert geometry == Geometry.identity((5, 7))
    assert np.array_equal(x, (pixels * (1 / 255)).astype(np.float32))


def test_without_a_resize_the_whole_picture_is_stretched():
    pixels = noise((5, 7))
    x, geometry = prepare(read_picture(pixels), Preprocessing(size=(6, 3), scale=1.0))
    assert geometry == Geometry.stretched((5, 7), (6, 3))
    assert np.array_equal(x, np.asarray(Image.fromarray(pixels).resize((3, 6), Image.BILINEAR)))


def test_channels():
    picture = read_picture(noise((4, 4)))
    rgb, _ = prepare(picture, Preprocessing(scale=1.0, mean=(1, 2, 3), std=(1, 2, 4)))
    bgr, _ = prepare(
        picture, Preprocessing(scale=1.0, mean=(3, 2, 1), std=(4, 2, 1), channels="BGR")
    )
    assert np.array_equal(rgb[..., ::-1], bgr)
    grey, _ = prepare(picture, Preprocessing(scale=1.0, channels="L"))
    assert grey.shape == (4, 4, 1)
    assert np.abs(grey[..., 0] - picture.pixels @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (Preprocessing(mean=(0.5, 0.5)), "mean has 2 values"),
        (Preprocessing(std=(1.0,) * 4), "std has 4 values"),
        (Preprocessing(std=(1.0,) * 3, channels="L"), "std has 3 values"),
        (Preprocessing(std=(1.0, 0.0, 1.0)), "std is"),
        (Preprocessing(size=(0, 4)), "size is (0, 4)"),
        (Preprocessing(resize=0), "resize is 0"),
        (Preprocessing(size=(2, 2), interpolation="cubic"), "interpolation is 'cubic'"),
    ],
)
def test_contradictions(steps, said):
    with pytest.raises(ParameterError) as info:
        prepare(read_picture(noise((4, 4))), steps)
    assert said in info.value.problem


@st.composite
def geometries(draw):
    original, resized, size = draw(sizes), draw(sizes), draw(sizes)
    offset = tuple(
        -((s - r) // 2) if s > r else round((r - s) / 2) for s, r in zip(size, resized, strict=True)
    )
    return Geometry(original, resized, offset, size)


def seen(geometry):
    """Which pixels of the picture have their centres in the network's window, one by one."""
    inside = np.zeros(geometry.original, bool)
    (rows, columns), (h, w) = geometry.original, geometry.resized
    (top, left), (height, width) = geometry.offset, geometry.size
    for row in range(rows):
        for column in range(columns):
            y, x = (row + 0.5) * (h / rows) - top, (column + 0.5) * (w / columns) - left
            inside[row, column] = 0 <= y < height and 0 <= x < width
    return inside


@given(geometries(), st.sampled_from(["nearest", "bilinear", "bicubic"]))
def test_a_map_of_ones_comes_back_as_what_the_network_saw(geometry, method):
    back = geometry.map_to_original(np.ones(geometry.size, np.float32), method)
    assert back.dtype == np.float32
    assert np.allclose(back, seen(geometry), atol=1e-6)


@given(geometries())
def test_a_plane_stays_a_plane(geometry):
    """Half-pixel exact: away from the borders a linear map is linear in the picture too."""
    (top, left), (height, width) = geometry.offset, geometry.size
    y, x = (np.arange(n) + 0.5 for n in geometry.size)
    back = geometry.map_to_original(2 * y[:, None] + 3 * x)
    rows, columns = (
        (np.arange(n) + 0.5) * (r / n) - o
        for n, r, o in zip(geometry.original, geometry.resized, geometry.offset, strict=True)
    )
    # A centre less than half a pixel from the window's or the picture's edge is beyond the last
    # sample, where the map is flat.
    inner = [
        (at >= max(0, -offset) + 0.5) & (at <= min(size, resized - offset) - 0.5)
        for at, offset, size, resized in zip(
            (rows, columns), (top, left), (height, width), geometry.resized, strict=True
        )
    ]
    expected = 2 * rows[:, None] + 3 * columns
    assert np.allclose(back[np.ix_(*inner)], expected[np.ix_(*inner)], atol=1e-9)


def test_a_stretched_map_is_resized_once():
    from skimage.transform import resize

    map = RNG.random((7, 5))
    back = Geometry.stretched((20, 31), (7, 5)).map_to_original(map)
    expected = resize(map, (20, 31), order=1, mode="edge", anti_aliasing=False)
    assert np.allclose(back, expected, atol=1e-12)


def test_the_way_there_and_back_finds_the_same_place():
    """What is bright in the input is bright at the same place in the picture."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[30:60, 110:140] = 255
    x, geometry = prepare(read_picture(pixels), Preprocessing(size=(48, 48), resize=60))
    back = geometry.map_to_original(x[..., 0])
    y, x = (
        (np.arange(n) * back.sum(1 - axis)).sum() / back.sum() for axis, n in enumerate((120, 200))
    )
    assert math.hypot(y - 44.5, x - 124.5) < 0.1


@given(geometries(), st.lists(st.tuples(*[st.floats(-50, 50)] * 4), max_size=3))
def test_boxes_go_there_and_back(geometry, boxes):
    boxes = np.array(boxes).reshape(-1, 4)
    there = geometry.boxes_to_input(boxes)
    assert there.shape == boxes.shape
    assert np.allclose(geometry.boxes_to_original(there), boxes, atol=1e-9)


@given(geometries())
def test_the_box_of_the_window_bounds_what_was_seen(geometry):
    height, width = geometry.size
    x0, y0, x1, y1 = geometry.boxes_to_original([[0, 0, width, height]])[0]
    rows, columns = np.nonzero(seen(geometry))
    assume(len(rows))
    assert x0 <= columns.min() + 0.5 <= columns.max() + 0.5 <= x1
    assert y0 <= rows.min() + 0.5 <= rows.max() + 0.5 <= y1


@given(geometries(), st.sampled_from(["nearest", "bilinear", "bicubic"]))
def test_signals_and_volumes_go_back_axis_by_axis(geometry, method):
    """The way back is separable: of a product of signals it is the product of their ways back."""
    both = zip(geometry.original, geometry.resized, geometry.offset, geometry.size, strict=True)
    first, second = ([(n,) for n in axis] for axis in both)
    rng = np.random.default_rng(0)
    one, other = rng.random(first[3]), rng.random(second[3])
    back = Geometry(*first).map_to_original(one, method)
    there = Geometry(*second).map_to_original(other, method)
    assert back.shape == first[0]
    picture = geometry.map_to_original(np.multiply.outer(one, other), method)
    assert np.allclose(picture, np.multiply.outer(back, there), atol=1e-9)
    parts = zip(first, second, first, strict=True)
    volume = Geometry(*(a + b + c for a, b, c in parts)).map_to_original(
        np.multiply.outer(np.multiply.outer(one, other), one), method
    )
    assert np.allclose(volume, np.multiply.outer(picture, back), atol=1e-9)


def test_intervals_of_signals_go_there_and_back():
    geometry = Geometry((100,), (50,), (10,), (30,))
    assert geometry.boxes_to_input([[20, 40]]).tolist() == [[0, 10]]
    assert geometry.boxes_to_original([[0, 10], [3, 30]]).tolist() == [[20, 40], [26, 80]]
    assert Geometry.from_dict(geometry.to_dict()) == geometry


def test_no_boxes():
    assert Geometry.identity((3, 4)).boxes_to_original([]).shape == (0, 4)


@given(geometries())
def test_as_a_dictionary(geometry):
    assert Geometry.from_dict(geometry.to_dict()) == geometry


def test_what_does_not_fit():
    geometry = Geometry.identity((3, 4))
    with pytest.raises(ArrayError, match=r"\(4, 3\)"):
        geometry.map_to_original(np.zeros((4, 3)))
    with pytest.raises(ArrayError, match=r"\(2,\)"):
        geometry.boxes_to_input([1, 2])
    with pytest.raises(ArrayError, match="as many axes"):
        Geometry((3, 4), (3, 4), (0,), (3, 4))
