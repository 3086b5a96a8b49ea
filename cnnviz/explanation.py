"""The record of what a network looked at, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from cnnviz import archive
from cnnviz.pictures import (
    ALPHA,
    draw_boxes,
    encode,
    overlay,
    percent,
    stamp,
)
from cnnviz.preprocess import Geometry
from cnnviz.rendering import SIDE, Scene, draw_signal, draw_volume, hottest
from cnnviz_core.errors import (
    ArrayError,
    ParameterError,
    ReadOnlyResultError,
)
from cnnviz_core.explainer import Presentation, Sign, present
from cnnviz_core.files import replacing
from cnnviz_core.model import Array
from cnnviz_core.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

T = TypeVar("T")

__all__ = ["STATUS_NOTES", "THRESHOLD", "Explanation", "Normalise", "read_only"]

Normalise: TypeAlias = bool | Literal["max", "percentile", "min-max"]
"""How a map is brought to the range in which it is shown; see `Explanation.heatmap`."""

THRESHOLD = 0.15
"""The share of a map's maximum above which boxes are drawn (Selvaraju et al., 2017)."""

STATUS_NOTES: Mapping[str, str] = MappingProxyType(
    {
        "all-zero": "all zero: nothing found",
        "all-negative": "all negative: only evidence against",
        "non-finite": "not finite: NaN or infinity",
        "saturated": "the score is saturated: explain the class score instead of its probability",
    }
)
"""What is written on a picture whose map is not "ok"."""

# Of attributions to single input values a few stand out so far that all else would look black.
_CLIPPED = 99.0
_UPSAMPLINGS: Final = ("bilinear", "bicubic", "nearest")
_UNSIGNED: Final = frozenset({"max-abs", "sum-abs", "mean-abs", "l2"})
"""The reductions over channels that lose the sign."""
_KINDS: Final = {1: "signal", 2: "picture", 3: "volume"}
_PER_SAMPLE = ("targets", "target_labels", "predictions", "status", "geometry", "pictures", "names")
_ROWS = 12


def read_only(cls: type[T]) -> type[T]:
    """Make the instances of a frozen dataclass say, when they are changed, what to do instead."""
    cls.__setattr__ = cls.__delattr__ = _refuse  # type: ignore[assignment, method-assign]
    return cls


def _refuse(self: object, name: str, *value: object) -> None:
    """Refuse to change a result."""
    raise ReadOnlyResultError(
        f"{name!r} of {type(self).__name__} was about to be changed",
        "a result that stays as it was computed",
        f"make a changed copy: dataclasses.replace(result, {name}=...)",
    )


