"""Networks with several inputs: one is explained, the others are held."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.samples import samples_of
from cnnviz.spaces import bounded
from cnnviz_core.errors import ArrayError, CnnvizError, ParameterError
from cnnviz_core.inputs import OneInput
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Predicted
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import bearable

METHODS = list(get_registry().explainers)


@pytest.fixture(scope="module")
def two():
    """A network that takes a picture of 8 x 10 pixels and a vector of 4 numbers."""
    return cnnviz.wrap(
        ReferenceModel(NETS["two_inputs"]()), preprocess=cnnviz.Preprocessing(size=(8, 10))
    )


@pytest.fixture
def x():
    return random_input(NETS["two_inputs"](), 3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_the_picture_with_the_row_of_its_own_sample(two, x, method):
    small = bearable(method)
    explainer = bounded(get_registry().explainer(method, **small), two, (8, 10, 3))
    direct = []
    try:
        for i in range(3):
            model = OneInput(two.model, "image", {"vector": x["vector"][i : i + 1]})
            direct.append(explainer.explain(model, x["image"][i : i + 1], [Predicted()]))
    except CnnvizError as error:
        with pytest.raises(type(error)):
            cnnviz.explain(two, x, method, preprocessed=True, **small)
        return
    e = cnnviz.explain(two, x, method, preprocessed=True, **small)
    for i in range(3):
        np.testing.assert_array_equal(e.raw[i], direct[i].raw[0])
    assert e.maps.shape == (3, 8, 10)
    assert e.provenance["input"] == "image"


def test_the_gradient_is_that_of_the_whole_network(two, x):
    """Against the derivative of the network with both inputs, without any that is held."""
    e = cnnviz.explain(two, x, "saliency", target=2, preprocessed=True)

    def of_class_2(logits):
        cotangent = np.zeros_like(logits)
        cotangent[:, 2] = 1
        return cotangent

    whole = two.model.pullback(x, of_class_2, wrt=("@input:image",))
    np.testing.assert_allclose(e.raw, whole.gradients["@input:image"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(e.scores, whole.values["@logits"][:, 2], rtol=1e-5)


def test_rows_that_differ_make_results_that_differ(two, x):
    same = {"image": x["image"][[0, 0]], "vector": x["vector"][:2]}
    e = cnnviz.explain(two, same, preprocessed=True, target=1)
    assert e.scores[0] != e.scores[1]


@pytest.mark.parametrize("row", [slice(0, 1), 0], ids=["(1, 4)", "(4,)"])
def test_one_row_serves_all_samples(two, x, row):
    one = cnnviz.explain(two, {**x, "vector": x["vector"][row]}, preprocessed=True)
    three = cnnviz.explain(two, {**x, "vector": x["vector"][[0, 0, 0]]}, preprocessed=True)
    np.testing.assert_allclose(one.raw, three.raw, rtol=1e-5, atol=1e-6)
    assert one.targets == three.targets


def test_only_samples_whose_rows_differ_go_one_by_one(two, x):
    def steps(given, **named):
        told = []
        with listening(lambda *what: told.append(what[1:])):
            cnnviz.explain(two, given, preprocessed=True, **named)
        return told

    assert steps(x) == [(1, 3), (2, 3), (3, 3)]
    assert steps({**x, "vector": x["vector"][:1]}) == [(3, 3)]
    assert steps({**x, "vector": x["vector"][:1]}, batch_size=2) == [(2, 3), (3, 3)]
    # The targets of one sample share its row.
    assert steps(x, target="top-2") == [(2, 6), (4, 6), (6, 6)]


def test_pictures_come_in_any_form(two, x, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    vector = x["vector"][0]
    e = cnnviz.explain(two, {"image": tmp_path / "cat.png", "vector": vector})
    assert e.names == ("cat.png",)
    assert e.heatmap().shape == (30, 41)
    both = cnnviz.explain(two, {"vector": x["vector"][:2], "image": [pixels, pixels[::-1]]})
    np.testing.assert_array_equal(both.raw[0], e.raw[0])
    assert both.names == ("picture-1", "picture-2")


def test_the_input_that_is_explained_can_be_named(two, x):
    usual = cnnviz.explain(two, x, preprocessed=True)
    assert cnnviz.explain(two, x, preprocessed=True, input="image") == usual
    with pytest.raises(ParameterError, match=r"input='sound'[\s\S]*'image', 'vector'"):
        cnnviz.explain(two, x, preprocessed=True, input="sound")
    with pytest.raises(ArrayError, match="'vector' has no spatial grid"):
        cnnviz.explain(two, x, preprocessed=True, input="vector")
    with pytest.raises(ArrayError, match="'vector' takes no pictures"):
        cnnviz.explain(two, x, input="vector")


def test_the_first_input_with_a_grid_is_the_usual_one(x):
    from cnnviz_core.netspec import NetSpec

    net = NETS["two_inputs"]()
    turned = NetSpec(dict(reversed(net.inputs.items())), net.ops, net.parameters, "turned")
    e = cnnviz.explain(ReferenceModel(turned), x, preprocessed=True)
    assert e.provenance["input"] == "image"
    expected = cnnviz.explain(ReferenceModel(net), x, preprocessed=True)
    np.testing.assert_allclose(e.raw, expected.raw, rtol=1e-6)


def test_methods_are_compared_on_the_same_rows(two, x):
    methods = ["grad-cam", "saliency", "occlusion"]
    c = cnnviz.compare(two, x, methods, preprocessed=True)
    assert list(c) == methods
    for method, e in c.items():
        assert e == cnnviz.explain(two, x, method, preprocessed=True)
    every = cnnviz.compare(two, {k: v[:1] for k, v in x.items()}, preprocessed=True)
    assert set(every) | set(every.skipped) == set(METHODS)
    assert "linear function" in every.skipped["cam"]


def test_a_network_with_one_input_may_be_given_it_by_name(network, picture):
    e = cnnviz.explain(network, {"image": picture})
    assert e == cnnviz.explain(network, picture) == cnnviz.explain(network, picture, input="image")
    assert "input" not in e.provenance


def test_what_is_held_stays_what_it_was(two, x):
    samples = samples_of(two, x, preprocessed=True)
    expected = x["vector"].copy()
    x["vector"][:] = 0
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.held.rows["vector"], expected[i : i + 1])
        assert not sample.held.rows["vector"].flags.writeable


def test_a_result_can_be_saved_with_the_input_that_it_is_about(two, x, tmp_path):
    e = cnnviz.explain(two, x, preprocessed=True, target=ClassScore(1))
    assert cnnviz.Explanation.load(e.save(tmp_path / "e.npz")) == e


def test_what_does_not_fit(two, x):
    def told(given, **named):
        with pytest.raises(ArrayError) as info:
            cnnviz.explain(two, given, **{"preprocessed": True, **named})
        return info.value

    plain = told(x["image"])
    assert "2 inputs: image, vector" in plain.problem
    assert plain.remedy == "call cnnviz.explain(model, {'image': ..., 'vector': ...})"
    assert told(np.zeros((8, 8, 3), np.uint8), preprocessed=False).remedy == plain.remedy
    assert "'vector' is missing" in told({"image": x["image"]}).problem
    assert "'age' is none of them" in told({**x, "age": 3}).problem
    assert "(2, 4)" in told({**x, "vector": x["vector"][:2]}).problem
    assert "N = 1, or 3" in told({**x, "vector": x["vector"][:2]}).expected
    assert "NaN" in told({**x, "vector": x["vector"] * np.nan}).problem
    assert "<U3" in told({**x, "vector": ["one", "two"]}).problem
    assert "'vector' has the shape" in told({**x, "vector": x["vector"][:, :3]}).problem
    assert "(3, 8, 10)" in told({**x, "image": x["image"][..., 0]}).problem
