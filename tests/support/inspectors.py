"""Parameters with which each inspector is done soon."""

from __future__ import annotations

from typing import Any

BRIEF: dict[str, dict[str, Any]] = {
    "class-model": {"steps": 2},
    "dream": {"steps": 1, "octaves": 2},
    "errors": {"count": 2},
    "features": {"count": 4},
    "inversion": {"steps": 2},
    "maximisation": {"steps": 2},
    "invariance": {"steps": 2},
    "occlusion-analysis": {"window": 4, "stride": 3},
    "projections": {"count": 2, "top": 2},
}
