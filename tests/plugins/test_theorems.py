"""What holds of every method, walked over the registry: a method added later has to say if not."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, RuleError
from cnnviz_core.explainer import present
from cnnviz_core.maps import scale_to_max, symmetric
from cnnviz_core.netspec import NetSpec
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Weighted
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import brief

METHODS = list(get_registry().explainers)


def fields(method):
    return {parameter.name for parameter in get_registry().parameters(method)}


def normalised(maps, size):
    shown, _ = present(maps.raw, size, maps.presentation)
    return symmetric(shown) if maps.presentation.sign == "signed" else scale_to_max(shown)


CLASSES_ONLY = {"finer-cam"}
NOT_HOMOGENEOUS = {
    # Second and third powers of the gradient stand in one sum (equation 19 of its paper).
    "grad-cam++",
    "smooth-grad-cam++",
    # The weights are a softmax of scores.
    "score-cam",
    "ss-cam",
    "is-cam",
}


@pytest.mark.parametrize("method", sorted({*METHODS} - CLASSES_ONLY))
def test_a_positive_multiple_of_the_score_changes_no_normalised_map(method):
    net = NETS["plain"]()
    model = ReferenceModel(net, "float64")
    x = random_input(net, 2, seed=3)["image"].astype(np.float64)
    one, many = (
        brief(method).explain(model, x, [Weighted(scale * np.eye(5)[k]) for k in (1, 3)])
        for scale in (1.0, 37.0)
    )
    alike = np.allclose(normalised(one, (12, 9)), normalised(many, (12, 9)), atol=1e-9)
    assert alike == (method not in NOT_HOMOGENEOUS)


def mirrored_network():
    """Give `plain` with kernels that are their own mirror images, and an even width."""
    net = NETS["plain"]()
    arrays = {
        name: (a + a[:, ::-1]) / 2 if a.ndim == 4 else a for name, a in net.parameters.items()
    }
    return NetSpec({"image": (12, 10, 3)}, net.ops, arrays, "mirrored")


DRAWN = {method for method in METHODS if "seed" in fields(method)} - {"random-cam"}
"""Their noise is not mirrored with the picture."""
TIED = {"deconvnet"}
"""Where a whole window is zero behind a rectifier the switch is its first position, and used."""
CHOSEN = {
    "occlusion": {"window": 4, "stride": 2},
    # On a picture of one colour every pool is such a tie.
    "guided-integrated-gradients": {"baseline": "blur"},
}


@pytest.mark.parametrize("method", sorted({*METHODS} - DRAWN - TIED))
def test_maps_of_the_mirrored_picture_are_the_mirrored_maps(method):
    net = mirrored_network()
    model = ReferenceModel(net, "float64")
    x = random_input(net, 2, seed=3)["image"].astype(np.float64)
    targets = [ClassScore(1), ClassScore(3)]
    explainer = brief(method, **CHOSEN.get(method, {}))
    one, other = (explainer.explain(model, each, targets) for each in (x, x[:, :, ::-1]))
    np.testing.assert_allclose(
        other.raw, one.raw[:, :, ::-1], rtol=0, atol=1e-9 * np.abs(one.raw).max()
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["signal", "volume", "tokens", "swish"])
def test_signals_volumes_and_tokens(name, method):
    net = NETS[name]()
    model = ReferenceModel(net, "float64")
    (x,) = (a.astype(np.float64) for a in random_input(net, 2, seed=3).values())
    explainer, targets = brief(method), [ClassScore(1), ClassScore(2)]
    if (name, method) in REFUSED:
        why = r"no relu|no step for layernorm|pictures, \(N, H, W, C\)"
        with pytest.raises((ArrayError, RuleError), match=why):
            explainer.explain(model, x, targets)
        return
    maps = explainer.explain(model, x, targets)
    shown, status = present(maps.raw, x.shape[1:-1], maps.presentation)
    assert shown.shape == x.shape[:-1]
    assert "non-finite" not in status


REFUSED = {
    *(("swish", m) for m in ("guided-backprop", "deconvnet", "guided-grad-cam")),
    *(("tokens", m) for m in ("lrp", "deep-taylor")),
    *((net, "xrai") for net in ("signal", "volume")),
}
