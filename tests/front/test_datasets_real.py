"""Real annotated photographs: COCO's with masks of categories, and ILSVRC's."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from cnnviz.datasets import (
    DatasetError,
    annotation_of,
    classes_of,
    dataset_of,
    open_dataset,
)
from cnnviz.labels import imagenet_labels
from cnnviz.network import Network
from cnnviz.preprocess import prepare
from cnnviz_core.preprocessing import Preprocessing

IMAGENET = Preprocessing(size=(224, 224), resize=256)


@pytest.fixture(scope="module")
def coco(test_data):
    return open_dataset(test_data / "boxes" / "coco205.json")


@pytest.fixture(scope="module")
def records(test_data):
    return json.loads((test_data / "boxes" / "ilsvrc_val1000_227.json").read_text())


@pytest.fixture(scope="module")
def ilsvrc(test_data, records, tmp_path_factory):
    """The photographs, warped to 227 x 227, with the boxes of the originals and WordNet ids."""
    path = tmp_path_factory.mktemp("ilsvrc") / "boxes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "width", "height", "wnid", "x0", "y0", "x1", "y1"])
        for record in records:
            for x0, y0, x1, y1 in record["boxes_orig"]:
                # ILSVRC counts pixels from 0, with the last ones inside.
                corners = (x0, y0, x1 + 1, y1 + 1)
                writer.writerow([record["file"], *record["orig_size"], record["wnid"], *corners])
    return open_dataset(path, images=test_data / "boxes" / "ilsvrc_val1000_227")


def test_coco_s_photographs_are_without_problems(coco, test_data):
    data = json.loads((test_data / "boxes" / "coco205.json").read_text())
    pairs = {(r["file"], box["category"]) for r in data["images"] for box in r["boxes"]}
    assert {(item.name, item.label) for item in coco} == pairs
    assert sum(len(item.boxes) for item in coco) == 1430
    assert coco.problems == ()
    assert coco.format == "records"
    assert "rug-merged" not in coco.classes


def test_the_same_photographs_in_coco_s_own_form(coco, test_data, tmp_path):
    """Written as COCO writes them, they are the same items."""
    data = json.loads((test_data / "boxes" / "coco205.json").read_text())
    numbers = {name: int(number) for number, name in data["mask_categories"].items()}
    images, annotations = [], []
    for i, record in enumerate(data["images"]):
        width, height = record["size"]
        images.append({"id": i, "file_name": record["file"], "width": width, "height": height})
        for box in record["boxes"]:
            x0, y0, x1, y1 = box["box"]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": i,
                    "category_id": numbers[box["category"]],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    path = tmp_path / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    same = open_dataset(test_data / "boxes" / "coco205", annotations=path)
    assert same.format == "coco"
    assert [item.id for item in same] == [item.id for item in coco]
    assert all(np.allclose(a.boxes, b.boxes) for a, b in zip(same, coco, strict=True))
    assert same.problems == ()


def test_coco_s_masks_lie_in_their_boxes(coco):
    """Half of those of single objects lie in them with 97 % of their pixels and more."""
    single = [item for item in coco if item.mask is not None and len(item.boxes) == 1]
    shares = []
    for item in single[:60]:
        mask = item.read_mask() == 1
        assert mask.shape == item.size
        x0, y0, x1, y1 = item.boxes[0]
        y, x = np.mgrid[: item.size[0], : item.size[1]] + 0.5
        inside = (x > x0 - 1) & (x < x1 + 1) & (y > y0 - 1) & (y < y1 + 1)
        if mask.any():
            shares.append((mask & inside).sum() / mask.sum())
    assert len(shares) > 40
    assert np.median(shares) > 0.97


def test_masks_and_boxes_move_together(coco):
    item = next(i for i in coco if i.mask is not None and len(i.boxes) == 1)
    _, geometry = prepare(item.read(), IMAGENET)
    annotation, _ = annotation_of(item, geometry)
    rows, columns = np.nonzero(annotation.mask == 1)
    ((x0, y0, x1, y1),) = annotation.boxes
    assert x0 - 1 <= columns.min() <= columns.max() + 1 <= x1 + 1
    assert y0 - 1 <= rows.min() <= rows.max() + 1 <= y1 + 1


def test_ilsvrc_s_boxes_are_scaled_to_the_warped_photographs(ilsvrc, records):
    assert len(ilsvrc) == len(records) == 1000
    assert sum(len(item.boxes) for item in ilsvrc) == 1438
    assert ilsvrc.problems == ()
    for item, record in zip(ilsvrc, records, strict=True):
        width, height = record["orig_size"]
        one = np.array([0, 0, 227 / width, 227 / height])
        expected = np.minimum(np.array(record["boxes_227"]) + one, 227)
        assert item.size == (227, 227)
        assert np.abs(item.boxes - expected).max() <= 0.06  # they are rounded to tenths


def test_ilsvrc_s_own_files(ilsvrc, records, test_data, tmp_path):
    """Its XML, which counts pixels from 0, gives the same items as the CSV file."""
    for record in records[:50]:
        width, height = record["orig_size"]
        objects = "".join(
            f"<object><name>{record['wnid']}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in record["boxes_orig"]
        )
        stem = record["file"].removesuffix(".JPEG")
        (tmp_path / f"{stem}.xml").write_text(
            f"<annotation><filename>{stem}</filename><size><width>{width}</width><height>{height}"
            f"</height></size>{objects}</annotation>"
        )
    folder = test_data / "boxes" / "ilsvrc_val1000_227"
    dataset = open_dataset(folder, annotations=tmp_path)
    assert dataset.format == "voc"
    for item, same in zip(dataset, ilsvrc.items[:50], strict=True):
        assert item.id == same.id
        assert np.array_equal(item.boxes, same.boxes)
    # The photographs are not of the annotated size, and 950 have no XML.
    assert set(dataset.counts) == {"another size", "no annotation"}
    assert any("begin at 0" in note for note in dataset.notes)
    assert any(problem.what.startswith("950 pictures") for problem in dataset.problems)


def test_ilsvrc_s_wordnet_ids_are_the_networks_classes(ilsvrc, records, test_data):
    index = json.loads((test_data / "imagenet_class_index.json").read_text())
    wnids = [index[str(i)][0] for i in range(1000)]
    network = Network(model=None, labels=imagenet_labels(), name="net")
    numbers, problems = classes_of(ilsvrc, network, wnids=wnids)
    assert problems == ()
    assert [numbers[item.label] for item in ilsvrc] == [r["label"] for r in records]
    # Without the list, ids that are not all of them say nothing.
    assert len(ilsvrc.classes) < 1000
    with pytest.raises(DatasetError):
        classes_of(ilsvrc, network)
    # All of them are the classes in their order.
    whole = dataset_of([np.zeros((1, 1))] * 1000, labels=wnids[::-1])
    assert classes_of(whole, network)[0] == {wnid: i for i, wnid in enumerate(wnids)}


def test_the_fingerprint_stays_over_runs(coco, test_data):
    again = open_dataset(test_data / "boxes" / "coco205.json")
    assert again.fingerprint == coco.fingerprint
    assert [item.id for item in again] == [item.id for item in coco]
