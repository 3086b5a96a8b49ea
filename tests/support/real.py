"""Real networks and photographs from the folder of test data."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
from PIL import Image


def loader(test_data):
    """Import the loader of the real weights."""
    spec = importlib.util.spec_from_file_location("load_weights", test_data / "load_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photographs(test_data, n):
    """Give the centres (224 x 224) of the first n photographs, with their classes and boxes."""
    folder = test_data / "boxes"
    records = json.loads((folder / "ilsvrc_val1000_227.json").read_text())[:n]
    pixels = [
        np.asarray(
            Image.open(folder / "ilsvrc_val1000_227" / r["file"])
            .convert("RGB")
            .crop((1, 1, 225, 225))
        )
        for r in records
    ]
    boxes = [np.array(r["boxes_227"]) - 1 for r in records]
    return np.stack(pixels), np.array([r["label"] for r in records]), boxes


def top_1(model, x, labels, batch=25):
    """Give the share of a batch whose class has the highest score."""
    best = [model.forward(x[i : i + batch]).logits.argmax(-1) for i in range(0, len(x), batch)]
    return float((np.concatenate(best) == labels).mean())


def pointing(maps, boxes):
    """Give the share of maps whose highest pixel lies in one of the picture's boxes."""
    hits = 0
    for m, inside in zip(maps, boxes, strict=True):
        y, x = np.unravel_index(m.argmax(), m.shape)
        hits += any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in inside)
    return hits / len(maps)
