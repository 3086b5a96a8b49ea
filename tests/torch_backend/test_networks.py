"""Networks of every kind that torch knows: compiled, exported, scripted; of all ranks and types."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.layers import auto_layer
from cnnviz_core.model import INPUT, OUTPUT
from cnnviz_core.rules import GUIDED
from cnnviz_torch.accepts import accepts
from cnnviz_torch.model import wrap
from support.torch_nets import (
    Residual,
    Vgg,
    assert_gradients_are_slopes,
    native,
    picture,
    seeded,
)


def equal_pullbacks(model, other, x, nodes, rule=GUIDED):
    """Check that two models agree to the last bit."""
    a, b = (m.pullback(x, np.ones_like, wrt=nodes, rule=rule) for m in (model, other))
    for node in nodes:
        np.testing.assert_array_equal(a.gradients[node], b.gradients[node])
    np.testing.assert_array_equal(a.values[OUTPUT], b.values[OUTPUT])


# -------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    "thing",
    [lambda x: x, torch.nn.functional.relu, np.zeros(3), "resnet50", torch.zeros(2), nn.Conv2d],
    ids=["function", "torch function", "array", "text", "tensor", "class"],
)
def test_what_is_no_network_is_refused(thing):
    assert not accepts(thing)
    with pytest.raises(UnsupportedModelError, match="not a network of PyTorch"):
        wrap(thing)


def test_keras_layers_on_the_torch_engine_are_left_to_keras():
    base = type("Layer", (nn.Module,), {"__module__": "keras.src.layers.layer"})
    assert not accepts(type("Mine", (base,), {})())
    assert accepts(type("Mine", (nn.Module,), {})())


def test_parameters_without_values_are_refused():
    with torch.device("meta"):
        net = Residual()
    with pytest.raises(UnsupportedModelError, match="no values"):
        wrap(net)
    with pytest.raises(UnsupportedModelError, match="no values"):
        wrap(nn.Sequential(nn.LazyConv2d(3, 3)))


def test_batch_statistics_in_evaluation_are_warned_of():
    with pytest.warns(UserWarning, match="running statistics"):
        wrap(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))


# -------------------------------------------------------------------- what is found out


def test_nothing_is_known_of_the_layers_before_the_first_input():
    model = wrap(seeded(Residual))
    assert model.inputs["x"].shape is None
    with pytest.raises(ArrayError, match="input_shape"):
        _ = model.layers
    model.forward(picture(1, (9, 7)))
    assert model.layers["stem"].shape == (9, 7, 6)
    model.forward(picture(1, (12, 10)))
    assert model.layers["stem"].shape == (9, 7, 6)  # of the first input seen
    assert wrap(seeded(Residual), input_shape=(8, 8, 3)).layers["stem"].grid == (8, 8)


def test_the_structure_costs_one_pass_only():
    net = seeded(Residual)
    calls = []
    net.stem.register_forward_hook(lambda *_: calls.append(1))
    model, x = wrap(net), picture()
    model.forward(x, capture=["bn1"])
    assert len(calls) == 2
    model.forward(x, capture=["bn1"])
    _ = model.layers, model.activation
    model.pullback(x, np.ones_like, wrt=["bn2"])
    assert len(calls) == 4


@pytest.mark.parametrize("spoil", [lambda x: x[..., :2], lambda x: x[..., 0], lambda x: x[0]])
def test_the_first_convolution_checks_the_input(spoil):
    net = seeded(Residual)
    with pytest.raises(ArrayError, match=r"\(N, any, any, 3\)"):
        wrap(net).forward(spoil(picture()))
    model = wrap(net)
    model.forward(picture())
    assert model.inputs["x"].shape == (None, None, 3)
    with pytest.raises(ArrayError, match=r"\(N, any, any, 3\)"):
        model.forward(spoil(picture()))


def test_a_linear_stem_checks_the_input():
    model = wrap(seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU())))
    with pytest.raises(ArrayError, match=r"\(N, 4\)"):
        model.forward(np.ones((2, 5)))
    assert model.forward(np.ones((2, 4))).output.shape == (2, 3)


def test_containers_say_whose_value_they_hand_on():
    net = seeded(
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3)), nn.Dropout()),
            nn.Flatten(),
        )
    )
    layers = wrap(net, input_shape=(7, 8, 3)).layers
    assert {name: info.same_as for name, info in layers.items()} == {
        "0.0": None,
        "0.1": None,
        "0.2": None,  # in place: the tensor of 0.1, but not its value
        "0": "0.2",
        "1.0.0": None,
        "1.0": "1.0.0",
        "1.1": None,
        "1": "1.0.0",
        "2": None,
    }
    kinds = [info.kind for info in layers.values()]
    assert kinds == ["conv", "norm", "relu", "container", "conv", "container", "dropout",
                     "container", "reshape"]  # fmt: skip


def test_auto_layer_passes_over_pooling_and_dropout():
    model = wrap(seeded(Vgg), input_shape=(12, 10, 3))
    assert auto_layer(model.layers).name == "features.6"


# -------------------------------------------------------------------- wrapped networks


def test_data_parallel():
    net = seeded(Residual)
    model = wrap(nn.DataParallel(net))
    x = picture()
    model.forward(x)
    assert "bn1" in model.layers
    equal_pullbacks(model, wrap(net), x, ["bn1", INPUT])


@pytest.fixture(scope="module")
def exported():
    """Give a network, and a program exported from it for any batch size."""
    net = seeded(Residual)
    sizes = {"x": {0: torch.export.Dim("n")}}
    program = torch.export.export(net, (native(picture(2)),), dynamic_shapes=sizes)
    return net, program


def test_exported_programs(exported):
    net, program = exported
    assert accepts(program)
    model, original = wrap(program), wrap(net, input_shape=(12, 10, 3))
    assert model.inputs["x"].shape == (12, 10, 3)
    assert model.inputs["x"].dtype == "float64"
    for name in ("stem", "conv1", "bn1", "conv2", "bn2", "head"):
        mine, theirs = model.layers[name], original.layers[name]
        assert (mine.kind, mine.type, mine.shape, mine.grid) == (
            theirs.kind,
            theirs.type,
            theirs.shape,
            theirs.grid,
        )
        for key, array in original.parameters(name).items():
            if key != "epsilon":  # a program holds it as a constant of its graph
                np.testing.assert_array_equal(model.parameters(name)[key], array)
    x = picture(3)
    a, b = (m.pullback(x, np.ones_like, wrt=["bn1", INPUT], rule=GUIDED) for m in (model, original))
    for node in ("bn1", INPUT):
        np.testing.assert_allclose(a.gradients[node], b.gradients[node], rtol=1e-9, atol=1e-14)
    assert_gradients_are_slopes(model, x, ["bn1", "conv2", INPUT])


class Scale(nn.Module):
    """Does something else at each resolution."""

    def __init__(self):
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x):
        return self.tanh(x) * x.shape[-1]


class Scaled(nn.Module):
    """Calls one layer at two resolutions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = Scale()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.scale(self.pool(self.scale(self.conv(x)))).mean((2, 3))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.parametrize("preserved", [(), ("scale",)])
