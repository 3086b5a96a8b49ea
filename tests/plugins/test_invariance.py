"""Moving pictures, and how features and answers follow: exact cases, and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import (
    ArrayError,
    ParameterError,
    TargetError,
    UnknownClassError,
    UnknownLayerError,
)
from cnnviz_core.exhibits import Curves, Table
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.model import LOGITS
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassProbability, ClassScore, Neuron, Predicted
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.invariance import Invariance
from cnnviz_features.moving import NEUTRAL, amounts, moved

RNG = np.random.default_rng(4)
PICTURE = RNG.uniform(-1, 2, (7, 7, 3))
WIDE = RNG.uniform(-1, 2, (6, 9, 3)).astype(np.float32)
FILLS = ["mean", "black", "edge", "reflect"]

# ------------------------------------------------------------------------------------ moving


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("transform", NEUTRAL)
def test_nothing_done_changes_nothing(transform, fill, interpolation):
    still = moved(WIDE, transform, NEUTRAL[transform], fill=fill, interpolation=interpolation)
    np.testing.assert_array_equal(still, WIDE)
    assert still.dtype == WIDE.dtype
    assert not np.shares_memory(still, WIDE)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("turns", range(-4, 5))
def test_quarter_turns_are_exact_and_counter_clockwise(turns, interpolation):
    turned = moved(PICTURE, "rotate", 90.0 * turns, interpolation=interpolation)
    np.testing.assert_array_equal(turned, np.rot90(PICTURE, turns))


def test_a_full_turn_comes_back_exactly():
    np.testing.assert_array_equal(moved(WIDE, "rotate", 360.0), WIDE)


PADS = {"edge": {"mode": "edge"}, "reflect": {"mode": "symmetric"}}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("by", [-9, -3, -1, 2, 5])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_translation_by_whole_pixels_is_a_crop_of_the_padded_picture(axis, by, fill):
    black = np.array([-1.0, 0.5, 0.25])
    found = moved(PICTURE, ["translate-y", "translate-x"][axis], by, fill=fill, black=black)
    wide = [(0, 0)] * 3
    wide[axis] = (9, 9)
    constant = PICTURE.mean((0, 1)) if fill == "mean" else black
    padded = np.stack(
        [
            np.pad(PICTURE[..., c], wide[:2], **PADS[fill])
            if fill in PADS
            else np.pad(PICTURE[..., c], wide[:2], constant_values=constant[c])
            for c in range(3)
        ],
        axis=-1,
    )
    window = [slice(None)] * 2
    window[axis] = slice(9 - by, 9 - by + 7)
    np.testing.assert_array_equal(found, padded[tuple(window)])


def bilinear_loop(x, back, black):
    """Interpolate at every pixel's origin, one by one; beyond the picture it is black."""
    h, w, _ = x.shape
    out = np.zeros_like(x)
    for i in range(h):
        for j in range(w):
            dx, dy = back(j + 0.5 - w / 2, i + 0.5 - h / 2)
            u, v = dy + h / 2 - 0.5, dx + w / 2 - 0.5
            for a in (int(np.floor(u)), int(np.floor(u)) + 1):
                for b in (int(np.floor(v)), int(np.floor(v)) + 1):
                    weight = (1 - abs(u - a)) * (1 - abs(v - b))
                    out[i, j] += weight * (x[a, b] if 0 <= a < h and 0 <= b < w else black)
    return out


@pytest.mark.parametrize("transform", NEUTRAL)
def test_between_pixels_it_is_bilinear_about_the_centre(transform):
    x, black = WIDE.astype(np.float64), np.array([0.5, 0.0, -2.0])
    amount = {"rotate": 25.0, "scale": 1.3}.get(transform, 1.75)
    cos, sin = np.cos(np.radians(25)), np.sin(np.radians(25))
    back = {
        # Counter-clockwise as one sees it, with the second axis pointing down.
        "rotate": lambda dx, dy: (cos * dx - sin * dy, sin * dx + cos * dy),
        "scale": lambda dx, dy: (dx / 1.3, dy / 1.3),
        "translate-x": lambda dx, dy: (dx - 1.75, dy),
        "translate-y": lambda dx, dy: (dx, dy - 1.75),
    }[transform]
    found = moved(x, transform, amount, fill="black", black=black)
    np.testing.assert_allclose(found, bilinear_loop(x, back, black), rtol=0, atol=1e-12)


