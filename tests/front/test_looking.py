from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz_core.errors import TargetError, UnknownClassError, UnknownLayerError
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast


def layer_of(network, picture, layer, method="grad-cam"):
    return cnnviz.explain(network, picture, method, layer=layer).layer


def test_layers_by_name_pattern_and_position(network, picture):
    names = [info.name for info in cnnviz.layers(network)]
    for layer in ("conv1", ["conv1"], ("conv1",), "conv1*", names.index("conv1") - len(names)):
        assert layer_of(network, picture, layer) == "conv1"
    at = names.index("conv1") - len(names)
    assert layer_of(network, picture, str(at)) == "conv1"
    assert layer_of(network, picture, np.int64(at)) == "conv1"
    assert layer_of(network, picture, None) == layer_of(network, picture, "auto")


def test_the_list_of_layers_counts_from_the_end(network):
    listed = cnnviz.layers(network)
    assert [int(cells[0]) for cells in listed.cells] == list(range(-len(listed), 0))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (0, "not counted from the beginning"),
        (3, "pass layer='3'"),
        (-99, "layer -99 was asked for"),
        (True, "is no layer of plain"),
        (object(), "builtins.object was given as the layer"),
        ([], "no layer was given"),
        (["conv1", 2], "not counted from the beginning"),
        (["conv1", "conv2"], "grad-cam looks at one layer, and several were given: conv1, conv2"),
        ("conv1, conv2", "grad-cam looks at one layer"),
    ],
)
def test_what_is_no_layer_is_said(network, picture, layer, message):
    with pytest.raises(UnknownLayerError, match=message):
        cnnviz.explain(network, picture, layer=layer)


def test_methods_of_several_layers_take_a_sequence(network, picture):
    e = cnnviz.explain(network, picture, "layer-fusion", layer=["conv1", "conv2"])
    assert e.layer == "conv1, conv2"
    both = cnnviz.compare(network, picture, layer=["conv1", "conv2"], budget=30)
    assert both["layer-fusion"].layer == "conv1, conv2"
    assert "grad-cam looks at one layer" in both.skipped["grad-cam"]


def test_a_layer_of_the_framework_is_found_by_its_backend(picture, network, monkeypatch):
    import dataclasses

    from cnnviz import looking

    class Spec:
        path_of = "test_looking:path_of"

    class Registry:
        def backend_of(self, native):
            assert native == "the network"
            return Spec

    monkeypatch.setattr(looking, "get_registry", Registry)
    monkeypatch.setattr(looking, "import_string", lambda text: path_of)
    native = dataclasses.replace(network, native="the network")
    assert layer_of(native, picture, THE_LAYER) == "conv1"
    with pytest.raises(UnknownLayerError, match="no layer of plain"):
        layer_of(native, picture, object())


THE_LAYER = object()


def path_of(native, layer):
    return "conv1" if layer is THE_LAYER else None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("cat - dog", Contrast(2, 3)),
        ("cat rather than dog", Contrast(2, 3)),
        ("2 - 3", Contrast(2, 3)),
        ("CAT  Rather  Than  3", Contrast(2, 3)),
        ("p(cat)", ClassProbability(2)),
        ("P( 2 )", ClassProbability(2)),
        ("big-cat", ClassScore(4)),
        ("big-cat - cat", Contrast(4, 2)),
    ],
)
def test_targets_in_words(network, picture, text, target):
    assert cnnviz.explain(network, picture, target=text).targets == (target,)


def test_a_class_that_is_called_so_comes_first(network, picture):
    labels = ("ant - bee", "p(cat)", "ant", "bee", "a rather than b")
    for k in (0, 1, 4):
        e = cnnviz.explain(network, picture, target=labels[k], labels=labels)
        assert e.targets == (ClassScore(k),)
    e = cnnviz.explain(network, picture, target="bee - ant - bee", labels=labels)
    assert e.targets == (Contrast(3, 0),)


def test_targets_in_words_without_labels(network, picture):
    bare = {"preprocess": network.preprocessing}
    e = cnnviz.explain(network.model, picture, target="2 - 3", **bare)
    assert e.targets == (Contrast(2, 3),)
    with pytest.raises(TargetError, match="names of the classes are not known"):
        cnnviz.explain(network.model, picture, target="cat - dog", **bare)


@pytest.mark.parametrize("text", ["cat - mouse", "mouse rather than cat", "p(mouse)", "mouse"])
def test_an_unknown_class_is_named(network, picture, text):
    with pytest.raises(UnknownClassError, match="no class is called 'mouse'"):
        cnnviz.explain(network, picture, target=text)


def test_a_class_is_not_contrasted_with_itself(network, picture):
    with pytest.raises(TargetError, match="with itself"):
        cnnviz.explain(network, picture, target="cat - 2")


def test_a_probability_is_the_network_s_own():
    from cnnviz.demo import scenes

    e = cnnviz.explain("demo", scenes()[0][0], target="p(0)")
    assert e.targets == (ClassProbability(0, "sigmoid"),)
    assert e.scores[0] == pytest.approx(e.probabilities[0], rel=1e-5)
