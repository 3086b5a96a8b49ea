"""What is done with maps after the network: cnnviz beside scikit-image, OpenCV and PyTorch.

Run ``python benchmarks/maps.py``; it needs NumPy and SciPy only, and measures scikit-image, OpenCV
(opencv-python-headless) and PyTorch where they are installed.

A batch of maps is resized, normalised, and searched for boxes; one thread, float32 unless
``--dtype`` says otherwise, results in new arrays.  "NumPy" is what the machine sets as a limit: for
resizing the two matrix products alone, for what only reads and writes maps a copy of them.  The
same is asked of all: of each library its plain function, map by map where it takes one at a time.
The ways take turns; what is shown are medians of processor time.  At the beginning of a round as
much memory is used as the maps take, lest the first way pay for how the last one left the heap.
"""

from __future__ import annotations

import os

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
)

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from interleaved import measure

from cnnviz_core.explainer import Presentation, present
from cnnviz_core.maps import boxes_of_each, min_max, resize, resize_matrix
from cnnviz_core.maps.principal import project

SIDE: Final = 224
SIDES: Final = (7, 14, 56)
THRESHOLD: Final = 0.15
CONNECTIVITY: Final = 2
FEATURES: Final = ((49, 512), (49, 2048), (196, 1024), (3136, 256), (3136, 2048))
"""Positions and channels of layers whose feature vectors are projected."""
COLUMNS: Final = ("NumPy", "cnnviz", "scikit-image", "OpenCV", "PyTorch")

Ways = dict[str, Callable[[], object]]


def resizing(maps: np.ndarray, method: str) -> Ways:
    """List the ways of resizing maps.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        The maps.
    method : {"bilinear", "bicubic"}
        The interpolation.

    Returns
    -------
    dict of str to callable
    """
    rows, columns = (resize_matrix(n, SIDE, method).astype(maps.dtype) for n in maps.shape[1:])
    ways: Ways = {
        "NumPy": lambda: np.matmul(rows, np.matmul(maps, columns.T)),
        "cnnviz": lambda: resize(maps, (SIDE, SIDE), method),
    }
    if importlib.util.find_spec("skimage"):
        from skimage import transform

        settings = {"order": {"bilinear": 1, "bicubic": 3}[method], "mode": "edge"}
        ways["scikit-image"] = lambda: [
            transform.resize(map, (SIDE, SIDE), anti_aliasing=False, **settings) for map in maps
        ]
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        flag = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[method]
        ways["OpenCV"] = lambda: [cv2.resize(map, (SIDE, SIDE), interpolation=flag) for map in maps]
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        tensor = torch.from_numpy(maps)[:, None]
        ways["PyTorch"] = lambda: torch.nn.functional.interpolate(tensor, (SIDE, SIDE), mode=method)
    return ways


def normalising(maps: np.ndarray) -> Ways:
    """List the ways of bringing each map to [0, 1].

    Parameters
    ----------
    maps : ndarray (N, H, W)
        The maps.

    Returns
    -------
    dict of str to callable
    """
    ways: Ways = {"NumPy": maps.copy, "cnnviz": lambda: min_max(maps)}
    if importlib.util.find_spec("skimage"):
        from skimage import exposure

        ways["scikit-image"] = lambda: [
            exposure.rescale_intensity(map, out_range=(0.0, 1.0)) for map in maps
        ]
    if importlib.util.find_spec("cv2"):
        import cv2

        ways["OpenCV"] = lambda: [
            cv2.normalize(map, None, 0, 1, norm_type=cv2.NORM_MINMAX) for map in maps
        ]
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_numpy(maps)

        def scaled() -> object:
            least, largest = (f(tensor, (1, 2), keepdim=True) for f in (torch.amin, torch.amax))
            return (tensor - least) / (largest - least)

        ways["PyTorch"] = scaled
    return ways


def boxing(maps: np.ndarray) -> Ways:
    """List the ways of finding the boxes of all components above the threshold.

    Parameters
    ----------
    maps : ndarray (N, H, W)
        The maps, without negative values.

    Returns
    -------
    dict of str to callable
    """
    ways: Ways = {
        "NumPy": maps.copy,
        "cnnviz": lambda: boxes_of_each(maps, THRESHOLD, largest=False),
    }
    if importlib.util.find_spec("skimage"):
        from skimage.measure import label, regionprops

        ways["scikit-image"] = lambda: [
            [region.bbox for region in regionprops(label(mask, connectivity=CONNECTIVITY))]
            for mask in (map > THRESHOLD * map.max() for map in maps)
        ]
    if importlib.util.find_spec("cv2"):
        import cv2

        ways["OpenCV"] = lambda: [
            cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4 * CONNECTIVITY)[2]
            for mask in (map > THRESHOLD * map.max() for map in maps)
        ]
    return ways


