"""What methods take at the places of scales."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from benchmarks.measuring import Patience, Spent, measured
from benchmarks.room import Room, open_room
from benchmarks.scaling.scales import SCALES, Place, Scale
from benchmarks.tables import about

BARE: Final = "plain forward pass"

_NETWORKS: Final = {
    "torch": ("mobilenet_v2", "squeezenet1_1"),
    "tensorflow": ("mobilenet_v2", "resnet50"),
}


@dataclass(frozen=True)
class Point:
    """What one method took at one place of a scale.

    Attributes
    ----------
    scale, network, method : str
    place : float
        Where on the scale.
    label : str
        What the table calls the place.
    ms : float
    cost : float
        In plain forward passes of the same batch.
    mib : float or None
        The most memory that it took, if that is known.
    """

    scale: str
    network: str
    method: str
    place: float
    label: str
    ms: float
    cost: float
    mib: float | None


@dataclass(frozen=True)
class Chosen:
    """What is measured.

    Attributes
    ----------
    framework : {"torch", "tensorflow"}
    scales, networks : collection of str
        Empty for all scales, and for the framework's two networks.
    threads : int
        For the record.
    quick : bool
        Whether it is the ends of the scales only, with a small network.
    """

    framework: str
    scales: Collection[str] = ()
    networks: Collection[str] = ()
    threads: int = 1
    quick: bool = False


def measured_points(chosen: Chosen, patience: Patience) -> dict[str, Any]:
    """Measure all scales with all networks, and print each point.

    Parameters
    ----------
    chosen : Chosen
    patience : Patience

    Returns
    -------
    dict
        What was measured on what, as `benchmarks.tables.about` says it, and the ``points``.
    """
    unknown = [name for name in chosen.scales if name not in SCALES]
    if unknown:
        raise SystemExit(f"no scale {', '.join(unknown)}; there are {', '.join(SCALES)}")
    room = open_room(chosen.framework)
    networks = ("small",) if chosen.quick else chosen.networks or _NETWORKS[chosen.framework]
    points = []
    for name in chosen.scales or SCALES:
        scale = SCALES[name]
        ends = (scale.places[0], scale.places[-1])
        shown = replace(scale, places=ends) if chosen.quick else scale
        for network in networks:
            for point in _points(shown, network, room, patience):
                print(_line(point), flush=True)
                points.append(asdict(point))
    return {**about(room, {}, chosen.threads), "points": points}


def _points(scale: Scale, network: str, room: Room, patience: Patience) -> Iterator[Point]:
    """Measure one scale with one network."""
    shown: set[str] = set()
    for place, task in scale.tasks(room, network):
        row = measured(scale.name, task, room, (), patience)
        if row.ours.why:
            raise RuntimeError(f"{task.label} on {network} at {place.label}: {row.ours.why}")
        if scale.bare and place.label not in shown:
            shown.add(place.label)
            yield _point(scale, network, place, BARE, row.forward)
        yield _point(scale, network, place, task.label, row.ours)


def _point(scale: Scale, network: str, place: Place, method: str, spent: Spent) -> Point:
    """Put together what is known of a place."""
    mib = spent.mib if math.isfinite(spent.mib) else None
    ms = 1000 * spent.seconds
    return Point(scale.name, network, method, place.at, place.label, ms, spent.cost, mib)


def _line(point: Point) -> str:
    """Say what was measured, while the rest is."""
    mib = "" if point.mib is None else f"{point.mib:9.1f} MiB"
    return (
        f"{point.scale:10} {point.network:14} {point.method:20} {point.label:>20} "
        f"{point.ms:10.1f} ms {point.cost:9.2f} passes {mib}"
    )