def test_exported_layers_that_differ_from_call_to_call(preserved):
    net, x = seeded(Scaled), picture(1)
    program = torch.export.export(net, (native(x),), preserve_module_call_signature=preserved)
    model, original = wrap(program), wrap(net, input_shape=(12, 10, 3))
    assert list(model.layers) == list(original.layers)
    assert model.layers["scale@1"].calls == 2
    nodes = list(model.layers)
    a, b = (m.pullback(x, np.ones_like, wrt=nodes) for m in (model, original))
    for node in nodes:
        np.testing.assert_allclose(a.values[node], b.values[node], rtol=1e-12)
        np.testing.assert_allclose(a.gradients[node], b.gradients[node], rtol=1e-12)

    expected, wrong = model.forward(x).output, []

    def run():
        for _ in range(25):
            if not np.array_equal(model.forward(x).output, expected):
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_module_of_an_exported_program_offers_its_input(exported):
    net, program = exported
    equal = wrap(program.module()), wrap(net)
    a, b = (m.pullback(picture(), np.ones_like).gradients[INPUT] for m in equal)
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)


def test_programs_exported_for_one_batch_size_say_so():
    program = torch.export.export(seeded(Residual), (native(picture(1)),))
    model = wrap(program)
    assert model.layers["stem"].shape == (12, 10, 6)
    model.forward(picture(1))
    with pytest.raises(ArrayError, match="dynamic_shapes"):
        model.forward(picture(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_offers_its_input_only(how):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())).train()
    x = picture(2, (5, 4))
    scripted = torch.jit.script(net) if how == "script" else torch.jit.trace(net, native(x))
    model = wrap(scripted)
    assert model.capabilities == {"blend", "gradient"}
    assert dict(model.layers if model.forward(x) else {}) == {}
    a, b = (m.pullback(x, np.ones_like).gradients[INPUT] for m in (model, wrap(net)))
    np.testing.assert_allclose(a, b, rtol=1e-12)
    assert all(module.training for module in scripted.modules())
    for ask in (
        lambda: model.forward(x, capture=["0"]),
        lambda: model.forward(x, replace={"0": np.zeros_like}),
        lambda: model.pullback(x, np.ones_like, wrt=["0"]),
        lambda: model.pullback(x, np.ones_like, of="0"),
        lambda: model.pullback(x, np.ones_like, rule=GUIDED),
        lambda: model.parameters("0"),
    ):
        with pytest.raises(MissingCapabilityError, match="does not offer"):
            ask()


