"""Sheets and pages of results."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from front.made import explanation
from PIL import Image

from cnnviz.pages import html_fragment, render_report, write_report
from cnnviz.sheets import sheet, write_image
from cnnviz_core.errors import ArrayError, ParameterError

VOID = {"meta", "img", "input", "br", "rect"}


class Page(HTMLParser):
    """A page, taken apart; its tags must nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **wanted):
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and all(attrs.get(k) == v for k, v in wanted.items())
        ]


def decoded(uri):
    head, content = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
    return Image.open(io.BytesIO(base64.b64decode(content)))


def two():
    return {
        "grad-cam": explanation(3),
        "gradient": explanation(
            3, sign="signed", fine=True, method="gradient", layer=None, params={"steps": 50}
        ),
    }


def test_a_page_stands_alone():
    page = Page(render_report(two()))
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "script"}
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "http" not in re.sub(r"data:[^\s\")]+", "", render_report(two()))


def test_a_page_shows_every_sample_and_method():
    explanations = two()
    page = Page(render_report(explanations, skipped={"cam": "it has no such head"}))
    assert len(page.all("section")) == 3
    heat = page.all("img", **{"class": "heat"})
    assert len(heat) == 6
    assert all(decoded(img["src"]).mode == "RGBA" for img in heat)
    e = explanations["grad-cam"]
    for i in range(3):
        assert e.names[i] in page.text
        assert e.caption(i) in page.text
    assert "layer conv3" in page.text
    assert "window 32" in page.text
    assert "seed none" in page.text
    assert "steps 50" in page.text
    assert "not run: it has no such head" in page.text
    assert "bee" in page.text
    assert "75.0 %" in page.text
    assert "model plain" in page.text


def test_a_single_explanation_shows_its_map_too():
    e = explanation(2)
    page = Page(render_report({"grad-cam": e}))
    assert len(page.all("img", alt="the map of grad-cam")) == 2
    assert not Page(render_report(two())).all("img", alt="the map of grad-cam")


def test_the_photograph_of_a_page_is_the_picture():
    e = explanation(1)
    page = Page(render_report({"grad-cam": e}))
    style = page.all("section")[0]["style"]
    photo = decoded(re.search(r"url\((data:[^)]+)\)", style)[1])
    assert np.array_equal(np.asarray(photo), e.pictures[0])
    assert "--ratio: 41 / 30" in style


