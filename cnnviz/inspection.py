"""The record of what an inspector found in a network, and what can be done with it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cnnviz.exhibiting import DPI, draw, written
from cnnviz.explanation import read_only
from cnnviz.packing import packed, unpacked
from cnnviz.wording import said, slug
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Exhibit, Gallery
from cnnviz_core.files import replacing
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Inspection"]

_FORMAT: Final = 1
_NAMED: Final = 6
_LONGEST: Final = 60
_DRAWN: Final = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
_SUFFIXES: Final = (".png", ".jpg", ".webp", ".pdf", ".svg", ".html", ".npz", ".gif", ".mp4")


@read_only
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Inspection:
    """What an inspector found: numbers, and what is to be seen of them.

    The arrays are read-only.  ``result["name"]`` is ``result.arrays["name"]``.

    Attributes
    ----------
    inspector : str
        The inspector's name.
    title : str
        One line.
    arrays : mapping of str to ndarray
        All numbers; the inspector's documentation gives their shapes and units.
    facts : mapping of str to value
        What else there is to say, as JSON has it.
    exhibits : tuple of Exhibit
        What is to be seen, the most telling first.
    frames : tuple of ndarray (H, W, 3) of uint8
        An animation; empty where there is none.
    params : mapping of str to value
        The inspector's parameters, all of them.
    provenance : mapping of str to value
        What made it: the network's name, the framework, versions.
    """

    inspector: str
    title: str = ""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    exhibits: tuple[Exhibit, ...] = ()
    frames: tuple[Array, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {name: _frozen(array) for name, array in self.arrays.items()}
        object.__setattr__(self, "arrays", MappingProxyType(arrays))
        object.__setattr__(self, "frames", tuple(map(_frozen, self.frames)))
        object.__setattr__(self, "exhibits", tuple(self.exhibits))
        for name in ("facts", "params", "provenance"):
            kept = {key: _kept(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(kept))

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Inspection):
            return NotImplemented
        mine, others = _as_arrays(self), _as_arrays(other)
        return mine.keys() == others.keys() and all(_same(mine[k], others[k]) for k in mine)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Mapping proxies cannot be pickled; the constructor makes them anew.
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        plain: dict[str, Any] = {
            k: dict(v) if isinstance(v, Mapping) else v for k, v in given.items()
        }
        return partial(type(self), **plain), ()

    def __repr__(self) -> str:
        parts = [f"{name} {'x'.join(map(str, a.shape))}" for name, a in self.arrays.items()]
        if len(parts) > _NAMED:
            parts = [*parts[:_NAMED], f"{len(parts) - _NAMED} more arrays"]
        parts += [f"{len(self.frames)} frames"] if self.frames else []
        head = f"{self.inspector}: {self.title}" if self.title else self.inspector
        return f"<Inspection by {head}{'; ' if parts else ''}{', '.join(parts)}>"

    def figure(self, *, width: float | None = None, dpi: float = DPI) -> Figure:
        """Draw all exhibits below each other.

        Parameters
        ----------
        width : float, optional
            Of the figure, in inches; pictures become smaller to fit.  As wide as what it shows, if
            left out.
        dpi : float
            Pixels for an inch.

        Returns
        -------
        matplotlib.figure.Figure
            Not one of pyplot's: nothing need be closed.

        Raises
        ------
        ParameterError
            If the width or the resolution is not positive, or the figure would be too large.
        """
        return draw(self.exhibits, title=self.title, footer=self.footer, width=width, dpi=dpi)

    def figures(self, *, width: float | None = None, dpi: float = DPI) -> list[Figure]:
        """Draw each exhibit as a figure of its own.

        Parameters
        ----------
        width, dpi : float
            As for `figure`.

        Returns
        -------
        list of matplotlib.figure.Figure
            As many as there are exhibits.
        """
        return [draw([e], title=e.title, width=width, dpi=dpi) for e in self.exhibits]

    @property
    def footer(self) -> str:
        """The network and the parameters in a line."""
        parts = [f"{name} {value}" for name, value in said(self.params).items()]
        model = self.provenance.get("model")
        return f"{self.inspector}{f' of {model}' if model else ''}{': ' * bool(parts)}" + ", ".join(
            parts
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        width: float | None = None,
        dpi: float | None = None,
        fps: float | None = None,
    ) -> Path:
        """Write it to a file, whole or not at all.

        Parameters
        ----------
        path : path
            The suffix says as what: ".png", ".jpg", ".webp" or ".svg" (the figure), ".pdf" (a page
            for each exhibit), ".html" (a page that stands alone), ".npz" (everything, for `load`),
            ".gif" or ".mp4" (the animation).
        width, dpi : float, optional
            Of figures; see `figure`.
        fps : float, optional
            Frames a second of an animation.

        Returns
        -------
        pathlib.Path
            Where it was written.

        Raises
        ------
        ParameterError
            If the suffix is unknown, there is no animation to save, or nothing can be written
            there.
        MissingBackendError
            If no program is installed that writes ".mp4".
        """
        target = Path(path).expanduser()
        content = self._encoded(target, width, dpi, fps)
        with replacing(target) as file:
            file.write(content)
        return target

    def save_pictures(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every picture of the galleries to a file of its own, in its own pixels.

        Left out are tiles of heat or classes without a picture below; of the others the picture is
        written without what lies over it.

        Parameters
        ----------
        folder : path
            Made if need be, in a folder that exists.

        Returns
        -------
        list of pathlib.Path
            PNG files, numbered in the order of the galleries and named after their captions.

        Raises
        ------
        ParameterError
            If there is no picture, or nothing can be written there.
        """
        from cnnviz.pictures import as_image, encode

        pictures = [
            (tile.pixels, tile.caption)
            for exhibit in self.exhibits
            if isinstance(exhibit, Gallery)
            for row in exhibit.rows
            for tile in row
            if tile is not None and tile.pixels is not None
        ]
        if not pictures:
            raise ParameterError(
                f"{self.inspector} shows no picture", "a picture to write", "use save instead"
            )
        target = Path(folder).expanduser()
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            raise ParameterError(
                f"the folder {target} cannot be made: {error.strerror}",
                "a folder in which files may be written",
                "name another",
            ) from error
        digits = len(str(len(pictures)))
        paths = []
        for k, (pixels, text) in enumerate(pictures, 1):
            caption = slug(text.partition("\n")[0])[:_LONGEST]
            path = target / f"{'-'.join(filter(None, (f'{k:0{digits}}', caption)))}.png"
            with replacing(path) as file:
                file.write(encode(as_image(pixels)))
            paths.append(path)
        return paths

    def _encoded(
        self, target: Path, width: float | None, dpi: float | None, fps: float | None
    ) -> bytes:
        """Give the content of a file of that name."""
        from cnnviz import animation, pages

        suffix = target.suffix.lower()
        if suffix == ".pdf":
            return written(self.figures(width=width, dpi=dpi or 2 * DPI), suffix)
        if suffix in _DRAWN:
            return written([self.figure(width=width, dpi=dpi or DPI)], suffix)
        if suffix == ".html":
            return pages.render([self], title=self.title).encode()
        if suffix == ".npz":
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **_as_arrays(self))
            return buffer.getvalue()
        if suffix in animation.MOVING:
            encode = animation.encode_gif if suffix == ".gif" else animation.encode_mp4
            return encode(self.frames, fps or animation.FPS)
        raise ParameterError(
            f"{target.name!r} does not say as what to save it",
            f"a name that ends in {', '.join(_SUFFIXES)}",
            f"save it as {target.with_suffix('.png').name!r}" if target.stem else "name a file",
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Inspection:
        """Read what was saved as ".npz".

        Parameters
        ----------
        path : path
            A file that `save` wrote.

        Returns
        -------
        Inspection
            Equal to the one that was saved.

        Raises
        ------
        ParameterError
            If there is no such file, or it is another.
        """
        source = Path(path).expanduser()
        try:
            # NumPy leaves a file open that it cannot read; this does not.
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return cls(**_fields_of({name: file[name] for name in file.files}))
        except FileNotFoundError:
            raise ParameterError(
                f"there is no file {source}", "a file that Inspection.save wrote", "check the path"
            ) from None
        # NumPy and zipfile raise all sorts of exceptions on other files.
        except Exception as error:
            raise ParameterError(
                f"{source} holds no inspection: {error}",
                "an .npz file that Inspection.save wrote",
                "check the path; pictures and pages cannot be loaded back",
            ) from error

    def _repr_png_(self) -> bytes:
        return written([self.figure()], ".png")

    def _repr_html_(self) -> str:
        from cnnviz import pages

        return pages.inspection_fragment(self)


def _as_arrays(inspection: Inspection) -> dict[str, Any]:
    """Give everything as arrays; what is none goes into one of them as JSON."""
    exhibits, parts = packed(inspection.exhibits)
    params = {k: v for k, v in inspection.params.items() if not isinstance(v, np.ndarray)}
    text = {
        "format": _FORMAT,
        "inspector": inspection.inspector,
        "title": inspection.title,
        "facts": dict(inspection.facts),
        "params": params,
        "provenance": dict(inspection.provenance),
        "exhibits": exhibits,
    }
    return {
        **{f"array/{name}": array for name, array in inspection.arrays.items()},
        **{f"param/{k}": v for k, v in inspection.params.items() if k not in params},
        **{f"exhibit/{k}": array for k, array in enumerate(parts)},
        **{f"frame/{k}": frame for k, frame in enumerate(inspection.frames)},
        "inspection": np.array(json.dumps(text, default=str)),
    }


def _fields_of(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Give the fields of the inspection that `_as_arrays` was given."""
    text = json.loads(str(arrays["inspection"]))
    if text.pop("format") != _FORMAT:
        raise ValueError("it is of another version's format")

    def named(kind: str) -> dict[str, Array]:
        return {name.removeprefix(kind): a for name, a in arrays.items() if name.startswith(kind)}

    parts, frames = (named(kind) for kind in ("exhibit/", "frame/"))
    return {
        **text,
        "arrays": named("array/"),
        "params": {**named("param/"), **text["params"]},
        "exhibits": unpacked(text["exhibits"], [parts[str(k)] for k in range(len(parts))]),
        "frames": tuple(frames[str(k)] for k in range(len(frames))),
    }


def _frozen(values: Any) -> Array:
    """Give a read-only array, a copy unless it is one already."""
    array = np.asarray(values)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def _kept(value: Any) -> Any:
    """Give a value as it is kept: arrays read-only, NumPy's scalars as Python's."""
    if isinstance(value, np.ndarray):
        return _frozen(value)
    if isinstance(value, Mapping):
        return {str(key): _kept(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_kept(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _same(a: Array, b: Array) -> bool:
    """Compare arrays by value and type; NaN equals NaN."""
    return a.dtype.kind == b.dtype.kind and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
