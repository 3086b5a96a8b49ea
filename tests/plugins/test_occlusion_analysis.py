"""Occlusion analysis against plain loops, and on networks of which the answer is known."""

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
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Predicted
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.occlusion_analysis import OcclusionAnalysis

LABELS = ("ant", "bee", "cat", "dog", "elk")
SPACE = PixelSpace.of(
    Preprocessing(size=(12, 9), channels="BGR", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.25,))
)


def case(name="plain", n=2, space=SPACE, **more):
    net = NETS[name]()
    (x,) = random_input(net, n, 5).values()
    x = x.astype("float64")
    model = ReferenceModel(net, "float64")
    return Subject(model, ArrayPictures(x), space, x.shape[1:], **{"labels": LABELS, **more})


def of_pictures(net, x, **more):
    model = ReferenceModel(net, "float64")
    return Subject(model, ArrayPictures(x), PixelSpace.identity(x.shape[-1]), x.shape[1:], **more)


def inspect(subject, **params):
    return get_registry().inspector("occlusion-analysis", **params).inspect(subject)


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


@parametrize_with_checks(
    [OcclusionAnalysis(), OcclusionAnalysis("conv1", channel=2, window=5, stride=4, fill="mean")]
)
def test_it_passes_the_checks_of_the_kit(inspector, check):
    check(inspector)


# ------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("layer", "channel"), [("conv1", None), ("pool1", None), ("relu2", None), ("conv2", 3)]
)
@pytest.mark.parametrize("fill", ["grey", "mean", 0.3])
def test_each_number_is_that_of_a_forward_pass_under_the_patch(layer, channel, fill):
    subject = case(batch_size=5)
    found = inspect(subject, layer=layer, channel=channel, fill=fill, window=4, stride=3).arrays
    tops, lefts = (0, 3, 6, 8), (0, 3, 5)
    assert found["activation"].shape == (2, len(tops), len(lefts))
    for n, x in enumerate(subject.pictures.x):
        trace = subject.model.forward(x[None], capture=(layer,))
        asked = trace.logits[0].argmax()
        strongest = trace[layer][0].sum((0, 1)).argmax()
        followed = strongest if channel is None else channel
        assert (found["classes"][n], found["channels"][n]) == (asked, followed)
        np.testing.assert_allclose(found["features"][n], trace[layer][0, ..., followed], rtol=1e-12)
        np.testing.assert_allclose(
            found["whole"][n],
            [trace[layer][0, ..., followed].sum(), softmax(trace.logits[0])[asked]],
            rtol=1e-10,
        )
        colour = {"grey": SPACE.to_input(np.full(3, 0.5)), "mean": x.mean((0, 1))}.get(fill, fill)
        for r, top in enumerate(tops):
            for c, left in enumerate(lefts):
                covered = x.copy()
                covered[top : top + 4, left : left + 4] = colour
                trace = subject.model.forward(covered[None], capture=(layer,))
                total = trace[layer][0, ..., followed].sum()
                np.testing.assert_allclose(found["activation"][n, r, c], total, rtol=1e-10)
                p = softmax(trace.logits[0])
                np.testing.assert_allclose(found["probability"][n, r, c], p[asked], rtol=1e-10)
                assert found["predicted"][n, r, c] == p.argmax()
                assert found["positions"][r, c].tolist() == [left, top, left + 4, top + 4]


def test_the_drop_is_the_map_of_the_occlusion_method():
    subject = case()
    found = inspect(subject, fill="mean", window=4, stride=2).arrays
    targets = [ClassProbability(int(index)) for index in found["classes"]]
    occlusion = get_registry().explainer("occlusion", window=4, stride=2)
    raw = occlusion.explain(subject.model, subject.pictures.x, targets).raw
    np.testing.assert_allclose(found["drop"], raw, rtol=1e-10, atol=1e-14)


