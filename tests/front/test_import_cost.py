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


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_nothing_heavy_is_loaded(statement):
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in HEAVY if name in loaded] == []


def test_bare_import_is_bare():
    code = "import cnnviz, sys; print('numpy' in sys.modules, 'click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_public_name_exists():
    import cnnviz

    for name in cnnviz.__all__:
        assert getattr(cnnviz, name) is not None
    assert set(cnnviz.__all__) <= set(dir(cnnviz))
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        cnnviz.explian  # noqa: B018
