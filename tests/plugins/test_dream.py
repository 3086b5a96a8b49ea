"""DeepDream against the gradient of its objective, written plainly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnknownLayerError
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.maps.resize import resize
from cnnviz_core.model import INPUT
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace, as_pixels
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Neuron, Predicted
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.dream import Dream, cut, join

SPACE = PixelSpace.of(
    Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), channels="BGR")
)
ONE = {"octaves": 1, "steps": 1, "jitter": 0}


def subject(name="plain", n=2, space=SPACE, targets=(), **more):
    net = NETS[name]() if isinstance(name, str) else name
    (shape,) = net.inputs.values()
    colours = np.random.default_rng(3).uniform(0.2, 0.8, size=(n, *shape[:2], space.colours))
    model = ReferenceModel(net, "float64")
    return Subject(model, ArrayPictures(space.to_input(colours)), space, shape, targets, **more)


def dream(seen, **params):
    return get_registry().inspector("dream", **params).inspect(seen)


def coloured(seen):
    """The colours of a subject's pictures."""
    return seen.space.to_colours(seen.pictures.x)


def stacked(found, name):
    """What was found of each picture, where all are of one size."""
    return np.stack([found.arrays[f"{k + 1}/{name}"] for k in range(len(found.facts["pictures"]))])


def uphill(seen, layer, colours, channel=None):
    """The gradient by the colours of the mean square of a layer or channel, from the definition."""
    (x,) = seen.space.to_input(colours)[None]

    def cotangent(value):
        chosen = slice(None) if channel is None else [channel]
        kept = np.zeros_like(value)
        kept[..., chosen] = value[..., chosen]
        return 2 * kept / kept[0][..., chosen].size

    gradient = seen.model.pullback(x, cotangent, of=layer).gradients[INPUT]
    return np.einsum("nhwc,kc->nhwk", gradient, seen.space.matrix)


def unit(gradient):
    return np.stack([g / np.abs(g).mean() for g in gradient])


def pointwise(dead=False):
    """A network of one 1 x 1 convolution: what it sees at a place depends on that place alone."""
    rng = np.random.default_rng(0)
    arrays = {"conv.weight": rng.normal(size=(1, 1, 3, 4)), "conv.bias": rng.normal(size=4)}
    if dead:
        arrays["conv.bias"] = np.full(4, -100.0)
    ops = (
        Op("conv", "conv", ("image",)),
        Op("relu", "relu", ("conv",)),
        Op("gap", "gap", ("relu",)),
    )
    return NetSpec({"image": (6, 5, 3)}, ops, arrays, "pointwise")


def grey():
    """A network that looks at grey pictures."""
    net = NETS["plain"]()
    arrays = {**net.parameters, "conv1.weight": net.parameters["conv1.weight"][:, :, :1]}
    return NetSpec({"image": (12, 9, 1)}, net.ops, arrays, "grey")


@dataclass(frozen=True, eq=False)
class Photos(ArrayPictures):
    """Prepared pictures that come from others; None is one that cannot be read any more."""

    photos: tuple[np.ndarray | None, ...] = ()

    def original(self, index):
        return self.photos[index]


def photos(*sizes):
    """Photos of noise, of which next to nothing is left when they are prepared."""
    rng = np.random.default_rng(8)
    return [rng.integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]


def shown(shots, name="plain", **more):
    """A subject whose pictures come from photos."""
    seen = subject(name, n=len(shots), **more)
    return replace(seen, pictures=Photos(seen.pictures.x, photos=tuple(shots)))


@parametrize_with_checks(
    [
        Dream(octaves=2, steps=2),
        Dream(octaves=2, steps=2, layer="conv1, relu2", tv=0.1, frames=3, zoom_frames=1),
        Dream(size=15, steps=1, channel=1),
    ]
)
def test_the_conformance_kit(inspector, check):
    check(inspector)