def test_the_falls_of_a_linear_feature_under_disjoint_patches_add_up():
    rng = np.random.default_rng(2)
    ops = (
        Op("conv", "conv", ("image",), attrs={"padding": ((1, 1), (1, 1))}),
        Op("gap", "gap", ("conv",)),
    )
    net = NetSpec({"image": (8, 6, 3)}, ops, {"conv.weight": rng.normal(size=(3, 3, 3, 4))})
    subject = of_pictures(net, rng.normal(size=(3, 8, 6, 3)))
    found = inspect(subject, layer="conv", window=2, stride=2, fill=0.0).arrays
    total = found["whole"][:, 0]
    assert found["activation"].shape == (3, 4, 3)
    falls = (total[:, None, None] - found["activation"]).sum((1, 2))
    np.testing.assert_allclose(falls, total, rtol=1e-10)


def half_blind():
    """Make a network that looks at the left half of a picture only."""
    weight = np.random.default_rng(3).normal(size=(6, 8, 2, 3))
    weight[:, 4:] = 0
    ops = (
        Op("conv", "conv", ("image",)),
        Op("flat", "flatten", ("conv",)),
        Op("fc", "linear", ("flat",)),
    )
    arrays = {"conv.weight": np.eye(2)[None, None], "fc.weight": weight.reshape(-1, 3)}
    return NetSpec({"image": (6, 8, 2)}, ops, arrays)


def test_where_the_network_does_not_look_nothing_changes():
    x = np.random.default_rng(4).normal(size=(4, 6, 8, 2))
    found = inspect(of_pictures(half_blind(), x), window=2, stride=1, fill=5.0).arrays
    blind = found["positions"][..., 0] >= 4
    assert blind.sum() == 5 * 3
    for n in range(4):
        assert (found["predicted"][n, blind] == found["classes"][n]).all()
        np.testing.assert_allclose(found["probability"][n, blind], found["whole"][n, 1], rtol=1e-12)
    # Elsewhere it does.
    assert (found["predicted"][:, ~blind] != found["classes"][:, None]).any()
    np.testing.assert_allclose(found["drop"][:, :, 5:], 0, atol=1e-12)


def test_a_sigmoid_head_gives_each_class_its_own_probability():
    subject = case("sigmoid_head")
    found = inspect(subject, window=12)
    covered = np.broadcast_to(SPACE.to_input(np.full(3, 0.5)), (1, 12, 9, 3))
    scores = subject.model.forward(covered).logits[0]
    for n, asked in enumerate(found.arrays["classes"]):
        expected = 1 / (1 + np.exp(-scores[asked]))
        np.testing.assert_allclose(found.arrays["probability"][n, 0, 0], expected, rtol=1e-10)


def test_scores_that_are_no_probabilities_are_followed_as_they_are():
    subject = case()
    subject.model.activation = "none"
    found = inspect(subject, window=12)
    covered = np.broadcast_to(SPACE.to_input(np.full(3, 0.5)), (1, 12, 9, 3))
    scores = subject.model.forward(covered).logits[0]
    expected = scores[found.arrays["classes"]]
    np.testing.assert_allclose(found.arrays["probability"][:, 0, 0], expected, rtol=1e-10)
    (gallery,) = found.exhibits
    assert gallery.column_titles[3] == "score of the class"
    assert "%" not in gallery.rows[0][0].caption + gallery.rows[0][3].caption


# ------------------------------------------------------------------------------ which class


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        ((ClassScore(3),), [3, 3]),
        ((ClassScore(3), ClassProbability(0)), [3, 0]),
        ((Predicted(1),), None),
    ],
)
def test_the_class_asked_for_is_followed(targets, classes):
    subject = case(targets=targets)
    found = inspect(subject, window=6, stride=6).arrays
    if classes is None:
        scores = subject.model.forward(subject.pictures.x).logits
        classes = np.argsort(-scores, axis=1)[:, 1].tolist()
    assert found["classes"].tolist() == classes
    x = subject.pictures.x[1].copy()
    x[:6, :6] = SPACE.to_input(np.full(3, 0.5))
    p = softmax(subject.model.forward(x[None]).logits[0])
    np.testing.assert_allclose(found["probability"][1, 0, 0], p[classes[1]], rtol=1e-10)


