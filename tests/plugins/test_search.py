"""The search for the strongest activations against all activations, sorted plainly."""

from __future__ import annotations

import contextlib
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest

import cnnviz_features.search
from cnnviz_core.errors import ArrayError, ParameterError, UnknownLayerError
from cnnviz_core.inspector import ArrayPictures
from cnnviz_core.layers import on_grid
from cnnviz_core.progress import listening
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.search import strongest

LAYERS = ["conv1", "relu1", "pool1", "conv2", "relu2"]
N = 23


def model_of(name="plain", **changes):
    return ReferenceModel(NETS[name](**changes), "float64")


def pictures_of(name="plain", n=N, seed=3):
    (x,) = random_input(NETS[name](), n, seed).values()
    return ArrayPictures(x.astype(np.float64))


MODEL, PICTURES = model_of(), pictures_of()


def search(top=4, *, model=MODEL, pictures=PICTURES, layers=LAYERS, **more):
    return strongest(model, pictures, [model.layers[layer] for layer in layers], top, **more)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.layer == other.layer
        for part in ("values", "pictures", "positions"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def by_force(values, top, per_picture, readable):
    """Sort all activations of one channel: (value, picture, position), the strongest first."""
    found = []
    for n in readable:
        each = [(-value, n, at) for at, value in np.ndenumerate(values[n])]
        found += sorted(each)[:per_picture]
    return sorted(found)[:top]


@pytest.mark.parametrize("name", ["plain", "strided", "residual", "tokens"])
@pytest.mark.parametrize("per_picture", [1, 2, 500])
@pytest.mark.parametrize("top", [1, 9, 60])
def test_the_search_is_a_sort_of_all_activations(name, per_picture, top):
    model, pictures = model_of(name), pictures_of(name)
    layers = [info.name for info in model.layers.values() if info.grid is not None]
    found = search(
        top, model=model, pictures=pictures, layers=layers, per_picture=per_picture, batch_size=5
    )
    for each in found:
        name = each.layer.name
        values = on_grid(model.forward(pictures.x, capture=[name])[name], each.layer)
        for channel in range(values.shape[-1]):
            expected = by_force(values[..., channel], top, per_picture, range(N))
            shape = (len(expected), len(each.layer.grid))
            assert each.positions[channel].shape == shape
            # Equal to rounding only: a batch of another size is another order of sums.
            for k, (value, picture, position) in enumerate(expected):
                np.testing.assert_allclose(each.values[channel, k], -value, rtol=1e-12)
                if np.sum(np.isclose(values[..., channel], -value, rtol=1e-12, atol=0)) == 1:
                    assert each.pictures[channel, k] == picture
                    assert tuple(each.positions[channel, k]) == position


@pytest.mark.parametrize("batch_size", [1, 2, 7, 22, 23, 100])
def test_batches_of_any_size_find_the_same(batch_size):
    for one, other in zip(search(batch_size=batch_size), search(batch_size=8), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-12)
        np.testing.assert_array_equal(one.pictures, other.pictures)
        np.testing.assert_array_equal(one.positions, other.positions)


def test_one_pass_over_the_pictures_serves_all_layers():
    together = search(batch_size=6)
    alone = [search(batch_size=6, layers=[layer])[0] for layer in LAYERS]
    assert_same(together, alone)


class Seen(ArrayPictures):
    """Pictures of which some cannot be read."""

    def read(self, index):
        return None if index in (0, 4, 5, 6, 7, 13, 22) else self.x[index]


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_pictures_that_cannot_be_read_are_passed_over(batch_size):
    kept = [i for i in range(N) if i not in (0, 4, 5, 6, 7, 13, 22)]
    found = search(pictures=Seen(PICTURES.x), batch_size=batch_size)
    expected = search(pictures=ArrayPictures(PICTURES.x[kept]), batch_size=batch_size)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-12)
        np.testing.assert_array_equal(one.pictures, np.array(kept)[other.pictures])
        np.testing.assert_array_equal(one.positions, other.positions)


class Unreadable(ArrayPictures):
    """Pictures of which none can be read."""

    def read(self, index):
        return None


