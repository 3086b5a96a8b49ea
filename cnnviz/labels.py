"""The names of ImageNet's classes."""

from __future__ import annotations

import functools
from importlib import resources

__all__ = ["imagenet_labels"]


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Give the names of ImageNet-1k's classes.

    Returns
    -------
    tuple of str
        1000 names in the order of the networks' outputs (sorted WordNet ids).

    Examples
    --------
    >>> imagenet_labels()[281]
    'tabby'
    """
    text = resources.files("cnnviz").joinpath("data/imagenet_1k.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
