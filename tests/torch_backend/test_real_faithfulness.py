"""What a real network needs of real photographs: Grad-CAM finds it better than chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Predicted
from cnnviz_metrics.confidence import AverageDrop, AverageGain
from cnnviz_metrics.deletion import Deletion
from cnnviz_metrics.insertion import Insertion
from cnnviz_metrics.mu_fidelity import MuFidelity
from cnnviz_metrics.road import ROAD
from cnnviz_metrics.sensitivity_n import SensitivityN
from support.real import loader, photographs
from support.torchvision_ops import define

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compared(test_data):
    """Photographs explained by Grad-CAM, and by random numbers of the same size."""
    from cnnviz_torch.model import wrap

    define()
    weights = loader(test_data)
    model = wrap(weights.torch_model("squeezenet1_1"), input_shape=(224, 224, 3))
    pixels, labels, _ = photographs(test_data, 4)
    x = weights.preprocess("squeezenet1_1", pixels)
    explainer = get_registry().explainer("grad-cam")
    maps = explainer.explain(model, x, [Predicted()] * len(x))
    random = np.random.default_rng(0).random(maps.raw.shape).astype(maps.raw.dtype)
    annotations = tuple(Annotation(int(label)) for label in labels)
    return [
        Explained(model, explainer, x, made, annotations)
        for made in (maps, dataclasses.replace(maps, raw=random))
    ]


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        (Deletion(), -1),
        (Insertion(), 1),
        (AverageDrop(), -1),
        (AverageDrop("top-half"), -1),
        (AverageDrop("imputed"), -1),
        (AverageGain(), 1),
        (ROAD(3), 1),
        (MuFidelity(samples=24), 1),
        (SensitivityN(sizes=2, samples=12), 1),
    ],
    ids=lambda value: "" if isinstance(value, int) else type(value).__name__,
)
def test_grad_cam_is_better_than_chance(compared, metric, sign):
    grad_cam, chance = (
        next(iter(metric.summarise(metric.measure(explained)).values())) for explained in compared
    )
    assert sign * (grad_cam - chance) > 0
