"""A layer given as an object is found where the network calls it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.importing import import_string
from cnnviz_core.registry import get_registry
from cnnviz_torch.model import wrap
from cnnviz_torch.paths import path_of
from support.torch_nets import Residual, Vgg, native, picture, seeded


@pytest.mark.parametrize("make", [Residual, Vgg])
def test_every_module_has_the_path_of_its_layer(make):
    net = seeded(make)
    layers = wrap(net, input_shape=(12, 10, 3)).layers
    found = {path_of(net, module) for module in net.modules()} - {None}
    assert found >= {info.path for info in layers.values()}
    for name, module in net.named_modules():
        assert path_of(net, module) == (name or None)


def test_the_path_leads_to_the_layers_value():
    net, x = seeded(Vgg), picture()
    layer = net.features[-2]
    path = path_of(net, layer)
    seen = []
    handle = layer.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
    net(native(x))
    handle.remove()
    found = wrap(net).forward(x, capture=[path])[path]
    np.testing.assert_allclose(found, seen[0].detach().movedim(1, -1), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own compiler's
def test_wrapped_networks_and_wrapped_layers():
    net = seeded(Vgg)
    for whole in (nn.DataParallel(net), torch.compile(net), nn.DataParallel(torch.compile(net))):
        assert path_of(whole, net.features[2]) == "features.2"
        assert path_of(whole, torch.compile(net.features[2])) == "features.2"
        assert path_of(whole, whole) is None
    compiled = nn.Sequential(nn.Conv2d(3, 4, 3), torch.compile(nn.Conv2d(4, 4, 3)))
    assert path_of(compiled, compiled[1]) == path_of(compiled, compiled[1]._orig_mod) == "1"
    assert path_of(compiled, compiled[1]) in wrap(compiled, input_shape=(9, 9, 3)).layers
    parallel = nn.Sequential(nn.Conv2d(3, 4, 3), nn.DataParallel(nn.Conv2d(4, 4, 3)))
    assert path_of(parallel, parallel[1]) == "1"
    assert path_of(parallel, parallel[1].module) == "1.module"


def test_a_module_that_stands_in_two_places_has_the_first():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    layers = wrap(net, input_shape=(5, 5, 3)).layers
    assert path_of(net, layer) == "0"
    assert [name for name, info in layers.items() if info.path == "0"] == ["0@0", "0@1"]


def test_what_is_no_layer_of_the_network():
    net = seeded(Vgg)
    twin = seeded(Vgg)
    program = torch.export.export(net, (native(picture()),))
    assert path_of(net, net) is None
    assert path_of(net, twin.features[0]) is None
    assert path_of(net, nn.ReLU()) is None
    assert path_of(net, "features.0") is None
    assert path_of(net, net.features[0].weight) is None
    assert path_of(program, net.features[0]) is None


def test_the_backend_announces_it():
    net = seeded(Vgg)
    spec = get_registry().backend_of(net)
    assert import_string(spec.path_of)(net, net.features[0]) == "features.0"
