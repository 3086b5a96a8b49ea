"""``cnnviz layers``: a network's layers."""

from __future__ import annotations

from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz_core.errors import ParameterError

__all__ = ["command"]


@click.command("layers", cls=Command)
@click.argument("model", metavar="MODEL")
@click.option("--backend", metavar="NAME", help="Which backend loads the network.")
@click.option(
    "--input-shape",
    metavar="H,W,C",
    help="The input's shape, where the network does not tell: 224,224,3.",
)
@json_option
def command(model: str, backend: str | None, input_shape: str | None, as_document: bool) -> None:
    """List the layers of MODEL (torchvision:resnet50, a file, demo, ...), in forward order."""
    from cnnviz.listing import layers
    from cnnviz.network import wrap
    from cnnviz.sources import load

    network = load(model, backend=backend)
    if input_shape is not None:
        network = wrap(network, input_shape=_shape(input_shape))
    listed = layers(network)
    if as_document:
        records = [_record(info, cells) for info, cells in zip(listed, listed.cells, strict=True)]
        as_json({"model": network.name, "framework": network.model.framework, "layers": records})
        return
    print_table(listed.columns, listed.cells, title=f"{network.name} ({network.model.framework})")
    click.echo(
        "layer=auto is the last layer with a spatial grid; layer=-1 the last of this list; "
        "layer='layer4.*' the last with a grid of those that match."
    )


def _shape(text: str) -> tuple[int, ...]:
    """Read a shape."""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ParameterError(
            f"--input-shape is {text!r}", "whole numbers of at least 1", "write 224,224,3"
        )
    return shape


def _record(info: Any, cells: tuple[str, ...]) -> dict[str, Any]:
    """Give a layer as JSON values."""
    return {
        "name": info.name,
        "from_the_end": int(cells[0]),
        "type": info.type,
        "kind": info.kind,
        "shape": info.shape,
        "grid": info.grid,
        "calls": info.calls,
        "auto": cells[-1] == "auto",
    }
