"""Announces the rule."""

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import RuleSpec


@hookimpl
def cnnviz_rules():
    """Announce the rule."""
    return [
        RuleSpec(
            name="magnitude",
            target="cnnviz_shares:magnitude",
            summary="By the magnitude of contributions, by a stranger",
            references=("A stranger, Shares, Journal of Strangers 2026",),
            aliases=("sign-blind",),
        )
    ]