def test_pictures_keep_their_targets_where_one_before_them_cannot_be_read():
    class Holed(ArrayPictures):
        def read(self, index):
            return None if index == 0 else super().read(index)

    subject = case(n=3, targets=(ClassScore(0), ClassScore(1), ClassScore(2)))
    holed = Holed(subject.pictures.x, ("a", "b", "c"))
    found = inspect(Subject(subject.model, holed, SPACE, subject.shape, subject.targets))
    assert found.arrays["classes"].tolist() == [1, 2]
    assert [picture["picture"] for picture in found.facts["pictures"]] == ["b", "c"]


# ------------------------------------------------------------------------------ what is seen


def test_the_map_of_classes_shows_the_most_probable_one_of_the_nearest_patch():
    subject = case()
    found = inspect(subject, window=3, stride=3, layer="conv1")
    (gallery,) = found.exhibits
    predicted = found.arrays["predicted"]
    for n, row in enumerate(gallery.rows):
        tile = row[-1]
        named = np.array(tile.legend)[tile.classes]
        assert named.shape == (12, 9)
        expected = np.array(LABELS)[np.kron(predicted[n], np.ones((3, 3), dtype=int))]
        np.testing.assert_array_equal(named, expected)
        answers = found.facts["pictures"][n]["answers"]
        assert tuple(answer["label"] for answer in answers) == tile.legend
        for answer in answers:
            assert answer["share"] == np.mean(predicted[n] == answer["class"])
        shares = [answer["share"] for answer in answers]
        assert shares == sorted(shares, reverse=True)


def test_activation_and_probability_are_shown_relative_to_their_largest():
    subject = case()
    found = inspect(subject, window=3, stride=3, layer="conv1")
    for n, (picture, features, activation, probability, _) in enumerate(found.exhibits[0].rows):
        np.testing.assert_array_equal(picture.pixels, SPACE.pixels(subject.pictures.x[n]))
        block = np.ones((3, 3))
        for tile, name in ((activation, "activation"), (probability, "probability")):
            values = found.arrays[name][n]
            expected = np.kron(values / np.abs(values).max(), block)
            np.testing.assert_allclose(tile.heat, expected, rtol=1e-12)
            assert tile.signed == bool((values < 0).any())
        maps = found.arrays["features"][n]
        np.testing.assert_allclose(features.heat, maps / np.abs(maps).max(), rtol=1e-12)
        for tile in (features, activation, probability):
            np.testing.assert_array_equal(tile.pixels, picture.pixels)


def test_the_facts_say_what_was_looked_at():
    found = inspect(case(), layer="relu1", window=4)
    assert found.facts["layer"] == "relu1"
    assert found.facts["patch"] == [4, 4]
    first = found.facts["pictures"][0]
    assert first["label"] == LABELS[first["class"]]
    assert first["channel"] == found.arrays["channels"][0]
    assert [first["activation"], first["probability"]] == found.arrays["whole"][0].tolist()


def test_progress_is_told_for_each_picture():
    told = []
    with listening(lambda *one: told.append(one)):
        inspect(case(batch_size=4), window=6, stride=6)
    assert told == [
        ("occlusion analysis, picture 1 of 2", 4, 4),
        ("occlusion analysis, picture 2 of 2", 4, 4),
    ]


# ------------------------------------------------------------------------------ what is refused


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(TargetError, match="the target is class 1 rather than 2"):
        inspect(case(targets=(Contrast(1, 2),)))
    with pytest.raises(UnknownClassError, match="class 5 is out of range"):
        inspect(case(targets=(ClassScore(5),)))


def test_signals_are_refused():
    with pytest.raises(ArrayError, match="use the method occlusion"):
        inspect(case("signal", space=PixelSpace.identity(3)))


def test_a_channel_or_a_layer_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match="channel=6 is out of range"):
        inspect(case(), layer="conv1", channel=6)
    with pytest.raises(UnknownLayerError, match="'fc' has no spatial grid"):
        inspect(case(), layer="fc")


@pytest.mark.parametrize("params", [{"window": 2, "stride": 3}, {"window": 0}, {"fill": "black"}])
def test_wrong_parameters_are_refused(params):
    with pytest.raises(ParameterError):
        inspect(case(), **params)
