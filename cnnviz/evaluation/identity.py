"""What tells pictures, networks, preparations and targets apart from those of an earlier run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np

from cnnviz.datasets import Item, Label
from cnnviz.evaluation.asking import plain
from cnnviz.network import Network, Preprocess
from cnnviz.samples import samples_of
from cnnviz_core.model import Array
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["fields_of", "item_key", "preparation_of", "probe"]

_TEST_PICTURE: Final = (48, 64, 3)
_TIMED: Final = 3
"""How often the time of a batch is taken: the first one may be slow."""


def item_key(item: Item, numbers: Mapping[Label, int]) -> str:
    """Give a text that is another one for another picture, annotation or class of the network.

    Parameters
    ----------
    item : Item
        One of a data set's.
    numbers : mapping of (str or int) to int
        The network's numbers of the classes.

    Returns
    -------
    str
        The item's id and a hash.
    """
    number = None if item.label is None else numbers.get(item.label)
    known = f"{number} {item.fingerprint}"
    return f"{item.id}|{hashlib.sha256(known.encode()).hexdigest()[:16]}"


def preparation_of(how: Preprocess | None) -> Any:
    """Give what tells one way of preparing pictures from another, as JSON has it.

    Parameters
    ----------
    how : Preprocessing, callable or None
        Of a function it is its name, and what it makes of a fixed picture.

    Returns
    -------
    JSON value
    """
    if how is None or isinstance(how, Preprocessing):
        return None if how is None else fields_of(how)
    picture = np.random.default_rng(0).integers(0, 256, _TEST_PICTURE, dtype=np.uint8)
    try:
        made = hashlib.sha256(np.ascontiguousarray(how(picture)).tobytes()).hexdigest()
    except Exception as error:
        made = type(error).__name__
    return [getattr(how, "__qualname__", type(how).__qualname__), made]


def fields_of(record: Any) -> dict[str, Any]:
    """Give a dataclass's name and fields, as JSON has them.

    Parameters
    ----------
    record : dataclass
        Such as a target.

    Returns
    -------
    dict of str to JSON value
    """
    fields = {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    return {"class": type(record).__name__, **fields}


def probe(network: Network, shape: tuple[int, ...], many: int) -> tuple[Array, float]:
    """Ask a network what it says of pictures of noise, and how long it takes.

    Parameters
    ----------
    network : Network
        The network.
    shape : tuple of int
        (H, W, C) of its input.
    many : int
        How many samples to take the time of.

    Returns
    -------
    answers : ndarray (K,)
        Of the first sample, always the same for the same network.
    seconds : float
        For one sample, in a batch of so many; the median of a few.
    """
    noise = np.random.default_rng(0).integers(0, 256, (many + 1, *shape[:2], 3), dtype=np.uint8)
    x = np.stack([sample.x for sample in samples_of(network, list(noise))])
    answers = network.model.forward(x[:1]).logits[0]
    times = []
    for _ in range(_TIMED):
        began = perf_counter()
        network.model.forward(x[1:])
        times.append(perf_counter() - began)
    return np.asarray(answers), median(times) / many
