"""An explanation in other forms: arrays for a file and back, and a dataset with named axes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cnnviz.preprocess import Geometry
from cnnviz_core.errors import MissingBackendError, TargetError
from cnnviz_core.explainer import Presentation
from cnnviz_core.model import OUTPUT, Array
from cnnviz_core.targets import Target, target_from_dict, target_to_dict

if TYPE_CHECKING:
    from cnnviz.explanation import Explanation

__all__ = ["SavedTarget", "as_arrays", "as_dataset", "fields_of"]

_FORMAT: Final = 1
_AXES: Final = {1: ("position",), 2: ("y", "x"), 3: ("z", "y", "x")}
_GRIDS: Final = {1: ("step",), 2: ("row", "column"), 3: ("slice", "row", "column")}


@dataclass(frozen=True)
class SavedTarget:
    """What is left in a saved file of a target of another package: its description.

    Attributes
    ----------
    kind, description : str
        The target's class, and what it said of itself.
    """

    kind: str
    description: str

    @property
    def of(self) -> str:
        """The node that the target was about; not known any more."""
        return OUTPUT

    def score(self, value: Array) -> float:
        """Refuse: a description cannot score."""
        raise self._error()

    def gradient(self, value: Array) -> Array:
        """Refuse: a description has no gradient."""
        raise self._error()

    def resolve(self, value: Array) -> SavedTarget:
        """Return the description itself."""
        return self

    def _error(self) -> TargetError:
        return TargetError(
            f"of the target {self.description!r} only the description was saved",
            "a target that can score",
            f"make it anew, with the class {self.kind} of the package that defines it",
        )

    def __str__(self) -> str:
        return self.description


def as_arrays(explanation: Explanation) -> dict[str, Any]:
    """Give everything as arrays; what is none goes into one of them as JSON.

    Parameters
    ----------
    explanation : Explanation
        Any.

    Returns
    -------
    dict of str to ndarray
        For `numpy.savez`; without objects, so that nothing need be unpickled.
    """
    arrays: dict[str, Any] = {"maps": explanation.maps, "raw": explanation.raw}
    for name in ("scores", "probabilities"):
        if getattr(explanation, name) is not None:
            arrays[name] = getattr(explanation, name)
    # A picture that is explained for several classes is stored once.
    distinct = {id(picture): picture for picture in explanation.pictures}
    order = {key: k for k, key in enumerate(distinct)}
    arrays |= {f"picture/{k}": picture for k, picture in enumerate(distinct.values())}
    others, params = (
        {name: v for name, v in values.items() if not isinstance(v, np.ndarray)}
        for values in (explanation.extras, explanation.params)
    )
    for kind, values in (("extra", explanation.extras), ("param", explanation.params)):
        arrays |= {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, np.ndarray)}
    text = {
        "format": _FORMAT,
        "method": explanation.method,
        "layer": explanation.layer,
        "params": params,
        "provenance": dict(explanation.provenance),
        "presentation": asdict(explanation.presentation),
        "targets": [_target_to_dict(target) for target in explanation.targets],
        "target_labels": explanation.target_labels,
        "predictions": explanation.predictions,
        "status": explanation.status,
        "geometry": [geometry.to_dict() for geometry in explanation.geometry],
        "pictures": [order[id(picture)] for picture in explanation.pictures],
        "names": explanation.names,
        "extras": others,
        "notes": explanation.notes,
    }
    return {**arrays, "explanation": np.array(json.dumps(text, default=_plain))}


def fields_of(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Give the fields of the explanation that `as_arrays` was given.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `as_arrays` gave.

    Returns
    -------
    dict of str to value
        The arguments of `Explanation`; of a target of another package a `SavedTarget`.

    Raises
    ------
    ValueError
        If the arrays are of another version's format.
    """
    text = json.loads(str(arrays["explanation"]))
    if text["format"] != _FORMAT:
        raise ValueError(f"it is of format {text['format']}, and this version reads {_FORMAT}")
    distinct = {
        int(name.removeprefix("picture/")): pixels
        for name, pixels in arrays.items()
        if name.startswith("picture/")
    }
    for pixels in distinct.values():
        # An explanation copies what can be written to: a picture of many samples stays one array.
        pixels.flags.writeable = False
    saved, params = (
        {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}
        for kind in ("extra/", "param/")
    )
    return dict(
        maps=arrays["maps"],
        raw=arrays["raw"],
        scores=arrays.get("scores"),
        probabilities=arrays.get("probabilities"),
        targets=tuple(map(_target_from_dict, text["targets"])),
        target_labels=text["target_labels"],
        predictions=tuple(tuple((k, p) for k, p in each) for each in text["predictions"]),
        method=text["method"],
        params={**params, **text["params"]},
        layer=text["layer"],
        status=text["status"],
        presentation=Presentation(**text["presentation"]),
        geometry=tuple(map(Geometry.from_dict, text["geometry"])),
        pictures=tuple(distinct[k] for k in text["pictures"]),
        names=text["names"],
        extras={**saved, **text["extras"]},
        provenance=text["provenance"],
        notes=text.get("notes", ()),  # earlier versions wrote none
    )


def as_dataset(explanation: Explanation) -> Any:
    """Give the numbers as an xarray Dataset; see `Explanation.to_xarray`.

    Parameters
    ----------
    explanation : Explanation
        Any.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    MissingBackendError
        If xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise MissingBackendError(
            "xarray is not installed",
            "xarray, for results with named axes",
            "pip install 'cnnviz[xarray]'",
        ) from None
    rank = explanation.maps.ndim - 1
    axes = (*_AXES[rank], "channel") if explanation.fine else _GRIDS[rank]
    variables: dict[str, Any] = {
        "maps": (("sample", *_AXES[rank]), explanation.maps),
        "raw": (("sample", *axes), explanation.raw),
    }
    for name in ("scores", "probabilities"):
        if getattr(explanation, name) is not None:
            variables[name] = ("sample", getattr(explanation, name))
    return xarray.Dataset(
        variables,
        coords={
            "name": ("sample", list(explanation.names)),
            "target": ("sample", list(explanation.target_labels)),
            "status": ("sample", list(explanation.status)),
        },
        attrs={
            "method": explanation.method,
            "layer": explanation.layer or "",
            "notes": "; ".join(explanation.notes),
            **explanation.params,
        },
    )


def _plain(value: Any) -> Any:
    """Give a value as one that JSON knows."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _target_to_dict(target: Target) -> dict[str, Any]:
    """Give a target as JSON values, also one that was read from a file."""
    return asdict(target) if isinstance(target, SavedTarget) else target_to_dict(target)


def _target_from_dict(values: Mapping[str, Any]) -> Target:
    """Make a target, or what is left of it."""
    return SavedTarget(**values) if "description" in values else target_from_dict(values)
