"""Reading pictures: every kind of file and array becomes the pixels that a viewer would show."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from cnnviz.images import Picture, read_picture, read_pictures
from cnnviz_core.errors import ImageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def over_white(rgba):
    """Composite on white, in exact arithmetic."""
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return colour * alpha + 255 * (1 - alpha)


def pixels_of(source):
    return read_picture(source).pixels


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "ppm"])
def test_lossless_files_give_their_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, RGB)
    assert picture.name == path.name
    assert picture.path == path
    assert picture.size == (5, 7)
    assert np.array_equal(pixels_of(str(path)), RGB)


def test_pixels_are_read_only_and_a_copy():
    source = RGB.copy()
    picture = read_picture(source)
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0, 0] = 1
    source[:] = 0
    assert np.array_equal(picture.pixels, RGB)


def test_one_pixel():
    assert pixels_of(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[[1, 2, 3]]]


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_greyscale_has_three_equal_channels(grey):
    for source in (grey, grey[..., None]):
        pixels = pixels_of(source)
        assert pixels.shape == (*grey.shape, 3)
        assert all(np.array_equal(pixels[..., c], grey) for c in range(3))


@given(arrays(np.uint8, (3, 4, 4)))
def test_transparency_is_laid_on_white(rgba):
    expected = over_white(rgba)
    for source in (rgba, Image.fromarray(rgba)):
        assert np.abs(pixels_of(source) - expected).max() <= 1


def test_an_array_with_transparency_is_rounded():
    rgba = RNG.integers(0, 256, (50, 50, 4), dtype=np.uint8)
    assert np.array_equal(pixels_of(rgba), np.rint(over_white(rgba)))


def test_floats_are_rounded_to_the_nearest_byte():
    values = np.arange(256)
    for dtype, most in ((np.float16, 0.3), (np.float32, 0.49), (np.float64, 0.49)):
        for part in (-most, 0, most):
            floats = np.clip((values + part) / 255, 0, 1).astype(dtype)
            assert np.array_equal(pixels_of(floats[None])[0, :, 0], values)


def test_rounding_beyond_the_range_of_floats_is_forgiven():
    assert pixels_of(np.array([[-1e-7, 1 + 1e-7]]))[0, :, 0].tolist() == [0, 255]


def test_sixteen_bits(tmp_path):
    deep = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    deep[0, :2] = 0, 65535
    expected = np.rint(deep / 257)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    for source in (deep, path, Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        assert np.array_equal(pixels_of(source)[..., 0], expected)


def test_bilevel_is_black_and_white():
    mask = GREY > 127
    for source in (mask, Image.fromarray(mask)):
        assert np.array_equal(pixels_of(source)[..., 1], np.where(mask, 255, 0))


def test_float_image():
    floats = GREY.astype(np.float32) / 255
    assert np.array_equal(pixels_of(Image.fromarray(floats))[..., 2], GREY)
    with pytest.raises(ImageError, match="floats from"):
        read_picture(Image.fromarray(floats * 255))


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    path = tmp_path / "p.png"
    image.save(path, transparency=0)
    assert pixels_of(path).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_grey_with_alpha():
    image = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)])
    assert pixels_of(image).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_other_colour_spaces_are_converted(mode):
    flat = Image.new("RGB", (4, 3), (200, 100, 50)).convert(mode)
    assert np.abs(pixels_of(flat).astype(int) - (200, 100, 50)).max() <= 3


def test_a_colour_space_without_a_conversion_is_refused():
    with pytest.raises(ImageError, match="colour mode 'La'"):
        read_picture(Image.new("La", (2, 2)))


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_the_camera_s_orientation_is_applied(tmp_path, orientation):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    assert np.array_equal(pixels_of(path), TURNS[orientation](RGB))


def test_an_unreadable_orientation_does_not_matter(tmp_path):
    path = tmp_path / "odd.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\x00\x00garbage", quality=95)
    assert pixels_of(path).shape == RGB.shape


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (3, 2), c) for c in ((255, 0, 0), (0, 255, 0))]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels_of(path)[0, 0], [255, 0, 0])


def test_a_pil_image_stays_as_it_was():
    image = Image.fromarray(RGB).convert("RGBA")
    before = image.tobytes(), image.mode, dict(image.info)
    read_picture(image)
    assert (image.tobytes(), image.mode, dict(image.info)) == before


def test_a_pil_image_of_a_file_keeps_its_name(tmp_path):
    path = tmp_path / "b.png"
    Image.fromarray(RGB).save(path)
    with Image.open(path) as image:
        assert read_picture(image).name == "b.png"
    assert read_picture(path, name="other").name == "other"
    assert read_picture(read_picture(path), name="third").path == path


def test_one_or_several():
    assert [p.name for p in read_pictures(RGB)] == ["picture"]
    assert [p.name for p in read_pictures([RGB])] == ["picture"]
    named = read_picture(RGB, name="x")
    several = read_pictures([RGB, named, Image.fromarray(GREY)])
    assert [p.name for p in several] == ["picture-1", "x", "picture-3"]
    assert several[1] is named
    batch = np.stack([RGB, RGB[::-1]])
    assert [np.array_equal(p.pixels, b) for p, b in zip(read_pictures(batch), batch, strict=True)]
    assert len(read_pictures(p for p in (RGB, GREY))) == 2


def encoded(kind, size=(40, 60)):
    buffer = io.BytesIO()
    noise = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file(tmp_path, kind, share):
    content = encoded(kind)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError) as info:
        read_picture(path)
    assert str(path) in info.value.problem


def test_a_corrupt_file(tmp_path):
    content = bytearray(encoded("PNG"))
    content[60:4000] = bytes(3940)
    path = tmp_path / "corrupt.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_picture(path)


def test_what_is_no_picture(tmp_path, monkeypatch):
    text = tmp_path / "a.txt"
    text.write_text("hello")
    empty = tmp_path / "empty.png"
    empty.touch()
    for source, said in (
        (text, "is not a picture"),
        (empty, "the file is empty"),
        (tmp_path, "is a folder"),
        (tmp_path / "missing.png", "there is no file"),
        (3, "an int was given"),
        (None, "a NoneType was given"),
    ):
        with pytest.raises(ImageError, match=said):
            read_picture(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as info:
        read_picture("missing.png")
    assert str(tmp_path) in info.value.remedy


def test_a_bomb(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(RGB).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="too large"):
        read_picture(path)


@pytest.mark.parametrize(
    ("array", "said", "remedy"),
    [
        (np.zeros((6, 5, 2), np.uint8), "shape (6, 5, 2)", "three colour channels"),
        (np.zeros((6, 5, 7), np.uint8), "shape (6, 5, 7)", "three colour channels"),
        (np.zeros((3, 4, 5), np.uint8), "shape (3, 4, 5)", "numpy.moveaxis(picture, 0, -1)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "shape (2, 4, 5, 3)", "as a list"),
        (np.zeros(5, np.uint8), "shape (5,)", "(height, width, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels", "cropped"),
        (np.full((2, 2), np.nan), "4 values that are NaN", "nan_to_num"),
        (np.full((2, 2, 3), np.inf), "12 values that are NaN", "nan_to_num"),
        (np.full((2, 2), 1.5), "floats from 1.5 to 1.5", "divide it by 255"),
        (np.full((2, 2), -1.0), "floats from -1 to -1", "preprocessed=True"),
        (np.zeros((2, 2), np.int64), "array of int64", "astype('uint8')"),
        (np.array([["a"]]), "array of <U1", "astype"),
    ],
)
def test_arrays_that_are_no_picture(array, said, remedy):
    with pytest.raises(ImageError) as info:
        read_picture(array)
    assert said in info.value.problem
    assert remedy in info.value.remedy
    assert "\n" not in info.value.problem


def test_a_tensor_that_refuses_to_be_an_array():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("it is elsewhere")

    with pytest.raises(ImageError, match="it is elsewhere"):
        read_picture(Tensor())


def test_no_picture_at_all():
    for nothing in ([], (), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match="no picture was given"):
            read_pictures(nothing)


def test_repr():
    assert repr(Picture(RGB, "a.png")) == "Picture('a.png', 7 x 5)"
