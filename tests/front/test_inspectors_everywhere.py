"""Every inspector on networks of every kind: a sheet, or an error that says why there is none."""

from __future__ import annotations

import pytest

import cnnviz
from cnnviz_core.errors import CnnvizError
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.inspectors import BRIEF

INSPECTORS = get_registry().inspectors

PICTURES_ONLY = {
    "projections",
    "maximisation",
    "class-model",
    "inversion",
    "dream",
    "invariance",
    "occlusion-analysis",
    "errors",
}
REFUSED = {
    *((net, name) for net in ("signal", "volume") for name in PICTURES_ONLY),
    ("swish", "projections"),
}


def shown(net, spec):
    """Give what an inspector looks at; of several inputs all but the first are shared."""
    first, *others = random_input(net, 2, seed=1).items()
    if spec.shown == "nothing":
        return {}
    truth = {"truth": [0, 1]} if spec.shown == "labelled pictures" else {}
    x = dict([first, *((name, values[:1]) for name, values in others)]) if others else first[1]
    return {"images": x, "preprocessed": True, **truth}


@pytest.mark.parametrize("name", list(INSPECTORS))
@pytest.mark.parametrize("net", list(NETS))
def test_a_sheet_or_a_reason(net, name):
    spec = NETS[net]()
    ask = {**shown(spec, INSPECTORS[name]), **BRIEF.get(name, {})}
    if (net, name) in REFUSED:
        with pytest.raises(CnnvizError) as refusal:
            cnnviz.inspect(ReferenceModel(spec), name, **ask)
        assert refusal.value.remedy
        return
    found = cnnviz.inspect(ReferenceModel(spec), name, **ask)
    assert found.exhibits
    assert found.figure().axes