@pytest.mark.parametrize("state", [False, True])
def test_a_collection_of_which_nothing_can_be_read_is_refused(state, tmp_path):
    path = str(tmp_path / "state.npz") if state else ""
    for pictures, told in (
        (Unreadable(PICTURES.x), "no picture can be read"),
        (ArrayPictures(PICTURES.x[:0]), "there is no picture to look at"),
    ):
        with pytest.raises(ArrayError, match=told):
            search(pictures=pictures, state=path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch_size", [1, 3, 23])
def test_of_equal_activations_the_first_picture_and_position_win(batch_size):
    constant = ArrayPictures(np.ones((N, 12, 9, 3)))
    (conv,) = search(pictures=constant, layers=["conv1"], batch_size=batch_size)
    np.testing.assert_array_equal(conv.pictures, np.tile(np.arange(4), (6, 1)))
    values = MODEL.forward(constant.x[:1], capture=["conv1"])["conv1"][0]
    for channel in range(6):
        at = np.unravel_index(values[..., channel].argmax(), (12, 9))
        np.testing.assert_array_equal(conv.positions[channel], [at] * 4)
    twice = search(
        pictures=constant, layers=["conv1"], batch_size=batch_size, per_picture=3, top=5
    )[0]
    np.testing.assert_array_equal(np.diff(twice.values, axis=1) <= 0, True)
    # In a constant picture inner positions are all equal: each picture gives its first three.
    inner = [c for c in range(6) if (values[1:-1, 1:-1, c] == values[..., c].max()).all()]
    assert inner
    for channel in inner:
        assert len(set(twice.values[channel])) == 1
        np.testing.assert_array_equal(twice.pictures[channel], [0, 0, 0, 1, 1])


def test_fewer_pictures_than_asked_for_give_fewer_activations():
    found = search(9, pictures=ArrayPictures(PICTURES.x[:3]))
    assert [each.values.shape for each in found] == [(6, 3), (6, 3), (6, 3), (8, 3), (8, 3)]


def test_layers_without_a_grid_are_refused():
    with pytest.raises(UnknownLayerError, match="no spatial grid"):
        search(layers=["fc"])


def test_progress_counts_the_pictures():
    told = []
    with listening(lambda *args: told.append(args)):
        search(pictures=Seen(PICTURES.x), batch_size=4)
    assert told[-1] == ("strongest activations", N, N)
    assert [done for _, done, _ in told] == [4, 12, 16, 20, 23]  # of 4 to 7 none can be read


def test_memory_holds_one_batch_and_what_is_kept():
    """Nothing of a batch is left once the next one but one is read."""
    alive = []

    class Watched(ArrayPictures):
        def batches(self, size, start=0):
            for batch in super().batches(size, start):
                alive.append(weakref.ref(batch))
                assert sum(ref() is not None for ref in alive) <= 2
                yield batch

    search(pictures=Watched(PICTURES.x), batch_size=2)
    assert len(alive) == 12


# ------------------------------------------------------------------------------------ resuming


class Stopped(Exception):
    """What stops a search in the middle."""


def stopped_after(done):
    def listener(what, at, total):
        if at >= done:
            raise Stopped

    return listening(listener)


class Stopping(ArrayPictures):
    """Pictures that fail as the given one is read; counts what was read."""

    at = N
    count = 0

    def read(self, index):
        if index == self.at:
            raise Stopped
        type(self).count += 1
        return self.x[index]


@pytest.mark.parametrize("done", range(1, N + 1, 2))
@pytest.mark.parametrize(("batch_size", "save_every"), [(1, 1), (4, 1), (4, 9)])
def test_a_search_that_was_stopped_goes_on_and_ends_the_same(
    done, batch_size, save_every, tmp_path
):
    state = tmp_path / "s.npz"
    how = {"batch_size": batch_size, "save_every": save_every, "state": str(state)}
    for stop in (done, min(done + 5, N)):
        with contextlib.suppress(Stopped), stopped_after(stop):
            search(**how)
        with np.load(state) as file:
            saved = int(file["done"])
        assert saved > stop - save_every
    told = []
    with listening(lambda what, at, total: told.append(at)):
        found = search(**how)
    assert told == [min(at + batch_size, N) for at in range(saved, N, batch_size)]
    assert_same(found, search(batch_size=batch_size))
    assert list(tmp_path.iterdir()) == [state]


@pytest.mark.parametrize("at", [1, 7, 12, 22])
def test_a_search_stopped_as_a_picture_is_read_goes_on(at, tmp_path):
    class Here(Stopping):
        pass

    how = {"batch_size": 3, "save_every": 1, "state": str(tmp_path / "s.npz")}
    Here.at = at
    with pytest.raises(Stopped):
        search(pictures=Here(PICTURES.x), **how)
    Here.at, Here.count = N, 0
    found = search(pictures=Here(PICTURES.x), **how)
    assert Here.count == N - at // 3 * 3 + 1  # and the first, by which the network is known
    assert_same(found, search(batch_size=3))


def test_a_search_that_has_ended_is_read_from_its_state(tmp_path):
    how = {"batch_size": 3, "state": str(tmp_path / "s.npz")}
    found = search(**how)
    told = []
    with listening(lambda *args: told.append(args)):
        assert_same(search(**how), found)
    assert not told


def test_a_search_killed_as_it_writes_leaves_the_state_before(tmp_path, monkeypatch):
    how = {"batch_size": 4, "save_every": 1, "state": str(tmp_path / "s.npz")}
    written = np.savez
    calls = []

    def killed(file, **arrays):
        calls.append(len(calls))
        if len(calls) == 4:
            file.write(b"PK half a file")
            raise Stopped
        written(file, **arrays)

    monkeypatch.setattr(cnnviz_features.search.np, "savez", killed)
    with pytest.raises(Stopped):
        search(**how)
    with np.load(how["state"]) as file:
        assert file["done"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]
    assert_same(search(**how), search(batch_size=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 5}, "another number of activations$"),
        ({"per_picture": 2}, "another number of activations of one picture$"),
        ({"layers": LAYERS[:2]}, "other layers$"),
        ({"layers": ["conv1"]}, "other layers$"),
        ({"name": "other"}, "another network$"),
        ({"pictures": pictures_of(n=7)}, "other pictures$"),
        ({"pictures": ArrayPictures(PICTURES.x, tuple("abcdefghijklmnopqrstuvw"))}, "pictures$"),
        ({"pictures": pictures_of(seed=4)}, "other weights, or pictures whose contents"),
        ({"model": model_of(seed=8)}, "other weights, or pictures whose contents"),
        ({"top": 5, "name": "other"}, "another network, another number of activations$"),
    ],
)
def test_the_state_of_another_search_is_refused(change, message, tmp_path):
    path = tmp_path / "s.npz"
    search(state=str(path), name="plain")
    before = path.read_bytes()
    with pytest.raises(ParameterError) as caught:
        search(**{"state": str(path), "name": "plain", **change})
    assert re.search(message, caught.value.problem)
    assert path.read_bytes() == before


