"""What importing and listing costs: neither frameworks nor matplotlib are loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "tensorflow",
    "keras",
    "matplotlib",
    "PIL",
    "skimage",
    "scipy",
    "jinja2",
    "xarray",
)

STATEMENTS = {
    "import": "import cnnviz",
    "names": "import cnnviz; cnnviz.explain, cnnviz.Explanation, cnnviz.compare, cnnviz.wrap",
    "methods": "import cnnviz; repr(cnnviz.methods())",
    "inspectors": "import cnnviz; repr(cnnviz.inspectors())",
    "parameters": "import cnnviz; [m.parameters for m in cnnviz.methods()]",
    "command": "from cnnviz.cli import main; main(['methods'], standalone_mode=False)",
    "inspecting": "from cnnviz.cli import main; main(['inspectors'], standalone_mode=False)",
    "help": "from cnnviz.cli import main; main(['--help'], standalone_mode=False)",
    "doctor": "from cnnviz.cli import main; main(['doctor'], standalone_mode=False)",
}

EXPLAINING = """
import cnnviz, numpy
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
x = numpy.random.default_rng(0).random((1, 12, 9, 3), dtype="float32")
explained = cnnviz.explain(ReferenceModel(NETS["plain"]()), x, "grad-cam", preprocess=None)
"""


def loaded_after(statement):
    """Run a statement in a process of its own, and list the modules that are loaded then."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_nothing_heavy_is_loaded(statement):
    loaded = loaded_after(statement)
    assert [name for name in HEAVY if name in loaded] == []


def test_an_explanation_loads_pillow_at_most():
    loaded = loaded_after(EXPLAINING)
    assert {name for name in (*HEAVY, "click", "rich") if name in loaded} <= {"PIL"}


def test_boxes_are_found_without_scikit_image():
    loaded = loaded_after(f"{EXPLAINING}\nassert len(explained.boxes()[0])")
    assert "skimage" not in loaded


def test_bare_import_is_bare():
    added = set(loaded_after("import cnnviz")) - set(loaded_after(""))
    packages = {name.split(".")[0] for name in added}
    assert packages - sys.stdlib_module_names == {"cnnviz"}
    assert not added & {"importlib.metadata", "dataclasses", "inspect"}


def test_every_public_name_exists():
    import cnnviz

    for name in cnnviz.__all__:
        assert getattr(cnnviz, name) is not None
    assert set(cnnviz.__all__) <= set(dir(cnnviz))
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        cnnviz.explian  # noqa: B018
