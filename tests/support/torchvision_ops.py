"""Lets torchvision be imported where its compiled operations do not fit the installed torch."""

from __future__ import annotations

import sys
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: list[Any] = []


def define() -> None:
    """Import torchvision; where it misses its compiled operations, define those it looks up.

    Only detectors call them.  The library is kept alive for the whole process.

    Raises
    ------
    ModuleNotFoundError
        If torchvision is not installed.
    """
    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _library[0].define(name + _SCHEMA)
        import torchvision  # noqa: F401
