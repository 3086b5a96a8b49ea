"""A rule of relevance as a stranger would write it: data, and no line of code in a backend."""

from cnnviz_core.rules import relevance_rule
from cnnviz_core.steps import LinearStep, Power, Share, Term

magnitude = relevance_rule(
    "magnitude", LinearStep((Share((Term(Power(1.0), Power(1.0), bias=None),)),))
)
