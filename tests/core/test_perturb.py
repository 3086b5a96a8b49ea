"""Scoring a sample under masks, and the memory of a model."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import Fixed, filling
from cnnviz_core.masks import SegmentMasks
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.perturb import distinct_samples, score_masked, score_replaced, scored_batches
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


# ---------------------------------------------------------------------------- described masks

FILLS = [0.3, "mean", "blur", "noise", "inpaint", X[::-1].copy()]
PIXELS = np.arange(12 * 9).reshape(12, 9)  # each pixel a segment: any masks at all


def described(masks):
    return SegmentMasks(PIXELS, masks.reshape(len(masks), -1))


def soft_and_hard(n=7):
    rng = np.random.default_rng(1)
    return np.where(rng.random((n, 12, 9)) < 0.3, masks(n), rng.random((n, 12, 9)) < 0.5)


class Watched:
    """A model that keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def forward(self, x, **more):
        self.seen.append(x)
        return MODEL.forward(x, **more)


def scored(m, fill, *targets, model=MODEL, **more):
    targets = targets or [ClassScore(2)]
    found = list(scored_batches(model, X, targets, described(m), filling(X, fill), **more))
    return np.concatenate([m for m, _ in found]), np.concatenate([s for _, s in found], axis=1)


@pytest.mark.parametrize("fill", FILLS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_described_masks_equal_one_at_a_time(fill, batch_size):
    m = soft_and_hard()
    expected = []
    for mask in m:
        keep, shown = mask[None, ..., None], filling(X, fill).under(mask[None])
        expected.append(MODEL.forward(keep * X + (1 - keep) * shown).logits[0, 2])
    used, scores = scored(m, fill, batch_size=batch_size)
    np.testing.assert_array_equal(used, m.astype(np.float32))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", [*FILLS, 1e6], ids=str)
def test_described_masks_of_ones_change_nothing_at_all(fill):
    model = Watched()
    _, scores = scored(np.ones((3, 12, 9)), fill, model=model, batch_size=3)
    np.testing.assert_array_equal(model.seen[0], np.stack([X] * 3))
    np.testing.assert_array_equal(scores[0], MODEL.forward(np.stack([X] * 3)).logits[:, 2])


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_what_is_kept_is_shown_as_it_is_and_what_is_not_as_the_fill(fill):
    model, m = Watched(), soft_and_hard().round()
    scored(m, fill, model=model)
    expected = np.broadcast_to(filling(X, fill).under(m), (*m.shape, 3))
    np.testing.assert_array_equal(model.seen[0], np.where(m[..., None] == 1, X, expected))


def test_targets_share_the_passes_of_described_masks():
    targets = [ClassScore(0), ClassScore(3)]
    _, together = scored(soft_and_hard(), "inpaint", *targets)
    assert together.shape == (2, 7)
    for scores, target in zip(together, targets, strict=True):
        _, alone = scored(soft_and_hard(), "inpaint", target)
        np.testing.assert_array_equal(scores, alone[0])


def test_masks_of_another_size_are_refused():
    wrong = SegmentMasks(PIXELS.T, np.ones((2, 108)))
    with pytest.raises(ArrayError, match=r"masks of the size \(9, 12\)"):
        next(scored_batches(MODEL, X, [ClassScore(0)], wrong, Fixed(np.zeros(3))))


def test_progress_of_described_masks_is_told():
    seen = []
    with listening(lambda *event: seen.append(event)):
        scored(masks(9), 0.0, batch_size=4, what="work")
    assert seen == [("work", 4, 9), ("work", 8, 9), ("work", 9, 9)]