# ------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("size", [(6, 5), (7, 5), (11, 9), (12, 10), (13, 19)])
@pytest.mark.parametrize("shift", [(0, 0), (1, 4), (6, 5), (20, 3)])
def test_tiles_cover_every_pixel_exactly_once(size, shift):
    shape = (*size, 2)
    places = np.arange(np.prod(shape)).reshape(shape)
    tiles = cut(places, (6, 5), shift)
    assert tiles.shape == (-(-size[0] // 6) * -(-size[1] // 5), 6, 5, 2)
    assert set(tiles.ravel()) == set(places.ravel())
    np.testing.assert_array_equal(join(tiles, shape, shift), places)
    entries = join(np.arange(tiles.size).reshape(tiles.shape), shape, shift)
    assert len(set(entries.ravel())) == places.size
    np.testing.assert_array_equal(tiles.ravel()[entries], places)


def test_tiles_go_on_with_the_other_side():
    row = np.arange(7)[None, :, None]
    tiles = cut(row, (1, 4), (0, 2))
    assert tiles[..., 0].tolist() == [[[2, 3, 4, 5]], [[6, 0, 1, 2]]]


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
def test_a_step_without_a_move_follows_the_plain_gradient(name):
    seen = subject(name)
    layer = {"plain": "relu2", "residual": "relu@2", "depthwise": "relu3"}[name]
    found = dream(seen, layer=layer, step_size=0.01, **ONE)
    start = coloured(seen)
    np.testing.assert_allclose(stacked(found, "start"), start, rtol=1e-12)
    expected = np.clip(start + 0.01 * unit(uphill(seen, layer, start)), 0, 1)
    np.testing.assert_allclose(stacked(found, "dream"), expected, rtol=1e-10)
    values = seen.model.forward(seen.pictures.x, capture=(layer,))[layer]
    np.testing.assert_allclose(
        stacked(found, "history"), (values**2).mean((1, 2, 3))[:, None, None], rtol=1e-12
    )


def test_a_channel_alone():
    seen = subject()
    found = dream(seen, layer="conv2", channel=3, step_size=0.01, **ONE)
    start = coloured(seen)
    expected = np.clip(start + 0.01 * unit(uphill(seen, "conv2", start, channel=3)), 0, 1)
    np.testing.assert_allclose(stacked(found, "dream"), expected, rtol=1e-10)
    values = seen.model.forward(seen.pictures.x, capture=("conv2",))["conv2"][..., 3]
    np.testing.assert_allclose(stacked(found, "history")[:, 0, 0], (values**2).mean((1, 2)))


def test_several_layers_have_the_same_say():
    seen = subject()
    found = dream(seen, layer="conv2, conv1", step_size=0.01, **ONE)
    start = coloured(seen)
    both = [unit(uphill(seen, layer, start)) for layer in ("conv1", "conv2")]
    np.testing.assert_allclose(
        stacked(found, "dream"), np.clip(start + 0.01 * (both[0] + both[1]) / 2, 0, 1), rtol=1e-10
    )
    assert stacked(found, "history").shape == (2, 2, 1)
    assert found.facts["objective"] == ["conv1 + conv2"] * 2


@pytest.mark.parametrize("size", [6, 9, 12, 13])
def test_where_places_are_seen_alone_tiles_and_moves_change_nothing(size):
    # The objective of a 1 x 1 convolution moves with the picture, and is the sum over its pixels.
    seen = subject(pointwise())
    found = [
        dream(seen, layer="relu", size=size, octaves=1, steps=3, jitter=jitter, seed=seed)
        for jitter, seed in ((0, 0), (None, 0), (None, 1), (2, 5))
    ]
    colours, history = stacked(found[0], "start"), []
    for _ in range(3):
        values = np.maximum(
            seen.space.to_input(colours) @ seen.model.parameters("conv")["weight"][0, 0]
            + seen.model.parameters("conv")["bias"],
            0,
        )
        weights = seen.space.matrix @ seen.model.parameters("conv")["weight"][0, 0]
        colours = np.clip(colours + 0.0075 * unit(values @ weights.T), 0, 1)
        history.append((values**2).mean((1, 2, 3)))
    if size % 6 == 0:  # the tiles show each pixel once
        np.testing.assert_allclose(stacked(found[1], "history")[:, 0].T, history, rtol=1e-10)
    for each in found:
        np.testing.assert_allclose(stacked(each, "dream"), colours, rtol=1e-10)


def test_the_picture_is_moved_before_each_step_and_moved_back():
    seen = subject(n=1)
    found = dream(seen, layer="conv2", octaves=1, steps=1, jitter=4, seed=2, step_size=0.01)
    down, right = np.random.default_rng(2).integers(5, size=2)
    assert (down, right) != (0, 0)
    start = coloured(seen)
    moved = np.roll(start, (-down, -right), (1, 2))
    gradient = np.roll(uphill(seen, "conv2", moved), (down, right), (1, 2))
    expected = np.clip(start + 0.01 * unit(gradient), 0, 1)
    np.testing.assert_allclose(stacked(found, "dream"), expected, rtol=1e-10)


# ------------------------------------------------------------------------------ the climb


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "swish"])
def test_steps_raise_the_objective(name):
    found = dream(subject(name), octaves=1, steps=12, jitter=0, step_size=1e-4)
    assert (np.diff(stacked(found, "history"), axis=-1) > 0).all()


