"""The record of a result: its parts, its heat and boxes, and saving and loading it."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle

import numpy as np
import pytest
from front.made import SIZE, explanation
from PIL import Image

from cnnviz.archive import SavedTarget
from cnnviz.explanation import Explanation
from cnnviz.preprocess import Geometry
from cnnviz_core.errors import (
    ArrayError,
    MissingBackendError,
    ParameterError,
    ReadOnlyResultError,
    TargetError,
)
from cnnviz_core.explainer import Presentation
from cnnviz_core.targets import ClassScore, Contrast, Predicted, Segment, Similarity, Weighted

SIGNS = ("positive", "absolute", "signed")


def single(map, picture=None, **changes):
    """An explanation of one sample with a given map, which is its raw result too."""
    map = np.asarray(map, np.float32)[None]
    size = map.shape[1:]
    picture = np.full((*size, 3), 128, np.uint8) if picture is None else picture
    given = {
        "maps": map,
        "raw": map,
        "geometry": (Geometry.stretched(picture.shape[:2], size),),
        "pictures": (picture,),
        "status": ("ok",),
        "extras": {},
    }
    return explanation(1, **{**given, **changes})


# The parts.


def test_nothing_of_it_can_be_changed():
    e = explanation()
    for array in (e.maps, e.raw, e.scores, e.probabilities, *e.pictures, e.extras["weights"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    for mapping in (e.params, e.extras, e.provenance):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    with pytest.raises(ReadOnlyResultError) as info:
        e.maps = e.raw
    assert "dataclasses.replace" in info.value.remedy
    with pytest.raises(AttributeError):
        del e.maps


def test_the_caller_s_arrays_stay_theirs():
    maps = np.zeros((1, *SIZE), np.float32)
    e = explanation(1, maps=maps)
    maps[:] = 1
    assert not e.maps.any()
    assert maps.flags.writeable


def test_it_is_a_sequence_of_explanations_of_one_sample():
    e = explanation(3)
    parts = list(e)
    assert len(e) == len(parts) == 3
    for i, part in enumerate(parts):
        assert len(part) == 1
        assert np.array_equal(part.maps[0], e.maps[i])
        assert np.array_equal(part.pictures[0], e.pictures[i])
        assert np.array_equal(part.extras["weights"], e.extras["weights"][i : i + 1])
        assert part.names == e.names[i : i + 1]
        assert part.params == e.params
        assert np.array_equal(part.heatmap(), e.heatmap(i))
    assert e[-1] == parts[-1]
    assert e[1:] == e[-2:]
    assert e[1:][0] == parts[1]
    assert e[::-1].names == e.names[::-1]
    for i in (3, -4, slice(3, None)):
        with pytest.raises(IndexError):
            e[i]


def test_extras_that_are_not_of_the_samples_are_kept_whole():
    e = explanation(3, extras={"grid": np.arange(7), "note": "abc", "scale": np.float32(2)})
    assert np.array_equal(e[1].extras["grid"], np.arange(7))
    assert e[1].extras["note"] == "abc"
    assert e.extras["scale"] == 2


def test_equal_by_value():
    assert explanation() == explanation()
    assert explanation(seed=1) != explanation(seed=2)
    e = explanation()
    for changes in (
        {"names": ("a", "b", "c")},
        {"layer": None},
        {"maps": e.maps.astype(np.float64)},
        {"params": {"window": 31}},
        {"status": ("ok", "ok", "all-zero")},
        {"pictures": tuple(p[::-1] for p in e.pictures)},
        {"probabilities": None},
        {"extras": {}},
    ):
        assert dataclasses.replace(e, **changes) != e
    assert e != "e"
    nan = np.array([np.nan, 0.5, 0.25])
    assert dataclasses.replace(e, probabilities=nan) == dataclasses.replace(e, probabilities=nan)


def test_it_can_be_pickled_and_copied():
    e = explanation()
    assert pickle.loads(pickle.dumps(e)) == e
    assert copy.deepcopy(e) == e


def test_its_parts_must_fit():
    e = explanation()
    with pytest.raises(ArrayError, match="different numbers of samples"):
        dataclasses.replace(e, names=("a",))
    geometry = (e.geometry[0], Geometry.identity((3, 3)), e.geometry[2])
    with pytest.raises(ArrayError, match="geometry of sample 1"):
        dataclasses.replace(e, geometry=geometry)


def test_repr_says_what_was_found():
    text = repr(
        explanation(2, status=("ok", "all-zero"), probabilities=np.array([0.5, np.nan]), layer="c")
    )
    first, *lines = text.splitlines()
    assert first == "<Explanation by grad-cam at c, 2 samples>"
    assert "picture-0.png" in lines[0]
    assert "class 0 50 %" in lines[0]
    assert "score" in lines[0]
    assert "class 1  score" in lines[1]
    assert lines[1].endswith("(all-zero)")
    assert repr(explanation(30)).endswith("and 18 more")
    assert "class 0" in repr(explanation(1, scores=None, probabilities=None, layer=None))


# Heat.


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("sign", SIGNS)
def test_heat_has_the_picture_s_size_and_a_full_range(sign, fine):
    e = explanation(4, sign=sign, fine=fine)
    for i, picture in enumerate(e.pictures):
        heat = e.heatmap(i)
        assert heat.shape == picture.shape[:2]
        assert np.abs(heat).max() == 1
        assert heat.min() >= (-1 if sign == "signed" else 0)


@pytest.mark.parametrize("sign", SIGNS)
def test_without_normalising_the_units_remain(sign):
    e = explanation(2, sign=sign)
    for i in range(2):
        expected = e.geometry[i].map_to_original(e.maps[i])
        assert np.array_equal(e.heatmap(i, normalise=False), expected)


def test_positive_heat_is_the_share_of_the_maximum():
    map = np.array([[0, 1], [2, 4]])
    assert np.array_equal(single(map).heatmap(), map / 4)


def test_signed_heat_keeps_zero():
    map = np.array([[0, -4], [2, 1]])
    signed = single(map, presentation=Presentation(sign="signed"))
    assert np.array_equal(signed.heatmap(), map / 4)


def test_outliers_of_single_pixels_do_not_darken_the_rest():
    map = np.ones((20, 20))
    map[3, 4] = 1000
    assert single(map).heatmap()[0, 0] == np.float32(0.001)
    fine = single(map, raw=map[None, :, :, None], presentation=Presentation(sign="absolute"))
    assert np.array_equal(fine.heatmap(), np.ones((20, 20)))
    # So sparse a map that the percentile is zero is still shown.
    map = np.zeros((20, 20))
    map[3, 4] = 5
    sparse = single(map, raw=map[None, :, :, None], presentation=Presentation(sign="absolute"))
    assert np.array_equal(sparse.heatmap(), map / 5)


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "bicubic"])
def test_the_method_s_own_upsampling_is_used(upsample):
    rng = np.random.default_rng(0)
    e = single(rng.random((4, 5)), np.zeros((9, 11, 3), np.uint8))
    e = dataclasses.replace(e, presentation=Presentation(upsample=upsample))
    expected = e.geometry[0].map_to_original(e.maps[0], upsample)
    assert np.array_equal(e.heatmap(normalise=False), expected)
    assert e.heatmap().min() >= 0


@pytest.mark.parametrize("status", ["all-zero", "all-negative", "non-finite"])
def test_a_map_that_shows_nothing_is_never_scaled_up(status):
    noise = np.full((6, 6), np.nan if status == "non-finite" else 1e-30)
    e = single(noise, status=(status,))
    assert not e.heatmap().any()
    assert e.boxes()[0].shape == (0, 4)
    assert e.note()
    frame = np.asarray(e.overlay())[0]
    assert (frame == (255, 176, 0)).all()
    assert status in repr(e)


# Boxes.


def test_a_box_bounds_what_exceeds_the_threshold():
    map = np.zeros((8, 10))
    map[2:5, 3:7] = 1
    map[7, 9] = 0.5
    e = single(map)
    assert e.boxes()[0].tolist() == [[3, 2, 7, 5]]
    assert e.boxes(largest=False)[0].tolist() == [[3, 2, 7, 5], [9, 7, 10, 8]]
    assert e.boxes(0.5, largest=False)[0].tolist() == [[3, 2, 7, 5]]
    assert e.boxes()[0].dtype.kind == "i"


def test_boxes_are_in_the_original_picture():
    map = np.zeros((8, 10))
    map[2:5, 3:7] = 1
    nearest = Presentation(upsample="nearest")
    e = single(map, np.zeros((80, 100, 3), np.uint8), presentation=nearest)
    assert e.boxes()[0].tolist() == [[30, 20, 70, 50]]


def test_boxes_of_signed_maps_are_around_evidence_for():
    map = np.zeros((6, 6))
    map[1, 1], map[4, 2:5] = 0.2, -9
    e = single(map, presentation=Presentation(sign="signed"))
    assert e.boxes()[0].tolist() == [[1, 1, 2, 2]]


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ParameterError, match="threshold"):
        explanation().boxes(threshold)


# Pictures.


def test_the_overlay_has_the_picture_s_size():
    e = explanation(3)
    for i, picture in enumerate(e.pictures):
        assert e.overlay(i).size == picture.shape[1::-1]
    assert np.array_equal(e.overlay(0, alpha=0), e.pictures[0])


def test_the_overlay_can_show_the_box():
    map = np.zeros((40, 60))
    map[10:30, 20:50] = 1
    e = single(map)
    plain, boxed = np.asarray(e.overlay()), np.asarray(e.overlay(boxes=True))
    changed = (plain != boxed).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert abs(rows[[0, -1]] - (10, 29)).max() <= 1
    assert abs(columns[[0, -1]] - (20, 49)).max() <= 1
    assert not changed[15:25, 25:45].any()


def test_captions():
    e = explanation(2, probabilities=np.array([0.501, 0.0001]), target_labels=("cat", "dog"))
    assert [e.caption(i) for i in range(2)] == ["cat 50 %", "dog < 1 %"]
    assert dataclasses.replace(e, probabilities=None).caption() == "cat"


# Files.


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("sign", SIGNS)
def test_what_is_saved_loads_back_equal(tmp_path, sign, fine):
    e = explanation(4, sign=sign, fine=fine)
    path = e.save(tmp_path / "e.npz")
    assert Explanation.load(path) == e
    assert Explanation.load(str(path)) == e


TARGETS = (
    ClassScore(3),
    Contrast(1, 0),
    Predicted(2),
    Segment(1, np.eye(3, dtype=bool)),
    Similarity(np.random.default_rng(0).random(5)),
    Weighted(np.random.default_rng(1).random(5), of="conv"),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_every_target_loads_back(tmp_path, target):
    e = explanation(1, targets=(target,))
    assert Explanation.load(e.save(tmp_path / "e.npz")) == e


def test_everything_odd_loads_back(tmp_path):
    e = explanation(
        2,
        scores=None,
        probabilities=None,
        predictions=(),
        layer=None,
        params={"a": None, "b": 0.1, "c": True, "ü": "ж"},
        names=("日本.png", 'a "quoted" name'),
        extras={
            "gap": np.array([0.1, np.nan]),
            "words": np.array(["a", "bc"]),
            "flags": np.array([True, False]),
            "note": {"deep": [1, 2, {"x": None}]},
            "pair": (1, 2, 3),
        },
    )
    assert Explanation.load(e.save(tmp_path / "e.npz")) == e


@dataclasses.dataclass(frozen=True)
class Strange:
    """A target of another package."""

    of: str = "@logits"

    def score(self, value):
        return 0.0

    def gradient(self, value):
        return value

    def resolve(self, value):
        return self

    def __str__(self):
        return "something strange"


def test_of_a_stranger_s_target_the_description_is_left(tmp_path):
    e = explanation(1, targets=(Strange(),))
    loaded = Explanation.load(e.save(tmp_path / "e.npz"))
    assert loaded.targets == (SavedTarget("Strange", "something strange"),)
    assert str(loaded.targets[0]) == "something strange"
    for refused in (loaded.targets[0].score, loaded.targets[0].gradient):
        with pytest.raises(TargetError, match="something strange"):
            refused(np.zeros(3))
    assert loaded.targets[0].resolve(np.zeros(3)) is loaded.targets[0]
    assert Explanation.load(loaded.save(tmp_path / "again.npz")) == loaded
    assert dataclasses.replace(loaded, targets=e.targets) == e


def test_nothing_saved_needs_pickle(tmp_path):
    path = explanation().save(tmp_path / "e.npz")
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_a_picture_that_is_explained_several_times_is_saved_once(tmp_path):
    e = explanation(1)
    picture = e.pictures[0]
    thrice = explanation(3, pictures=(picture,) * 3, geometry=e.geometry * 3)
    loaded = Explanation.load(thrice.save(tmp_path / "e.npz"))
    assert loaded == thrice
    assert loaded.pictures[0] is loaded.pictures[2]
    with np.load(tmp_path / "e.npz") as file:
        assert sum(name.startswith("picture") for name in file.files) == 1


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_saving_as_a_picture(tmp_path, suffix, n):
    e = explanation(n)
    path = e.save(tmp_path / f"e.{suffix}", boxes=True)
    with Image.open(path) as image:
        image.load()
        assert image.mode == "RGB"
        if n == 1:
            assert image.size == e.overlay().size
        else:
            assert image.width > 400
    if n == 1 and suffix == "png":
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(e.overlay(boxes=True)))


def test_where_nothing_can_be_written(tmp_path):
    e = explanation(1)
    (tmp_path / "folder.png").mkdir()
    for path, said in (
        (tmp_path / "e.bmp", "does not say as what"),
        (tmp_path / "e", "does not say as what"),
        (tmp_path / "missing" / "e.png", "there is no folder"),
        (tmp_path / "missing" / "e.npz", "there is no folder"),
        (tmp_path / "missing" / "e.html", "there is no folder"),
        (tmp_path / "folder.png", "it is a folder"),
    ):
        with pytest.raises(ParameterError, match=said):
            e.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = explanation(1).save(tmp_path / "e.npz")
    before = path.read_bytes()

    def interrupted(file, **arrays):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explanation(2).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["e.npz"]


def test_new_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    path = explanation(1).save(tmp_path / "e.npz")
    assert path.stat().st_mode == plain.stat().st_mode


def test_what_cannot_be_loaded(tmp_path):
    e = explanation(1)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", explanation=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    whole = e.save(tmp_path / "e.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    e.save(tmp_path / "e.png")
    for name in ("other.npz", "pickled.npz", "text.npz", "cut.npz", "e.png"):
        with pytest.raises(ParameterError, match="holds no explanation"):
            Explanation.load(tmp_path / name)
    with pytest.raises(ParameterError, match="there is no file"):
        Explanation.load(tmp_path / "missing.npz")


def test_to_xarray():
    pytest.importorskip("xarray", reason="xarray is not installed")
    e = explanation(2, fine=True)
    dataset = e.to_xarray()
    assert np.array_equal(dataset["maps"].values, e.maps)
    assert dataset["maps"].dims == ("sample", "y", "x")
    assert dataset["raw"].dims == ("sample", "y", "x", "channel")
    assert list(dataset["name"].values) == list(e.names)
    assert dataset.attrs["method"] == "grad-cam"
    coarse = explanation(2).to_xarray()
    assert coarse["raw"].dims == ("sample", "row", "column")


def test_to_xarray_without_xarray(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingBackendError) as info:
        explanation().to_xarray()
    assert "cnnviz[xarray]" in info.value.remedy


def test_notebooks_show_it():
    for n in (1, 2):
        e = explanation(n)
        assert e._repr_png_().startswith(b"\x89PNG")
        assert e._repr_html_().count("<img") == n
