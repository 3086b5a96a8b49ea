"""Scoring a sample under masks, and the memory of a model."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.perturb import distinct_samples, score_masked, score_replaced
from cnnviz_core.progress import advance, listening
from cnnviz_core.targets import ClassScore, Neuron
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["plain"]()
X = random_input(NET, 1)["image"][0]
MODEL = ReferenceModel(NET)


def masks(n, seed=0):
    return np.random.default_rng(seed).random((n, *X.shape[:2])).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_equals_one_mask_at_a_time(batch_size):
    m = masks(7)
    fill = np.array([0.1, -0.2, 0.3], np.float32)
    expected = [
        MODEL.forward((a[..., None] * X + (1 - a[..., None]) * fill)[None]).logits[0, 2] for a in m
    ]
    scores = score_masked(MODEL, X, [ClassScore(2)], iter(m), fill, total=7, batch_size=batch_size)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-6)


def test_a_mask_of_ones_changes_nothing_at_all():
    scores = score_masked(MODEL, X, [ClassScore(1)], np.ones((2, 12, 9)), 1e6, total=2)
    np.testing.assert_array_equal(scores, MODEL.forward(X[None]).logits[0, 1])


def test_a_target_about_a_layer():
    target = Neuron("relu2", (1, 1, 3))
    scores = score_masked(MODEL, X, [target], np.zeros((1, 12, 9)), 0.0, total=1)
    expected = MODEL.forward(np.zeros_like(X)[None], capture=["relu2"])["relu2"][0, 1, 1, 3]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize("total", [2, 4, 5, 9])
def test_the_number_of_masks_is_checked(total):
    with pytest.raises(ArrayError, match="masks"):
        score_masked(MODEL, X, [ClassScore(0)], masks(3), 0.0, total=total, batch_size=2)


def test_masks_are_taken_a_batch_at_a_time():
    taken = []

    def stream():
        for m in masks(9):
            taken.append(len(seen))
            yield m

    seen = []
    with listening(lambda what, done, total: seen.append((what, done, total))):
        score_masked(MODEL, X, [ClassScore(0)], stream(), 0.0, total=9, batch_size=4, what="work")
    assert seen == [("work", 4, 9), ("work", 8, 9), ("work", 9, 9)]
    assert taken == [0] * 4 + [1] * 4 + [2]


def test_progress_goes_nowhere_outside_of_the_block():
    seen = []
    with listening(lambda *event: seen.append(event)):
        pass
    advance("late", 1, 1)
    assert not seen


def test_nodes_are_spelt_as_documented():
    assert (INPUT, LOGITS, OUTPUT) == ("@input", "@logits", "@output")


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_replacing_a_layers_value_equals_one_at_a_time(batch_size):
    values = np.random.default_rng(3).normal(size=(7, 6, 4, 8)).astype(np.float32)
    expected = [MODEL.forward(X[None], replace={"relu2": v[None]}).logits[0, 2] for v in values]
    scores = score_replaced(
        MODEL, X, [ClassScore(2)], "relu2", iter(values), total=7, batch_size=batch_size
    )
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArrayError, match="more than"):
        score_replaced(MODEL, X, [ClassScore(2)], "relu2", iter(values), total=6)


def test_targets_share_the_passes():
    m = masks(5)
    targets = [ClassScore(0), ClassScore(3)]
    together = score_masked(MODEL, X, targets, m, 0.0, total=5, batch_size=2)
    assert together.shape == (2, 5)
    for scores, target in zip(together, targets, strict=True):
        alone = score_masked(MODEL, X, [target], m, 0.0, total=5, batch_size=2)
        np.testing.assert_array_equal(scores, alone[0])


def test_rows_of_one_sample_are_found():
    a, b = X, X + 1
    assert distinct_samples(np.stack([a, b, a, a])) == [[0, 2, 3], [1]]