def presenting(raw: np.ndarray) -> Ways:
    """List the ways of making maps at the picture's size of signed sums at the layer's.

    Parameters
    ----------
    raw : ndarray (N, h, w)
        What a class activation map is before it is rectified and resized.

    Returns
    -------
    dict of str to callable
    """
    rows, columns = (resize_matrix(n, SIDE).astype(raw.dtype) for n in raw.shape[1:])
    return {
        "NumPy": lambda: np.matmul(rows, np.matmul(raw, columns.T)),
        "cnnviz": lambda: present(raw, (SIDE, SIDE), Presentation()),
    }


def projecting(features: np.ndarray) -> Ways:
    """List the ways of projecting feature vectors on their first principal direction.

    Parameters
    ----------
    features : ndarray (1, positions, channels)
        The feature vectors of one sample.

    Returns
    -------
    dict of str to callable
        NumPy's is the full singular value decomposition, as pytorch-grad-cam does it.
    """
    matrix = features[0] - features[0].mean(axis=0)
    ways: Ways = {"cnnviz": lambda: project(features, centre=True)}
    if min(matrix.shape) <= 256 and max(matrix.shape) <= 2048:
        ways["NumPy"] = lambda: matrix @ np.linalg.svd(matrix, full_matrices=True)[2][0]
    return ways


def works(count: int, dtype: str) -> dict[str, Ways]:
    """List all that is measured.

    Parameters
    ----------
    count : int
        How many maps.
    dtype : str
        Their type.

    Returns
    -------
    dict of str to dict
        By what is done, the ways of doing it.
    """
    draws = np.random.default_rng(0)
    raw = {side: draws.standard_normal((count, side, side)).astype(dtype) for side in SIDES}
    shown = resize(np.maximum(raw[7], 0), (SIDE, SIDE))
    found = {
        f"{method}, {side} to {SIDE}": resizing(maps, method)
        for method in ("bilinear", "bicubic")
        for side, maps in raw.items()
    }
    found["to [0, 1]"] = normalising(shown)
    found["boxes of all components"] = boxing(shown)
    found[f"rectified, told, 7 to {SIDE}"] = presenting(raw[7])
    for positions, channels in FEATURES:
        # Features as they are behind a ReLU: each has some direction in common with the others.
        base = draws.standard_normal((1, positions, 1)) * draws.standard_normal(channels)
        features = np.maximum(base + draws.standard_normal((1, positions, channels)), 0)
        name = f"one projection, {positions} positions of {channels} channels"
        found[name] = projecting(features.astype(dtype))
    return found


def line(name: str, medians: Mapping[str, float]) -> str:
    """Write a row of the table.

    Parameters
    ----------
    name : str
        What was done.
    medians : mapping of str to float
        Seconds, by library.

    Returns
    -------
    str
        In Markdown, in milliseconds; bold is what is ours.
    """
    cells = [f"{1000 * medians[c]:.3g}" if c in medians else "" for c in COLUMNS]
    cells[1] = f"**{cells[1]}**"
    ratio = f"{medians['cnnviz'] / medians['NumPy']:.2f}" if "NumPy" in medians else ""
    return f"| {' | '.join([name, *cells, ratio])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown, each row when it is known.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line's, if left out.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="how many maps")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only work whose name has this in it")
    parser.add_argument("--json", type=Path, help="where the numbers are written, too")
    options = parser.parse_args(arguments)
    print(f"{options.count:,} maps, {options.dtype}, one thread, ms\n")
    print(f"| | {' | '.join(COLUMNS)} | cnnviz / NumPy |\n|---{'|---' * (len(COLUMNS) + 1)}|")
    rows: list[dict[str, Any]] = []

    def used() -> object:
        return np.ones((options.count, SIDE, SIDE), options.dtype)

    for name, ways in works(options.count, options.dtype).items():
        if options.only in name:
            spent = measure({"": used, **ways}, options.rounds, warm_up=1)
            medians = {library: statistics.median(spent[library]) for library in ways}
            rows.append({"work": name, "seconds": medians})
            print(line(name, medians), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
