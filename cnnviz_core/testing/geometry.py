"""What the operations of a `NetSpec` read."""

from __future__ import annotations

from collections.abc import Mapping

from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.sketch import Sketch
from cnnviz_core.spatial import Geometry, Window

__all__ = ["geometry_of"]


def geometry_of(net: NetSpec, source: str, nodes: Mapping[str, str]) -> Geometry:
    """Tell which places a network's operations read.

    Parameters
    ----------
    net : NetSpec
        The network.
    source : str
        One of its inputs.
    nodes : mapping of str to str
        For each node that is asked for, the name of its result.

    Returns
    -------
    Geometry
    """
    sketch = Sketch(net.inputs[source][:-1])
    shapes = net.shapes()
    made = {source: 0}
    for op in net.ops:
        below = [made[name] for name in op.inputs if name in made]
        if below:
            made[op.name] = _step(net, op, sketch, below, shapes[op.name][:-1])
    return Geometry(
        tuple(sketch.steps), {node: made[name] for node, name in nodes.items() if name in made}
    )


def _step(net: NetSpec, op: Op, sketch: Sketch, below: list[int], grid: tuple[int, ...]) -> int:
    """Add an operation's step."""
    match op.kind:
        case "gap" | "flatten":
            return sketch.mix(below, operation=op.name)
        case "conv" | "maxpool" | "avgpool":
            conv = op.kind == "conv"
            shape = net.parameters[f"{op.layer}.weight"].shape[:-2] if conv else op.attrs["window"]
            nothing = ((0, 0),) * len(shape)
            windows = [
                Window(size, stride, dilation, before)
                for size, stride, dilation, (before, _) in zip(
                    shape,
                    op.attrs["stride"],
                    op.attrs.get("dilation", (1,) * len(shape)),
                    op.attrs.get("padding", nothing),
                    strict=True,
                )
            ]
            return sketch.add("conv" if conv else "pool", grid, below, windows, op.name)
        case _:
            return sketch.same(below, op.name)
