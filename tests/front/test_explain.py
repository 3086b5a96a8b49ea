from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.images import Picture
from cnnviz.preprocess import prepare
from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnknownClassError
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Neuron, probabilities
from support.methods import bearable

METHODS = list(get_registry().explainers)


def prepared(network, pixels):
    return prepare(Picture(pixels, "p"), network.preprocessing)[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_front_door_adds_nothing_to_the_explainer(network, picture, method):
    """The raw result is bit for bit what the explainer gives on the prepared picture."""
    e = cnnviz.explain(network, picture, method, **bearable(method))
    x = prepared(network, picture)[None]
    told = {name: e.params[name] for name in ("low", "high") if name in e.params}
    told |= bearable(method)
    direct = get_registry().explainer(method, **told).explain(network.model, x, [e.targets[0]])
    np.testing.assert_array_equal(e.raw, direct.raw)
    assert e.maps.shape == (1, 12, 9)
    assert e.heatmap().shape == picture.shape[:2]
    assert e.method == method
    assert e.layer == direct.layer


def test_the_predicted_class_is_the_default(network, pictures):
    e = cnnviz.explain(network, pictures)
    for i, pixels in enumerate(pictures):
        logits = network.model.forward(prepared(network, pixels)[None]).logits[0]
        k = int(logits.argmax())
        assert e.targets[i] == ClassScore(k)
        assert e.target_labels[i] == network.labels[k]
        assert e.scores[i] == logits[k]
        odds = probabilities(logits, "softmax")
        assert e.probabilities[i] == pytest.approx(odds[k], rel=1e-6)
        order = np.argsort(-odds)
        assert [label for label, _ in e.predictions[i]] == [network.labels[j] for j in order]


@pytest.mark.parametrize("method", ["grad-cam", "saliency"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, None])
def test_batches_change_nothing(network, pictures, method, batch_size):
    """A batch of several pictures is the pictures one by one, in their order."""
    pictures = [*pictures, *pictures[:2]]
    e = cnnviz.explain(network, pictures, method, batch_size=batch_size)
    assert len(e) == 5
    for i, pixels in enumerate(pictures):
        one = cnnviz.explain(network, pixels, method)
        np.testing.assert_allclose(e.raw[i], one.raw[0], rtol=1e-5, atol=1e-7)
        assert e.geometry[i] == one.geometry[0]
        assert e.target_labels[i] == one.target_labels[0]
        np.testing.assert_array_equal(e.pictures[i], pixels)


def test_every_way_to_name_a_class_is_the_same(network, picture):
    ways = (2, np.int64(2), "cat", "CAT", "2", ClassScore(2), [2], ["cat"], (2,), np.array([2]))
    results = [cnnviz.explain(network, picture, target=way) for way in ways]
    for e in results:
        assert e.targets == (ClassScore(2),)
        assert e == results[0]


def test_each_picture_may_have_its_own_target(network, pictures):
    e = cnnviz.explain(network, pictures, target=["bee", None, Contrast(0, 3)])
    assert e.target_labels[0] == "bee"
    assert e.target_labels[1] == e.predictions[1][0][0]
    assert e.target_labels[2] == "ant rather than dog"
    assert np.isnan(e.probabilities[2])
    assert not np.isnan(e.probabilities[:2]).any()


def test_top_k_explains_each_picture_k_times(network, pictures):
    e = cnnviz.explain(network, pictures, target="top-3", batch_size=2)
    assert len(e) == 9
    assert e.names == tuple(name for name in cnnviz.explain(network, pictures).names for _ in "abc")
    for i in range(9):
        assert e.target_labels[i] == e.predictions[i][i % 3][0]
    one = cnnviz.explain(network, pictures[1], target=e.targets[4])
    np.testing.assert_allclose(e.maps[4], one.maps[0], rtol=1e-5, atol=1e-7)


def test_targets_that_are_no_class(network, picture):
    e = cnnviz.explain(network, picture, "saliency", target=Neuron("conv2", (1, 2, 3)))
    assert np.isnan(e.probabilities[0])
    x = prepared(network, picture)[None]
    value = network.model.forward(x, capture=("conv2",))["conv2"][0, 1, 2, 3]
    assert e.scores[0] == pytest.approx(value)
    odds = cnnviz.explain(network, picture, target=ClassProbability(1))
    assert odds.scores[0] == pytest.approx(odds.probabilities[0])


def test_a_prepared_batch_is_taken_as_it_is(network, pictures):
    x = np.stack([prepared(network, pixels) for pixels in pictures])
    direct = cnnviz.explain(network, x, preprocessed=True)
    through = cnnviz.explain(network, pictures)
    np.testing.assert_array_equal(direct.maps, through.maps)
    assert direct.names == ("sample 0", "sample 1", "sample 2")
    assert direct.heatmap(0).shape == (12, 9)
    assert (direct.pictures[0].min(), direct.pictures[0].max()) == (0, 255)


def test_pictures_come_as_paths_pil_and_arrays(network, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    floats = picture.astype(np.float32) / 255
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(picture), picture, floats]
    e = cnnviz.explain(network, forms)
    for i in range(1, len(forms)):
        np.testing.assert_array_equal(e.maps[i], e.maps[0])
    assert e.names[0] == "a.png"


def test_a_function_may_prepare(model, picture):
    def halves(pixels):
        assert pixels.dtype == np.uint8
        return (pixels[:12, :9] / 255.0).astype(np.float64)

    e = cnnviz.explain(model, picture, preprocess=halves)
    x = (picture[:12, :9] / 255).astype(np.float64)[None]
    np.testing.assert_allclose(e.raw, cnnviz.explain(model, x, preprocessed=True).raw, rtol=1e-6)
    assert e.heatmap().shape == picture.shape[:2]


def test_unknown_preprocessing_is_told_and_the_declared_size_taken(model, picture):
    with pytest.warns(UserWarning, match="preprocessing of ReferenceModel is not known") as noted:
        e = cnnviz.explain(model, picture)
    assert noted[0].filename == __file__
    assert e.maps.shape == (1, 12, 9)


def test_a_known_preprocessing_without_a_size_takes_the_declared_one(model, picture):
    e = cnnviz.explain(model, picture, preprocess=cnnviz.Preprocessing(mean=(0.5,), std=(0.5,)))
    assert e.maps.shape == (1, 12, 9)


def test_the_layer_goes_to_methods_that_look_at_one(network, picture):
    assert cnnviz.explain(network, picture, layer="conv1").layer == "conv1"
    assert cnnviz.explain(network, picture).layer == "relu2"
    with pytest.raises(ParameterError, match="saliency looks at no layer"):
        cnnviz.explain(network, picture, "saliency", layer="conv1")


def test_methods_take_their_own_parameters(network, picture):
    e = cnnviz.explain(network, picture, "occlusion", window=4, stride=2, fill=0.0)
    assert (e.params["window"], e.params["stride"], e.params["fill"]) == (4, 2, 0.0)
    with pytest.raises(ParameterError, match="has no parameter 'widow'"):
        cnnviz.explain(network, picture, "occlusion", widow=4)
    with pytest.raises(ParameterError, match="batch_size is 0"):
        cnnviz.explain(network, picture, batch_size=0)


def test_methods_go_by_their_other_names(network, picture):
    assert cnnviz.explain(network, picture, "GradCAM").method == "grad-cam"
    assert cnnviz.explain(network, picture, "Grad_CAM").method == "grad-cam"


def test_a_network_without_logits_of_classes_is_explained_too(picture):
    class Dense:
        """A network that gives a map instead of scores."""

        framework, activation = "numpy", "none"
        capabilities = frozenset()
        layers = ()

        def __init__(self):
            from cnnviz_core.model import InputInfo

            self.inputs = {"input": InputInfo("input", (8, 8, 3))}

        def forward(self, x, *, capture=(), replace=None):
            from cnnviz_core.model import LOGITS, OUTPUT, Trace

            return Trace({OUTPUT: x[..., :2], LOGITS: x[..., :2]})

        def pullback(self, x, cotangent, *, of, wrt, rule):
            raise NotImplementedError

    unit = cnnviz.Preprocessing()
    target = cnnviz.Segment(1, np.ones((8, 8), bool))
    e = cnnviz.explain(Dense(), picture, "occlusion", target=target, preprocess=unit, window=2)
    assert e.probabilities is None
    assert e.predictions == ((),)
    # Covering with the mean colour changes the sum by what was covered less its mean.
    assert np.isfinite(e.maps).all()


def test_provenance_says_what_made_it(network, picture):
    found = cnnviz.explain(network, picture).provenance
    assert found["model"] == "plain"
    assert found["framework"] == "numpy"
    assert found["numpy"] == np.__version__
    assert found["plugin"].startswith("cnnviz ")


def test_progress_is_told(network, pictures):
    told = []
    with listening(lambda *what: told.append(what)):
        cnnviz.explain(network, pictures, target="top-2", batch_size=4)
    assert told == [("grad-cam", 4, 6), ("grad-cam", 6, 6)]


def test_wrong_targets_are_told(network, pictures):
    with pytest.raises(TargetError, match="2 targets were given for 3 samples"):
        cnnviz.explain(network, pictures, target=["ant", "bee"])
    with pytest.raises(UnknownClassError, match=r"class 5 is out of range[\s\S]*0 to 4"):
        cnnviz.explain(network, pictures, target=5)
    with pytest.raises(UnknownClassError, match="class -1 is out of range"):
        cnnviz.explain(network, pictures, target=-1)
    with pytest.raises(UnknownClassError, match="'bees'"):
        cnnviz.explain(network, pictures, target="bees")
    for wrong in (True, 1.5, {"a": 1}):
        with pytest.raises(TargetError):
            cnnviz.explain(network, pictures, target=wrong)
    with pytest.raises(TargetError, match="top-0"):
        cnnviz.explain(network, pictures, target="top-0")
    with pytest.raises(TargetError, match="rank 5"):
        cnnviz.explain(network, pictures, target="top-6")


def test_a_class_out_of_range_is_told_without_labels(model, picture):
    unit = cnnviz.Preprocessing()
    with pytest.raises(UnknownClassError, match=r"class 5 is out of range[\s\S]*0 to 4"):
        cnnviz.explain(model, picture, target=5, preprocess=unit)
    with pytest.raises(TargetError, match="labels"):
        cnnviz.explain(model, picture, target="cat", preprocess=unit)


def test_labels_must_fit_the_classes(model, picture):
    with pytest.raises(TargetError, match="3 labels were given for the 5 classes"):
        cnnviz.explain(model, picture, preprocess=cnnviz.Preprocessing(), labels=["a", "b", "c"])


def test_inputs_of_several_sizes_need_one(pictures):
    class AnySize:
        """A network that takes pictures of any size."""

        framework, activation, layers = "numpy", "softmax", ()
        capabilities = frozenset()

        def __init__(self):
            from cnnviz_core.model import InputInfo

            self.inputs = {"input": InputInfo("input", (None, None, 3))}

        def forward(self, x, *, capture=(), replace=None):
            from cnnviz_core.model import LOGITS, OUTPUT, Trace

            return Trace({OUTPUT: x.mean((1, 2)), LOGITS: x.mean((1, 2))})

        def pullback(self, x, cotangent, *, of, wrt, rule):
            raise NotImplementedError

    unit = cnnviz.Preprocessing()
    assert cnnviz.explain(AnySize(), pictures[2], "occlusion", preprocess=unit).maps.shape == (
        1,
        7,
        50,
    )
    with pytest.raises(ArrayError, match=r"inputs of 3 shapes[\s\S]*Preprocessing\(size="):
        cnnviz.explain(AnySize(), pictures, "occlusion", preprocess=unit)
