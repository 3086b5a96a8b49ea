"""``cnnviz layers``: a network's layers."""

from __future__ import annotations

from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz.cli.options import input_shape_option, open_network

__all__ = ["command"]


@click.command("layers", cls=Command)
@click.argument("model", metavar="MODEL")
@click.option("--backend", metavar="NAME", help="Which backend loads the network.")
@input_shape_option
@json_option
def command(model: str, backend: str | None, input_shape: str | None, as_document: bool) -> None:
    """List the layers of MODEL (torchvision:resnet50, a file, demo, ...), in forward order."""
    from cnnviz.listing import layers

    network = open_network(model, backend, None, None, input_shape)
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
