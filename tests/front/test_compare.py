from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz.comparing import run_methods
from cnnviz.samples import samples_of
from cnnviz_core.errors import (
    MissingCapabilityError,
    ParameterError,
    PluginError,
    TargetError,
    UnknownLayerError,
    UnknownMethodError,
)
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


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
    comparison = cnnviz.compare(network, pictures, target=["ant", None, 3], batch_size=2)
    assert list(comparison) == list(get_registry().explainers)
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
        run_methods(network, samples, few, target, remember=64)
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
    assert set(comparison.skipped) == {"deconvnet", "guided-backprop", "guided-grad-cam"}
    assert all(len(reason) > 20 for reason in comparison.skipped.values())
    assert "grad-cam" in comparison
    assert "guided-backprop" in repr(comparison)


def test_capabilities_decide_before_anything_is_run(picture):
    class Plain(ReferenceModel):
        capabilities = frozenset()

    plain = Plain(NETS["plain"]())
    comparison = cnnviz.compare(plain, picture, preprocess=cnnviz.Preprocessing())
    assert list(comparison) == ["occlusion"]
    assert "needs capture, gradient" in comparison.skipped["grad-cam"]
    with pytest.raises(MissingCapabilityError, match="none of the methods"):
        cnnviz.compare(plain, picture, ["cam", "saliency"], preprocess=cnnviz.Preprocessing())
    with pytest.raises(MissingCapabilityError, match="use one of occlusion"):
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


def test_a_comparison_is_written_as_a_page_or_a_sheet(network, pictures, tmp_path):
    from PIL import Image

    smooth = ReferenceModel(NETS["smooth"]())
    comparison = cnnviz.compare(smooth, pictures, preprocess=cnnviz.Preprocessing())
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
