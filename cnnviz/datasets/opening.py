"""Opening a data set: finding out what a source is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from cnnviz.datasets.building import Classes
from cnnviz.datasets.coco import is_coco, read_coco
from cnnviz.datasets.csvs import read_csv
from cnnviz.datasets.folders import is_image_folder, read_folder, read_image_folder
from cnnviz.datasets.items import Dataset, DatasetError
from cnnviz.datasets.memory import dataset_of
from cnnviz.datasets.records import load_json, read_records
from cnnviz.datasets.voc import has_xml, read_voc
from cnnviz_core.errors import ParameterError

__all__ = ["Format", "open_dataset"]

Format: TypeAlias = Literal["folder", "imagefolder", "csv", "coco", "records", "voc", "arrays"]
"""What a data set can be read as."""


def open_dataset(
    source: Any,
    *,
    format: Format | None = None,
    annotations: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    classes: Classes = None,
) -> Dataset:
    """Open annotated pictures, whatever their format.

    What is wrong with them (`Problem`) is listed in the data set's `problems` and counted in its
    `counts`; the rest stays usable.  Of files the beginnings are read, for the pictures' sizes.

    Parameters
    ----------
    source : path, pictures, mapping or Dataset
        A folder of pictures; a folder with a sub-folder for each class; a CSV file; a JSON file of
        COCO's form, or with a record for each picture; a folder of VOC's XML files; a sequence of
        pictures, or a mapping with "pictures" and the arguments of `dataset_of`.
    format : {"folder", "imagefolder", "csv", "coco", "records", "voc", "arrays"}, optional
        What it is; found out if left out.
    annotations : path, optional
        The file or folder of the annotations; `source` is then the folder of the pictures.
    images : path, optional
        The folder from which the pictures' paths begin, where it is not found beside the
        annotations.
    split : str, optional
        For VOC: the name of a list in "ImageSets/Main", such as "val".
    classes : sequence or mapping, optional
        The classes to take, as annotated; a mapping says what the network calls them:
        ``{"cat": "tabby", "dog": 207}``.  Objects of others are left out and counted.

    Returns
    -------
    Dataset
        An item for each class of each picture.  A picture of which nothing usable is said is left
        out and listed, unless the data set has no annotations at all.

    Raises
    ------
    DatasetError
        If it cannot be found out what `source` is, or nothing of it can be used; the message
        names the first problems.
    ParameterError
        If the arguments contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> open_dataset({"pictures": np.zeros((2, 8, 8)), "labels": ["cat", "dog"]})
    <Dataset 'arrays' (arrays): 2 items, 2 classes, 0 problems>
    """
    if format not in (None, *get_args(Format)):
        raise ParameterError(
            f"format={format!r} is no format", f"one of {', '.join(get_args(Format))}", "pass one"
        )
    if not isinstance(source, (str, os.PathLike)):
        _check_alone(format, annotations=annotations, images=images, split=split)
        return _in_memory(source, classes)
    pictures = None if images is None else Path(images).expanduser()
    path = Path(source).expanduser()
    if annotations is not None:
        if pictures is not None:
            raise ParameterError(
                "the pictures' folder was given twice, as the source and as images=",
                "a folder and annotations=, or a file and images=",
                "leave out images=",
            )
        path, pictures = Path(annotations).expanduser(), path
    if not path.exists():
        raise DatasetError(
            f"there is no file or folder {path}",
            "a folder of pictures, or a file or folder of annotations",
            f"check the path: it is looked for from {Path.cwd()}"
            if not path.is_absolute()
            else "check the path",
        )
    return _read(path, format, pictures, split, classes)


def _read(
    path: Path, format: Format | None, pictures: Path | None, split: str | None, classes: Classes
) -> Dataset:
    """Read files as what they are."""
    in_json = format in ("coco", "records") or path.suffix.lower() == ".json"
    data: Any = load_json(path) if in_json and path.is_file() else None
    found = format or _format(path, data)
    if split is not None and found != "voc":
        raise ParameterError(
            f"split={split!r} was given for a data set of the format {found}",
            "a split of a VOC data set",
            "pass the folder or the file of the split itself",
        )
    if found == "voc":
        return read_voc(path, pictures, classes, split)
    if pictures is not None and found in ("folder", "imagefolder"):
        raise ParameterError(
            f"a folder of pictures was given, and {path} is another one, without annotations",
            "a file or a folder of annotations",
            "pass one folder alone, or check the path of the annotations",
        )
    if path.is_dir() != (found in ("folder", "imagefolder")):
        raise ParameterError(
            f"{path} was to be read as {found}",
            "a folder" if path.is_file() else "a file",
            "leave out format=, or pass the right path",
        )
    match found:
        case "folder":
            return read_folder(path, classes)
        case "imagefolder":
            return read_image_folder(path, classes)
        case "csv":
            return read_csv(path, pictures, classes)
        case "coco" if is_coco(data):
            return read_coco(path, data, pictures, classes)
        case "records" if data is not None:
            return read_records(path, data, pictures, classes)
    raise ParameterError(
        f"{path} is not of the format {found}", "what the format says", "leave out format="
    )


def _check_alone(format: Format | None, **others: Any) -> None:
    """Check that nothing is said of files where there are none."""
    given = [f"{name}={value!r}" for name, value in others.items() if value is not None]
    if given or format not in (None, "arrays"):
        raise ParameterError(
            f"{', '.join(given) or f'format={format!r}'} was given for what is in memory",
            "a path with it",
            "leave it out",
        )


def _format(path: Path, data: Any) -> Format:
    """Find out what a file or a folder is."""
    if path.is_dir():
        if has_xml(path):
            return "voc"
        return "imagefolder" if is_image_folder(path) else "folder"
    if data is not None:
        return "coco" if is_coco(data) else "records"
    if path.suffix.lower() in (".csv", ".tsv"):
        return "csv"
    if path.suffix.lower() == ".xml":
        return "voc"
    raise DatasetError(
        f"{path} is no data set that is known",
        "a folder, or a file that ends in .csv, .tsv, .json or .xml",
        "say what it is: format='csv'",
    )


def _in_memory(source: Any, classes: Classes) -> Dataset:
    """Make a data set of what is in memory."""
    if isinstance(source, Dataset):
        _check_alone(None, classes=classes)
        return source
    if isinstance(source, Mapping):
        arguments = {"labels", "boxes", "masks", "difficult", "names", "name"}
        if not {"pictures"} <= source.keys() <= {"pictures", *arguments}:
            raise ParameterError(
                f"the data set has {', '.join(map(repr, source))}",
                f"'pictures', and any of {', '.join(map(repr, sorted(arguments)))}",
                "rename the entries",
            )
        return dataset_of(**source, classes=classes)
    if not isinstance(source, Iterable):
        raise DatasetError(
            f"{type(source).__name__} is no data set",
            "a path, a sequence of pictures, or a mapping of arrays",
            "pass one of these",
        )
    return dataset_of(source, classes=classes)