def test_a_target_is_dreamed_of():
    seen = subject(targets=(ClassScore(3),), labels=("ant", "bee", "cat", "dog", "emu"))
    found = dream(seen, step_size=0.01, **ONE)
    start = coloured(seen)
    x = seen.pictures.x
    one = np.eye(5)[[3, 3]]
    back = seen.model.pullback(x, one).gradients[INPUT] @ seen.space.matrix.T
    np.testing.assert_allclose(
        stacked(found, "dream"), np.clip(start + 0.01 * unit(back), 0, 1), rtol=1e-10
    )
    logits = seen.model.forward(x).logits
    np.testing.assert_allclose(stacked(found, "history")[:, 0, 0], logits[:, 3], rtol=1e-12)
    assert found.facts["objective"] == ["dog", "dog"]


def test_each_picture_has_its_target_and_the_predicted_class_is_that_of_the_start():
    targets = (ClassScore(1), ClassProbability(4))
    with pytest.raises(TargetError, match="2 nodes"):
        dream(subject(targets=(ClassScore(1), Neuron("conv1", (0, 0, 0)))), **ONE)
    together = dream(subject(targets=targets), octaves=1, steps=3)
    for k, target in enumerate(targets, 1):
        alone = dream(subject(targets=(target,)), octaves=1, steps=3)
        name = f"{k}/dream"
        np.testing.assert_allclose(together.arrays[name], alone.arrays[name], rtol=1e-10)
    seen = subject(targets=(Predicted(),))
    best = seen.model.forward(seen.pictures.x).logits.argmax(-1)
    assert dream(seen, **ONE).facts["objective"] == [f"class {k}" for k in best]


def test_smoothing_takes_off_the_gradient_of_the_total_variation():
    seen = subject(n=1)
    start = coloured(seen)
    found = dream(seen, layer="conv2", tv=0.3, step_size=0.01, **ONE)
    variation = lambda c: sum(  # noqa: E731
        np.hypot(
            c[y + 1, x, k] - c[y, x, k] if y + 1 < c.shape[0] else 0,
            c[y, x + 1, k] - c[y, x, k] if x + 1 < c.shape[1] else 0,
        )
        for y, x, k in np.ndindex(c.shape)
    )
    numeric = np.zeros_like(start)
    for place in np.ndindex(start.shape[1:]):
        nudge = np.zeros(start.shape[1:])
        nudge[place] = 1e-6
        higher, lower = variation(start[0] + nudge), variation(start[0] - nudge)
        numeric[0][place] = (higher - lower) / 2e-6
    step = unit(uphill(seen, "conv2", start)) - 0.3 * numeric
    np.testing.assert_allclose(
        stacked(found, "dream"), np.clip(start + 0.01 * step, 0, 1), atol=1e-8
    )


def test_colours_stay_colours():
    found = dream(subject(), octaves=2, steps=3, step_size=5.0)
    assert stacked(found, "dream").min() == 0
    assert stacked(found, "dream").max() == 1


# ------------------------------------------------------------------------------ octaves


def test_octaves_begin_with_the_input_and_grow_by_their_scale():
    found = dream(subject(), octaves=3, octave_scale=1.5, steps=1)
    assert found.facts["octaves"] == [[[12, 9], [18, 14], [27, 20]]] * 2
    assert found.facts["tiles a step"] == [[1, 4, 9]] * 2
    assert stacked(found, "octave 2").shape == (2, 18, 14, 3)
    assert stacked(found, "dream").shape == stacked(found, "start").shape == (2, 27, 20, 3)
    np.testing.assert_array_equal(stacked(found, "octave 3"), stacked(found, "dream"))
    assert stacked(found, "history").shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (12, [[12, 9]]),
        (16, [[16, 12]]),
        (24, [[12, 9], [17, 13], [24, 18]]),
        (40, [[20, 15], [29, 21], [40, 30]]),
    ],
)
def test_a_given_size_is_the_last_and_no_octave_is_smaller_than_the_input(size, sizes):
    found = dream(subject(n=1), size=size, octaves=3, octave_scale=1.4, steps=1)
    assert found.facts["octaves"] == [sizes]


