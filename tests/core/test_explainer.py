"""What an explainer returns, and how it becomes a map to look at."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, MissingCapabilityError
from cnnviz_core.explainer import Maps, Presentation, missing_needs, present, require
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


def test_presenting_a_layers_map():
    raw = np.array([[[1.0, -3], [0, 2]]])
    maps, status = present(raw, (4, 4), Presentation())
    assert maps.shape == (1, 4, 4)
    assert maps.min() >= 0
    assert maps[0, 0, 0] == 1
    assert status == ["ok"]
    signed, _ = present(raw, (4, 4), Presentation(sign="signed"))
    assert signed.min() == -3
    magnitude, _ = present(raw, (2, 2), Presentation(sign="absolute"))
    np.testing.assert_array_equal(magnitude, np.abs(raw))


def test_presenting_an_attribution():
    raw = np.array([[[[1.0, -5, 2]]]])
    assert present(raw, (1, 1), Presentation("absolute", "max-abs"))[0] == 5
    assert present(raw, (1, 1), Presentation("signed", "sum"))[0] == -2
    shown, status = present(raw, (1, 1), Presentation("positive", "sum"))
    assert (shown == 0).all()
    assert status == ["all-negative"]


def test_a_result_of_the_wrong_rank():
    with pytest.raises(ArrayError, match="raw result"):
        Maps(raw=np.ones(3))
    with pytest.raises(ArrayError, match="maps of the size"):
        present(np.ones((1, 2)), (4, 4), Presentation())


def test_presenting_signals_and_volumes():
    signal = np.arange(4.0).reshape(1, 4)
    assert present(signal, (8,), Presentation())[0].shape == (1, 8)
    assert present(signal[..., None] - 9, (4,), Presentation("absolute"))[0][0, 0] == 9
    volume = np.arange(8.0).reshape(1, 2, 2, 2)
    assert present(volume, (3, 4, 5), Presentation())[0].shape == (1, 3, 4, 5)
    assert present(volume[..., None], (2, 2, 2), Presentation("signed", "sum"))[0].max() == 7


def test_what_a_model_lacks_is_named():
    model = Offering(ReferenceModel(NETS["plain"]()), frozenset({"capture"}))
    needs = frozenset({"capture", "gradient"})
    assert missing_needs(needs, model) == ["gradient"]
    with pytest.raises(MissingCapabilityError) as caught:
        require(needs, model, "grad-cam", ["occlusion"])
    for word in ("grad-cam", "gradient", "numpy", "capture", "occlusion"):
        assert word in str(caught.value)
    require(frozenset({"capture"}), model, "eigen-cam")


def test_a_relative_map_shows_what_exceeds_its_least_place():
    raw = np.array([[[5.0, 7.0], [6.0, 5.0]], [[-2.0, -1.0], [-4.0, -4.0]], np.full((2, 2), -3.0)])
    shown, status = present(raw, (2, 2), Presentation(sign="relative"))
    assert shown[0].tolist() == [[0, 2], [1, 0]]
    assert shown[1].tolist() == [[2, 3], [0, 0]]
    assert status == ["ok", "ok", "all-zero"]
