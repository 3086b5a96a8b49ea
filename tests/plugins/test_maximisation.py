"""Pictures that excite: known answers on linear networks, and what the parameters promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import (
    ArrayError,
    ParameterError,
    TargetError,
    UnknownClassError,
    UnknownLayerError,
)
from cnnviz_core.exhibits import Curves, Gallery
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.model import LOGITS
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore, Contrast, Predicted, probabilities
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.class_model import ClassModel
from cnnviz_features.maximisation import Maximisation
from cnnviz_features.synthesis.diversity import Diversity

STILL = {"jitter": 0.0, "scale": 0.0, "rotate": 0.0}
LABELS = ("ant", "bee", "cat", "dog", "big cat")


@parametrize_with_checks(
    [
        Maximisation(steps=3, channels="0-2"),
        Maximisation(steps=2, layer="conv1", channel=1, restarts=2, diversity=1.0, frames=1),
        Maximisation(steps=2, channel=3, position="middle", parameterisation="pixel", tv=1.0),
        ClassModel(steps=3, frames=2),
    ]
)
def test_the_inspectors(inspector, check):
    check(inspector)


def subject(net="plain", pictures=0, dtype="float64", **more):
    spec = NETS[net]() if isinstance(net, str) else net
    (shape,) = spec.inputs.values()
    x = np.random.default_rng(4).uniform(size=(pictures, *shape)).astype(dtype)
    named = {"labels": LABELS, "name": "plain", **more}
    return Subject(
        ReferenceModel(spec, dtype), ArrayPictures(x), PixelSpace.identity(shape[2]), shape, **named
    )


def linear(size=(4, 5, 3), classes=3):
    """Pictures straight to scores: the gradient of a score is its weights, wherever one is."""
    rng = np.random.default_rng(7)
    values = int(np.prod(size))
    arrays = {"fc.weight": rng.normal(size=(values, classes)), "fc.bias": rng.normal(size=classes)}
    ops = (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",)))
    return NetSpec({"image": size}, ops, arrays, "linear"), arrays["fc.weight"].T.reshape(-1, *size)


# ------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("kind", ["pixel", "fourier"])
@pytest.mark.parametrize("mixed", [True, False])
def test_with_an_l2_term_a_linear_score_is_highest_at_the_weights(kind, mixed):
    net, weights = linear()
    values = weights[1].size
    l2 = 1.3 * values * np.abs(weights[1]).max()
    found = Maximisation(
        objective="class:1",
        parameterisation=kind,
        decorrelate=mixed,
        l2=l2,
        steps=500,
        step_size=0.1,
        **STILL,
    ).inspect(subject(net, labels=None))
    expected = 0.5 + values * weights[1] / (2 * l2)
    np.testing.assert_allclose(found.arrays["pictures"][0], expected, atol=2e-3)


def test_a_class_model_of_a_linear_network_is_its_weights():
    net, weights = linear()
    values = weights[0].size
    l2 = values * np.abs(weights).max()
    made = ClassModel(l2=l2, steps=400, step_size=0.002, jitter=0.0, blur=0.0)
    found = made.inspect(subject(net, labels=None))
    expected = 0.5 + values * weights / (2 * l2)
    np.testing.assert_allclose(found.arrays["pictures"], expected, atol=0.01)


def test_without_a_penalty_a_linear_score_drives_colours_to_the_ends():
    net, weights = linear()
    found = Maximisation(
        objective="class:0", parameterisation="pixel", decorrelate=False, steps=400, **STILL
    ).inspect(subject(net, labels=None))
    np.testing.assert_allclose(found.arrays["pictures"][0], weights[0] > 0, atol=0.05)


def test_a_total_variation_term_makes_smoother_pictures():
    def rough(tv):
        found = Maximisation(layer="conv2", channel=3, tv=tv, steps=40).inspect(subject())
        return np.abs(np.diff(found.arrays["pictures"], axis=1)).mean()

    assert rough(300.0) < 0.8 * rough(0.0)


# ------------------------------------------------------------------------------- what it excites


@pytest.mark.parametrize(
    "asked",
    [
        {"channel": 3},
        {"layer": "relu1", "channel": 2},
        {"layer": "conv2", "channel": 1, "position": "2,3"},
        {"layer": "conv2", "channel": 1, "position": "middle"},
        {"layer": "conv2", "direction": np.arange(8.0)},
        {"layer": "conv2", "direction": np.arange(8.0) - 4, "cosine_power": 2.0},
        {"objective": "-conv1:2 + 0.3*dog"},
        {"layer": "conv1", "channel": 2, "optimiser": "plain", "parameterisation": "pixel"},
    ],
    ids=str,
)
def test_the_score_rises(asked):
    found = Maximisation(steps=40, **asked).inspect(subject())
    scores, reached = found.arrays["scores"], found.arrays["reached"]
    assert scores.shape == (40, 1)
    assert reached[0] > scores[0, 0]
    assert scores[-5:].mean() > scores[:5].mean()
    assert found.arrays["pictures"].min() >= 0
    assert found.arrays["pictures"].max() <= 1


def test_what_was_reached_is_the_score_of_the_pictures():
    looked_at = subject()
    found = Maximisation(objective="relu2:1@2,3; cat; conv1", steps=5).inspect(looked_at)
    pictures = found.arrays["pictures"]
    trace = looked_at.model.forward(pictures, capture=("relu2", "conv1"))
    expected = [trace["relu2"][0, 2, 3, 1], trace.logits[1, 2], (trace["conv1"][2] ** 2).mean()]
    np.testing.assert_allclose(found.arrays["reached"], expected, rtol=1e-12)
    known = probabilities(trace.logits, "softmax")
    np.testing.assert_allclose(found.arrays["probabilities"], known, rtol=1e-12)


def test_targets_of_the_subject():
    found = Maximisation(steps=9).inspect(subject(targets=(ClassScore(3), Contrast(1, 2))))
    assert found.facts["objectives"] == ["dog", "class 1 rather than 2"]
    assert (found.arrays["reached"] > found.arrays["scores"][0]).all()
    by_text = Maximisation(steps=9, objective="dog").inspect(subject())
    np.testing.assert_array_equal(by_text.arrays["pictures"], found.arrays["pictures"][:1])


def test_the_predicted_class_is_that_of_the_start():
    looked_at = subject(pictures=2, targets=(Predicted(),))
    first = looked_at.model.forward(looked_at.pictures.all().x).logits.argmax(1)
    found = Maximisation(steps=3).inspect(looked_at)
    assert found.facts["objectives"] == [LABELS[k] for k in first]


def test_channels_as_numbers_and_ranges():
    found = Maximisation(layer="conv2", channels="6, 1-3", steps=1).inspect(subject())
    assert found.facts["objectives"] == [f"conv2:{k}" for k in (6, 1, 2, 3)]


def test_by_default_the_first_channels_of_the_last_grid():
    found = Maximisation(steps=1).inspect(subject())
    assert found.facts["objectives"] == [f"relu2:{k}" for k in range(8)]
    assert "relu2:0 and 7 more" in found.title


# ---------------------------------------------------------------------- seeds, starts, restarts


def pictures_of(inspector, **how):
    return inspector.inspect(subject(**how)).arrays["pictures"]


SHORT = Maximisation(layer="conv2", channel=2, steps=6)


def test_the_same_seed_gives_the_same_pictures_and_another_others():
    first = pictures_of(SHORT)
    np.testing.assert_array_equal(pictures_of(SHORT), first)
    assert not np.allclose(pictures_of(replace(SHORT, seed=1)), first)


def test_a_channel_alone_is_the_channel_among_others():
    among = pictures_of(replace(SHORT, channel=None, channels="0-3"), batch_size=3)
    np.testing.assert_allclose(among[2:3], pictures_of(SHORT), atol=1e-9)


def test_restarts_differ_and_the_first_is_that_of_one_alone():
    several = pictures_of(replace(SHORT, restarts=3))
    assert len(several) == 3
    np.testing.assert_allclose(several[:1], pictures_of(SHORT), atol=1e-9)
    assert not np.allclose(several[0], several[1], atol=1e-3)


def test_diversity_keeps_restarts_apart():
    made = Maximisation(layer="conv2", channel=2, steps=40, restarts=2)
    alike = []
    for weight in (0.0, 20.0):
        looked_at = subject()
        found = replace(made, diversity=weight).inspect(looked_at)
        value = looked_at.model.forward(found.arrays["pictures"], capture=("conv2",))["conv2"]
        alike.append(-Diversity("conv2", 2).scores(value).mean())
    assert 1 - alike[1] > 10 * (1 - alike[0])


def test_pictures_are_what_it_begins_with():
    looked_at = subject(pictures=2)
    start = looked_at.pictures.all().x
    made = replace(SHORT, steps=1, step_size=1e-9, restarts=2, noise=0.5)
    found = made.inspect(looked_at).arrays["pictures"]
    np.testing.assert_allclose(found[[0, 2]], start, atol=2e-3)
    assert np.abs(found[[1, 3]] - start).max() > 0.01
    gallery = made.inspect(looked_at).exhibits[0]
    assert [len(row) for row in gallery.rows] == [3, 3]


def test_a_picture_that_cannot_move_is_told_of():
    net = NETS["smooth"]()
    arrays = {name: 0 * array for name, array in net.parameters.items()}
    dead = subject(replace(net, parameters=arrays), labels=None)
    found = Maximisation(layer="conv2", channels="0-1", steps=3).inspect(dead)
    assert found.facts["pictures without any gradient"] == [0, 1]
    assert "2 of 2" in found.exhibits[0].note


def test_a_shut_channel_opens():
    net = NETS["plain"]()
    bias = net.parameters["conv1.bias"] - [0, 0, 1.5, 0, 0, 0]
    shut = subject(replace(net, parameters={**net.parameters, "conv1.bias": bias}))
    found = Maximisation(layer="relu1", channel=2, steps=60, step_size=0.1).inspect(shut)
    (without,) = found.facts["steps without a gradient of the score"]
    assert 0 < without < 60
    assert found.arrays["scores"][0] == 0 < found.arrays["reached"][0]


def test_grey_networks():
    rng = np.random.default_rng(0)
    arrays = {"conv.weight": rng.normal(size=(3, 3, 1, 4)), "fc.weight": rng.normal(size=(4, 2))}
    ops = (
        Op("conv", "conv", ("image",)),
        Op("relu", "relu", ("conv",)),
        Op("gap", "gap", ("relu",)),
        Op("fc", "linear", ("gap",)),
    )
    grey = subject(NetSpec({"image": (9, 8, 1)}, ops, arrays, "grey"), labels=None)
    for made in (Maximisation(steps=3), ClassModel(steps=3)):
        found = made.inspect(grey)
        assert found.arrays["pictures"].shape[1:] == (9, 8, 1)
        assert found.exhibits[0].rows[0][0].pixels.shape == (9, 8, 3)


# ------------------------------------------------------------------------------ what one sees


def test_exhibits_captions_and_curves():
    found = Maximisation(objective="dog; conv1:2", steps=4).inspect(subject())
    gallery, curves = found.exhibits
    assert isinstance(gallery, Gallery)
    assert isinstance(curves, Curves)
    dog, channel = (tile.caption for tile in gallery.rows[0])
    known = found.arrays["probabilities"][0]
    assert known.argmax() == 0
    assert dog == (
        f"dog\nscore {found.arrays['reached'][0]:.3g}, {known[3]:.1%}\nseen as ant, {known[0]:.1%}"
    )
    assert channel == f"conv1:2\nscore {found.arrays['reached'][1]:.3g}"
    assert [line.name for line in curves.lines] == ["dog", "conv1:2"]
    ant = Maximisation(objective="ant", steps=4).inspect(subject())
    percent = f"{ant.arrays['probabilities'][0, 0]:.1%}"
    assert ant.exhibits[0].rows[0][0].caption.endswith(f", {percent}")
    assert found.frames == ()


def test_frames_show_all_pictures_at_every_kth_step():
    found = replace(SHORT, restarts=2, frames=2).inspect(subject())
    assert len(found.frames) == 4
    h, w, _ = subject().shape
    assert {frame.shape for frame in found.frames} == {(h, 2 * w + 2, 3)}
    shown = np.rint(found.arrays["pictures"] * 255)
    np.testing.assert_array_equal(found.frames[-1][:, :w], shown[0])
    np.testing.assert_array_equal(found.frames[-1][:, w + 2 :], shown[1])
    alone = replace(SHORT, frames=2).inspect(subject())
    assert [place for place, _ in alone.exhibits[1].pictures] == [0, 2, 4, 6]


def test_progress_tells_which_pictures():
    told = []
    with listening(lambda *what: told.append(what)):
        Maximisation(layer="conv1", steps=2).inspect(subject(batch_size=4))
    assert told == [
        ("maximisation, pictures 1 to 4 of 6", 1, 2),
        ("maximisation, pictures 1 to 4 of 6", 2, 2),
        ("maximisation, pictures 5 to 6 of 6", 1, 2),
        ("maximisation, pictures 5 to 6 of 6", 2, 2),
    ]


# ------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"channel": 99}, TargetError, "0 to 7"),
        ({"channels": "3-x"}, ParameterError, "cannot be read"),
        ({"channels": "0-8"}, None, ""),
        ({"channels": "0-9"}, TargetError, "channel 8"),
        ({"layer": "conv7"}, UnknownLayerError, "conv7"),
        ({"channel": 1, "position": "99,99"}, TargetError, "outside"),
        ({"direction": np.ones(3)}, TargetError, "3 entries"),
        ({"direction": np.ones(8), "channel": 1}, ParameterError, "direction and channel"),
        ({"objective": "dog", "channel": 1}, ParameterError, "objective and channel"),
        ({"objective": "wolf"}, UnknownClassError, "wolf"),
        ({"objective": " ; "}, TargetError, "empty"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(asked, error, said):
    made = Maximisation(steps=1, **asked)
    if error is None:
        made.inspect(subject())
        return
    with pytest.raises(error, match=said):
        made.inspect(subject())


def test_a_target_and_a_channel_are_one_too_many():
    with pytest.raises(ParameterError, match="a target and channel"):
        Maximisation(steps=1, channel=1).inspect(subject(targets=(ClassScore(1),)))


def test_targets_must_be_as_many_as_pictures():
    asked = (ClassScore(1), ClassScore(2))
    with pytest.raises(TargetError, match="2 targets"):
        Maximisation(steps=1).inspect(subject(pictures=3, targets=asked))


def test_networks_that_do_not_look_at_pictures():
    looked_at = replace(subject(), shape=(41, 3))
    for made in (Maximisation(), ClassModel()):
        with pytest.raises(ArrayError, match=r"\(H, W, C\)"):
            made.inspect(looked_at)


# -------------------------------------------------------------------------------- class models


def test_a_class_model_raises_its_class():
    found = ClassModel(classes="dog; 0-1", steps=30, l2=0.1).inspect(subject())
    assert found.facts["classes"] == [3, 0, 1]
    assert found.facts["objectives"] == ["dog", "ant", "bee"]
    assert (found.arrays["reached"] > found.arrays["scores"][0]).all()
    assert found.arrays["scores"].shape == (30, 3)


def test_a_class_model_is_normalised_ascent_on_score_less_l2():
    looked_at = subject()
    made = ClassModel(classes="cat", steps=5, step_size=0.01, l2=30.0, jitter=0.0, blur=0.0)
    x = np.full((1, *looked_at.shape), 0.5)
    for _ in range(5):
        back = looked_at.model.pullback(
            x, ClassScore(2).gradient(np.zeros((1, 5))[0])[None], of=LOGITS
        )
        (gradient,) = back.gradients.values()
        gradient = gradient - 30.0 / x.size * 2 * (x - 0.5)
        x = x + 0.01 * gradient / np.sqrt((gradient**2).mean())
    found = made.inspect(looked_at).arrays["pictures"]
    np.testing.assert_allclose(found, np.clip(x, 0, 1), atol=1e-12)


def test_a_blur_keeps_fine_noise_down():
    def fine(blur):
        found = ClassModel(classes="dog", steps=20, blur=blur).inspect(subject())
        picture = found.arrays["pictures"][0] - 0.5
        return np.abs(np.diff(picture, axis=0)).mean() / np.abs(picture).mean()

    assert fine(0.8) < 0.7 * fine(0.0)


def test_a_class_model_begins_with_the_mean_colour():
    space = PixelSpace(np.diag([2.0, 3, 4]), np.array([-1.0, -1, -1]))
    looked_at = replace(subject(), space=space)
    found = ClassModel(classes="0", steps=1, step_size=1e-9).inspect(looked_at)
    expected = np.broadcast_to([1 / 2, 1 / 3, 1 / 4], found.arrays["pictures"].shape)
    np.testing.assert_allclose(found.arrays["pictures"], expected, atol=1e-6)


def test_by_default_the_first_nine_classes_or_those_there_are():
    assert ClassModel(steps=1).inspect(subject()).facts["classes"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("classes", "targets", "error", "said"),
    [
        ("0-7", (), ParameterError, "there are 5"),
        (" ", (), ParameterError, "no class"),
        ("wolf", (), UnknownClassError, "wolf"),
        ("0", (Contrast(0, 1),), TargetError, "score of a class"),
        ("0", (ClassScore(9),), UnknownClassError, "0 to 4"),
    ],
)
def test_what_is_no_class_is_refused(classes, targets, error, said):
    with pytest.raises(error, match=said):
        ClassModel(classes=classes, steps=1).inspect(subject(targets=targets))


def test_a_class_model_of_a_network_without_classes():
    net = NETS["plain"]()
    dense = subject(replace(net, ops=net.ops[:5]), labels=None)
    with pytest.raises(ArrayError, match="vector"):
        ClassModel(steps=1).inspect(dense)
