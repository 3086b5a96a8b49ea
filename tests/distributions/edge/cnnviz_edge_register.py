"""Announces the explainer."""

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import ExplainerSpec


@hookimpl
def cnnviz_explainers():
    """Announce the explainer."""
    return [
        ExplainerSpec(
            name="edge-cam",
            target="cnnviz_edge:EdgeCAM",
            summary="Grad-CAM of the gradient's magnitude, by a stranger",
            family="cam",
            needs=frozenset({"capture", "gradient"}),
            references=("A stranger, 2026",),
        )
    ]