def test_a_constant_picture_stays_so_wherever_its_mean_fills():
    flat = np.full((6, 8, 2), [0.25, -3.0])
    for transform, amount in (("rotate", 33.0), ("scale", 0.4), ("translate-x", 2.5)):
        for interpolation in ("nearest", "bilinear", "cubic"):
            found = moved(flat, transform, amount, interpolation=interpolation)
            np.testing.assert_allclose(found, flat, rtol=1e-12)


def test_the_default_ranges():
    np.testing.assert_allclose(amounts("rotate", 2, None, (8, 8)), [-180, -90, 0, 90, 180])
    scales = amounts("scale", 2, None, (8, 8))
    np.testing.assert_allclose(scales, [0.56, 0.75, 1, 1.34, 1.8])
    np.testing.assert_array_equal(amounts("translate-x", 4, None, (8, 16)), range(-4, 5))
    np.testing.assert_array_equal(amounts("translate-y", 4, None, (8, 16)), range(-2, 3))
    np.testing.assert_array_equal(amounts("translate-x", 1, None, (3, 3)), [-1, 0, 1])


@pytest.mark.parametrize(
    ("transform", "amount"), [("scale", 1.004), ("translate-x", 0.5), ("rotate", 0.0)]
)
def test_an_amount_that_moves_nothing_is_refused(transform, amount):
    with pytest.raises(ParameterError, match="does not change the picture"):
        amounts(transform, 3, amount, (9, 9))


# --------------------------------------------------------------------------------- invariance


def subject(x, model=None, space=None, **more):
    """Show pictures to a network whose inputs are colours."""
    if model is None:
        model = ReferenceModel(NETS["plain"](), str(x.dtype))
    given = {name: more.pop(name) for name in ("given", "classes") if name in more}
    pictures = ArrayPictures(x, **given)
    return Subject(model, pictures, space or PixelSpace.identity(3), x.shape[1:], **more)


def pictures(n=3, seed=2):
    (x,) = random_input(NETS["plain"](), n, seed).values()
    return x.astype(np.float64)


@parametrize_with_checks(
    [
        Invariance(steps=2),
        Invariance(transform="all", steps=1, metric="cosine", layer="stages"),
        Invariance(transform="scale", steps=1, fill="reflect", interpolation="cubic"),
    ]
)
def test_kit(inspector, check):
    check(inspector)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


