"""The strongest activations of a layer's channels over a collection of pictures."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.files import replacing
from cnnviz_core.inspector import Pictures
from cnnviz_core.layers import on_grid
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.progress import advance

__all__ = ["Strongest", "strongest"]

_FORMAT: Final = 1
"""The version of the file in which a search's state is kept."""
_ALIKE: Final = 1e-5
"""How far two runs of one network may differ, relative to a layer's largest value."""
_WORDS: Final = {
    "format": "another version of the file",
    "network": "another network",
    "pictures": "other pictures",
    "layers": "other layers",
    "top": "another number of activations",
    "per_picture": "another number of activations of one picture",
}


@dataclass(frozen=True, eq=False)
class Strongest:
    """The strongest activations of a layer's C channels, T of each, the strongest first.

    Attributes
    ----------
    layer : LayerInfo
        The layer.
    values : ndarray (C, T)
        The activations.
    pictures : ndarray (C, T) of int
        In which picture of the collection each is.
    positions : ndarray (C, T, axes) of int
        Where it is on the layer's grid: (row, column).
    """

    layer: LayerInfo
    values: Array
    pictures: Array
    positions: Array


@dataclass(frozen=True, eq=False)
class _Kept:
    """The strongest activations so far, (C, T) each; a place counts a grid's positions by rows."""

    values: Array
    pictures: Array
    places: Array

    def then(self, later: _Kept, top: int) -> _Kept:
        """Keep the strongest of these and of later pictures'; of equal ones the first."""
        values = np.concatenate([self.values, later.values], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :top]
        return _Kept(
            np.take_along_axis(values, order, 1),
            np.take_along_axis(np.concatenate([self.pictures, later.pictures], 1), order, 1),
            np.take_along_axis(np.concatenate([self.places, later.places], 1), order, 1),
        )


def strongest(
    model: Model,
    pictures: Pictures,
    layers: Sequence[LayerInfo],
    top: int = 9,
    *,
    per_picture: int = 1,
    batch_size: int = 16,
    state: str = "",
    save_every: int = 512,
    name: str = "",
) -> list[Strongest]:
    """Find the strongest activations of every channel over a collection of pictures.

    The collection is gone through once, a batch at a time; memory holds one batch and what is kept.
    Of equal activations the one in the earlier picture comes first, then the one at the first
    position.

    Parameters
    ----------
    model : Model
        The network.
    pictures : Pictures
        The collection; pictures that cannot be read are passed over.
    layers : sequence of LayerInfo
        Layers with a spatial grid.
    top : int
        How many activations to keep of a channel.
    per_picture : int
        How many of them may be of one picture.
    batch_size : int
        How many pictures go through the network at once.
    state : str
        The path of an .npz file in which to keep how far the search has come; none if empty.  A
        file of this very search is gone on from, after the last picture that it counts; with the
        same batches the result is the same to the last bit as that of a search at one go.
    save_every : int
        After how many pictures the file is written again; it is always whole.
    name : str
        The network's name, by which, and by what the layers make of the first picture, the file is
        known to be of this network.

    Returns
    -------
    list of Strongest
        One for each layer, of `top` activations, or as many as there are.

    Raises
    ------
    ArrayError
        If no picture can be read.
    ParameterError
        If the file is of another search or none, or cannot be written.
    UnknownLayerError
        If a layer has no spatial grid.
    """
    names = [info.name for info in layers]
    kept = [_nothing(info) for info in layers]
    done = 0
    store = _store(model, pictures, layers, top, per_picture, state, name) if state else None
    if store is not None:
        done, kept = store.load(kept)
        store.save(done, kept)  # A path that cannot be written is told at once.
    saved = done
    for batch in pictures.batches(batch_size, done):
        trace = model.forward(batch.x, capture=names)
        found = [
            _peaks(on_grid(trace[info.name], info), batch.indices, per_picture) for info in layers
        ]
        kept = [old.then(new, top) for old, new in zip(kept, found, strict=True)]
        gone_through = (batch.indices[-1] - done) // batch_size + 1
        done = min(done + gone_through * batch_size, len(pictures))
        if store is not None and done - saved >= save_every:
            store.save(done, kept)
            saved = done
        advance("strongest activations", done, len(pictures))
    if store is not None:
        store.save(len(pictures), kept)
    if any(not each.values.size for each in kept):
        pictures.first()  # raises
    return [_placed(info, each) for info, each in zip(layers, kept, strict=True)]