def test_a_size_made_of_the_scales_has_all_octaves():
    assert len(dream(subject(n=1), size=48, octave_scale=2.0, octaves=3, steps=1).arrays) == 6


def test_a_network_that_sees_nothing_dreams_nothing():
    # What an octave brings to the next is then the picture's own detail, and no more.
    seen = subject(pointwise(dead=True))
    found = dream(seen, layer="relu", octaves=3, steps=2)
    np.testing.assert_allclose(stacked(found, "dream"), stacked(found, "start"), rtol=0, atol=1e-15)
    middle = resize(stacked(found, "start"), (8, 7), antialias=True)
    np.testing.assert_allclose(stacked(found, "octave 2"), middle, rtol=0, atol=1e-15)
    assert "unchanged" in found.exhibits[0].rows[0][1].caption


def test_what_was_dreamed_is_enlarged_and_added_to_the_picture_itself():
    seen = subject(n=1)
    params = {"layer": "conv1", "octave_scale": 1.5, "jitter": 0, "octaves": 2}
    found = dream(seen, steps=1, step_size=0.01, **params)
    start = stacked(found, "start")
    small = resize(start, (12, 9), antialias=True)
    dreamed = np.clip(small + 0.01 * unit(uphill(seen, "conv1", small)), 0, 1)
    np.testing.assert_allclose(stacked(found, "octave 1"), dreamed, rtol=1e-10)
    # The detail that shrinking lost is put back on the enlarged dream.
    lost = start - resize(small, (18, 14))
    base = np.clip(resize(dreamed, (18, 14)) + lost, 0, 1)
    tiles = cut(base[0], (12, 9), (0, 0))
    gradient = join(uphill(seen, "conv1", tiles), base[0].shape, (0, 0))[None]
    expected = np.clip(base + 0.01 * unit(gradient), 0, 1)
    np.testing.assert_allclose(stacked(found, "dream"), expected, rtol=1e-9)


def test_the_start_is_the_picture_enlarged():
    seen = subject()
    found = dream(seen, size=24, octaves=1, steps=1)
    expected = resize(coloured(seen), (24, 18), "bicubic").clip(0, 1)
    np.testing.assert_allclose(stacked(found, "start"), expected, rtol=1e-12)


# ------------------------------------------------------------------------------ photos


@pytest.mark.parametrize("size", [(30, 21), (13, 40), (24, 18)])
def test_a_dream_of_nothing_is_the_whole_photo_at_its_size(size):
    (photo,) = shots = photos(size)
    found = dream(shown(shots, pointwise(dead=True)), layer="relu", size=max(size), steps=1)
    np.testing.assert_allclose(found.arrays["1/dream"], photo / 255, rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [20, 31])
def test_a_photo_is_shrunk_as_pillow_does_it(size):
    shots = photos((40, 62))
    found = dream(shown(shots, pointwise(dead=True)), layer="relu", size=size, steps=1, octaves=1)
    plane = lambda k: Image.fromarray((shots[0][..., k] / 255).astype("f4"))  # noqa: E731
    new = (size, round(40 * size / 62))
    planes = [np.asarray(plane(k).resize(new, Image.Resampling.BICUBIC)) for k in range(3)]
    expected = np.stack(planes, axis=-1).clip(0, 1)
    np.testing.assert_allclose(found.arrays["1/dream"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "octaves"),
    [
        ((60, 90), [[12, 18], [24, 36], [48, 72]]),
        ((60, 45), [[12, 9], [24, 18], [48, 36]]),
        ((60, 15), [[36, 9], [72, 18], [144, 36]]),
        ((4, 10), [[12, 30], [24, 60], [48, 120]]),
    ],
)
def test_a_photo_keeps_its_shape_and_covers_the_input_at_the_smallest_octave(size, octaves):
    found = dream(shown(photos(size)), octaves=3, octave_scale=2.0, steps=1)
    assert found.facts["octaves"] == [octaves]
    assert found.arrays["1/dream"].shape == (*octaves[-1], 3)
    assert found.arrays["1/octave 1"].shape == (*octaves[0], 3)


