"""Targets: gradients against finite differences, errors, and the way through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.errors import TargetError, UnknownClassError
from cnnviz_core.model import LOGITS, OUTPUT
from cnnviz_core.targets import (
    ClassProbability,
    ClassScore,
    Contrast,
    Neuron,
    Predicted,
    Segment,
    Similarity,
    Weighted,
    cotangent_of,
    probabilities,
    resolve_all,
    saturation,
    scores_of,
    target_from_dict,
    target_node,
    target_to_dict,
    top_k,
)

VECTOR = [
    ClassScore(2),
    ClassProbability(1),
    ClassProbability(1, "sigmoid"),
    Contrast(0, 3),
    Similarity([1.0, -2, 0.5, 3, 1]),
    Weighted([0.5, 0, -1, 2, 0.1]),
    Predicted(1),
]
DENSE = [
    Segment(1, np.array([[True, False, True], [False, True, True]])),
    Neuron("layer", (1, 2, 3)),
    Neuron("layer", (2,)),
    Weighted(np.arange(24.0).reshape(2, 3, 4)),
]
finite = st.floats(-5, 5, allow_nan=False, width=64)


def numerical(target, value, step=1e-5):
    gradient = np.empty_like(value)
    for at in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (target.score(up) - target.score(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("target", VECTOR, ids=str)
@given(value=arrays(float, 5, elements=finite, unique=True))
def test_gradient_of_a_vector(target, value):
    # Two scores closer than the step would change places under it.
    value = np.round(value, 3) + np.arange(5) * 1e-3 + 0.01
    if np.unique(np.round(value, 4)).size < 5:
        return
    np.testing.assert_allclose(target.gradient(value), numerical(target, value), atol=1e-6)


@pytest.mark.parametrize("target", DENSE, ids=str)
@given(value=arrays(float, (2, 3, 4), elements=finite))
def test_gradient_of_a_dense_value(target, value):
    np.testing.assert_allclose(target.gradient(value), numerical(target, value), atol=1e-6)


def test_segment_where_it_wins():
    value = np.zeros((2, 2, 3))
    value[0, 0, 1] = 5
    value[1, 1, 1] = 2
    value[0, 1, 2] = 9
    target = Segment(1)
    assert target.score(value) == 7
    expected = np.zeros_like(value)
    expected[0, 0, 1] = expected[1, 1, 1] = 1
    expected[0, 1, 1] = expected[1, 0, 1] = 0
    np.testing.assert_array_equal(target.gradient(value), expected)


@given(arrays(float, 6, elements=st.floats(-700, 700)))
def test_probabilities_are_probabilities(logits):
    p = probabilities(logits, "softmax")
    assert np.isclose(p.sum(), 1)
    s = probabilities(logits, "sigmoid")
    assert ((s >= 0) & (s <= 1)).all()
    np.testing.assert_allclose(s + probabilities(-logits, "sigmoid"), 1)


def test_predicted_takes_the_lower_class_of_equals():
    value = np.array([1.0, 3, 3, 0])
    assert [t.resolve(value) for t in top_k(3)] == [ClassScore(1), ClassScore(2), ClassScore(0)]


@pytest.mark.parametrize("target", VECTOR + DENSE + [Segment(2)], ids=str)
def test_there_and_back_through_json(target):
    assert target_from_dict(json.loads(json.dumps(target_to_dict(target)))) == target


def test_a_target_of_ones_own_is_described_but_not_rebuilt():
    class Mine:
        of = LOGITS

        def __str__(self):
            return "mine"

    described = target_to_dict(Mine())
    assert described == {"kind": "Mine", "description": "mine"}
    with pytest.raises(TargetError, match="Mine"):
        target_from_dict(described)


def test_arrays_cannot_be_changed_from_outside():
    weights = np.ones(3)
    target = Weighted(weights)
    weights[0] = 7
    assert target.score(np.ones(3)) == 3
    with pytest.raises(ValueError, match="read-only"):
        target.weights[0] = 1


@pytest.mark.parametrize(
    ("target", "value", "error"),
    [
        (ClassScore(5), np.zeros(5), UnknownClassError),
        (ClassScore(-1), np.zeros(5), UnknownClassError),
        (ClassScore(0), np.zeros((2, 2, 5)), TargetError),
        (ClassProbability(9), np.zeros(5), UnknownClassError),
        (Contrast(0, 9), np.zeros(5), UnknownClassError),
        (Predicted(5), np.zeros(5), TargetError),
        (Segment(0), np.zeros(5), TargetError),
        (Segment(0, np.ones((3, 3))), np.zeros((2, 2, 5)), TargetError),
        (Neuron("l", (0, 0)), np.zeros((2, 2, 5)), TargetError),
        (Neuron("l", (0, 2, 0)), np.zeros((2, 2, 5)), TargetError),
        (Neuron("l", (5,)), np.zeros((2, 2, 5)), TargetError),
        (Similarity(np.ones(4)), np.zeros(5), TargetError),
        (Weighted(np.ones(4)), np.zeros(5), TargetError),
    ],
    ids=lambda v: str(v) if not isinstance(v, np.ndarray) else str(v.shape),
)
def test_a_target_that_does_not_fit(target, value, error):
    with pytest.raises(error, match="expected"):
        target.score(value)
    with pytest.raises(error):
        target.gradient(value)


def test_similarity_to_nothing_is_refused():
    with pytest.raises(TargetError, match="zero"):
        Similarity(np.zeros(3))
    assert Similarity(np.ones(3)).score(np.zeros(3)) == 0
    np.testing.assert_array_equal(Similarity(np.ones(3)).gradient(np.zeros(3)), 0)


def test_batches():
    value = np.array([[1.0, 2, 3], [4, 6, 5]], np.float32)
    targets = [Predicted(), Contrast(0, 2)]
    np.testing.assert_array_equal(scores_of(targets, value), [3, -1])
    np.testing.assert_array_equal(cotangent_of(targets)(value), [[0, 0, 1], [1, 0, -1]])
    assert cotangent_of(targets)(value).dtype == np.float32
    assert resolve_all(targets, value) == (ClassScore(2), Contrast(0, 2))


def test_a_batch_needs_one_target_each_about_one_node():
    with pytest.raises(TargetError, match="2 targets were given for 3"):
        scores_of([Predicted()] * 2, np.zeros((3, 4)))
    with pytest.raises(TargetError, match="about 2 nodes"):
        target_node([ClassScore(0), Similarity(np.ones(2))])
    with pytest.raises(TargetError, match="about 0 nodes"):
        target_node([])
    assert target_node([Similarity(np.ones(2))]) == OUTPUT


def test_top_k_of_none():
    with pytest.raises(TargetError, match="top-0"):
        top_k(0)


def test_resolving_a_segment_fixes_its_region():
    value = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    segment = Segment(0).resolve(value)
    assert segment == Segment(0, np.array([[True, False]]))
    assert segment.score(value[:, ::-1]) == 0
    assert segment.resolve(value[:, ::-1]) is segment


def test_saturation():
    logits = np.array([[30.0, 0.0], [1.0, 0.0]])
    targets = [ClassProbability(0)] * 2
    assert saturation(targets, logits) == [True, False]
    assert saturation([ClassProbability(1, "sigmoid"), ClassScore(0)], -logits) == [False, False]
    assert saturation([ClassProbability(0, "sigmoid")] * 2, -logits) == [True, False]
    same = Similarity(np.array([1.0, 2.0]))
    assert saturation([same, same], np.array([[2.0, 4.0], [2.0, -1.0]])) == [True, False]
