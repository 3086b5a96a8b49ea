from __future__ import annotations

import numpy as np
import pytest
from front.made import explanation

import cnnviz
from cnnviz import ClassProbability, ClassScore
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Maps, Presentation, present
from cnnviz_core.maps import reduce_channels
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


@pytest.mark.parametrize("sign", ["positive", "absolute", "signed"])
@pytest.mark.parametrize("reduce", ["max-abs", "sum", "mean", "sum-abs", "mean-abs", "l2"])
def test_maps_and_status_are_made_anew_from_the_raw_result(sign, reduce):
    e = explanation(fine=True, sign="absolute")
    other = e.shown(sign=sign, reduce=reduce, upsample="nearest")
    how = Presentation(sign=sign, reduce=reduce, upsample="nearest")
    maps, status = present(e.raw, (12, 9), how)
    np.testing.assert_array_equal(other.maps, maps)
    assert other.status == tuple(status)
    assert other.presentation == how
    np.testing.assert_array_equal(other.raw, e.raw)
    assert e.presentation.sign == "absolute"


def test_the_status_follows_the_sign():
    raw = -np.ones((1, 4, 3), np.float32)
    e = explanation(1, raw=raw, maps=np.zeros((1, 12, 9), np.float32), status=("all-negative",))
    assert e.shown(sign="signed").status == ("ok",)
    assert e.shown(sign="absolute").status == ("ok",)
    assert e.shown(sign="signed").shown(sign="positive").status == ("all-negative",)
    assert e.shown() == e


def test_a_sign_that_the_reduction_loses_is_kept_by_the_sum():
    e = explanation(fine=True, sign="absolute")
    signed = e.shown(sign="signed")
    np.testing.assert_array_equal(signed.maps, reduce_channels(e.raw, "sum"))
    assert e.shown(sign="signed", reduce="l2").presentation.reduce == "l2"
    assert e.shown(upsample="bicubic").presentation.reduce == "max-abs"


@pytest.mark.parametrize("how", [{"sign": "both"}, {"reduce": "max"}, {"upsample": "cubic"}])
def test_unknown_ways_are_errors(how):
    with pytest.raises(ParameterError):
        explanation(fine=True).shown(**how)


@pytest.mark.parametrize("sign", ["positive", "absolute", "signed"])
@pytest.mark.parametrize("i", range(3))
def test_min_max_shifts_and_scales(sign, i):
    e = explanation(sign=sign)
    heat = e.heatmap(i, "min-max")
    assert (heat.min(), heat.max()) == (0, 1)
    if e.geometry[i].size == e.geometry[i].original:
        m = e.maps[i]
        expected = (m - m.min()) / (m.max() - m.min())
        np.testing.assert_allclose(heat, expected, rtol=1e-5, atol=1e-6)


def test_percentile_clips_and_max_does_not():
    raw = np.random.default_rng(0).random((1, 12, 9, 3)).astype(np.float32)
    raw[0, 3, 3] = 100
    e = explanation(1, fine=True, sign="absolute", raw=raw).shown(reduce="sum-abs")
    assert np.median(e.heatmap(normalise="max")) < 0.02
    assert np.median(e.heatmap(normalise="percentile")) > 0.2
    np.testing.assert_array_equal(e.heatmap(), e.heatmap(normalise="percentile"))
    coarse = explanation()
    np.testing.assert_array_equal(coarse.heatmap(), coarse.heatmap(normalise="max"))
    with pytest.raises(ParameterError, match="normalise='sum' is unknown"):
        e.heatmap(normalise="sum")


@pytest.mark.parametrize("normalise", [True, "max", "percentile", "min-max", False])
def test_a_map_that_shows_nothing_is_never_drawn(normalise):
    e = explanation(1, status=("saturated",))
    assert not e.shown_heat(0, normalise).any()
    assert e.overlay(normalise=normalise).size == (41, 30)
    assert not len(e.boxes()[0])
    assert "explain the class score instead of its probability" in e.note()


@pytest.fixture
def sure():
    """A network that is very sure of its classes, and a prepared batch of one sample."""
    model = ReferenceModel(NETS["plain"]())
    x = 300 * np.random.default_rng(0).random((1, 12, 9, 3)).astype(np.float32)
    logits = np.sort(model.forward(x).logits[0])
    assert logits[-1] - logits[-2] > 20
    return model, x, int(model.forward(x).logits[0].argmax())


@pytest.mark.parametrize("method", ["grad-cam", "saliency", "grad-cam++", "guided-backprop"])
def test_the_map_of_a_saturated_probability_is_not_scaled_up(sure, method):
    model, x, k = sure
    e = cnnviz.explain(model, x, method, ClassProbability(k), preprocessed=True)
    assert e.status == ("saturated",)
    assert not e.heatmap().any()
    assert e.shown(sign="signed").status == ("saturated",)
    score = cnnviz.explain(model, x, method, ClassScore(k), preprocessed=True)
    assert "saturated" not in score.status


def test_only_gradients_at_the_sample_itself_are_rounding(sure):
    model, x, k = sure
    for method in ("occlusion", "integrated-gradients"):
        e = cnnviz.explain(model, x, method, ClassProbability(k), preprocessed=True)
        assert "saturated" not in e.status


def test_each_sample_is_saturated_by_itself(sure):
    model, x, k = sure
    both = np.concatenate([x, x / 3000])
    e = cnnviz.explain(model, both, "saliency", ClassProbability(k), preprocessed=True)
    assert e.status == ("saturated", "ok")


def test_what_is_not_finite_stays_so(sure, monkeypatch):
    from cnnviz_core.registry import get_registry

    model, x, k = sure
    saliency = get_registry().explainer_class("saliency")

    def explain(self, model, x, targets):
        model.pullback(x, np.ones((1, 5), np.float32))
        return Maps(np.full(x.shape, np.nan, x.dtype))

    monkeypatch.setattr(saliency, "explain", explain)
    e = cnnviz.explain(model, x, "saliency", ClassProbability(k), preprocessed=True)
    assert e.status == ("non-finite",)


def test_arrays_among_the_parameters_are_saved_as_arrays(tmp_path):
    baseline = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    e = explanation(1, params={"baseline": baseline, "steps": 5})
    again = cnnviz.Explanation.load(e.save(tmp_path / "a.npz"))
    assert again == e
    np.testing.assert_array_equal(again.params["baseline"], baseline)
    with np.load(tmp_path / "a.npz") as saved:
        assert len(str(saved["explanation"])) < 5000
    page = e.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert "float32 array, 200 x 200 x 3, sha256 " in page
    assert len(page) < 100_000
