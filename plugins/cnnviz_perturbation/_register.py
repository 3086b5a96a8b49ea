"""Announces the perturbation methods."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec


@hookimpl
def cnnviz_explainers() -> list[ExplainerSpec]:
    """Announce the perturbation methods."""
    return [
        ExplainerSpec(
            name="occlusion",
            target="cnnviz_perturbation.occlusion:Occlusion",
            summary="Drop of the score when a window of the picture is covered",
            family="perturbation",
            needs=frozenset(),
            references=(
                "Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
            ),
            aliases=("occlusion-sensitivity",),
            cost="1 forward a position of the window",
        ),
    ]