def _nothing(info: LayerInfo) -> _Kept:
    """Give what is kept of a layer before any picture was seen."""
    none = np.empty((info.shape[-1], 0), dtype=np.int64)
    return _Kept(none.astype(np.float32), none, none)


def _peaks(values: Array, indices: Sequence[int], per_picture: int) -> _Kept:
    """Find the strongest activations in each picture of a batch (n, ...grid, C)."""
    channels = np.moveaxis(values, -1, 0)
    maps = np.array(channels, order="C").reshape(len(channels), len(values), -1)
    peaks, places = [], []
    for _ in range(min(per_picture, maps.shape[-1])):
        place = maps.argmax(-1)[..., None]
        peaks.append(np.take_along_axis(maps, place, -1))
        places.append(place)
        np.put_along_axis(maps, place, -np.inf, -1)
    flat = (len(channels), -1)
    of = np.repeat(np.asarray(indices, dtype=np.int64), len(peaks))
    return _Kept(
        np.concatenate(peaks, -1).reshape(flat),
        np.broadcast_to(of, (len(channels), len(of))),
        np.concatenate(places, -1).reshape(flat),
    )


def _placed(info: LayerInfo, kept: _Kept) -> Strongest:
    """Say where on the grid the activations are."""
    positions = np.stack(np.unravel_index(kept.places, info.grid or ()), axis=-1)
    return Strongest(info, kept.values, kept.pictures, positions)


@dataclass(frozen=True, eq=False)
class _Store:
    """The file in which a search's state is kept, and what it must be of."""

    path: str
    identity: dict[str, Any]
    probe: Array
    tolerance: Array

    def save(self, done: int, kept: Sequence[_Kept]) -> None:
        """Write how far the search has come, whole or not at all."""
        arrays = {
            f"{part}/{k}": getattr(each, part)
            for k, each in enumerate(kept)
            for part in ("values", "pictures", "places")
        }
        with replacing(self.path) as file:
            np.savez(
                file, identity=json.dumps(self.identity), probe=self.probe, done=done, **arrays
            )

    def load(self, kept: list[_Kept]) -> tuple[int, list[_Kept]]:
        """Read how far the search has come; what is given where there is no file."""
        path = Path(self.path).expanduser()
        if not path.exists():
            return 0, kept
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                held = {key: file[key] for key in file.files}
            identity = dict(json.loads(str(held["identity"])))
            probe, done = held["probe"], int(held["done"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise self._refused("is no state of a search") from error
        other = [word for key, word in _WORDS.items() if identity.get(key) != self.identity[key]]
        if not other and not self._same(probe):
            other = ["a network with other weights, or pictures whose contents have changed"]
        if other:
            raise self._refused(f"is the state of another search, of {', '.join(other)}")
        return done, [
            _Kept(held[f"values/{k}"], held[f"pictures/{k}"], held[f"places/{k}"])
            for k in range(len(kept))
        ]

    def _same(self, probe: Array) -> bool:
        """Tell whether the layers make of the first picture what they made of it then."""
        return bool((np.abs(probe - self.probe) <= self.tolerance).all())

    def _refused(self, what: str) -> ParameterError:
        """Make the error of a file that this search cannot go on from."""
        return ParameterError(
            f"state={self.path!r} {what}",
            "the state of a search with this network, these pictures, layers and parameters",
            "name another file, or delete this one to search anew",
        )


def _store(
    model: Model,
    pictures: Pictures,
    layers: Sequence[LayerInfo],
    top: int,
    per_picture: int,
    state: str,
    name: str,
) -> _Store:
    """Describe the search whose state is to be kept."""
    names = [info.name for info in layers]
    trace = model.forward(pictures.first().x, capture=names)
    peaks = [on_grid(trace[info.name], info).reshape(-1, info.shape[-1]).max(0) for info in layers]
    identity = {
        "format": _FORMAT,
        "network": name,
        "pictures": hashlib.sha256(pictures.identity.encode()).hexdigest(),
        "layers": [[info.name, *info.shape] for info in layers],
        "top": top,
        "per_picture": per_picture,
    }
    tolerance = [np.full_like(peak, _ALIKE * np.abs(peak).max()) for peak in peaks]
    return _Store(state, identity, np.concatenate(peaks), np.concatenate(tolerance))
