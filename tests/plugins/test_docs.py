"""The code in the docs is true."""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path

import pytest

from cnnviz_core.parameters import build, parameters_of
from cnnviz_core.registry import get_registry, import_string
from cnnviz_core.testing import inspectors
from cnnviz_core.testing.explainers import CHECKS

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.S)


def run(page, name):
    """Run a page's code, as the module that it names."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    for block in blocks(page):
        exec(compile(block, page, "exec"), vars(made))
    yield made
    del sys.modules[name]


@pytest.fixture(scope="module")
def module():
    yield from run("explainers.md", "cnnviz_edge")


@pytest.fixture(scope="module")
def inspecting():
    yield from run("inspectors.md", "cnnviz_silence")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_explainer_of_the_page_passes_the_checks(module, check):
    check(build(module.EdgeCAM, {"power": 2.0}))


def test_the_page_announces_what_it_defines(module):
    (spec,) = module.cnnviz_explainers()
    assert import_string(spec.target) is module.EdgeCAM
    assert spec.needs == module.EdgeCAM.needs


@pytest.mark.parametrize("check", inspectors.CHECKS, ids=lambda c: c.__name__)
def test_the_inspector_of_the_page_passes_the_checks(inspecting, check):
    check(build(inspecting.Silence, {"layer": "conv1"}))


def test_the_inspectors_page_announces_what_it_defines(inspecting):
    (spec,) = inspecting.cnnviz_inspectors()
    assert import_string(spec.target) is inspecting.Silence
    assert spec.needs == inspecting.Silence.needs


def test_the_backends_page_compiles():
    for block in blocks("backends.md"):
        compile(block, "backends.md", "exec")


@pytest.mark.parametrize("name", list(get_registry().explainers))
def test_every_method_has_a_line_on_its_familys_page(name):
    family = get_registry().spec(name).family
    assert f"`{name}`" in (DOCS / f"{family}.md").read_text()


@pytest.mark.parametrize("name", list(get_registry().inspectors))
def test_every_inspector_has_its_part_on_the_page(name):
    text = (DOCS / "inside.md").read_text()
    assert f'"{name}"' in text
    assert f"cnnviz {name} " in text


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_pages_name_only_what_there_is(page):
    text = (DOCS / page).read_text()
    for block in blocks(page):
        compile(block, page, "exec")
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text, flags=re.S):
        assert (DOCS / picture).is_file(), picture
    for link in re.findall(r"[^!]\[[^\]]*\]\(([^)#:]+)\)", text):
        assert (DOCS / link).is_file(), link
    code = "\n".join(blocks(page))
    methods = re.findall(r'(?:explain\(net, [\w".]+, |\bof=)"([^"]+)"', code)
    for method in methods:
        get_registry().configured(method)


FRONT = {"layer", "target", "truth", "labels", "preprocess"}
"""What `inspect` takes beside an inspector's own parameters."""


@pytest.mark.parametrize("page", ["docs/inside.md", "README.md"])
def test_inspectors_are_shown_with_parameters_that_they_have(page):
    text = (DOCS.parent / page).read_text()
    calls = [
        call
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.S)
        for call in ast.walk(ast.parse(block))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "inspect"
    ]
    assert calls
    for call in calls:
        name = ast.literal_eval(call.args[1])
        own = {k.arg: k.value for k in call.keywords if k.arg not in FRONT}
        known = {p.name for p in parameters_of(get_registry().inspector_class(name))}
        assert own.keys() <= known, name
        given = {k: v.value for k, v in own.items() if isinstance(v, ast.Constant)}
        get_registry().inspector(name, **given)
        asked = {k.arg for k in call.keywords} - own.keys()
        assert "layer" not in asked or "layer" in known
        assert "target" not in asked or get_registry().inspector_spec(name).targeted