@pytest.mark.parametrize("transform", ["rotate", "scale", "translate-x", "translate-y"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distance_and_probability_are_those_of_a_plain_loop(transform, metric):
    x = pictures()
    looked = Invariance(transform=transform, steps=3, metric=metric, layer="relu1, conv2")
    asked = subject(x, classes=(4, None, 1))
    found = looked.inspect(asked)
    model = asked.model
    assert found.facts["layers"] == ["relu1", "conv2", LOGITS]
    steps = amounts(transform, 3, None, (12, 9))
    np.testing.assert_array_equal(found.arrays["amounts"], steps)
    for n, picture in enumerate(x):
        whole = model.forward(picture[None], capture=("relu1", "conv2"))
        followed = [4, int(whole.logits.argmax()), 1][n]
        assert found.arrays["classes"][n] == followed
        for s, amount in enumerate(steps):
            trace = model.forward(
                moved(picture, transform, amount)[None], capture=("relu1", "conv2")
            )
            for row, node in enumerate(("relu1", "conv2", LOGITS)):
                a, b = trace[node].ravel(), whole[node].ravel()
                if metric == "euclidean":
                    expected = np.sqrt(((a - b) ** 2).sum()) / np.sqrt((b**2).sum())
                else:
                    expected = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
                distance = found.arrays["distance"][n, row, s]
                np.testing.assert_allclose(distance, expected, rtol=1e-9, atol=1e-14)
            p = softmax(trace.logits[0])
            np.testing.assert_allclose(found.arrays["probability"][n, s], p[followed], rtol=1e-12)
            assert found.arrays["predicted"][n, s] == p.argmax()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_untransformed_picture_is_at_distance_0_exactly(metric):
    found = Invariance(transform="all", steps=2, metric=metric).inspect(subject(pictures()))
    still = [
        amount == list(NEUTRAL.values())[k]
        for k, amount in zip(found.arrays["transform"], found.arrays["amounts"], strict=True)
    ]
    assert sum(still) == 4
    assert (found.arrays["distance"][..., still] == 0).all()
    assert (found.arrays["distance"][..., np.invert(still)] > 0).all()


def symmetric_net(side=8):
    """A convolution whose kernels are the same after a quarter turn, then a mean and a head."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 4))
    kernel = sum(np.rot90(kernel, k) for k in range(4))
    return NetSpec(
        {"image": (side, side, 3)},
        (
            Op("conv", "conv", ("image",), attrs={"padding": ((1, 1), (1, 1))}),
            Op("relu", "relu", ("conv",)),
            Op("gap", "gap", ("relu",)),
            Op("fc", "linear", ("gap",)),
        ),
        {
            "conv.weight": kernel,
            "conv.bias": rng.normal(size=4) * 0.1,
            "fc.weight": rng.normal(size=(4, 3)),
            "fc.bias": rng.normal(size=3),
        },
        "symmetric",
    )


def test_a_net_without_an_up_and_down_does_not_mind_quarter_turns():
    x = np.random.default_rng(1).uniform(size=(2, 8, 8, 3))
    net = ReferenceModel(symmetric_net(), "float64")
    found = Invariance(steps=2, amount=180.0, layer="conv").inspect(subject(x, net))
    distance = found.arrays["distance"]
    np.testing.assert_allclose(distance[:, 1], 0, atol=1e-14)
    assert (distance[:, 0, [0, 1, 3, 4]] > 0.1).all()
    assert np.ptp(found.arrays["probability"], axis=1).max() < 1e-14
    assert found.facts["answer_kept"] == {"rotate": 1.0}


def test_a_mean_over_all_places_does_not_mind_where_a_thing_is():
    x = np.zeros((1, 14, 14, 3))
    x[:, 5:9, 5:9] = np.random.default_rng(3).uniform(size=(4, 4, 3))
    net = ReferenceModel(symmetric_net(14), "float64")
    for transform in ("translate-x", "translate-y"):
        found = Invariance(transform, steps=3, amount=3.0, fill="black", layer="relu").inspect(
            subject(x, net)
        )
        features, scores = found.arrays["distance"][0]
        np.testing.assert_allclose(scores, 0, atol=1e-14)
        assert (features[found.arrays["amounts"] != 0] > 0.05).all()


def test_black_is_black_in_the_networks_own_values():
    x = pictures(1)
    space = PixelSpace(np.eye(3) * 2, np.array([-1.0, -2.0, 0.5]))
    seen = []

    class Watching(ReferenceModel):
        def forward(self, x, **more):
            seen.append(x)
            return super().forward(x, **more)

    net = Watching(NETS["plain"](), "float64")
    Invariance("translate-x", steps=1, amount=4.0, fill="black").inspect(
        subject(x, net, space=space)
    )
    left, right = seen[-1]
    np.testing.assert_array_equal(right[:, :4], np.broadcast_to(space.offset, (12, 4, 3)))
    np.testing.assert_array_equal(right[:, 4:], x[0, :, :-4])
    np.testing.assert_array_equal(left[:, :-4], x[0, :, 4:])


def test_the_layers_are_the_first_and_the_last_stage_or_all():
    x = pictures(1)
    layers = {
        layer: Invariance(steps=1, layer=layer).inspect(subject(x)).facts["layers"]
        for layer in ("auto", "stages", "conv*", "fc")
    }
    assert layers == {
        "auto": ["relu1", "relu2", LOGITS],
        "stages": ["relu1", "relu2", LOGITS],
        "conv*": ["conv1", "conv2", LOGITS],
        "fc": ["fc", LOGITS],
    }
    (deep,) = random_input(NETS["strided"](), 1, 0).values()
    net = ReferenceModel(NETS["strided"](), "float32")
    looked = {
        layer: Invariance(steps=1, layer=layer).inspect(subject(deep, net)).facts["layers"]
        for layer in ("auto", "stages")
    }
    assert looked["auto"] == [looked["stages"][0], *looked["stages"][-2:]]


def test_curves_are_means_and_standard_deviations_over_the_pictures():
    found = Invariance(steps=2, layer="conv1").inspect(subject(pictures(3)))
    distances, chances, table = found.exhibits
    assert isinstance(distances, Curves)
    assert isinstance(chances, Curves)
    assert isinstance(table, Table)
    for row, line in enumerate(distances.lines):
        np.testing.assert_array_equal(line.y, found.arrays["distance"][:, row].mean(0))
        np.testing.assert_array_equal(line.spread, found.arrays["distance"][:, row].std(0))
    mean, *each = chances.lines
    np.testing.assert_array_equal([line.y for line in each], found.arrays["probability"])
    np.testing.assert_array_equal(mean.y, found.arrays["probability"].mean(0))
    np.testing.assert_array_equal(mean.spread, found.arrays["probability"].std(0))
    assert table.columns[1:] == ("Rotation",)
    told = dict(table.rows)
    assert told["distance, conv1"] == f"{found.arrays['distance'][:, 0].mean() * 5 / 4:.2f}"
    assert told["probability before"] == f"{found.arrays['probability'][:, 2].mean():.2f}"
    same = found.arrays["predicted"] == found.arrays["predicted"][:, [2]]
    assert told["answer kept"] == f"{100 * same[:, [0, 1, 3, 4]].mean():.0f} %"


def test_one_picture_has_no_spread_and_many_have_only_their_mean():
    alone = Invariance(steps=1).inspect(subject(pictures(1))).exhibits
    assert [line.spread for curves in alone[:2] for line in curves.lines] == [None] * 4
    many = Invariance(steps=1).inspect(subject(pictures(6))).exhibits
    assert [line.name for line in many[1].lines] == ["mean"]


def test_pictures_along_the_axis_are_the_first_picture_as_the_network_saw_it():
    x = np.random.default_rng(6).uniform(size=(2, 12, 9, 3))
    labels = ("ant", "bee", "cat, house cat", "dog", "eel")
    found = Invariance(steps=6).inspect(subject(x, labels=labels))
    along = found.exhibits[0].pictures
    assert [place for place, _ in along] == [-180, -120, -60, 0, 60, 120, 180]
    for k, (amount, tile) in enumerate(along):
        expected = np.rint(np.clip(moved(x[0], "rotate", amount), 0, 1) * 255)
        np.testing.assert_array_equal(tile.pixels, expected)
        label = labels[found.arrays["predicted"][0, 2 * k]].split(",")[0]
        assert tile.caption == label


def test_the_untransformed_picture_stands_among_those_along_the_axis():
    found = Invariance("scale", steps=6).inspect(subject(pictures(1)))
    assert 1.0 in [place for place, _ in found.exhibits[1].pictures]


def test_what_is_asked_for_goes_before_what_is_known():
    x = pictures(2)
    asked = (ClassProbability(3), Predicted(1))
    found = Invariance(steps=1).inspect(subject(x, classes=(0, 0), targets=asked))
    second = np.argsort(-ReferenceModel(NETS["plain"](), "float64").forward(x).logits[1])[1]
    assert found.arrays["classes"].tolist() == [3, second]
    alone = Invariance(steps=1).inspect(subject(x, targets=(ClassScore(2),)))
    assert alone.arrays["classes"].tolist() == [2, 2]


def test_what_does_not_fit_is_refused():
    x = pictures(1)
    with pytest.raises(TargetError, match="whose probability can be followed"):
        Invariance(steps=1).inspect(subject(x, targets=(Neuron(LOGITS, (0,)),)))
    with pytest.raises(UnknownClassError, match="class 7 is out of range"):
        Invariance(steps=1).inspect(subject(x, classes=(7,)))
    with pytest.raises(ParameterError, match="for all transformations"):
        Invariance("all", amount=3.0).inspect(subject(x))
    with pytest.raises(UnknownLayerError, match="conv9"):
        Invariance(steps=1, layer="conv9").inspect(subject(x))


def test_a_layer_without_values_leaves_a_gap():
    net = symmetric_net()
    net.parameters["conv.bias"][:] = -100.0
    x = np.random.default_rng(1).uniform(size=(1, 8, 8, 3))
    for metric in ("euclidean", "cosine"):
        found = Invariance(steps=1, layer="relu", metric=metric).inspect(
            subject(x, ReferenceModel(net, "float64"))
        )
        assert np.isnan(found.arrays["distance"][0, 0, [0, 2]]).all()


def test_memory_is_bounded_and_progress_is_told():
    x, calls, told = pictures(2), [], []

    class Counting(ReferenceModel):
        def forward(self, x, **more):
            calls.append(len(x))
            return super().forward(x, **more)

    net = Counting(NETS["plain"](), "float64")
    with listening(lambda *said: told.append(said)):
        Invariance(steps=4).inspect(subject(x, net, batch_size=3))
    assert calls == [1, 3, 3, 2] * 2
    first = "invariance, picture 1 of 2"
    assert told[:3] == [(first, 3, 8), (first, 6, 8), (first, 8, 8)]


def test_no_picture_is_an_error():
    with pytest.raises(ArrayError, match="no picture to look at"):
        Invariance().inspect(subject(pictures(0)))


def test_signals_are_refused():
    (x,) = random_input(NETS["signal"](), 1, 0).values()
    with pytest.raises(ArrayError, match="signals and volumes"):
        Invariance().inspect(subject(x, ReferenceModel(NETS["signal"](), "float32")))
