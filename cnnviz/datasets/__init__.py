"""Annotated pictures: folders, CSV, COCO, VOC, and arrays, with what is wrong with them.

`open_dataset` finds out what a source is.  Boxes are (x0, y0, x1, y1) in pixels of the picture as
a viewer shows it, half-open, whatever the format counts in.  One item is one class of one picture.
"""

from __future__ import annotations

from cnnviz.datasets.classes import classes_of
from cnnviz.datasets.items import Dataset, DatasetError, Item, Label, Problem
from cnnviz.datasets.masks import Mask
from cnnviz.datasets.memory import dataset_of
from cnnviz.datasets.opening import open_dataset
from cnnviz.datasets.preparing import Prepared, annotation_of, prepare_item

__all__ = [
    "Dataset",
    "DatasetError",
    "Item",
    "Label",
    "Mask",
    "Prepared",
    "Problem",
    "annotation_of",
    "classes_of",
    "dataset_of",
    "open_dataset",
    "prepare_item",
]