def test_boxes_of_a_page_are_in_the_picture_s_pixels():
    e = explanation(1)
    page = Page(render_report({"grad-cam": e}))
    x0, y0, x1, y1 = e.boxes()[0][0]
    boxes = page.all("rect", **{"class": "box"})
    assert [{k: int(b[k]) for k in ("x", "y", "width", "height")} for b in boxes] == [
        {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    ]
    assert page.all("svg")[0]["viewbox"] == "0 0 41 30"
    assert "checked" in page.all("input", id="boxes")[0]
    hidden = Page(render_report({"grad-cam": e}, boxes=False))
    assert "checked" not in hidden.all("input", id="boxes")[0]


def test_names_and_labels_cannot_break_the_page():
    evil = '<script>alert("x")</script>&'
    e = explanation(1, names=(evil,), target_labels=(evil,), provenance={"model": evil})
    for text in (
        render_report({"grad-cam": e}, skipped={evil: evil}, title=evil),
        html_fragment({"grad-cam": e}, skipped={evil: evil}),
    ):
        assert "<script" not in text
        assert evil in Page(text).text


@pytest.mark.parametrize("status", ["all-zero", "all-negative", "non-finite", "odd"])
def test_a_map_that_shows_nothing_is_marked_everywhere(status):
    e = explanation(2, status=("ok", status))
    note = e.note(1)
    assert note
    assert Page(render_report({"grad-cam": e})).text.count(note) == 1
    assert Page(html_fragment({"grad-cam": e})).text.count(note) == 1
    amber = (np.asarray(sheet({"grad-cam": e})) == (255, 176, 0)).all(-1)
    assert amber.any()
    fine = explanation(2)
    assert not (np.asarray(sheet({"grad-cam": fine})) == (255, 176, 0)).all(-1).any()


def test_large_pictures_are_shown_smaller():
    from cnnviz.preprocess import Geometry

    large = np.zeros((900, 1200, 3), np.uint8)
    e = explanation(1)
    geometry = (Geometry.stretched((900, 1200), e.geometry[0].size),)
    e = dataclasses.replace(e, pictures=(large,), geometry=geometry)
    text = render_report({"grad-cam": e})
    style = Page(text).all("section")[0]["style"]
    assert decoded(re.search(r"url\((data:[^)]+)\)", style)[1]).size == (640, 480)
    assert decoded(Page(text).all("img", **{"class": "heat"})[0]["src"]).size == (336, 252)
    assert decoded(Page(html_fragment({"a": e})).all("img")[0]["src"]).size == (280, 210)


def test_a_fragment_is_short():
    page = Page(html_fragment({"grad-cam": explanation(30)}))
    assert len(page.all("img")) == 12
    assert "and 18 more" in page.text
    assert not page.all("style")
    assert "more" not in Page(html_fragment({"grad-cam": explanation(2)})).text


def test_what_is_explained_is_said_where_it_is_not_what_is_seen():
    page = Page(html_fragment({"grad-cam": explanation(1, probabilities=np.array([0.125]))}))
    assert "bee 75 %" in page.text
    assert "explained: class 0 12 %" in page.text
    same = explanation(1, target_labels=("bee",), probabilities=np.array([0.75]))
    assert "explained" not in Page(html_fragment({"grad-cam": same})).text


def test_a_sheet_has_a_row_for_each_sample_and_a_column_for_each_method():
    one, both = sheet({"grad-cam": explanation(3)}), sheet(two())
    fewer = sheet({"grad-cam": explanation(1)})
    assert fewer.height < one.height
    assert fewer.width == one.width
    three = sheet({**two(), "third": explanation(3)}, cell=256)
    assert both.width < three.width
    boxed = sheet(two(), boxes=True)
    assert boxed.size == both.size
    assert (np.asarray(boxed) != np.asarray(both)).any()


def test_boxes_of_a_sheet_follow_its_scale():
    """A picture larger than its cell: the box is where the heat is."""
    from cnnviz.preprocess import Geometry
    from cnnviz_core.explainer import Presentation

    maps = np.zeros((1, 30, 40), np.float32)
    maps[0, 10:20, 20:30] = 1
    e = dataclasses.replace(
        explanation(1),
        maps=maps,
        raw=maps,
        presentation=Presentation(upsample="nearest"),
        geometry=(Geometry.stretched((600, 800), (30, 40)),),
        pictures=(np.zeros((600, 800, 3), np.uint8),),
        status=("ok",),
    )
    drawn = np.asarray(sheet({"a": e, "b": e}, boxes=True, cell=200))
    rows, columns = np.nonzero((drawn == (0x3F, 0xD8, 0xFF)).all(-1))
    assert np.ptp(rows) + 1 == 50
    half = columns[columns < (columns.min() + columns.max()) / 2]
    assert np.ptp(half) + 1 == 50


def test_explanations_of_different_pictures_do_not_go_together():
    other = explanation(3, names=("a", "b", "c"))
    for draw in (sheet, render_report, html_fragment):
        with pytest.raises(ArrayError, match="different pictures"):
            draw({"a": explanation(3), "b": other})
        with pytest.raises(ArrayError, match="no explanation"):
            draw({})


def test_writing(tmp_path):
    write_report(two(), tmp_path / "a.html", title="A title")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>A title</title>" in text
    assert "×" in text
    image = sheet(two())
    write_image(image, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(image))
    with pytest.raises(ParameterError, match=r"a\.gif"):
        write_image(image, tmp_path / "a.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.png"]


def test_the_same_results_make_the_same_page():
    assert render_report(two()) == render_report(two())
    assert sheet(two()).tobytes() == sheet(two()).tobytes()
