from __future__ import annotations

import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.network import is_function
from cnnviz_core.answering import AnsweringModel
from cnnviz_core.errors import (
    AnswerError,
    ArrayError,
    MissingCapabilityError,
    ModelSourceError,
    ParameterError,
    TargetError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import probabilities
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

LABELS = ("ant", "bee", "cat", "dog", "big cat")
STEPS = cnnviz.Preprocessing(size=(12, 9))


class Service:
    """Asks a model; counts the calls, and fails at those that it is told to."""

    def __init__(self, model, fails=()):
        self.model, self.fails = model, fails
        self.calls = 0
        self.samples = 0

    def __call__(self, x):
        self.calls += 1
        if self.calls in self.fails:
            raise ConnectionError("no line")
        self.samples += len(x)
        return self.model.forward(x).output


@pytest.mark.parametrize("net", ["plain", "strided", "signal", "volume"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_explanation_of_a_function_is_that_of_what_it_asks(net, dtype):
    spec = NETS[net]()
    model = ReferenceModel(spec, dtype)
    x = random_input(spec, 3)["image" if "image" in spec.inputs else next(iter(spec.inputs))]
    x = x.astype(dtype)
    how = {"preprocessed": True, "window": 4, "stride": 2, "target": [0, 1, 0]}
    direct = cnnviz.explain(model, x, "occlusion", **how)
    for function in (lambda x: model.forward(x).output, Service(model)):
        asked = cnnviz.explain(function, x, "occlusion", **how)
        np.testing.assert_array_equal(asked.raw, direct.raw, strict=True)
        np.testing.assert_array_equal(asked.scores, direct.scores, strict=True)
        assert asked.targets == direct.targets


def test_pictures_labels_and_names_are_as_for_other_networks(network, pictures):
    service = Service(network.model)
    mine = cnnviz.wrap(service, preprocess=STEPS, labels=LABELS, name="my service")
    assert repr(mine) == "<Network 'my service' (function): preprocessing, 5 labels>"
    assert mine.native is service
    assert mine.model.inputs["input"].shape == (12, 9, 3)
    direct = cnnviz.explain(network, pictures, "occlusion", target="top-2", window=3)
    asked = cnnviz.explain(mine, pictures, "occlusion", target="top-2", window=3)
    np.testing.assert_array_equal(asked.maps, direct.maps)
    assert asked.target_labels == direct.target_labels
    assert asked.predictions == direct.predictions
    assert asked.provenance["model"] == "my service"


def softmaxed(model):
    """A function that returns probabilities, as most services do."""
    return lambda x: probabilities(model.forward(x).output, "softmax")


@pytest.mark.parametrize("activation", [None, "probabilities"])
def test_probabilities_are_explained_as_they_come(network, model, picture, activation):
    p = softmaxed(model)
    mine = cnnviz.wrap(p, preprocess=STEPS, labels=LABELS, activation=activation)
    x = cnnviz.explain(mine, picture, "occlusion", target="cat", window=3)
    given = p(prepared(network, picture))[0]
    assert x.scores[0] == given[LABELS.index("cat")]
    assert x.probabilities[0] == given[LABELS.index("cat")]
    assert [chance for _, chance in x.predictions[0]] == sorted(given.tolist(), reverse=True)
    for target in ("p(cat)", cnnviz.ClassProbability(2), [cnnviz.ClassProbability(2)]):
        same = cnnviz.explain(mine, picture, "occlusion", target=target, window=3)
        np.testing.assert_array_equal(same.maps, x.maps)
        np.testing.assert_array_equal(same.scores, x.scores)
    # They are the probabilities of the network that is asked.
    direct = cnnviz.explain(network, picture, "occlusion", target="p(cat)", window=3)
    np.testing.assert_allclose(x.raw, direct.raw, rtol=1e-5, atol=1e-7)


def prepared(network, picture):
    """What a network is fed for a picture."""
    from cnnviz.samples import samples_of

    return samples_of(network, picture)[0].x[None]


def test_a_single_score_is_no_probability(picture):
    def brightness(x):
        return x.mean((1, 2, 3))

    mine = cnnviz.wrap(brightness, preprocess=STEPS)
    assert mine.name == "brightness"
    found = cnnviz.explain(mine, picture, "occlusion", window=3, fill=0.0)
    assert found.probabilities is None
    assert not any(found.predictions)
    assert found.scores.shape == (1,)
    assert (found.maps >= 0).all()


@pytest.mark.parametrize("fails_at", [1, 2, 5, 9])
def test_an_explanation_that_failed_goes_on_where_it_was(network, pictures, fails_at):
    """Every sample is asked for once, in as many calls as an undisturbed run takes, and one."""
    how = {"window": 3, "batch_size": 4}
    undisturbed = Service(network.model)
    mine = cnnviz.wrap(undisturbed, preprocess=STEPS, labels=LABELS)
    expected = cnnviz.explain(mine, pictures, "occlusion", **how)
    service = Service(network.model, [fails_at])
    mine = cnnviz.wrap(service, preprocess=STEPS, labels=LABELS)
    with pytest.raises(AnswerError, match="ConnectionError: no line"):
        cnnviz.explain(mine, pictures, "occlusion", **how)
    assert service.calls == fails_at
    found = cnnviz.explain(mine, pictures, "occlusion", **how)
    np.testing.assert_array_equal(found.maps, expected.maps)
    assert service.samples == undisturbed.samples
    assert service.calls == undisturbed.calls + 1
    # A third time nothing is asked at all, nor where only the labels are others.
    cnnviz.explain(cnnviz.wrap(mine, labels="vwxyz"), pictures, "occlusion", **how)
    assert service.calls == undisturbed.calls + 1


def test_a_remedy_that_the_error_names_keeps_the_answers(network, picture):
    undisturbed, service = Service(network.model), Service(network.model, [3, 5, 7])
    cnnviz.explain(cnnviz.wrap(undisturbed, preprocess=STEPS), picture, "occlusion", window=3)
    mine = cnnviz.wrap(service, preprocess=STEPS, labels=LABELS, batch_size=2)
    with pytest.raises(AnswerError, match=r"so does cnnviz.wrap\(net, retry=3\)"):
        cnnviz.explain(mine, picture, "occlusion", window=3)
    again = cnnviz.wrap(mine, retry=3, wait=0)
    assert again.labels == LABELS
    found = cnnviz.explain(again, picture, "occlusion", window=3)
    direct = cnnviz.explain(network, picture, "occlusion", window=3)
    np.testing.assert_array_equal(found.raw, direct.raw)
    assert service.samples == undisturbed.samples


def test_every_method_that_needs_nothing_asks_a_function(network, picture):
    mine = cnnviz.wrap(Service(network.model), preprocess=STEPS, labels=LABELS)
    names = {method.name for method in cnnviz.methods(mine)}
    explainers = get_registry().explainers
    assert names == {name for name, spec in explainers.items() if not spec.needs}
    assert "occlusion" in names
    assert "grad-cam" not in names


@pytest.mark.parametrize("method", ["grad-cam", "saliency", "score-cam", "lrp"])
def test_a_method_that_needs_more_says_which_do_not(network, picture, method):
    mine = cnnviz.wrap(Service(network.model), preprocess=STEPS)
    with pytest.raises(MissingCapabilityError, match=r"nothing but its output[\s\S]*occlusion"):
        cnnviz.explain(mine, picture, method)


def test_a_function_has_no_layers(network, picture):
    mine = cnnviz.wrap(Service(network.model), preprocess=STEPS)
    assert len(cnnviz.layers(mine)) == 0
    with pytest.raises(MissingCapabilityError, match="looking at 'conv1' needs 'capture'"):
        cnnviz.explain(mine, picture, "occlusion", target=cnnviz.Neuron("conv1", (0,)))
    with pytest.raises(UnknownLayerError, match="no layer"):
        cnnviz.explain(mine, picture, "test-time-augmentation", of="occlusion", layer=object())


def test_inspectors_that_need_nothing_ask_a_function(network, pictures):
    mine = cnnviz.wrap(softmaxed(network.model), preprocess=STEPS, labels=LABELS)
    how = {"truth": ["ant", "bee", "cat"], "method": "occlusion(window=3)", "preprocess": STEPS}
    found = cnnviz.inspect(mine, "errors", pictures, **how)
    direct = cnnviz.inspect(network, "errors", pictures, **how)
    for name in ("predicted", "rank", "p_true", "p_predicted", "confusion"):
        np.testing.assert_allclose(found.arrays[name], direct.arrays[name], rtol=1e-5)


def test_what_is_called_like_a_function_is_one(network):
    class Client:
        def scores(self, x):
            return x.mean((1, 2))

        @staticmethod
        def still(x):
            return x.mean((1, 2))

    named = {
        "scores": Client().scores,
        "still": Client.still,
        "Service": Service(network.model),
        "function": lambda x: x.mean((1, 2)),
    }
    for name, function in named.items():
        mine = cnnviz.wrap(function)
        assert isinstance(mine.model, AnsweringModel)
        assert (mine.name, mine.native) == (name, function)
    for other in (Client, "digits", 5, None, {}):
        assert not is_function(other)
        with pytest.raises(UnsupportedModelError):
            cnnviz.wrap(other)


def test_an_object_of_a_framework_is_no_function():
    class Compiled:
        def __call__(self, x):
            return x

    assert is_function(Compiled())
    Compiled.__module__ = "torch.zoo"
    assert not is_function(Compiled())
    with pytest.raises(UnsupportedModelError, match=r"torch\.zoo\..*Compiled"):
        cnnviz.wrap(Compiled())


def test_a_function_may_ask_a_network_of_torch(picture):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5)
    ).eval()
    net(torch.zeros(1, 3, 12, 9))

    def ask(x):
        with torch.no_grad():
            return net(torch.from_numpy(x).movedim(-1, 1))

    how = {"window": 3, "target": 2}
    direct = cnnviz.explain(cnnviz.wrap(net, preprocess=STEPS), picture, "occlusion", **how)
    asked = cnnviz.explain(cnnviz.wrap(ask, preprocess=STEPS), picture, "occlusion", **how)
    np.testing.assert_allclose(asked.raw, direct.raw, rtol=1e-5, atol=1e-6)
    attached = cnnviz.wrap(lambda x: net(torch.from_numpy(x).movedim(-1, 1)), preprocess=STEPS)
    with pytest.raises(ArrayError, match=r"of which no array can be made[\s\S]*detach"):
        cnnviz.explain(attached, picture, "occlusion")


def test_what_is_about_functions_is_refused_elsewhere(model):
    with pytest.raises(ParameterError, match="retry, rate cannot be changed in a ReferenceModel"):
        cnnviz.wrap(model, retry=2, rate=3)
    torch = pytest.importorskip("torch")
    for how in ({"retry": 2}, {"channels": 3}, {"retry": 2, "remember": 0}):
        with pytest.raises(ParameterError, match=f"{' and '.join(how)} was given for a Linear"):
            cnnviz.wrap(torch.nn.Linear(3, 2), **how)


def test_channels_say_what_pictures_are_made():
    grey = cnnviz.wrap(lambda x: x.mean((1, 2)), channels=1)
    with pytest.warns(UserWarning, match="preprocessing of function is not known"):
        found = cnnviz.explain(grey, np.full((6, 5, 3), 51, np.uint8), "occlusion", window=2)
    assert found.raw.shape == (1, 6, 5)
    assert found.scores[0] == pytest.approx(0.2)
    with pytest.raises(ParameterError, match=r"channels=1 .* shape \(12, 9, 3\)"):
        cnnviz.wrap(lambda x: x, channels=1, preprocess=STEPS)


def test_labels_that_are_too_few_are_told(network, picture):
    mine = cnnviz.wrap(Service(network.model), preprocess=STEPS, labels=LABELS[:3])
    with pytest.raises(TargetError, match="3 labels were given for the 5 classes"):
        cnnviz.explain(mine, picture, "occlusion")


def test_a_source_names_a_function_that_makes_one_or_what_was_wrapped(tmp_path, monkeypatch):
    code = """
        import cnnviz

        def answer(x):
            return x.mean((1, 2))

        def connect():
            return answer

        network = cnnviz.wrap(answer, labels="rgb", retry=2)
    """
    (tmp_path / "my_service.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_service", raising=False)
    assert cnnviz.load("my_service:network").labels == ("r", "g", "b")
    assert isinstance(cnnviz.load("my_service:connect").model, AnsweringModel)
    with pytest.raises(ModelSourceError, match=r"argument: 'x'[\s\S]*cnnviz.wrap makes of any"):
        cnnviz.load("my_service:answer")
    monkeypatch.delitem(sys.modules, "my_service")


def test_the_code_of_the_page_is_true(tmp_path, monkeypatch, picture):
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    section = page[page.index("## Functions") : page.index("## Transformers")]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    sizes, slept = [], []

    def post(url, json, timeout):
        sizes.append(len(json))
        if len(sizes) == 3:
            raise ConnectionError
        means = np.mean(json, axis=(1, 2, 3)) / 2
        scores = np.stack([means, 1 - means], axis=1).tolist()
        return types.SimpleNamespace(json=lambda: {"scores": scores})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(AnsweringModel.__init__.__kwdefaults__, "sleep", slept.append)
    Image.fromarray(picture).save("cat.jpg")
    names = {"cnnviz": cnnviz, "requests": types.SimpleNamespace(post=post), "url": "https://x"}
    small = code.replace("(224, 224)", "(72, 72)")  # lists of so many numbers are slow
    exec(compile(small, "networks.md", "exec"), names)
    assert max(sizes) == 8
    assert 1.0 in slept
    assert names["net"].model.activation == "probabilities"