@read_only
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation:
    """What a network looked at, in N samples, by one method.

    The arrays are read-only.  ``len(e)``, ``e[i]``, ``e[i:j]`` and iteration give explanations of
    fewer samples.

    Attributes
    ----------
    maps : ndarray (N, H, W), (N, L) or (N, D, H, W)
        One map for each sample, a picture, a signal or a volume, at the size of the network's
        input, in the method's own units: not normalised.
    raw : ndarray (N, h, w) or (N, H, W, C)
        The method's own result, signed: at the layer's size, or for each input value.  Of signals
        (N, l) or (N, L, C), of volumes (N, d, h, w) or (N, D, H, W, C).
    targets : tuple of Target
        What was explained, resolved: a predicted class has become that class.
    target_labels : tuple of str
        The same in words.
    method : str
        The method's name.
    geometry : tuple of Geometry
        Where each input lies in its picture.
    pictures : tuple of ndarray (H, W, 3) of uint8
        The pictures as they came, of any sizes; volumes (D, H, W, 3) likewise, as they are drawn.
        Of signals their values (L, C).
    names : tuple of str
        What the pictures are called.
    status : tuple of str
        "ok", or why a map shows nothing: "all-zero", "all-negative", "non-finite"; "saturated"
        where the score, such as a probability, is so near its bound that its gradient is rounding.
    scores : ndarray (N,), or None
        The targets' scores.
    probabilities : ndarray (N,), or None
        The probabilities of the targets' classes; NaN where a target is no class.
    predictions : tuple of tuples of (str, float)
        For each sample the classes that the network puts first, with their probabilities.
    params : mapping of str to value
        The method's parameters, all of them.
    layer : str or None
        The layer that was looked at.
    presentation : Presentation
        How the method's authors show its results.
    extras : mapping of str to value
        What else the method has to say; an array with N rows has one for each sample.
    provenance : mapping of str to value
        What made it: the network's name, the framework, versions.
    notes : tuple of str
        What a reader of the maps must know, a line each: such as an operation that the method could
        only pass by makeshift.
    """

    maps: Array
    raw: Array
    targets: tuple[Target, ...]
    target_labels: tuple[str, ...]
    method: str
    geometry: tuple[Geometry, ...]
    pictures: tuple[Array, ...]
    names: tuple[str, ...]
    status: tuple[str, ...]
    scores: Array | None = None
    probabilities: Array | None = None
    predictions: tuple[tuple[tuple[str, float], ...], ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    presentation: Presentation = field(default_factory=Presentation)
    extras: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.maps)
        for name in ("maps", "raw", "scores", "probabilities"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _frozen(values))
        if not self.predictions:
            object.__setattr__(self, "predictions", ((),) * n)
        for name in (*_PER_SAMPLE, "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "pictures", tuple(map(_frozen, self.pictures)))
        for name in ("params", "extras", "provenance"):
            kept = {key: _kept(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(kept))
        self._check()

    def _check(self) -> None:
        """Check that the parts are about the same samples."""
        given = {
            name: len(getattr(self, name))
            for name in ("maps", "raw", "scores", "probabilities", *_PER_SAMPLE)
            if getattr(self, name) is not None
        }
        if len(set(given.values())) != 1 or not len(self.maps):
            raise ArrayError(
                f"the parts of an explanation hold different numbers of samples: {given}",
                "as many in each part, and at least one",
                "give every part one entry for each sample",
            )
        axes = self.maps.ndim - 1
        if axes not in _KINDS or self.raw.ndim not in (axes + 1, axes + 2):
            raise ArrayError(
                f"the maps have the shape {self.maps.shape}, the raw result {self.raw.shape}",
                "maps of signals (N, L), pictures (N, H, W) or volumes (N, D, H, W), and as many "
                "axes in the raw result, or one more for channels",
                "make the maps of the raw result with cnnviz_core.explainer.present",
            )
        for i, (geometry, picture) in enumerate(zip(self.geometry, self.pictures, strict=True)):
            if (geometry.size, geometry.original) != (self.maps.shape[1:], picture.shape[:-1]):
                raise ArrayError(
                    f"the geometry of sample {i} leads from {geometry.size} to {geometry.original}",
                    f"from the map's size {self.maps.shape[1:]} to the picture's "
                    f"{picture.shape[:-1]}",
                    "use the geometry that came with this picture's preparation",
                )

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: int | slice) -> Explanation:
        part = i
        if not isinstance(i, slice):
            first = self._index(i)
            part = slice(first, first + 1)
        elif not range(len(self))[i]:
            raise IndexError(f"{i} takes none of the {len(self)} samples")
        arrays = ("maps", "raw", "scores", "probabilities", *_PER_SAMPLE)
        extras = {
            name: value[part] if _has_rows(value, len(self)) else value
            for name, value in self.extras.items()
        }
        given = {name: getattr(self, name) for name in arrays}
        return replace(
            self,
            **{name: values[part] for name, values in given.items() if values is not None},
            extras=extras,
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Mapping proxies cannot be pickled; the constructor makes them anew.
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        plain: dict[str, Any] = {
            k: dict(v) if isinstance(v, Mapping) else v for k, v in given.items()
        }
        return partial(type(self), **plain), ()

    def _index(self, i: int) -> int:
        """Count a sample from the beginning, checked."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}, counted from 0")
        return i % len(self)

    @property
    def signed(self) -> bool:
        """Whether the maps have a sign, so that 0 is the middle of what they show."""
        return self.presentation.sign == "signed"

    @property
    def fine(self) -> bool:
        """Whether the method attributes to single input values, not to the grid of a layer."""
        return self.raw.ndim == self.maps.ndim + 1

    @property
    def kind(self) -> str:
        """What the samples are: "picture", "signal" or "volume"."""
        return _KINDS[self.maps.ndim - 1]

    def shown(
        self,
        *,
        sign: Sign | None = None,
        reduce: str | None = None,
        upsample: Literal["bilinear", "bicubic", "nearest"] | None = None,
    ) -> Explanation:
        """Show the same result in another way than the method's authors do.

        The maps and their status are made anew from `raw`, which stays what it is.

        Parameters
        ----------
        sign : {"positive", "absolute", "signed", "relative"}, optional
            Whether the positive part is kept, the magnitude, or the sign; or by how much each
            place exceeds the least.
        reduce : {"max-abs", "sum", "mean", "sum-abs", "mean-abs", "l2"}, optional
            How attributions to input values are reduced over the channels: see
            `cnnviz_core.maps.reduce_channels`.  Where another `sign` than "absolute" is asked for,
            and the method's own reduction loses the sign, "sum" takes its place.
        upsample : {"bilinear", "bicubic", "nearest"}, optional
            How a map of the layer's grid is brought to the input's size.

        Returns
        -------
        Explanation
            A copy; what is left out stays as it is.

        Raises
        ------
        ParameterError
            If one of them is unknown.

        Examples
        --------
        >>> from cnnviz.demo import scenes
        >>> from cnnviz.explaining import explain
        >>> e = explain("demo", scenes()[0][0], "grad-cam").shown(sign="signed")
        >>> e.presentation.sign
        'signed'
        """
        for name, value, known in (
            ("sign", sign, get_args(Sign)),
            ("upsample", upsample, _UPSAMPLINGS),
        ):
            if value is not None and value not in known:
                raise ParameterError(
                    f"{name}={value!r} is unknown",
                    f"one of {', '.join(map(repr, known))}",
                    f"pass {name}={known[0]!r}, or leave it out",
                )
        old = self.presentation
        loses = old.reduce in _UNSIGNED and sign not in (None, "absolute", old.sign)
        new = Presentation(
            sign=sign or old.sign,
            reduce=reduce or ("sum" if loses else old.reduce),
            upsample=upsample or old.upsample,
        )
        maps, status = present(self.raw, self.maps.shape[1:], new)
        kept = [
            was if was == "saturated" and now != "non-finite" else now
            for was, now in zip(self.status, status, strict=True)
        ]
        return replace(self, maps=maps, status=tuple(kept), presentation=new)

    def heatmap(self, i: int = 0, normalise: Normalise = True) -> Array:
        """Give a sample's map in the original picture's coordinates, or the signal's or volume's.

        Parameters
        ----------
        i : int
            The sample.
        normalise : {True, "max", "percentile", "min-max", False}
            - "max": divided by the largest value, or by the largest magnitude of a signed map: 0
              keeps its meaning, in [0, 1] or [-1, 1].
            - "percentile": the same, after the magnitudes were clipped at their 99th percentile.
            - "min-max": shifted and scaled so that the least value becomes 0 and the largest 1;
              what 0 meant is lost, and signed maps lose their sign.
            - True: "percentile" for attributions to single input values, "max" for all others.
            - False: not at all; the method's own units remain.

        Returns
        -------
        ndarray (H, W), (L,) or (D, H, W)
            At the picture's size; 0 where the network did not see the picture, and all zero if
            `normalise` and the map's status is not "ok".

        Raises
        ------
        ParameterError
            If `normalise` is something else.
        """
        from cnnviz_core import maps

        i = self._index(i)
        if normalise is True:
            normalise = "percentile" if self.fine else "max"
        if normalise is not False and normalise not in ("max", "percentile", "min-max"):
            raise ParameterError(
                f"normalise={normalise!r} is unknown",
                "'max', 'percentile', 'min-max', False, or True for the method's usual one",
                "leave it out",
            )
        upsample = self.presentation.upsample
        if normalise is False:
            return self.geometry[i].map_to_original(self.maps[i], upsample)
        if self.status[i] != "ok":
            return np.zeros(self.geometry[i].original, dtype=self.maps.dtype)
        map = self.maps[i : i + 1]
        if normalise == "min-max":
            # Before the way back, where pixels that the network did not see become 0.
            heat = self.geometry[i].map_to_original(maps.min_max(map)[0], upsample)[None]
            return np.clip(maps.scale_to_max(heat)[0], 0, 1)
        if normalise == "percentile":
            map = maps.percentile_clip(map, _CLIPPED)
        heat = self.geometry[i].map_to_original(map[0], upsample)[None]
        shown = maps.symmetric(heat) if self.signed else maps.scale_to_max(maps.relu(heat))
        normalised: Array = shown[0]
        return normalised

    def boxes(self, threshold: float = THRESHOLD, *, largest: bool = True) -> list[Array]:
        """Find boxes around what is hot in the original pictures, or intervals of signals.

        Parameters
        ----------
        threshold : float
            The share of the maximum, in [0, 1], that a pixel must exceed.  Of signed maps the
            positive part counts.
        largest : bool
            Whether to keep only the box of the largest connected component.

        Returns
        -------
        list of ndarray (k, 4) of int
            One for each sample: (x0, y0, x1, y1), half-open, in pixels; empty where nothing is hot.
            Of signals (k, 2): from which position to which, half-open.

        Raises
        ------
        ParameterError
            If the threshold is not in [0, 1], or the samples are volumes.
        """
        return [self._boxes(i, threshold, largest) for i in range(len(self))]

    def _boxes(self, i: int, threshold: float, largest: bool) -> Array:
        """Find the boxes of one sample."""
        from cnnviz_core import maps

        if self.kind == "volume":
            raise ParameterError(
                "boxes were asked for, and the samples are volumes",
                "pictures or signals",
                f"leave boxes out; heatmap() > {threshold} marks the voxels",
            )
        heat = self.heatmap(i, normalise=False)
        # A signal is a picture of one row.
        corners = [0, 1, 2, 3] if heat.ndim == 2 else [0, 2]
        if self.status[i] != "ok":
            return np.zeros((0, len(corners)), dtype=np.int64)
        flat = np.atleast_2d(heat)
        return maps.boxes_of(flat, threshold, largest=largest)[:, corners]

    def overlay(
        self,
        i: int = 0,
        *,
        alpha: float = ALPHA,
        colours: str | None = None,
        boxes: bool = False,
        threshold: float = THRESHOLD,
        normalise: Normalise = True,
    ) -> Image.Image:
        """Lay a sample's map over its picture.

        A signal is drawn as lines over bands in the colours of the heat, a volume as three slices
        through its hottest voxel, or through its middle where the status is not "ok".

        Parameters
        ----------
        i : int
            The sample.
        alpha : float
            From 0, the picture as it is, to 1, the hottest places hide it.
        colours : str, optional
            The name of a colour map; see `cnnviz.colours.colourise`.
        boxes : bool
            Whether to draw the box that `boxes` finds.
        threshold : float
            For the box.
        normalise : {True, "max", "percentile", "min-max", False}
            As for `heatmap`; with False what exceeds 1 takes the colour of 1.

        Returns
        -------
        PIL.Image.Image
            Of the original picture's size.  A status other than "ok" is written on it.
        """
        i = self._index(i)
        found: Any = self._boxes(i, threshold, True) if boxes else ()
        if self.kind == "picture":
            image = overlay(
                self.pictures[i],
                self.shown_heat(i, normalise),
                alpha=alpha,
                colours=colours,
                signed=self.signed and normalise != "min-max",
                fine=self.fine,
            )
        else:
            scene = self.scene(i, alpha=alpha, colours=colours, normalise=normalise, boxes=found)
            image, found = scene.overlay(), scene.frames
        if boxes:
            image = draw_boxes(image, found)
        return stamp(image, self.note(i)) if self.note(i) else image

    def scene(
        self,
        i: int = 0,
        *,
        side: int = SIDE,
        alpha: float = ALPHA,
        colours: str | None = None,
        normalise: Normalise = True,
        boxes: Array | tuple[Any, ...] = (),
    ) -> Scene:
        """Draw a signal or a volume, with the heat in a layer of its own.

        Parameters
        ----------
        i : int
            The sample.
        side : int
            The width of the drawing, in pixels.
        alpha, colours, normalise
            As for `overlay`.
        boxes : array_like (k, 2)
            Intervals of a signal, to know where they are in the drawing.

        Returns
        -------
        Scene

        Raises
        ------
        ParameterError
            If the sample is a picture, which needs no drawing.
        """
        i = self._index(i)
        if self.kind == "picture":
            raise ParameterError("a scene of a picture was asked for", "overlay", "call overlay()")
        heat = self.shown_heat(i, normalise)
        signed = self.signed and normalise != "min-max"
        sample, fine = self.pictures[i], self.fine
        if self.kind == "signal":
            return draw_signal(
                sample,
                heat,
                alpha=alpha,
                colours=colours,
                signed=signed,
                fine=fine,
                intervals=boxes,
                side=side,
            )
        at = self.focus(i)
        return draw_volume(
            sample, heat, at, alpha=alpha, colours=colours, signed=signed, fine=fine, side=side
        )

    def focus(self, i: int = 0) -> tuple[int, ...]:
        """Give the place at which a sample's map is hottest, in its own coordinates.

        Parameters
        ----------
        i : int
            The sample.

        Returns
        -------
        tuple of int
            (row, column) of a picture, (position,) of a signal, (depth, row, column) of a volume;
            of signed maps where the magnitude is largest; the middle where the status is not "ok".
        """
        i = self._index(i)
        heat = self.heatmap(i, normalise=False)
        return hottest(heat if self.status[i] == "ok" else np.zeros_like(heat))

    def shown_heat(self, i: int = 0, normalise: Normalise = True) -> Array:
        """Give what is drawn of a sample's map.

        Parameters
        ----------
        i : int
            The sample.
        normalise : {True, "max", "percentile", "min-max", False}
            As for `heatmap`.

        Returns
        -------
        ndarray (H, W)
            As of `heatmap`, but all zero where the status is not "ok", also without normalising.
        """
        if self.status[i] != "ok":
            return np.zeros(self.geometry[i].original, dtype=self.maps.dtype)
        return self.heatmap(i, normalise)

    def caption(self, i: int = 0) -> str:
        """Say in a few words what a sample's map is about.

        Parameters
        ----------
        i : int
            The sample.

        Returns
        -------
        str
            The target and, where it is a class, its probability: "tiger cat 55 %".
        """
        i = self._index(i)
        label = self.target_labels[i]
        if self.probabilities is None or np.isnan(self.probabilities[i]):
            return label
        return f"{label} {percent(self.probabilities[i])}"

    def note(self, i: int = 0) -> str:
        """Say why a sample's map shows nothing; empty where it is "ok".

        Parameters
        ----------
        i : int
            The sample.

        Returns
        -------
        str
        """
        status = self.status[self._index(i)]
        return "" if status == "ok" else STATUS_NOTES.get(status, status)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        boxes: bool = False,
        threshold: float = THRESHOLD,
        normalise: Normalise = True,
    ) -> Path:
        """Write it to a file, whole or not at all.

        Parameters
        ----------
        path : path
            The suffix says as what: ".png", ".jpg" or ".webp" (the overlay of one sample, or a
            sheet of several), ".html" (a page that stands alone), ".npz" (everything, for `load`).
        boxes : bool
            Whether to draw boxes; a file of numbers has none.
        threshold : float
            For the boxes.
        normalise : {True, "max", "percentile", "min-max", False}
            As for `heatmap`; a file of numbers has the maps as they are.

        Returns
        -------
        pathlib.Path
            Where it was written.

        Raises
        ------
        ParameterError
            If the suffix is unknown, or nothing can be written there.
        """
        from cnnviz import pages, sheets

        target = Path(path).expanduser()
        suffix = target.suffix.lower()
        if suffix == ".npz":
            with replacing(target) as file:
                np.savez_compressed(file, **archive.as_arrays(self))
        elif suffix == ".html":
            pages.write_report(
                {self.method: self},
                target,
                boxes=boxes,
                threshold=threshold,
                normalise=normalise,
            )
        elif suffix not in sheets.IMAGE_FORMATS:
            raise ParameterError(
                f"{target.name!r} does not say as what to save it",
                f"a name that ends in {', '.join(sheets.IMAGE_FORMATS)}, .html or .npz",
                f"save it as {target.with_suffix('.png').name!r}" if target.stem else "name a file",
            )
        elif len(self) == 1:
            image = self.overlay(boxes=boxes, threshold=threshold, normalise=normalise)
            sheets.write_image(image, target)
        else:
            sheet = sheets.sheet(
                {self.method: self}, boxes=boxes, threshold=threshold, normalise=normalise
            )
            sheets.write_image(sheet, target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what was saved as ".npz".

        Parameters
        ----------
        path : path
            A file that `save` wrote.

        Returns
        -------
        Explanation
            Equal to the one that was saved; of a target of another package the description is left.

        Raises
        ------
        ParameterError
            If there is no such file, or it is another.
        """
        source = Path(path).expanduser()
        try:
            # NumPy leaves a file open that it cannot read; this does not.
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return cls(**archive.fields_of({name: file[name] for name in file.files}))
        except FileNotFoundError:
            raise ParameterError(
                f"there is no file {source}", "a file that Explanation.save wrote", "check the path"
            ) from None
        # NumPy and zipfile raise all sorts of exceptions on other files.
        except Exception as error:
            raise ParameterError(
                f"{source} holds no explanation: {error}",
                "an .npz file that Explanation.save wrote",
                "check the path; pictures and pages cannot be loaded back",
            ) from error

    def convergence(self) -> Figure:
        """Draw how the maps became stable, of a method that samples.

        Returns
        -------
        matplotlib.figure.Figure
            The largest standard error of each map, in percent of its range, over the number of
            samples.

        Raises
        ------
        ParameterError
            If the method keeps no history, as those that do not sample.
        """
        from cnnviz.exhibiting import draw
        from cnnviz_core.sampling import convergence

        history = self.extras.get("history")
        if history is None:
            raise ParameterError(
                f"{self.method} keeps no history of how its maps became stable",
                "a method that samples, such as rise",
                "see `cnnviz methods` for what a method does",
            )
        names = [
            f"{name}, {label}" if name else label
            for name, label in zip(self.names, self.target_labels, strict=True)
        ]
        return draw([convergence(np.asarray(history), names)])

    def to_xarray(self) -> Any:
        """Give the numbers as an xarray Dataset, with the samples and pixels named.

        Returns
        -------
        xarray.Dataset
            The variables "maps" (sample, y, x), "raw", "scores" and "probabilities", the
            coordinates "name", "target" and "status" of the samples, and in the attributes the
            method and the notes.  Maps of signals are (sample, position), of volumes
            (sample, z, y, x).

        Raises
        ------
        MissingBackendError
            If xarray is not installed.
        """
        return archive.as_dataset(self)

    def __repr__(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        n = len(self)
        head = f"<Explanation by {self.method}{where}, {n} sample{'s' if n > 1 else ''}>"
        shown = range(min(n, _ROWS))
        wide = max(len(self.names[i]) for i in shown)
        lines = [f"{i:>3}  {self.names[i]:<{wide}}  {self._described(i)}" for i in shown]
        rest = [f"     and {n - _ROWS} more"] if n > _ROWS else []
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([head, *lines, *rest, *notes])

    def _described(self, i: int) -> str:
        """Describe a sample's result in a line."""
        parts = [self.caption(i)]
        if self.scores is not None:
            parts.append(f"score {self.scores[i]:.4g}")
        if self.status[i] != "ok":
            parts.append(f"({self.status[i]})")
        return "  ".join(parts)

    def _repr_png_(self) -> bytes:
        from cnnviz import sheets

        return encode(self.overlay() if len(self) == 1 else sheets.sheet({self.method: self}))

    def _repr_html_(self) -> str:
        from cnnviz import pages

        return pages.html_fragment({self.method: self})


def _frozen(values: Any) -> Array:
    """Give a read-only array, a copy unless it is one already."""
    array = np.asarray(values)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def _kept(value: Any) -> Any:
    """Give a value as it is kept: arrays read-only, NumPy's scalars and objects as Python's."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.dtype == object):
        return value.tolist()
    return _frozen(value) if isinstance(value, np.ndarray) else value


def _has_rows(value: Any, n: int) -> bool:
    """Say whether a value has one entry for each of n samples."""
    return (
        isinstance(value, (np.ndarray, list, tuple))
        and getattr(value, "ndim", 1) > 0
        and len(value) == n
    )


def _same(a: Any, b: Any) -> bool:
    """Compare by value; NaN equals NaN, and a tuple a list."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        numbers = a.dtype.kind in "fc"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=numbers)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)
