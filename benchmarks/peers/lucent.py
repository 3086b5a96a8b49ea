"""What lucent does, with what it expects of IPython and of older versions of kornia."""

from __future__ import annotations

import sys
import types

import kornia
from kornia.geometry import transform

from benchmarks.case import Case, Way, Ways

for _name in ("get_rotation_matrix2d", "warp_affine", "warp_perspective"):
    setattr(kornia, _name, getattr(transform, _name))
_display = types.ModuleType("IPython.display")
_display.display = _display.Image = _display.HTML = lambda *args, **kwargs: None  # type: ignore[attr-defined]
sys.modules.setdefault("IPython", types.ModuleType("IPython"))
sys.modules.setdefault("IPython.display", _display)

from lucent.optvis import param, render  # noqa: E402


def ways(case: Case) -> Ways:
    """Give what lucent does with a case; see `benchmarks.case.Ways`."""
    return {"maximisation": lambda: _maximisation(case)}


def _maximisation(case: Case) -> Way:
    """Give its ascent for one channel."""
    objective = f"{case.middle.replace('.', '_')}:0"
    return lambda: render.render_vis(
        case.native,
        objective,
        param_f=lambda: param.image(case.work.side),
        thresholds=(case.work.steps,),
        show_image=False,
        progress=False,
    )
