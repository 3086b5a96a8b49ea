"""The passes that a method tells beforehand are those that it makes, over the whole registry."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.explainer import passes_of
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Predicted
from cnnviz_core.testing.nets import NETS, plain, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import light

METHODS = list(get_registry().explainers)
PARAMETERS = {method: get_registry().parameters(method) for method in METHODS}

LEAST = {
    # Channels that are 0 everywhere are not asked about.
    "ablation-cam": 1 / 2,
    # Biases that the layers' arrays do not tell are measured; here they do.
    "full-grad": 3 / 4,
    # A score that is a linear function of the logits has no curvature of its own.
    "shapley-cam": 2 / 3,
    # How many cells can be removed is what they find out; three passes tell that none can.
    "minimal-sufficient-region": 1 / 20,
    "counterfactual-region": 1 / 40,
}
"""Methods whose passes are the most that there can be, and the least share of them here."""
STOPPING = sorted(m for m in METHODS if any(p.name == "tolerance" for p in PARAMETERS[m]))
"""With a tolerance, theirs are the most that there can be too."""
SEGMENTING = {"slic", "felzenszwalb", "quickshift"}
"""They may find another number of segments in each sample, of which the first one's is told."""
OTHERS = {"batch_size": [1, 2], "channels": [None], "noise": [0.1], "layer": ["conv2"]}
"""Settings of parameters that take any number or name."""
CLASS = ClassScore(1)


class Counting(Delegate):
    """A model that counts in the unit of `passes_of`."""

    passes = 0

    def forward(self, x, **how):
        self.passes += len(x)
        return super().forward(x, **how)

    def pullback(self, x, cotangent, **how):
        self.passes += 3 * len(x)
        return super().pullback(x, cotangent, **how)

    def curvature(self, x, cotangent, direction, **how):
        self.passes += 6 * len(x)
        return super().curvature(x, cotangent, direction, **how)


def made(method, **params):
    return get_registry().explainer(method, **{**light(method), **params})


def counted(explainer, model, x, target=CLASS):
    counting = Counting(model)
    explainer.explain(counting, x, [target] * len(x))
    return counting.passes


def settings(method):
    """Give, for each parameter that has others than its default, each of these alone."""
    found = [{}]
    for p in PARAMETERS[method]:
        others = [not p.default] if bool in p.types else [*p.choices]
        # Class activation maps are of one layer.
        others += OTHERS.get(p.name, []) if method != "cam" else []
        found += [{p.name: value} for value in others if value != p.default]
    return [each for each in found if not SEGMENTING & {*map(str, each.values())}]


PLAIN = plain()
MODEL = ReferenceModel(PLAIN)
X = random_input(PLAIN, 3, seed=9)["image"]


def agrees(method, stated, spent, samples):
    """Tell whether what was spent is what was stated, or within its bounds."""
    most = samples * stated
    return spent == most if method not in LEAST else LEAST[method] * most <= spent <= most


@pytest.mark.parametrize("method", METHODS)
def test_what_is_told_is_what_is_spent_whatever_the_setting(method):
    for setting in settings(method):
        explainer = made(method, **setting)
        asked = Counting(MODEL)
        stated = passes_of(explainer, asked, X)
        assert asked.passes == 0, "telling takes no pass"
        assert agrees(method, stated, counted(explainer, MODEL, X), len(X)), setting


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_same_however_a_batch_is_divided(method):
    explainer = made(method)
    alone = [counted(explainer, MODEL, X[i : i + 1]) for i in range(len(X))]
    assert counted(explainer, MODEL, X) == sum(alone)
    assert counted(explainer, MODEL, X[:2]) == sum(alone[:2])
    assert len({passes_of(explainer, MODEL, X[:n]) for n in (1, 2, 3)}) == 1


@pytest.mark.parametrize("method", ["kernel-shap", "lime", "shapley-values"])
@pytest.mark.parametrize("segmentation", sorted(SEGMENTING))
def test_where_segments_are_found_it_is_what_the_sample_takes(method, segmentation):
    pytest.importorskip("skimage")
    explainer = made(method, segmentation=segmentation, segments=6)
    for i in range(len(X)):
        x = X[i : i + 1]
        assert counted(explainer, MODEL, x) == passes_of(explainer, MODEL, x)


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_same_whatever_is_asked(method):
    # The one takes class scores only, the other tells of these, which it finds without asking.
    linear = method in ("finer-cam", "ablation-cam")
    targets = [Predicted()] if linear else [Predicted(), ClassProbability(2)]
    for target in targets:
        explainer = made(method)
        spent = counted(explainer, MODEL, X[:1], target)
        assert agrees(method, passes_of(explainer, MODEL, X), spent, 1)


@pytest.mark.parametrize("method", METHODS)
def test_it_holds_of_tokens(method):
    net = NETS["tokens"]()
    model = ReferenceModel(net)
    (x,) = random_input(net, 2, seed=9).values()
    unruled = "unknown" in {p.name for p in PARAMETERS[method]}
    explainer = made(method, **({"unknown": "gradient"} if unruled else {}))
    assert agrees(method, passes_of(explainer, model, x), counted(explainer, model, x), 2)


@pytest.mark.parametrize("method", STOPPING)
def test_what_may_stop_early_tells_the_most(method):
    many = {"samples": 64 if method == "sobol" else 400}
    if "segments" in {p.name for p in PARAMETERS[method]}:
        many["segments"] = 12
    stated = passes_of(made(method, **many), MODEL, X)
    assert counted(made(method, **many), MODEL, X[:1]) == stated
    early = made(method, **many, tolerance=0.9)
    assert passes_of(early, MODEL, X) == stated
    assert counted(early, MODEL, X[:1]) < stated


def test_the_bounds_are_reached():
    class Silent(Delegate):
        """A model that does not tell its layers' arrays."""

        def parameters(self, layer):
            return {}

    alive = np.abs(X[:1])
    for explainer, model, target in (
        (made("full-grad"), Silent(MODEL), CLASS),
        (made("shapley-cam", utility="rest"), MODEL, CLASS),
        (made("shapley-cam"), MODEL, ClassProbability(1)),
        (made("ablation-cam", layer="conv1"), MODEL, CLASS),
    ):
        assert counted(explainer, model, alive, target) == passes_of(explainer, model, alive)


def test_without_a_word_it_is_one_pass_or_one_with_the_gradient():
    class Still:
        needs = frozenset({"capture", "replace"})

    class Sloping:
        needs = frozenset({"capture", "gradient"})

    assert passes_of(Still(), MODEL, X) == 1
    assert passes_of(Sloping(), MODEL, X) == 3
