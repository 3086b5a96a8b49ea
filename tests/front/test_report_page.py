"""Pages of inspections, alone and beside explanations."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from front.made import explanation
from front.shown import curves, gallery, inspection, matrix, pixels, table
from front.test_report import Page
from PIL import Image

from cnnviz.comparing import Comparison
from cnnviz.pages import render, report
from cnnviz.wording import told
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Gallery, Tile


def picture(uri):
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", uri).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def page_of(*results, title=""):
    """Take a page apart; what stands in drawings of curves is no part of its text."""
    text = render(list(results), title=title)
    return text, Page(re.sub(r"<svg .*?</svg>", "", text, flags=re.DOTALL))


def test_a_page_of_an_inspection_stands_alone():
    text, page = page_of(inspection())
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "script", "object"}
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "http" not in re.sub(r'data:[^\s")]+|base64[^"]+', "", text)
    assert "prefers-color-scheme: dark" in text


def test_all_of_an_inspection_is_on_its_page():
    text, page = page_of(inspection())
    assert len(page.all("h1")) == 1
    for expected in (
        *("What conv1 has learnt", "All kinds of tiles", "Distances", "Confusion", "Mistakes"),
        *("first", "above", "Äpfel im Korb", "signed $x_1$", "ant", "A note below."),
        *("an ant of many words", "predicted", "26 pictures", "12.5", "The worst first."),
        *("dead", "3, 5", "share", "0.5", "top 9", "model plain", "framework numpy"),
    ):
        assert expected in page.text
    (drawing,) = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    assert "rotation (degrees)" in drawing
    assert "conv2" in drawing


def test_pixels_of_tiny_tiles_are_on_the_page_as_they_are():
    tile = pixels(7, 5)
    _, page = page_of(inspection(exhibits=[Gallery(((Tile(tile),),), side=48)], frames=()))
    (image,) = page.all("img")
    kind, shown = picture(image["src"])
    assert kind == "png"
    assert np.array_equal(np.asarray(shown), tile)
    assert (image["width"], image["height"]) == ("30", "42")
    assert image["class"] == "tiny"


def test_photographs_are_sharp_on_fine_screens():
    _, page = page_of(inspection(exhibits=[Gallery(((Tile(pixels(400, 300)),),))], frames=()))
    (image,) = page.all("img")
    kind, shown = picture(image["src"])
    assert kind == "jpeg"
    assert shown.size == (216, 288)
    assert (image["width"], image["height"]) == ("144", "192")


def test_the_animation_is_on_the_page():
    _, page = page_of(inspection())
    (image,) = page.all("img", **{"class": "animation"})
    kind, shown = picture(image["src"])
    assert kind == "gif"
    assert shown.n_frames == 3


def test_tables_are_tables():
    _, page = page_of(inspection(exhibits=[table()], frames=()))
    assert len(page.all("table", **{"class": "table"})) == 1
    assert len(page.all("td", **{"class": "number"})) == 2
    assert len(page.all("th", scope="col")) == 2


def test_a_matrix_is_a_table_of_coloured_fields():
    _, page = page_of(inspection(exhibits=[matrix()], frames=()))
    fields = [attrs["style"] for attrs in page.all("td") if "style" in attrs]
    assert len(fields) == 9
    assert len(page.all("th", scope="row")) == 3
    # The largest number has the darkest ground.
    grounds = [int(re.search(r"background: #(\w\w)", style)[1], 16) for style in fields]
    assert np.argmin(grounds) == np.argmax(matrix().values)


def test_places_that_are_empty_stay_so():
    _, page = page_of(inspection(exhibits=[gallery()], frames=()))
    assert len(page.all("figure")) == 5
    rows = re.findall(r"<tr>.*?</tr>", render(inspection(exhibits=[gallery()])), re.DOTALL)
    assert [row.count("<td>") for row in rows[1:3]] == [3, 3]


def test_names_in_drawings_are_not_those_of_the_page():
    text = render([inspection(exhibits=[curves()]), inspection(exhibits=[curves(title="b")])])
    for drawing in re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL):
        names = re.findall(r' id="([^"]+)"', drawing)
        assert len(names) == len(set(names))
        assert all(f"#{name}" in drawing for name in names)
        assert set(re.findall(r'(?:href="#|url\(#)([\w-]+)', drawing)) == set(names)
        assert "var(--ink)" in drawing or "var(--muted)" in drawing
        assert "#59636e" not in drawing
    assert text.count("boxes") <= 2


def test_a_report_has_a_place_for_each_result(tmp_path):
    comparison = Comparison(
        {"grad-cam": explanation(2), "gradient": explanation(2, method="gradient")},
        {"cam": "it has no such head"},
    )
    results = [
        comparison,
        inspection(),
        explanation(1, method="saliency"),
        inspection(inspector="features", title="The maps of conv2", frames=()),
    ]
    file = report(results, tmp_path / "page.html", title="What we saw")
    assert file == tmp_path / "page.html"
    text = file.read_text(encoding="utf-8")
    page = Page(re.sub(r"<svg [^>]*viewBox=\"0 0 \d+\.?\d* .*?</svg>", "", text, flags=re.DOTALL))
    assert len(page.all("article")) == 4
    assert len(page.all("section")) == 3
    assert len(page.all("h1")) == 1
    assert len(page.all("input", type="checkbox")) == 1
    for expected in (
        *("What we saw", "What conv1 has learnt", "The maps of conv2", "picture-1.png"),
        *("grad-cam", "gradient", "saliency", "not run: it has no such head", "filters"),
    ):
        assert expected in page.text


def test_a_page_of_inspections_has_nothing_to_turn_heat_with():
    _, page = page_of(inspection(), inspection())
    assert page.all("input") == []


def test_one_result_needs_no_list():
    assert render(inspection()) == render([inspection()], title="What conv1 has learnt")
    assert "What plain looks at" in render(explanation(1))


def test_a_page_is_the_same_each_time():
    assert render([inspection(), explanation(1)]) == render([inspection(), explanation(1)])


def test_words_of_others_are_not_code():
    evil = "<script>alert('x')</script>"
    result = inspection(
        title=evil,
        inspector=evil,
        facts={evil: evil},
        exhibits=[
            gallery(title=evil, column_titles=(evil,) * 3, note=evil),
            curves(title=evil, x_title=evil, marks=((0.0, evil),)),
            matrix(row_labels=(evil,) * 3, row_title=evil),
            table(rows=((evil, evil),)),
        ],
    )
    text = render([result, result], title=evil)
    assert "<script" not in text
    assert "alert" in text


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="no result"):
        render([])
    with pytest.raises(ParameterError, match="cannot show a str"):
        render(["grad-cam"])
    with pytest.raises(ParameterError, match=r"ends in \.html"):
        report(inspection(), tmp_path / "page.png")
    assert list(tmp_path.iterdir()) == []


def test_values_are_told_in_short():
    assert told([]) == told("") == told(None) == "none"
    assert told({"a": 1, "b": [1.5, 2.0]}) == "a: 1, b: 1.5, 2"
    assert told(list(range(100))).endswith("23, and 76 more")
