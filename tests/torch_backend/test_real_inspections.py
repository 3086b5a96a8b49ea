"""Inspectors on real ImageNet weights and real photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cnnviz
from cnnviz_core.pixels import as_pixels
from support.real import loader
from support.torchvision_ops import define

pytestmark = pytest.mark.slow

SHOWN = 80


@pytest.fixture(scope="module")
def net(test_data):
    """SqueezeNet 1.1."""
    define()
    return cnnviz.wrap(
        loader(test_data).torch_model("squeezenet1_1"),
        preprocess=cnnviz.Preprocessing(
            size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        labels="imagenet-1k",
        name="SqueezeNet",
    )


@pytest.fixture(scope="module")
def photographs(test_data):
    """Files, their classes and boxes (in pixels of a picture of 227 x 227)."""
    folder = test_data / "boxes" / "ilsvrc_val1000_227"
    records = json.loads(folder.with_suffix(".json").read_text())[:SHOWN]
    files = [folder / record["file"] for record in records]
    return files, [record["label"] for record in records], [r["boxes_227"] for r in records]


def scores(net, files):
    """Run the network on files, apart from any inspector."""
    from cnnviz.samples import samples_of

    x = np.stack([samples_of(net, file)[0].x for file in files])
    return np.concatenate([net.model.forward(part).logits for part in np.split(x, 8)])


def test_errors_are_those_of_the_network(net, photographs):
    files, truth, _ = photographs
    found = cnnviz.inspect(net, "errors", files, truth=truth, count=3)
    logits = scores(net, files)
    np.testing.assert_array_equal(found["predicted"], logits.argmax(1))
    assert found.facts["top_1"] == pytest.approx(np.mean(logits.argmax(1) == truth))
    assert 0.5 < found.facts["top_1"] < 0.85
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    lead = shares.max(1) - shares[np.arange(len(truth)), truth]
    np.testing.assert_allclose(lead[found["worst"]], np.sort(lead[lead > 0])[::-1][:3], rtol=1e-4)


def test_a_picture_made_for_a_class_is_taken_for_it(net):
    classes = ["goldfish", "daisy"]
    found = cnnviz.inspect(net, "maximisation", target=classes, steps=64)
    x = net.model.forward(made_input(net, found["pictures"])).logits
    assert [net.labels[k] for k in x.argmax(1)] == classes
    history = found["scores"]
    assert (history[-1] > history[0] + 10).all()


def made_input(net, colours):
    """Prepare colours as the pixels of a picture would be."""
    steps = net.preprocessing
    return ((as_pixels(colours) / 255 - steps.mean) / steps.std).astype(np.float32)


def test_deeper_layers_keep_less_of_a_picture(net, photographs):
    layers = ["features.1", "features.7", "classifier.2"]
    found = cnnviz.inspect(net, "inversion", photographs[0][0], layer=layers, steps=40)
    assert (np.diff(found["psnr"][:, 0]) < 0).all()
    assert (found["history"][:, 0, -1] < 0.5 * found["history"][:, 0, 0]).all()


def test_projections_are_of_the_strongest_activations(net, photographs):
    files = photographs[0][:24]
    found = cnnviz.inspect(net, "projections", files, layer="features.7", count=2, top=3)
    from cnnviz.samples import samples_of

    x = np.stack([samples_of(net, file)[0].x for file in files])
    values = net.model.forward(x, capture=("features.7",))["features.7"]
    highest = values.max((1, 2))
    for k, channel in enumerate(found["features.7/channels"]):
        order = np.argsort(-highest[:, channel])[:3]
        np.testing.assert_array_equal(found["features.7/pictures"][k], order)
        np.testing.assert_allclose(
            found["features.7/values"][k], highest[order, channel], rtol=1e-4
        )


def test_covering_the_object_costs_most(net, photographs):
    files, truth, boxes = photographs
    logits = scores(net, files)
    small = [
        i
        for i, ((x0, y0, x1, y1), *more) in enumerate(boxes)
        if logits[i].argmax() == truth[i] and not more and (x1 - x0) * (y1 - y0) < 0.3 * 227**2
    ][:10]
    assert len(small) >= 8
    chosen = [files[i] for i in small]
    found = cnnviz.inspect(net, "occlusion-analysis", chosen, window=64, stride=32)
    drop = found["drop"]
    hits = areas = 0.0
    for picture, i in zip(drop, small, strict=True):
        x0, y0, x1, y1 = np.array(boxes[i][0]) * 224 / 227
        y, x = np.unravel_index(picture.argmax(), picture.shape)
        # The map's places are as coarse as the patch.
        hits += x0 - 32 <= x < x1 + 32 and y0 - 32 <= y < y1 + 32
        areas += min(1, (x1 - x0 + 64) * (y1 - y0 + 64) / 224**2)
    assert hits > areas
    assert hits >= 0.7 * len(small)


def test_a_dream_sees_more_of_what_it_sees(net, photographs):
    found = cnnviz.inspect(
        net, "dream", photographs[0][0], layer="features.9", octaves=1, steps=8, size=224
    )
    history = found["1/history"][0]
    assert history[-1] > 1.5 * history[0]
