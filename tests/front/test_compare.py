from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz import pages
from cnnviz.comparing import run_methods
from cnnviz.samples import samples_of
from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    PluginError,
    TargetError,
    UnknownLayerError,
    UnknownMethodError,
)
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

QUICK = ["cam", "grad-cam", "saliency", "guided-backprop", "occlusion"]


class Counting(ReferenceModel):
    """A network that counts its passes."""

    def __init__(self, net):
        super().__init__(net)
        self.passes = []

    def forward(self, x, **how):
        self.passes.append("forward")
        return super().forward(x, **how)

    def pullback(self, x, cotangent, **how):
        self.passes.append(f"pullback {how.get('rule') and how['rule'].name}")
        return super().pullback(x, cotangent, **how)


def test_a_comparison_is_each_method_by_itself(network, pictures):
    comparison = cnnviz.compare(network, pictures, QUICK, target=["ant", None, 3], batch_size=2)
    assert list(comparison) == QUICK
    assert not comparison.skipped
    for method, e in comparison.items():
        alone = cnnviz.explain(network, pictures, method, target=["ant", None, 3])
        np.testing.assert_allclose(e.raw, alone.raw, rtol=1e-5, atol=1e-7)
        assert e.target_labels == alone.target_labels
        assert e.params.keys() == alone.params.keys()


def test_methods_share_their_passes(picture):
    """CAM, Grad-CAM and the picture's classes come from one backward pass."""
    model = Counting(NETS["plain"]())
    unit = cnnviz.Preprocessing()
    cnnviz.compare(model, picture, ["grad-cam", "cam"], preprocess=unit)
    assert model.passes == ["pullback standard"] or model.passes == ["pullback None"]


def test_targets_of_one_picture_share_its_windows(picture):
    """Occlusion asks the network about each window once, whatever the number of targets."""
    unit = cnnviz.Preprocessing()
    passes = []
    for target in ("top-1", "top-3"):
        model = Counting(NETS["plain"]())
        network = cnnviz.wrap(model, preprocess=unit)
        samples = samples_of(network, picture)
        few = {"occlusion": {"window": 3, "stride": 1, "batch_size": 4}}
        run_methods(network, samples, few, target)
        passes.append(len(model.passes))
    assert passes[0] > 16
    assert passes[0] == passes[1]


def test_methods_may_have_parameters_of_their_own(network, picture):
    comparison = cnnviz.compare(
        network, picture, {"occlusion": {"window": 4}, "grad-cam": {"layer": "conv1"}}
    )
    assert comparison["occlusion"].params["window"] == 4
    assert comparison["grad-cam"].layer == "conv1"


def test_the_layer_goes_to_the_methods_that_look_at_one(network, picture):
    comparison = cnnviz.compare(network, picture, ["grad-cam", "saliency"], layer="conv1")
    assert comparison["grad-cam"].layer == "conv1"
    assert comparison["saliency"].layer is None


def test_what_the_network_cannot_run_is_left_out_with_its_reason(picture):
    smooth = ReferenceModel(NETS["smooth"]())
    comparison = cnnviz.compare(smooth, picture, preprocess=cnnviz.Preprocessing())
    assert {"deconvnet", "guided-backprop", "guided-grad-cam"} <= set(comparison.skipped)
    assert all(len(reason) > 20 for reason in comparison.skipped.values())
    assert "grad-cam" in comparison
    assert "guided-backprop" in repr(comparison)


def test_capabilities_decide_before_anything_is_run(picture):
    class Plain(ReferenceModel):
        capabilities = frozenset()

    plain = Plain(NETS["plain"]())
    comparison = cnnviz.compare(plain, picture, preprocess=cnnviz.Preprocessing())
    assert "occlusion" in comparison
    assert all(not get_registry().explainer(method).needs for method in comparison)
    assert "needs capture, gradient" in comparison.skipped["grad-cam"]
    with pytest.raises(MissingCapabilityError, match="none of the methods"):
        cnnviz.compare(plain, picture, ["cam", "saliency"], preprocess=cnnviz.Preprocessing())
    with pytest.raises(MissingCapabilityError, match=r"use one of .*occlusion"):
        cnnviz.explain(plain, picture, preprocess=cnnviz.Preprocessing())


def test_a_broken_method_harms_no_other(network, picture, monkeypatch):
    registry = get_registry()
    whole = type(registry).explainer_class

    def explainer_class(self, name):
        if name == "saliency":
            raise PluginError(
                "the method 'saliency' could not be imported", "a module", "repair it"
            )
        return whole(self, name)

    monkeypatch.setattr(type(registry), "explainer_class", explainer_class)
    comparison = cnnviz.compare(network, picture, ["saliency", "grad-cam"])
    assert list(comparison) == ["grad-cam"]
    assert "could not be imported" in comparison.skipped["saliency"]