def test_no_octave_of_a_photo_is_too_thin_for_the_input():
    seen = shown(photos((20, 62)))
    found = dream(seen, size=62, octaves=9, octave_scale=1.3, steps=1)
    assert found.facts["octaves"] == [[[15, 48], [20, 62]]]
    assert dream(seen, size=38, steps=1).facts["octaves"] == [[[12, 38]]]
    with pytest.raises(ParameterError, match="at least 38 pixels"):
        dream(seen, size=37)


def test_photos_of_different_sizes_are_dreamed_each_on_its_own():
    shots = photos((30, 40), (50, 25), (12, 9))
    seen = shown(shots)
    found = dream(seen, octaves=2, steps=2, frames=1)
    shapes = [(17, 22, 3), (25, 13, 3), (17, 13, 3)]
    assert [found.arrays[f"{k}/dream"].shape for k in (1, 2, 3)] == shapes
    assert {frame.shape for frame in found.frames} == {shapes[0]}
    for k, shot in enumerate(shots, 1):
        alone = dream(shown([shot]), octaves=2, steps=2).arrays
        for name in ("dream", "start", "octave 1", "history"):
            np.testing.assert_allclose(
                found.arrays[f"{k}/{name}"], alone[f"1/{name}"], rtol=1e-10, err_msg=name
            )


def test_a_photo_of_which_only_the_prepared_one_is_there():
    (photo,) = photos((24, 18))
    seen = shown([photo, None])
    found = dream(seen, size=24, octaves=1, steps=1)
    np.testing.assert_allclose(found.arrays["1/start"], photo / 255, rtol=1e-15)
    plain = dream(subject(), size=24, octaves=1, steps=1)
    np.testing.assert_array_equal(found.arrays["2/start"], plain.arrays["2/start"])


def test_a_grey_network_dreams_of_the_luminance():
    shots = photos((24, 18))
    seen = shown(shots, grey(), space=PixelSpace.identity(1))
    start = dream(seen, size=24, octaves=1, steps=1).arrays["1/start"]
    assert start.shape == (24, 18, 1)
    expected = np.asarray(Image.fromarray(shots[0]).convert("L"))
    np.testing.assert_allclose(start[..., 0] * 255, expected, rtol=0, atol=0.51)


def test_colours_of_another_number_are_those_of_the_prepared_picture():
    net = NETS["plain"]()
    weight = np.concatenate([net.parameters["conv1.weight"]] * 2, axis=2)[:, :, :4]
    arrays = {**net.parameters, "conv1.weight": weight}
    four = NetSpec({"image": (12, 9, 4)}, net.ops, arrays, "four bands")
    seen = shown(photos((24, 18)), four, space=PixelSpace.identity(4))
    start = dream(seen, octaves=1, steps=1).arrays["1/start"]
    np.testing.assert_array_equal(start, seen.pictures.x[0])


# ------------------------------------------------------------------------------ what else there is


def test_without_a_picture_the_dream_begins_with_noise():
    seen = replace(subject(), pictures=ArrayPictures(np.empty(0)))
    found = [dream(seen, octaves=2, steps=2, seed=seed) for seed in (0, 0, 1)]
    starts = [stacked(each, "start") for each in found]
    assert starts[0].shape == (1, 17, 13, 3)
    assert 0.01 < starts[0].std() < 0.2
    np.testing.assert_array_equal(stacked(found[0], "dream"), stacked(found[1], "dream"))
    assert np.abs(starts[0] - starts[2]).max() > 0.01
    wanted = (ClassScore(0), ClassScore(1), ClassScore(2))
    several = dream(replace(seen, targets=wanted), octaves=1, steps=2)
    assert stacked(several, "dream").shape == (3, 12, 9, 3)
    assert several.facts["objective"] == ["class 0", "class 1", "class 2"]
    assert len(np.unique(stacked(several, "start"), axis=0)) == 1
    assert len(np.unique(stacked(several, "dream"), axis=0)) == 3


def test_the_seed_decides():
    seen = subject()
    first, again, other = (dream(seen, octaves=2, steps=2, seed=s).arrays for s in (4, 4, 5))
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    assert np.abs(first["1/dream"] - other["1/dream"]).max() > 1e-3


def test_a_dream_does_not_depend_on_the_other_pictures():
    seen = subject(n=3)
    together = dream(seen, octaves=2, steps=2).arrays["2/dream"]
    alone = dream(replace(seen, pictures=ArrayPictures(seen.pictures.x[1:2])), octaves=2, steps=2)
    np.testing.assert_allclose(together, alone.arrays["1/dream"], rtol=1e-10)


