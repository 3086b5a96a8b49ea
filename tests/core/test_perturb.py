"""Scoring a sample under masks, and the memory of a model."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import Fixed, filling
from cnnviz_core.mask_forms import NumPyArrays, draw
from cnnviz_core.masks import SegmentMasks
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.perturb import (
    distinct_samples,
    each_sample,
    score_masked,
    score_replaced,
    scored_batches,
)
from cnnviz_core.progress import advance, listening
from cnnviz_core.targets import ClassScore, Neuron
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["plain"]()
X = random_input(NET, 1)["image"][0]
MODEL = ReferenceModel(NET)


def masks(n, seed=0):
    return np.random.default_rng(seed).random((n, *X.shape[:2])).astype(np.float32)


def test_a_target_about_a_layer():
    target = Neuron("relu2", (1, 1, 3))
    scores = score_masked(MODEL, X, [target], described(np.zeros((1, 12, 9))), Fixed(np.zeros(3)))
    expected = MODEL.forward(np.zeros_like(X)[None], capture=["relu2"])["relu2"][0, 1, 1, 3]
    np.testing.assert_allclose(scores, [[expected]], rtol=1e-5)


def test_scores_are_put_together():
    m, fill = soft_and_hard(), filling(X, "mean")
    targets = [ClassScore(0), ClassScore(3)]
    together = score_masked(MODEL, X, targets, described(m), fill, batch_size=3)
    batches = scored_batches(MODEL, X, targets, described(m), fill, batch_size=3)
    np.testing.assert_array_equal(together, np.hstack([scores for _, scores in batches]))
    assert score_masked(MODEL, X, targets, described(m[:0]), fill).shape == (2, 0)


def test_progress_goes_nowhere_outside_of_the_block():
    seen = []
    with listening(lambda *event: seen.append(event)):
        pass
    advance("late", 1, 1)
    assert not seen


def test_nodes_are_spelt_as_documented():
    assert (INPUT, LOGITS, OUTPUT) == ("@input", "@logits", "@output")


@pytest.mark.parametrize("batch_size", [1, 3, 7, "auto"])
def test_replacing_a_layers_value_equals_one_at_a_time(batch_size):
    values = np.random.default_rng(3).normal(size=(7, 6, 4, 8)).astype(np.float32)
    expected = [MODEL.forward(X[None], replace={"relu2": v[None]}).logits[0, 2] for v in values]
    scores = score_replaced(
        MODEL,
        X,
        [ClassScore(2)],
        "relu2",
        lambda start, stop: values[start:stop],
        7,
        batch_size=batch_size,
    )
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-6)


def test_values_of_another_shape_are_refused():
    with pytest.raises(ArrayError, match="relu2"):
        score_replaced(MODEL, X, [ClassScore(2)], "relu2", lambda a, b: np.zeros((b - a, 2)), 6)


def test_rows_of_one_sample_are_found():
    a, b = X, X + 1
    batch = np.stack([a, b, a, a])
    assert distinct_samples(batch) == [[0, 2, 3], [1]]
    found = list(each_sample(batch, "work"))
    assert [(rows, what) for rows, _, what in found] == [
        ([0, 2, 3], "work, picture 1 of 4"),
        ([1], "work, picture 2 of 4"),
    ]
    np.testing.assert_array_equal([sample for _, sample, _ in found], [a, b])


def test_samples_without_positions_are_refused():
    with pytest.raises(ArrayError, match=r"a batch of the shape \(2, 5\)"):
        next(each_sample(np.zeros((2, 5)), "work"))


# ---------------------------------------------------------------------------- described masks

FILLS = [0.3, "mean", "blur", "noise", "inpaint", X[::-1].copy()]
PIXELS = np.arange(12 * 9).reshape(12, 9)  # each pixel a segment: any masks at all


def named(fill):
    return "array" if np.ndim(fill) else str(fill)


def described(masks):
    return SegmentMasks(PIXELS, masks.reshape(-1, 12 * 9))


def soft_and_hard(n=7):
    rng = np.random.default_rng(1)
    return np.where(rng.random((n, 12, 9)) < 0.3, masks(n), rng.random((n, 12, 9)) < 0.5)


class Watched:
    """A model that keeps what it is shown."""

    def __init__(self, *capabilities):
        self.capabilities = capabilities
        self.seen = []

    def forward(self, x, **more):
        self.seen.append(x)
        return MODEL.forward(x, **more)


def scored(m, fill, *targets, model=MODEL, **more):
    targets = targets or [ClassScore(2)]
    found = list(scored_batches(model, X, targets, described(m), filling(X, fill), **more))
    masks = np.concatenate([draw(m, NumPyArrays()) for m, _ in found])
    return masks, np.concatenate([s for _, s in found], axis=1)


@pytest.mark.parametrize("fill", FILLS, ids=named)
@pytest.mark.parametrize("batch_size", [1, 3, 100, "auto"])
def test_described_masks_equal_one_at_a_time(fill, batch_size):
    m = soft_and_hard()
    expected = []
    for mask in m:
        keep, shown = mask[None, ..., None], filling(X, fill).under(mask[None])
        expected.append(MODEL.forward(keep * X + (1 - keep) * shown).logits[0, 2])
    used, scores = scored(m, fill, batch_size=batch_size)
    np.testing.assert_array_equal(used, m.astype(np.float32))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", [*FILLS, 1e6], ids=named)
def test_described_masks_of_ones_change_nothing_at_all(fill):
    model = Watched()
    _, scores = scored(np.ones((3, 12, 9)), fill, model=model, batch_size=3)
    np.testing.assert_array_equal(model.seen[0], np.stack([X] * 3))
    np.testing.assert_array_equal(scores[0], MODEL.forward(np.stack([X] * 3)).logits[:, 2])


@pytest.mark.parametrize("fill", FILLS, ids=named)
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


@pytest.mark.parametrize("fill", FILLS, ids=named)
def test_a_model_that_can_blend_is_given_the_description(fill):
    m, model = soft_and_hard(), Watched(BLEND)
    _, scores = scored(m, fill, model=model, batch_size=4)
    assert [type(x) for x in model.seen] == [np.ndarray if str(fill) == "inpaint" else Blended] * 2
    np.testing.assert_array_equal(scores, scored(m, fill, batch_size=4)[1])


def test_masks_of_another_size_are_refused():
    wrong = SegmentMasks(PIXELS.T, np.ones((2, 108)))
    with pytest.raises(ArrayError, match=r"masks of the size \(9, 12\)"):
        next(scored_batches(MODEL, X, [ClassScore(0)], wrong, Fixed(np.zeros(3))))


def test_progress_of_described_masks_is_told():
    seen = []
    with listening(lambda *event: seen.append(event)):
        scored(masks(9), 0.0, batch_size=4, what="work")
    assert seen == [("work", 4, 9), ("work", 8, 9), ("work", 9, 9)]