def test_weights_that_changed_in_one_layer_alone_are_noticed(tmp_path):
    path = str(tmp_path / "s.npz")
    search(state=path)
    net = NETS["plain"]()
    weight = net.parameters["conv2.weight"] * 1.001
    changed = replace(net, parameters={**net.parameters, "conv2.weight": weight})
    with pytest.raises(ParameterError, match="other weights"):
        search(state=path, model=ReferenceModel(changed, "float64"))


@pytest.mark.parametrize("kind", ["text", "empty", "npy", "npz", "cut"])
def test_a_file_that_is_no_state_is_refused_and_kept(kind, tmp_path):
    path = tmp_path / "mine.npz"
    if kind == "text":
        path.write_text("my notes")
    elif kind == "empty":
        path.touch()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "npz":
        np.savez(path, mine=np.zeros(3))
    else:
        search(state=str(path))
        path.write_bytes(path.read_bytes()[:-200])
    before = path.read_bytes()
    with pytest.raises(ParameterError, match="is no state of a search"):
        search(state=str(path))
    assert path.read_bytes() == before


def test_a_state_that_cannot_be_written_is_told_before_the_search(tmp_path):
    told = []
    with (
        listening(lambda *args: told.append(args)),
        pytest.raises(ParameterError, match="no folder"),
    ):
        search(state=str(tmp_path / "nowhere" / "s.npz"))
    assert not told