def test_grey_pictures():
    seen = subject(grey(), space=PixelSpace.identity(1))
    found = dream(seen, octaves=2, steps=2)
    assert stacked(found, "dream").shape == (2, 17, 13, 1)
    assert found.exhibits[0].rows[0][1].pixels.shape == (17, 13, 3)
    unseen = dream(replace(seen, pictures=ArrayPictures(np.empty(0))), **ONE)
    assert stacked(unseen, "dream").shape == (1, 12, 9, 1)


def test_auto_is_the_last_layer_of_the_last_resolution_but_one():
    assert dream(subject("plain"), **ONE).facts["objective"][0] == "relu1"
    assert dream(subject("residual"), **ONE).facts["objective"][0] == "relu@2"


def test_frames():
    seen = subject()
    assert dream(seen, octaves=2, steps=3).frames == ()
    found = dream(seen, octaves=2, steps=3, frames=2)
    # Of the first picture: the start, and after 2, 4 and 6 steps.
    assert [frame.shape for frame in found.frames] == [(17, 13, 3)] * 4
    np.testing.assert_array_equal(found.frames[0], as_pixels(found.arrays["1/start"]))
    np.testing.assert_array_equal(found.frames[-1], as_pixels(found.arrays["1/dream"]))
    uneven = dream(seen, octaves=1, steps=3, frames=2)
    assert len(uneven.frames) == 3
    np.testing.assert_array_equal(uneven.frames[-1], as_pixels(uneven.arrays["1/dream"]))


def test_a_zoom_comes_nearer_and_dreams_on():
    seen = subject(pointwise(dead=True), n=1)
    still = dream(seen, layer="relu", size=12, octaves=1, steps=1, zoom_frames=2, zoom=1.5)
    (start,) = stacked(still, "start")
    assert len(still.frames) == 2
    nearer = resize(start[None], (18, 15))[:, 3:15, 2:12]
    nearest = resize(nearer, (18, 15))[:, 3:15, 2:12]
    np.testing.assert_array_equal(still.frames[0], as_pixels(nearer[0]))
    np.testing.assert_array_equal(still.frames[1], as_pixels(nearest[0]))
    moving = dream(subject(), octaves=2, steps=2, zoom_frames=3)
    assert len(moving.frames) == 3
    plain = dream(subject(), octaves=2, steps=2)
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(moving.arrays[name], array)


def test_progress_counts_the_steps():
    told = []
    with listening(lambda *event: told.append(event)):
        dream(subject(), octaves=2, steps=3, zoom_frames=1)
    # Two pictures at two sizes, and the first once more for the zoom.
    assert told == [("dream", k, 15) for k in range(1, 16)]


def test_exhibits():
    found = dream(subject(), octaves=3, steps=1)
    pairs, strip = found.exhibits
    np.testing.assert_array_equal(pairs.rows[1][0].pixels, as_pixels(stacked(found, "start")[1]))
    np.testing.assert_array_equal(pairs.rows[1][1].pixels, as_pixels(stacked(found, "dream")[1]))
    assert [len(row) for row in strip.rows] == [3, 3]
    assert strip.rows[0][0].caption == "12 x 9 pixels"
    assert strip.row_titles == ("picture 1", "picture 2")


def test_what_cannot_be_dreamed():
    seen = subject()
    with pytest.raises(ParameterError, match="smaller than the network's input"):
        dream(seen, size=11)
    with pytest.raises(ParameterError, match="'conv2' has 8 channels"):
        dream(seen, layer="conv2", channel=8)
    with pytest.raises(UnknownLayerError):
        dream(seen, layer="conv7")
    wanted = replace(seen, targets=(ClassScore(1),))
    for params in ({"layer": "conv1"}, {"channel": 1}):
        with pytest.raises(ParameterError, match="both a target and a layer"):
            dream(wanted, **params)
    with pytest.raises(TargetError, match="3 targets were given for 2 pictures"):
        dream(replace(seen, targets=(ClassScore(1),) * 3))
    for params in ({"octave_scale": 1.0}, {"zoom": 1.0}, {"step_size": 0.0}, {"steps": 0}):
        with pytest.raises(ParameterError):
            dream(seen, **params)
    net = NETS["signal"]()
    (x,) = random_input(net).values()
    signals = Subject(ReferenceModel(net), ArrayPictures(x), PixelSpace.identity(3), x.shape[1:])
    with pytest.raises(ArrayError, match="shape"):
        dream(signals)
