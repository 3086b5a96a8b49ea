"""See what a convolutional network looks at, in PyTorch and in TensorFlow/Keras.

The names below are imported when they are first used, so that ``import cnnviz`` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnviz.comparing import Comparison, compare
    from cnnviz.evaluation import Evaluation, evaluate
    from cnnviz.explaining import explain
    from cnnviz.explanation import Explanation
    from cnnviz.inspecting import inspect
    from cnnviz.inspection import Inspection
    from cnnviz.listing import inspectors, layers, methods, metrics
    from cnnviz.network import Network, wrap
    from cnnviz.pages import report
    from cnnviz.sources import load
    from cnnviz_core.errors import CnnvizError
    from cnnviz_core.preprocessing import Preprocessing
    from cnnviz_core.targets import (
        ClassProbability,
        ClassScore,
        Contrast,
        Neuron,
        Predicted,
        Segment,
        Similarity,
        Target,
        Weighted,
        top_k,
    )

    __version__: str

__all__ = [
    "ClassProbability",
    "ClassScore",
    "CnnvizError",
    "Comparison",
    "Contrast",
    "Evaluation",
    "Explanation",
    "Inspection",
    "Network",
    "Neuron",
    "Predicted",
    "Preprocessing",
    "Segment",
    "Similarity",
    "Target",
    "Weighted",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "inspect",
    "inspectors",
    "layers",
    "load",
    "methods",
    "metrics",
    "report",
    "top_k",
    "wrap",
]

_HOMES = {
    "CnnvizError": "cnnviz_core.errors",
    "Comparison": "cnnviz.comparing",
    "Evaluation": "cnnviz.evaluation",
    "Explanation": "cnnviz.explanation",
    "Inspection": "cnnviz.inspection",
    "Network": "cnnviz.network",
    "Preprocessing": "cnnviz_core.preprocessing",
    "compare": "cnnviz.comparing",
    "evaluate": "cnnviz.evaluation",
    "explain": "cnnviz.explaining",
    "inspect": "cnnviz.inspecting",
    "inspectors": "cnnviz.listing",
    "layers": "cnnviz.listing",
    "load": "cnnviz.sources",
    "methods": "cnnviz.listing",
    "metrics": "cnnviz.listing",
    "report": "cnnviz.pages",
    "wrap": "cnnviz.network",
}


_MODULES = ("datasets", "evaluation", "heads")


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of more of them, when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("cnnviz")
    elif name in _MODULES:
        value = importlib.import_module(f"cnnviz.{name}")
    elif name in __all__:
        home = _HOMES.get(name, "cnnviz_core.targets")
        value = getattr(importlib.import_module(home), name)
    else:
        raise AttributeError(f"module 'cnnviz' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted((*__all__, *_MODULES))
