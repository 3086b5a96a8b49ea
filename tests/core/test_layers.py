"""Finding a layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.layers import (
    auto_layer,
    find_layer,
    on_grid,
    resolve_layer,
    resolve_layers,
    stages,
)
from cnnviz_core.model import LayerInfo
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel


def layers(*infos):
    return {info.name: info for info in infos}


def info(name, kind="conv", grid=(4, 4), **kwargs):
    shape = (*grid, 8) if grid else (8,)
    return LayerInfo(name, kind, kind, shape, grid, path=kwargs.pop("path", name), **kwargs)


def test_auto_passes_over_pools_and_names_for_them():
    net = layers(
        info("features.0"),
        info("features.1", "relu"),
        info("features.2", "pool", (2, 2)),
        info("features", "container", (2, 2), same_as="features.2"),
        info("gap", "pool", (1, 1)),
        info("flat", "reshape", None),
        info("fc", "linear", None),
    )
    assert auto_layer(net).name == "features.1"


def test_auto_takes_the_outermost_name_of_a_block():
    net = layers(
        info("block.conv"),
        info("block.relu@1", "relu", path="block.relu"),
        info("block", "container", same_as="block.relu@1"),
        info("stage", "container", same_as="block"),
        info("pool", "pool", (1, 1)),
    )
    assert auto_layer(net).name == "stage"


def test_auto_passes_over_a_grid_of_one_position():
    assert auto_layer(layers(info("a"), info("b", grid=(1, 1)))).name == "a"


def test_auto_takes_a_transformers_layer_that_the_class_token_still_sees():
    def token(name, kind="other"):
        return info(name, kind, prefix=1)

    net = layers(
        info("patches"),
        token("block.norm1", "norm"),
        token("block.attn.qkv", "linear"),
        token("block.attn", "attention"),
        token("block.mlp", "container"),
        token("norm", "norm"),
        info("head", "linear", None),
    )
    assert auto_layer(net).name == "block.norm1"
    assert [each.name for each in stages(net)] == ["block.norm1"]
    pooled = layers(*(replace(each, prefix=0) for each in net.values()))
    assert auto_layer(pooled).name == "norm"


def test_no_grid_at_all():
    with pytest.raises(UnknownLayerError, match="spatial grid"):
        auto_layer(layers(info("fc", "linear", None)))


def test_calls_and_near_names():
    net = layers(info("conv1"), info("relu@0", path="relu"), info("relu@1", path="relu"))
    assert find_layer(net, "relu@1").name == "relu@1"
    with pytest.raises(UnknownLayerError, match="'relu@1'"):
        find_layer(net, "relu")
    with pytest.raises(UnknownLayerError, match="'conv1'"):
        find_layer(net, "conv")


def test_tokens_are_laid_out_on_the_grid():
    tokens = np.arange(2 * 7 * 3).reshape(2, 7, 3)
    token_layer = LayerInfo("block", "other", "Block", (7, 3), (2, 3), prefix=1)
    grid = on_grid(tokens, token_layer)
    assert grid.shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(grid[0, 0, 0], tokens[0, 1])
    np.testing.assert_array_equal(grid[1, 1, 2], tokens[1, 6])
    line = LayerInfo("block", "other", "Block", (7, 3), (6,), prefix=1)
    np.testing.assert_array_equal(on_grid(tokens, line), tokens[:, 1:])
    with pytest.raises(UnknownLayerError, match="no spatial grid"):
        on_grid(tokens, info("fc", "linear", None))


def test_resolve_shows_the_network_an_input_where_it_must():
    from cnnviz_core.errors import ArrayError

    net = NETS["plain"]()
    x = random_input(net)["image"]

    class Shy(ReferenceModel):
        seen = False

        @property
        def layers(self):
            if not self.seen:
                raise ArrayError("no input was seen", "one", "run it")
            return self._layers

        @layers.setter
        def layers(self, value):
            self._layers = value

        def forward(self, x, **kwargs):
            self.seen = True
            return super().forward(x, **kwargs)

    assert resolve_layer(Shy(net), "auto", x).name == "relu2"


STAGED = layers(
    info("stem", grid=(8, 6)),
    info("block1.conv", grid=(8, 6)),
    info("block1.relu", "relu", grid=(8, 6)),
    info("block1", "container", grid=(8, 6), same_as="block1.relu"),
    info("pool", "pool", grid=(4, 3)),
    info("block2.conv", grid=(4, 3)),
    info("block2.drop", "dropout", grid=(4, 3)),
    info("pad", "pad", grid=(5, 4)),
    info("gap", "pool", grid=(1, 1)),
    info("fc", "linear", None),
)


class Staged:
    layers = STAGED


def test_a_pattern_means_the_last_that_matches_and_has_a_grid():
    assert find_layer(STAGED, "block1.*").name == "block1.relu"
    assert find_layer(STAGED, "block?").name == "block1"
    assert find_layer(STAGED, "*").name == "block2.conv"
    with pytest.raises(UnknownLayerError, match="matches"):
        find_layer(STAGED, "layer*")
    with pytest.raises(UnknownLayerError, match="grid"):
        find_layer(STAGED, "f*")


def test_negative_positions_count_from_the_end():
    assert find_layer(STAGED, "-1").name == "fc"
    assert find_layer(STAGED, "-5").name == "block2.conv"
    for beyond in ("-11", "-0"):
        with pytest.raises(UnknownLayerError, match="from -1"):
            find_layer(STAGED, beyond)


def test_a_name_goes_before_a_position_or_a_pattern():
    odd = layers(info("a*"), info("-1"), info("b"))
    assert find_layer(odd, "a*").name == "a*"
    assert find_layer(odd, "-1").name == "-1"


def test_stages_are_the_last_layers_of_each_resolution():
    assert [each.name for each in stages(STAGED)] == ["block1", "block2.conv"]


def test_several_layers():
    def names(layer):
        return [each.name for each in resolve_layers(Staged(), layer, np.zeros(1))]

    assert names("auto") == ["block1", "block2.conv"]
    assert names("block2.conv, stem") == ["stem", "block2.conv"]
    # Of two names for one value the last stays.
    assert names("block1*") == ["block1.conv", "block1"]
    assert names("-5,stem,stem") == ["stem", "block2.conv"]
    for missing in ("stem, nothing", "nothing*", "", "fc*"):
        with pytest.raises(UnknownLayerError):
            names(missing)
