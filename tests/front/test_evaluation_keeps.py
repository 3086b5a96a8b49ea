"""What metrics keep from batch to batch is let go of when an evaluation ends."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from front.evaluated import annotated

import cnnviz
from cnnviz_core.testing.nets import plain
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_metrics.sanity import SanityCheck, randomised_parts


@dataclass(frozen=True)
class Keeping:
    """Counts the batches by what it has kept."""

    stops: bool = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained):
        number = explained.kept[self] = explained.kept.get(self, 0) + 1
        if self.stops and number == 2:
            raise KeyboardInterrupt
        return {"number": np.full(len(explained), number)}

    def summarise(self, records):
        return {"batches": float(records["number"].max(initial=0))}


class Watched(ReferenceModel):
    """A model of which all copies are watched, and copies of copies."""

    def __init__(self, *args):
        super().__init__(*args)
        self.copies = []

    def copied(self, parameters):
        copy = super().copied(parameters)
        copy.__class__, copy.copies = Watched, self.copies
        self.copies.append(weakref.ref(copy))
        return copy


@pytest.fixture
def watched():
    return Watched(plain())


def network_of(model):
    labels = ["ant", "bee", "cat", "dog", "big cat"]
    return cnnviz.wrap(model, preprocess=cnnviz.Preprocessing(size=(12, 9)), labels=labels)


def test_all_batches_and_methods_of_one_evaluation_share_what_is_kept(network):
    given = {"batch_size": 2, "resamples": 0}
    for _ in range(2):
        done = cnnviz.evaluate(network, annotated(), "saliency, grad-cam", [Keeping()], **given)
        assert max(score.value for score in done.summary) == 2 * 4


def test_no_copy_outlives_an_evaluation(watched):
    metrics = [SanityCheck(), SanityCheck("independent")]
    done = cnnviz.evaluate(
        network_of(watched), annotated(), "saliency, grad-cam", metrics, batch_size=3, resamples=5
    )
    assert not done.failures
    gc.collect()
    parts = len(randomised_parts(watched, np.zeros((1, 12, 9, 3), np.float32)))
    assert len(watched.copies) == len(metrics) * parts
    assert [ref() for ref in watched.copies] == [None] * len(watched.copies)


def test_no_copy_outlives_an_evaluation_that_was_stopped(watched):
    with pytest.raises(KeyboardInterrupt):
        cnnviz.evaluate(
            network_of(watched), annotated(), "saliency", [SanityCheck(), Keeping(stops=True)],
            batch_size=3, resamples=5,
        )  # fmt: skip
    gc.collect()
    assert watched.copies
    assert all(ref() is None for ref in watched.copies)