def test_mistakes_are_not_passed_over(network, picture):
    with pytest.raises(UnknownMethodError, match="there is no method 'gradcma'"):
        cnnviz.compare(network, picture, ["grad-cam", "gradcma"])
    with pytest.raises(UnknownLayerError, match="no layer 'conv7'"):
        cnnviz.compare(network, picture, ["saliency", "grad-cam"], layer="conv7")
    with pytest.raises(ParameterError, match="saliency and occlusion look at no layer"):
        cnnviz.compare(network, picture, ["saliency", "occlusion"], layer="conv1")
    with pytest.raises(ParameterError, match="no method was given"):
        cnnviz.compare(network, picture, [])
    with pytest.raises(TargetError):
        cnnviz.compare(network, picture, target="mouse")
    with pytest.raises(UnknownLayerError, match="no layer 'conv7'"):
        cnnviz.compare(network, picture, "all", layer="conv7")
    with pytest.raises(ParameterError, match="budget is 0"):
        cnnviz.compare(network, picture, budget=0)


def test_a_comparison_is_written_as_a_page_or_a_sheet(network, pictures, tmp_path):
    from PIL import Image

    smooth = ReferenceModel(NETS["smooth"]())
    chosen = [*QUICK, "deconvnet"]
    comparison = cnnviz.compare(smooth, pictures, chosen, preprocess=cnnviz.Preprocessing())
    page = comparison.save(tmp_path / "a.html").read_text(encoding="utf-8")
    for method in (*comparison, *comparison.skipped):
        assert method in page
    comparison.save(tmp_path / "a.png", boxes=True)
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > sheet.height / 2
    assert "grad-cam" in comparison._repr_html_()
    with pytest.raises(ParameterError, match="pdf"):
        comparison.save(tmp_path / "a.pdf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.png"]


def test_a_comparison_cannot_be_changed(network, picture):
    comparison = cnnviz.compare(network, picture, ["grad-cam"])
    with pytest.raises(TypeError):
        comparison.explanations["cam"] = None
    with pytest.raises(AttributeError):
        comparison.skipped = {}


GRADIENT_CAMS = [
    "grad-cam",
    "grad-cam++",
    "xgrad-cam",
    "hires-cam",
    "layer-cam",
    "grad-cam-elementwise",
]


def test_all_gradient_cams_of_a_layer_cost_one_backward_pass(picture):
    model = Counting(NETS["plain"]())
    unit = cnnviz.Preprocessing()
    comparison = cnnviz.compare(model, picture, GRADIENT_CAMS, preprocess=unit)
    assert list(comparison) == GRADIENT_CAMS
    assert len(model.passes) == 1
    assert model.passes[0].startswith("pullback")


def test_all_methods_are_those_that_fit_the_budget(network, picture):
    one = cnnviz.compare(network, picture, budget=20)
    reason = one.skipped["occlusion"]
    assert "forward passes a picture, beyond the budget of 20" in reason
    assert "name it, or raise the budget" in reason
    assert set(one) | set(one.skipped) == set(get_registry().explainers)
    both = cnnviz.compare(network, picture, ["all", "occlusion"], budget=20)
    assert "occlusion" in both
    assert set(both) - set(one) == {"occlusion"}
    named = cnnviz.compare(network, picture, "occlusion, cam", budget=1)
    assert list(named) == ["occlusion", "cam"]


def test_methods_are_in_the_order_of_their_families(network, picture):
    families = [get_registry().explainers[m].family for m in cnnviz.compare(network, picture)]
    assert families == sorted(families, key=list(dict.fromkeys(families)).index)
    assert families[0] == "cam"


def broken(kind):
    def explain(self, model, x, targets):
        raise kind

    return explain


@pytest.mark.parametrize(
    "error",
    [
        ParameterError("it needs luck", "luck", "try again"),
        TargetError("it needs a class", "a class", "name one"),
        ArrayError("it needs a square", "a square", "crop"),
        ValueError("it broke"),
    ],
)
def test_one_method_s_failure_costs_the_others_nothing(network, picture, monkeypatch, error):
    saliency = get_registry().explainer_class("saliency")
    monkeypatch.setattr(saliency, "explain", broken(error))
    everything = cnnviz.compare(network, picture, budget=5)
    assert "it needs" in everything.skipped["saliency"] or "broke" in everything.skipped["saliency"]
    assert "grad-cam" in everything
    with pytest.raises(type(error)):
        cnnviz.compare(network, picture, ["saliency", "grad-cam"])


def test_what_fails_all_methods_is_told_once(network, picture):
    with pytest.raises(TargetError, match="2 labels"):
        cnnviz.compare(
            network.model, picture, budget=5, labels=["a", "b"], preprocess=network.preprocessing
        )


def test_the_progress_names_the_methods(network, picture):
    seen = []
    with listening(lambda what, done, total: seen.append((what, done, total))):
        cnnviz.compare(network, picture, ["cam", "saliency"])
    assert ("cam", 0, 1) in seen
    assert ("saliency", 1, 1) in seen
    assert seen[-1] == ("methods", 2, 2)


@pytest.mark.parametrize("n", [1, 3])
def test_many_methods_make_a_block_for_each_picture(network, pictures, n):
    comparison = cnnviz.compare(network, pictures[:n], budget=5)
    assert len(comparison) > 9
    assert comparison.sheet().width < 1700
    page = pages.render_report(comparison)
    assert page.count("<h3>cam</h3>") == n
    assert page.count("<figcaption>") == n * (1 + len(comparison))


def test_a_comparison_is_shown_in_another_way(network, picture):
    comparison = cnnviz.compare(network, picture, ["grad-cam", "saliency"])
    signed = comparison.shown(sign="signed")
    for method, e in signed.items():
        assert e.presentation.sign == "signed"
        assert e == comparison[method].shown(sign="signed")
