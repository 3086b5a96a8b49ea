"""Networks on PyTorch, on the processor or on the first CUDA device."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.torchvision_ops import define

define()

import torchvision  # noqa: E402

import cnnviz  # noqa: E402
from benchmarks import memory  # noqa: E402
from benchmarks.case import Case, picture  # noqa: E402
from benchmarks.work import Work  # noqa: E402

_LAYERS = {
    "nothing": ("", ""),
    "small": ("relu3", "relu2"),
    "squeezenet1_0": ("features.12", "features.7"),
    "squeezenet1_1": ("features.12", "features.7"),
    "mobilenet_v2": ("features.18", "features.14"),
    "resnet18": ("layer4", "layer3"),
    "resnet50": ("layer4", "layer3"),
    "densenet121": ("features", "features.transition2"),
    "vgg16": ("features.29", "features.22"),
}
"""Of each network the layer for class activation maps, and one in the middle."""


class TorchRoom:
    """PyTorch with its device; see `benchmarks.room.Room`."""

    framework = "torch"
    version = str(torch.__version__)

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if self._on_gpu else "cpu")
        self.device = torch.cuda.get_device_name() if self._on_gpu else "CPU"

    def networks(self) -> tuple[str, ...]:
        """Name the networks that there are."""
        return tuple(_LAYERS)

    def case(self, network: str, work: Work, batch: int = 1) -> Case:
        """Make a network and a batch; see `Room.case`."""
        net = _network(network).to(self._device)
        x = picture(batch, work.side)
        tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(self._device)

        def forward() -> object:
            with torch.no_grad():
                return net(tensor)

        shape = (work.side, work.side, 3)
        wrapped = cnnviz.wrap(net, input_shape=shape, name=network)
        return Case(network, net, wrapped, *_LAYERS[network], x, tensor, forward, work)

    def clock(self) -> float:
        """Tell the time, when the device has done all that it was asked; see `Room.clock`."""
        if not self._on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def growth(self, run: Callable[[], Any]) -> float:
        """Tell how much memory something takes; see `Room.growth`."""
        if not self._on_gpu:
            return memory.growth(run)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


class _Nothing(nn.Module):
    """A network that costs nothing: scores of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(3, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score (N, 3, H, W)."""
        return self.scores(x[:, :, 0, 0])


def _small() -> nn.Module:
    """Make three convolutions, and a linear layer."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 16, 3, 2, 1),
            norm1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, 2, 1),
            norm2=nn.BatchNorm2d(32),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 32, 3, 1, 1),
            relu3=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            scores=nn.Linear(32, 1000),
        )
    )


def _network(name: str) -> nn.Module:
    """Make a network, with the same weights each time."""
    torch.manual_seed(0)
    own = {"nothing": _Nothing, "small": _small}
    if name in own:
        return own[name]().eval()
    return torchvision.models.get_model(name, weights=None).eval()
