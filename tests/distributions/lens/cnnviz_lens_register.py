"""Announces the inspectors."""

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import InspectorSpec


@hookimpl
def cnnviz_inspectors():
    """Announce a sound one, one that is called like a command of cnnviz, and one that is lost."""
    return [
        InspectorSpec(
            name="strength",
            target="cnnviz_lens:Strength",
            summary="How strongly a layer answers, by a stranger",
            needs=frozenset({"capture"}),
            shown="pictures",
            references=("A stranger, Lenses, Journal of Strangers 2026",),
            aliases=("layer-strength",),
            cost="1 forward a picture",
        ),
        InspectorSpec(
            name="layers",
            target="cnnviz_lens:LayerCount",
            summary="How many layers there are, by a stranger",
            needs=frozenset(),
            shown="nothing",
        ),
        InspectorSpec(
            name="shards",
            target="cnnviz_lens_lost:Shards",
            summary="Of a module that is not there",
            needs=frozenset(),
            shown="nothing",
        ),
    ]
