"""Small torch networks, and an independent look at their derivatives."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT, LOGITS


class Residual(nn.Module):
    """Two convolutions around which the input is added in place; in-place and reused ReLU."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        x = F.avg_pool2d(self.relu(self.stem(x)), 2)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.head(self.relu(out).mean((2, 3)))


class Vgg(nn.Module):
    """Convolutions, ReLUs and non-overlapping pools; a flattened head made with ``view``."""

    def __init__(self, inplace=True):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(inplace),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * 3 * 2, 7), nn.ReLU(inplace), nn.Dropout(), nn.Linear(7, 4)
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


def seeded(make, *args, seed=0, dtype=torch.float64, **kwargs):
    """Make a network with weights from a seed, and statistics that are not trivial."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = make(*args, **kwargs)
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
    return net.to(dtype).eval()


def picture(n=2, size=(12, 10), channels=3, seed=0, dtype=np.float64):
    """Draw a batch of pictures, channels last."""
    return np.random.default_rng(seed).normal(size=(n, *size, channels)).astype(dtype)


def native(x):
    """Give a batch as torch has it."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def assert_gradients_are_slopes(model, x, nodes, *, of=LOGITS, seed=1, rtol=1e-6, step=1e-6):
    """Compare a pullback with central differences, for networks that compute in float64."""
    rng = np.random.default_rng(seed)
    capture = [of, *(n for n in nodes if n != INPUT)]
    start = model.forward(x, capture=capture)
    cotangent = rng.normal(size=start[of].shape)
    back = model.pullback(x, cotangent, of=of, wrt=nodes)
    for node in nodes:
        direction = rng.normal(size=back.gradients[node].shape)
        ends = []
        for sign in (step, -step):
            if node == INPUT:
                end = model.forward(x + sign * direction, capture=[of])
            else:
                moved = start[node] + sign * direction
                end = model.forward(x, capture=[of], replace={node: moved})
            ends.append((cotangent * end[of]).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        found = (back.gradients[node] * direction).sum()
        assert slope != 0
        assert abs(found - slope) <= rtol * abs(slope), f"{node}: {found}, slope {slope}"
