"""What is listed: inspectors, as methods and layers are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cnnviz.listing import InspectorInfo, inspectors, plugin_of, usual_inspector
from cnnviz_core.errors import UnknownMethodError
from cnnviz_core.parameters import parameters_of
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.explainers import Offering


def test_inspectors_are_records_that_print_as_a_table():
    listed = inspectors()
    assert [i.name for i in listed] == list(get_registry().inspectors)
    assert all(isinstance(i, InspectorInfo) for i in listed)
    lines = repr(listed).splitlines()
    assert lines[0].split()[0] == "inspector"
    assert [line.split()[0] for line in lines[1:]] == [i.name for i in listed]
    assert "<td>filters</td>" in listed._repr_html_()


def test_a_record_says_what_was_announced():
    found = next(i for i in inspectors() if i.name == "dream")
    spec = get_registry().inspectors["dream"]
    assert (found.summary, found.shown, found.cost) == (spec.summary, spec.shown, spec.cost)
    assert found.targeted
    assert found.needs == ("capture", "gradient")
    assert "deepdream" in found.aliases
    assert found.distribution == "cnnviz"
    assert found.parameters == parameters_of(get_registry().inspector_class("dream"))


def test_only_what_can_look_at_a_network(model):
    offering = Offering(model, frozenset({"capture"}))
    names = {i.name for i in inspectors(offering)}
    assert {"features", "invariance", "errors"} <= names
    assert not {"filters", "dream", "projections"} & names
    assert {i.name for i in inspectors(model)} > names


def test_the_usual_name_and_the_plugin():
    assert usual_inspector("Feature_Maps") == "features"
    with pytest.raises(UnknownMethodError, match="cnnviz inspectors"):
        usual_inspector("grad-cam")
    assert plugin_of("features", "inspectors").entry_point == "features"
    assert plugin_of("features") is None
    assert plugin_of("grad-cam").entry_point == "cam"


@pytest.mark.parametrize(
    "statement",
    [
        "import cnnviz.listing; repr(cnnviz.listing.inspectors())",
        "from cnnviz.cli import main; main(['--help'], standalone_mode=False)",
        "from cnnviz.cli import main; main(['inspect', '--help'], standalone_mode=False)",
        "from cnnviz.cli import main; main(['inspectors'], standalone_mode=False)",
    ],
)
def test_listing_imports_no_inspector(statement):
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {name for name in loaded if name.startswith("cnnviz_features")} == {
        "cnnviz_features",
        "cnnviz_features._register",
    }
    assert not {"torch", "tensorflow", "matplotlib", "PIL", "skimage", "scipy"} & loaded