class Checkpointed(Residual):
    """Recomputes its middle part in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = checkpoint(self.middle, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))

    def middle(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


@pytest.mark.parametrize(
    "nodes",
    [["stem"], ["conv1"], ["bn1"], ["relu@2"], [INPUT], ["stem", "bn1"], [INPUT, "conv2", "bn1"]],
)
def test_checkpoints(nodes):
    model = wrap(seeded(Checkpointed, reentrant=False))
    assert_gradients_are_slopes(model, picture(), nodes)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("node", ["stem", "conv1", "bn2", INPUT])
@pytest.mark.parametrize("frozen", [False, True])
def test_reentrant_checkpoints_are_refused(node, frozen):
    model = wrap(seeded(Checkpointed, reentrant=True).requires_grad_(not frozen))
    model.forward(picture(), capture=["bn2"])
    with pytest.raises(UnsupportedModelError, match="use_reentrant=False"):
        model.pullback(picture(), np.ones_like, wrt=[node])


# -------------------------------------------------------------------- types and ranks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_float32(dtype):
    x = picture(dtype=np.float32)
    half, single = (wrap(seeded(Residual, dtype=d)) for d in (dtype, torch.float32))
    assert half.forward(x).output.dtype == np.float32
    assert half.inputs["x"].dtype == "float32"
    a, b = (m.pullback(x, np.ones_like, wrt=["bn1", INPUT]) for m in (half, single))
    unit = torch.finfo(dtype).eps
    for node in ("bn1", INPUT):
        assert a.gradients[node].dtype == np.float32
        error = np.abs(a.gradients[node] - b.gradients[node]).max()
        assert 0 < error < 20 * unit * np.abs(b.gradients[node]).max()
    back = half.forward(x, replace={"bn1": a.values["bn1"]})
    np.testing.assert_array_equal(back.output, half.forward(x).output)
    assert half.parameters("stem")["weight"].dtype == np.float32


def test_signals():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
            nn.Flatten(), nn.Linear(4, 3),
        )
    )  # fmt: skip
    model, x = wrap(net, input_shape=(13, 2)), np.random.default_rng(0).normal(size=(2, 13, 2))
    assert model.layers["0"].shape == (6, 4)
    assert model.layers["0"].grid == (6,)
    assert model.layers["5"].grid is None
    assert model.parameters("0")["weight"].shape == (3, 2, 4)
    expected = net[0](native(x)).detach().numpy()
    np.testing.assert_array_equal(model.forward(x, capture=["0"])["0"], expected.swapaxes(1, 2))
    assert_gradients_are_slopes(model, x, ["0", "2", INPUT])


def test_volumes():
    net = seeded(lambda: nn.Sequential(nn.Conv3d(2, 3, (2, 3, 1)), nn.ReLU(), nn.Flatten()))
    model, x = wrap(net), np.random.default_rng(0).normal(size=(2, 4, 5, 6, 2))
    trace = model.forward(x, capture=["0"])
    assert model.layers["0"].shape == (3, 3, 6, 3)
    assert model.layers["0"].grid == (3, 3, 6)
    assert model.parameters("0")["weight"].shape == (2, 3, 1, 2, 3)
    expected = net[0](native(x)).detach().movedim(1, -1).numpy()
    np.testing.assert_array_equal(trace["0"], expected)
    assert_gradients_are_slopes(model, x, ["0", INPUT])


class Vit(nn.Module):
    """A vision transformer with a class token and register tokens."""

    def __init__(self, prefix=1, dim=8):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.prefix = nn.Parameter(torch.zeros(1, prefix, dim))
        layer = nn.TransformerEncoderLayer(dim, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 5)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.norm(self.encoder(tokens))[:, 0])


@pytest.mark.parametrize("prefix", [1, 5])
def test_token_grids(prefix):
    net = seeded(Vit, prefix)
    model, x = wrap(net), picture(2, (12, 20))
    model.forward(x)
    layers = model.layers
    assert layers["embed"].shape == (3, 5, 8)
    for name in ("encoder.layers.0", "encoder.layers.1.norm1", "norm"):
        assert (layers[name].shape, layers[name].grid) == ((15 + prefix, 8), (3, 5))
        assert layers[name].prefix == prefix
    assert layers["head"].grid is None
    assert layers["encoder.layers.0.self_attn"].kind == "attention"
    # With a class token, the tokens on the grid say nothing any more behind the last attention.
    assert auto_layer(layers).name == ("encoder.layers.0" if prefix else "norm")
    nodes = ["encoder.layers.0", "encoder.layers.1.norm1", "embed", INPUT]
    assert_gradients_are_slopes(model, x, nodes)
    tokens = net.encoder(
        torch.cat([net.prefix.expand(2, -1, -1), net.embed(native(x)).flatten(2).mT], 1)
    )
    captured = model.forward(x, capture=["encoder"])["encoder"]
    np.testing.assert_allclose(captured, tokens.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_unrelated_sequences_have_no_grid():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 40, 3)
            self.flat = nn.Flatten(2)

        def forward(self, x):
            return self.flat(self.conv(x)).mean(2)

    layers = wrap(seeded(Net), input_shape=(6, 7, 3)).layers
    assert layers["conv"].grid == (4, 5)
    assert (layers["flat"].shape, layers["flat"].grid) == ((40, 20), None)


class Permute(nn.Module):
    """As torchvision's."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.permute(self.dims)


