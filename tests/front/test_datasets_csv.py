"""Data sets in CSV: the columns, their titles, and what is said line by line."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnviz.datasets import DatasetError, open_dataset

WIDTH, HEIGHT = 40, 30


def save(folder, *names, size=(HEIGHT, WIDTH)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(size, np.uint8)).save(path)


def opened(folder, text, **options):
    (folder / "data.csv").write_text(text, encoding="utf-8")
    return open_dataset(folder / "data.csv", **options)


def summary(dataset):
    return {item.id: item.boxes.tolist() for item in dataset}


def test_lines_of_one_picture_belong_together_by_class(tmp_path):
    save(tmp_path, "a.png", "deep/b.png")
    dataset = opened(
        tmp_path,
        "image,label,x0,y0,x1,y1\n"
        "a.png,cat,1,2,11,12\n"
        "deep/b.png,dog,0,0,40,30\n"
        "a.png,dog,5.5,5,6,7\n"
        "a.png,cat,20,2,30,12\n",
    )
    assert summary(dataset) == {
        "a.png#cat": [[1, 2, 11, 12], [20, 2, 30, 12]],
        "a.png#dog": [[5.5, 5, 6, 7]],
        "deep/b.png#dog": [[0, 0, 40, 30]],
    }
    assert dataset.classes == ("cat", "dog")
    assert dataset.format == "csv"
    assert dataset.problems == ()
    assert {item.size for item in dataset} == {(HEIGHT, WIDTH)}
    assert dataset[0].read().size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("titles", "cells"),
    [
        ("filename,class,xmin,ymin,xmax,ymax", "a.png,cat,3,4,8,10"),
        ("File Name;Class Name;X Min;Y Min;X Max;Y Max", "a.png;cat;3;4;8;10"),
        ("path\tcategory\tleft\ttop\tright\tbottom", "a.png\tcat\t3\t4\t8\t10"),
        ("img,wnid,x1,y1,x2,y2", "a.png,cat,3,4,8,10"),
        ("y0,x0,label,y1,x1,image", "4,3,cat,10,8,a.png"),
        ("image_id,label,x,y,width,height", "a,cat,3,4,5,6"),
        ("image,label,x,y,w,h", "a.png, cat ,3,4,5,6"),
        ("image,label,left,top,width,height", "a.png,cat,3,4,5,6"),
        ("\ufeffimage,label,x0,y0,x1,y1", '"a.png","cat","3","4","8","10"'),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,40,30,cat,3,4,8,10"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,80,60,cat,6,8,16,20"),
        ("image,label,width,height,x0,y0,x1,y1", "a.png,cat,1,1,.075,.13333333,.2,.33333333"),
    ],
)
def test_titles_are_found_by_their_usual_names(tmp_path, titles, cells):
    save(tmp_path, "a.png")
    dataset = opened(tmp_path, f"{titles}\n{cells}\n")
    assert dataset.problems == ()
    assert [item.label for item in dataset] == ["cat"]
    assert np.allclose(dataset[0].boxes, [[3, 4, 8, 10]], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "label", "boxes"),
    [
        ("a.png", None, []),
        ("a.png,cat", "cat", []),
        ("a.png,1,2,3,4", None, [[1, 2, 3, 4]]),
        ("a.png,cat,1,2,3,4", "cat", [[1, 2, 3, 4]]),
    ],
)
def test_without_titles(tmp_path, line, label, boxes):
    save(tmp_path, "a.png")
    (item,) = opened(tmp_path, line)
    assert item.label == label
    assert item.boxes.tolist() == boxes


def test_cells_may_be_empty(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png")
    dataset = opened(
        tmp_path, "image,label,x0,y0,x1,y1\na.png,cat,,,,\nb.png,,1,2,3,4\nc.png,,,,,\n"
    )
    assert summary(dataset) == {"a.png#cat": [], "b.png": [[1, 2, 3, 4]]}
    assert dataset.counts == {"no annotation": 1}
    assert "c.png" in dataset.problems[0].what


def test_pictures_without_any_annotation_are_items(tmp_path):
    save(tmp_path, "a.png", "b.png")
    assert summary(opened(tmp_path, "image\na.png\nb.png\n")) == {"a.png": [], "b.png": []}


def test_masks_and_difficult_objects(tmp_path):
    save(tmp_path, "a.png", "b.png")
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[:10], values[10:20], values[20:] = 3, 255, 4
    Image.fromarray(values).save(tmp_path / "ids.png")
    dataset = opened(
        tmp_path,
        "image,label,mask,mask_value,difficult\n"
        "a.png,cat,ids.png,3,0\na.png,dog,ids.png,4,yes\nb.png,cat,ids.png,,no\n",
    )
    assert [item.difficult for item in dataset] == [False, True, False]
    cat, dog, both = (item.read_mask() for item in dataset)
    assert cat.dtype == np.uint8
    assert np.array_equal(cat, np.select([values == 3, values == 255], [1, 255]))
    assert np.array_equal(dog, np.select([values == 4, values == 255], [1, 255]))
    assert np.array_equal(both, np.where(values == 255, 255, 1))
    assert len({item.id for item in dataset}) == 3
    assert dataset.problems == ()


def test_backslashes_and_absolute_paths(tmp_path):
    save(tmp_path, "deep/a.png", "b.png")
    dataset = opened(tmp_path, f"image,label\ndeep\\a.png,cat\n{tmp_path / 'b.png'},cat\n")
    assert len(dataset) == 2
    assert dataset[0].id == "deep/a.png#cat"


def test_one_picture_under_several_names(tmp_path):
    save(tmp_path, "a.png", "deep/b.png")
    dataset = opened(
        tmp_path,
        f"image,label\na.png,cat\n./a.png,dog\ndeep/../a.png,cow\n{tmp_path / 'a.png'},ant\n"
        "deep/b.png,bee\n",
    )
    assert [item.id for item in dataset] == [
        "a.png#cat",
        "a.png#dog",
        "a.png#cow",
        "deep/b.png#bee",
    ]
    assert dataset.counts == {"duplicate": 1}
    assert dataset.problems[0].where == "data.csv, line 5"


def test_where_the_pictures_lie(tmp_path):
    save(tmp_path, "here/images/a.png", "there/a.png")
    folder = tmp_path / "here"
    assert opened(folder, "image,label\na,cat\n")[0].picture == folder / "images" / "a.png"
    dataset = opened(folder, "image,label\na,cat\n", images=tmp_path / "there")
    assert dataset[0].picture == tmp_path / "there" / "a.png"
    same = open_dataset(tmp_path / "there", annotations=folder / "data.csv")
    assert same[0].picture == tmp_path / "there" / "a.png"
    assert dataset.fingerprint == same.fingerprint


def test_lines_that_cannot_be_read_are_named_by_their_numbers(tmp_path):
    save(tmp_path, "a.png")
    dataset = opened(
        tmp_path,
        "image,label,x0,y0,x1,y1,difficult\n"
        "a.png,cat,1,2,3,4,0\n"
        "\n"
        "a.png,cat,1,2\n"
        "a.png,cat,1,2,3,four,0\n"
        "a.png,cat,1,2,,,0\n"
        ",cat,1,2,3,4,0\n"
        "a.png,cat,1,2,3,4,perhaps\n",
    )
    assert summary(dataset) == {"a.png#cat": [[1, 2, 3, 4]]}
    assert dataset.counts == {"malformed": 5}
    assert [p.where for p in dataset.problems] == [f"data.csv, line {n}" for n in (4, 7, 5, 6, 8)]


def test_columns_that_are_not_known_and_shares_of_the_picture_are_noted(tmp_path):
    save(tmp_path, "a.png")
    dataset = opened(tmp_path, "image,klass,x0,y0,x1,y1\na.png,cat,.1,.2,.3,.4\n")
    unknown, shares = dataset.problems
    assert "'klass'" in unknown.what
    assert "between 0 and 1" in shares.what


def test_a_picture_that_was_annotated_in_two_sizes(tmp_path):
    save(tmp_path, "a.png")
    text = "image,x0,y0,x1,y1,image_width,image_height\na.png,0,0,8,6,80,60\na.png,0,0,9,9,{},30\n"
    for other in ("40", "inf", "0"):
        dataset = opened(tmp_path, text.format(other))
        assert dataset[0].boxes.tolist() == [[0, 0, 4, 3]]
        assert dataset.counts == {"malformed": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("name,label\ncat,1\n", "no column of pictures"),
        ("image,x0,y0,x1\na.png,1,2,3\n", "x0, x1, y0 of a box alone"),
    ],
)
def test_a_file_without_the_columns(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        opened(tmp_path, text)


def test_a_file_in_another_encoding(tmp_path):
    (tmp_path / "data.csv").write_bytes("image,label\nä.png,cat\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="cannot be read as CSV"):
        open_dataset(tmp_path / "data.csv")


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\\/"),
    min_size=1,
    max_size=8,
)
corners = st.tuples(
    *[st.floats(0, WIDTH / 2 - 1)] * 2, st.floats(WIDTH / 2, WIDTH), st.floats(HEIGHT / 2, HEIGHT)
).map(lambda box: (box[0], min(box[1], HEIGHT / 2 - 1), *box[2:]))


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a.png", "b b.png", "ü/ç.png"]), words),
        st.lists(corners, max_size=3, unique=True),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(annotations):
    """Any names and boxes that a CSV file holds come back as they were, exactly."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        save(folder, *{image for image, _ in annotations})
        with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "x0", "y0", "x1", "y1"])
            for (image, label), boxes in annotations.items():
                writer.writerows([image, label, *box] for box in boxes or [[""] * 4])
        dataset = open_dataset(folder / "data.csv")
        read = {(item.name, item.label): [tuple(b) for b in item.boxes] for item in dataset}
    assert read == annotations
    assert [p for p in dataset.problems if "between 0 and 1" not in p.what] == []
