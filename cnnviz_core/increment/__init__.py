"""Computing a network again only where a change reaches: occlusion and its kin, exactly.

- operations: what has to be known of a network's operations.
- places: windows in the grids of its values.
- planning: which of its values to compute again, chosen by counted work.
- running: computing them, with any framework's arrays.
"""

from __future__ import annotations

from cnnviz_core.increment.operations import Kind, Operation
from cnnviz_core.increment.places import Cut, Part
from cnnviz_core.increment.planning import Plan, Structure
from cnnviz_core.increment.running import Increment, IncrementArrays, run

__all__ = [
    "Cut",
    "Increment",
    "IncrementArrays",
    "Kind",
    "Operation",
    "Part",
    "Plan",
    "Structure",
    "run",
]