class ChannelsLast(nn.Module):
    """Works with the channels last in its middle, as ConvNeXt and Swin do."""

    def __init__(self, modules):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.there = Permute([0, 2, 3, 1]) if modules else lambda x: x.permute(0, 2, 3, 1)
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Linear(6, 10)
        self.gelu = nn.GELU()
        self.back = Permute([0, 3, 1, 2]) if modules else lambda x: x.permute(0, 3, 1, 2)
        self.drop = nn.Dropout()
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = self.gelu(self.wide(self.norm(self.there(self.conv(x)))))
        return self.last(self.drop(self.back(x))).mean((2, 3))


@pytest.mark.parametrize("modules", [False, True])
def test_layers_with_the_channels_last(modules):
    net, x = seeded(ChannelsLast, modules), picture(2, (6, 7))
    model = wrap(net)
    model.forward(x)
    shapes = {"conv": 6, "norm": 6, "wide": 10, "gelu": 10, "drop": 10, "last": 4}
    for name, channels in shapes.items():
        assert (model.layers[name].shape, model.layers[name].grid) == ((4, 5, channels), (4, 5))
    trace = model.forward(x, capture=list(shapes))
    np.testing.assert_array_equal(trace["gelu"], trace["drop"])
    assert_gradients_are_slopes(model, x, [*shapes, INPUT])


def test_layers_with_the_batch_elsewhere_have_no_grid():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.tiles = nn.Conv2d(3, 8, 2)
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            n = len(x)
            tiles = self.tiles(torch.cat(x.split(3, dim=2)))  # (2 n, 8, 2, 5)
            tokens = tiles.flatten(2).permute(2, 0, 1)  # (10, 2 n, 8)
            return self.norm(tokens).mean(0).unflatten(0, (2, n)).sum(0)

    model = wrap(seeded(Net), input_shape=(6, 6, 3))
    assert model.layers["tiles"].grid is None
    assert model.layers["norm"].grid is None
    assert_gradients_are_slopes(model, picture(2, (6, 6)), ["tiles", "norm", INPUT])


