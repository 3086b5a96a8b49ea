"""A small network and pictures for the front door's tests; no framework is needed."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

LABELS = ("ant", "bee", "cat", "dog", "big cat")


@pytest.fixture(scope="session")
def model():
    """A network of pooling and one linear layer, for pictures of 12 x 9 pixels."""
    return ReferenceModel(NETS["plain"]())


@pytest.fixture(scope="session")
def network(model):
    """The same with a preprocessing and names of its 5 classes."""
    import cnnviz

    return cnnviz.wrap(
        model, preprocess=cnnviz.Preprocessing(size=(12, 9)), labels=LABELS, name="plain"
    )


@pytest.fixture
def picture():
    """A picture that is neither square nor of the network's size."""
    return np.random.default_rng(3).integers(0, 256, (30, 41, 3), dtype=np.uint8)


@pytest.fixture
def pictures():
    """Pictures of three sizes."""
    rng = np.random.default_rng(4)
    sizes = ((30, 41), (12, 9), (7, 50))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
