"""Lets torchvision be imported where its compiled operations are missing."""

from __future__ import annotations

from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: list[Any] = []


def define() -> None:
    """Define the operations that ``import torchvision`` looks up, unless they are there.

    Only detectors call them.  The library is kept alive for the whole process.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            if not _library:
                _library.append(torch.library.Library("torchvision", "FRAGMENT"))
            _library[0].define(name + _SCHEMA)