# -------------------------------------------------------------------- several inputs


class TwoInputs(nn.Module):
    """A picture and a vector, and an argument that may be left out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(2, 4)

    def forward(self, image, scale=1.0, *, offset=0.0, vector):
        return self.conv(image).relu().mean((2, 3)) * self.fc(vector) * scale + offset


class TwoPositional(TwoInputs):
    def forward(self, image, vector):
        return super().forward(image, vector=vector)


@pytest.mark.parametrize("declared", [False, True])
def test_two_inputs(declared):
    net = seeded(TwoPositional)
    shapes = {"image": (6, 5, 3), "vector": (2,)} if declared else None
    model = wrap(net, input_shape=shapes)
    assert list(model.inputs) == ["image", "vector"]
    x = {"image": picture(2, (6, 5)), "vector": np.random.default_rng(1).normal(size=(2, 2))}
    nodes = ["@input:vector", "@input:image", "fc", "conv"]
    back = model.pullback(x, np.ones_like, wrt=[*nodes, INPUT])
    image, vector = native(x["image"]).requires_grad_(), torch.tensor(x["vector"]).requires_grad_()
    expected = torch.autograd.grad(net(image, vector).sum(), (image, vector))
    np.testing.assert_allclose(back.gradients["@input:vector"], expected[1].numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        back.gradients["@input:image"], expected[0].movedim(1, -1).numpy(), rtol=1e-12
    )
    np.testing.assert_array_equal(back.gradients[INPUT], back.gradients["@input:image"])
    only = model.pullback(x, np.ones_like, wrt=["@input:vector"]).gradients["@input:vector"]
    np.testing.assert_allclose(only, expected[1].numpy(), rtol=1e-12)
    with pytest.raises(ArrayError, match="vector"):
        model.forward(x["image"])


def test_inputs_are_given_by_name():
    shapes = {"vector": (2,), "image": (6, 5, 3)}
    model = wrap(seeded(TwoInputs), input_shape=shapes)
    x = {"image": picture(2, (6, 5)), "vector": np.ones((2, 2))}
    expected = seeded(TwoInputs)(native(x["image"]), vector=torch.ones(2, 2).double())
    np.testing.assert_array_equal(model.forward(x).output, expected.detach().numpy())


def test_one_shape_for_two_inputs_is_refused():
    with pytest.raises(ParameterError, match="'image', 'vector'"):
        wrap(seeded(TwoPositional), input_shape=(6, 5, 3))


def test_an_optional_argument_is_the_input_where_none_is_required():
    class Net(Residual):
        def forward(self, pixel_values=None, labels=None):
            return super().forward(pixel_values)

    model = wrap(seeded(Net))
    assert list(model.inputs) == ["pixel_values"]
    assert model.forward(picture()).output.shape == (2, 5)


@pytest.mark.parametrize("output", ["nothing", 7, ("a",)])
def test_missing_outputs(output):
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with pytest.raises(ParameterError, match="no output"):
        wrap(net, output=output).forward(picture(dtype=np.float32))


def test_networks_without_a_floating_output():
    class Net(nn.Module):
        def forward(self, x):
            return {"classes": x.mean((2, 3)).argmax(1)}

    with pytest.raises(UnsupportedModelError, match="'classes'"):
        wrap(Net()).forward(picture())


def test_parametrised_layers_are_layers_and_their_parametrisations_are_not():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    plain = wrap(net).parameters("0")["weight"]
    nn.utils.parametrizations.weight_norm(net[0])
    model = wrap(net, input_shape=(5, 5, 3))
    assert list(model.layers) == ["0", "1"]
    np.testing.assert_allclose(model.parameters("0")["weight"], plain, rtol=1e-12)
    assert_gradients_are_slopes(model, picture(1, (5, 5)), ["0"])


def test_unknown_layers_without_an_input():
    model = wrap(seeded(Residual))
    with pytest.raises(UnknownLayerError, match="bn1"):
        model.forward(picture(), capture=["bn11"])
