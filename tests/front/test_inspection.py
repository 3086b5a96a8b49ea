"""The record of an inspection: read-only, kept in files, shown in notebooks."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from front.shown import gallery, inspection, pixels, table
from PIL import Image

from cnnviz.inspection import Inspection
from cnnviz.packing import packed, unpacked
from cnnviz_core.errors import ParameterError, ReadOnlyResultError
from cnnviz_core.exhibits import Gallery, Tile

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def test_it_cannot_be_changed():
    e = inspection()
    with pytest.raises(ReadOnlyResultError, match=r"dataclasses\.replace"):
        e.title = "another"
    with pytest.raises(ReadOnlyResultError):
        del e.arrays
    with pytest.raises(TypeError):
        e.arrays["kernels"] = np.zeros(3)
    for array in (e["kernels"], e.frames[0], e.params["direction"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_what_it_was_made_of_may_be_changed():
    kernels, frame, facts = np.zeros(3), pixels(4, 4), {"dead": [1]}
    e = Inspection(inspector="a", arrays={"k": kernels}, frames=[frame], facts=facts)
    kernels[0], frame[0, 0, 0] = 5, frame[0, 0, 0] ^ 255
    facts["dead"].append(2)
    assert e["k"][0] == 0
    assert e.frames[0][0, 0, 0] != frame[0, 0, 0]
    assert e.facts["dead"] == [1]


def test_arrays_by_name():
    e = inspection()
    assert e["order"] is e.arrays["order"]
    with pytest.raises(KeyError):
        e["nothing"]


def test_equal_by_value():
    e = inspection()
    assert e == inspection()
    assert e != replace(e, title="another")
    assert e != replace(e, arrays={**e.arrays, "order": np.array([0, 1, 2])})
    assert e != replace(e, exhibits=e.exhibits[::-1])
    assert e != replace(e, exhibits=(replace(e.exhibits[0], side=97), *e.exhibits[1:]))
    assert e != "filters"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_it_can_be_copied(copied):
    e = inspection()
    assert copied(e) == e


def test_it_says_in_a_line_what_it_is():
    text = repr(inspection())
    assert text == (
        "<Inspection by filters: What conv1 has learnt; kernels 3x4, order 3, 3 frames>"
    )
    many = inspection(arrays={f"array {k}": np.zeros(2) for k in range(99)}, frames=())
    assert "93 more arrays" in repr(many)
    assert "\n" not in repr(many)


def test_all_of_it_comes_back_from_a_file(tmp_path):
    e = inspection()
    assert e.save(tmp_path / "a.npz") == tmp_path / "a.npz"
    back = Inspection.load(tmp_path / "a.npz")
    assert back == e
    for name, array in e.arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
    assert back.facts == e.facts
    assert back.provenance == e.provenance
    assert {k: np.asarray(v).tolist() for k, v in back.params.items()} == {
        k: np.asarray(v).tolist() for k, v in e.params.items()
    }
    assert [np.array_equal(a, b) for a, b in zip(back.frames, e.frames, strict=True)] == [True] * 3
    (first, *_), (given, *_) = back.exhibits, e.exhibits
    assert first.rows[1][1].boxes == given.rows[1][1].boxes
    assert first.rows[0][1] is None
    assert np.array_equal(first.rows[0][2].heat, given.rows[0][2].heat)
    assert isinstance(back.exhibits[1].pictures[0], tuple)
    assert back.figure().get_size_inches().tolist() == e.figure().get_size_inches().tolist()


def test_a_file_needs_no_unpickling(tmp_path):
    inspection().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(str(file["inspection"]))["inspector"] == "filters"


def test_names_with_slashes_and_numbers_that_are_none_are_kept(tmp_path):
    e = inspection(
        arrays={"conv/1": np.array([np.nan, np.inf]), "exhibit/0": np.zeros(2)},
        facts={"none": None, "nan": float("nan")},
    )
    e.save(tmp_path / "a.npz")
    assert Inspection.load(tmp_path / "a.npz") == e


def test_a_picture_that_is_shown_twice_is_kept_once():
    tile = Tile(pixels(9, 9))
    shown = Gallery(((tile, tile), (Tile(pixels(9, 9), caption="again"), Tile(pixels(9, 9, 1)))))
    values, arrays = packed([shown])
    assert len(arrays) == 2
    (back,) = unpacked(json.loads(json.dumps(values)), arrays)
    assert np.array_equal(back.rows[1][1].pixels, pixels(9, 9, 1))
    assert back.rows[1][0].caption == "again"


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="there is no file"):
        Inspection.load(tmp_path / "a.npz")
    inspection().save(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    for name in ("a.png", "b.npz"):
        with pytest.raises(ParameterError, match="holds no inspection"):
            Inspection.load(tmp_path / name)


@pytest.mark.parametrize(("suffix", "kind"), PICTURES.items())
def test_pictures(tmp_path, suffix, kind):
    file = inspection().save(tmp_path / f"a{suffix}", dpi=80)
    with Image.open(file) as image:
        assert image.format == kind
        size = inspection().figure(dpi=80).get_size_inches() * 80
        assert image.size == tuple(np.rint(size).astype(int))


def test_a_pdf_has_a_page_for_each_exhibit(tmp_path):
    content = inspection().save(tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 4


def test_an_svg_has_text(tmp_path):
    text = inspection().save(tmp_path / "a.svg").read_text(encoding="utf-8")
    for word in ("What conv1 has learnt", "Äpfel im Korb", "filters of plain", "top 9"):
        assert word in text


def test_a_gif_has_the_frames(tmp_path):
    with Image.open(inspection().save(tmp_path / "a.gif", fps=5)) as image:
        assert image.n_frames == 3
        assert image.size == (47, 33)
        assert image.info["duration"] == 200


def test_a_figure_for_each_exhibit():
    figures = inspection().figures(dpi=80)
    assert len(figures) == 4
    assert inspection().figure(width=5, dpi=80).get_size_inches()[0] == 5


@pytest.mark.parametrize("name", ["a.bmp", "a", ".npz2", "a.PNGX"])
def test_unknown_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ParameterError, match="does not say as what to save it") as caught:
        inspection().save(tmp_path / name)
    assert ".mp4" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_suffixes_may_be_capital(tmp_path):
    assert inspection().save(tmp_path / "a.PNG").exists()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".html", ".npz", ".gif"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, suffix, monkeypatch):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"what was there")

    def fails(*args, **kwargs):
        raise MemoryError

    for name in ("written", "_as_arrays"):
        monkeypatch.setattr(f"cnnviz.inspection.{name}", fails)
    monkeypatch.setattr("cnnviz.animation.encode_gif", fails)
    monkeypatch.setattr("cnnviz.pages.render", fails)
    with pytest.raises(MemoryError):
        inspection().save(file)
    assert file.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [file]


def test_without_frames_there_is_no_animation(tmp_path):
    with pytest.raises(ParameterError, match="there is no animation"):
        inspection(frames=()).save(tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_notebooks_show_it():
    e = inspection()
    assert Image.open(io.BytesIO(e._repr_png_())).format == "PNG"
    piece = e._repr_html_()
    assert piece.count("<img") == 2
    assert "data:image/gif" in piece
    assert "<style" not in piece
    assert "dead: 3, 5" in piece
    assert inspection(frames=(), facts={})._repr_html_().count("<img") == 1


def test_words_of_others_are_not_code():
    evil = "<script>alert(1)</script>"
    piece = inspection(title=evil, facts={evil: evil})._repr_html_()
    assert "<script" not in piece


def test_what_it_keeps_may_be_empty(tmp_path):
    e = Inspection(inspector="nothing")
    for suffix in (".png", ".svg", ".html", ".npz"):
        e.save(tmp_path / f"a{suffix}")
    assert Inspection.load(tmp_path / "a.npz") == e
    assert repr(e) == "<Inspection by nothing>"


def test_titles_are_not_said_twice():
    e = inspection(title="Mistakes", exhibits=(gallery(), table()))
    text = e.figure().axes
    titles = [t.get_text() for axes in text for t in axes.texts]
    assert titles.count("Mistakes") == 1


def test_every_picture_can_be_written_by_itself(tmp_path):
    photo, small = pixels(5, 7), pixels(3, 3)
    rows = ((Tile(photo, caption="A cat!\nscore 3"), None), (Tile(heat=np.eye(2)), Tile(small)))
    e = inspection(exhibits=(Gallery(rows), table()))
    paths = e.save_pictures(tmp_path / "apart")
    assert [path.name for path in paths] == ["1-a-cat.png", "2.png"]
    for path, expected in zip(paths, (photo, small), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == ["1-a-cat.png", "2.png"]


def test_without_a_picture_there_is_none_to_write(tmp_path):
    with pytest.raises(ParameterError, match="shows no picture"):
        inspection(exhibits=(table(),)).save_pictures(tmp_path / "apart")
    with pytest.raises(ParameterError, match="cannot be made"):
        inspection().save_pictures(tmp_path / "no" / "folder")
