"""The code in the docs is true."""

from __future__ import annotations

import ast
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.demo import network, scenes
from cnnviz_core.importing import import_string
from cnnviz_core.model import INPUT
from cnnviz_core.parameters import build, parameters_of
from cnnviz_core.registry import get_registry
from cnnviz_core.testing import inspectors, rules
from cnnviz_core.testing.explainers import CHECKS
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, heading=""):
    """Give a page's code, or only that from a heading on."""
    text = (DOCS / page).read_text()
    return re.findall(r"```python\n(.*?)```", text[text.index(heading) :], flags=re.S)


def run(page, name, heading=""):
    """Run a page's code, as the module that it names."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    for block in blocks(page, heading):
        exec(compile(block, page, "exec"), vars(made))
    yield made
    del sys.modules[name]


@pytest.fixture(scope="module")
def module():
    yield from run("explainers.md", "cnnviz_edge")


@pytest.fixture(scope="module")
def inspecting():
    yield from run("inspectors.md", "cnnviz_silence")


@pytest.fixture(scope="module")
def ruling():
    yield from run("relevance.md", "cnnviz_magnitude", "## A rule of your own")


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


@pytest.mark.parametrize("check", rules.CHECKS, ids=lambda c: c.__name__)
def test_the_rule_of_the_page_passes_the_checks(ruling, check):
    check(ruling.MAGNITUDE, rules.REFERENCE)


def test_the_relevance_page_announces_what_it_defines(ruling):
    (spec,) = ruling.cnnviz_rules()
    assert import_string(spec.target) is ruling.MAGNITUDE
    assert spec.name == ruling.MAGNITUDE.name


def test_the_rule_of_the_page_is_what_the_page_says(ruling):
    """Of one neuron of a convolution: in proportion to the magnitude of contributions."""
    model = ReferenceModel(NETS["plain"](), "float64")
    x = np.random.default_rng(0).normal(size=(1, 12, 9, 3))
    values = model.forward(x, capture=["pool1", "conv2"]).values
    neuron = np.zeros_like(values["conv2"])
    neuron[0, 3, 2, 1] = 1.0
    found = model.pullback(x, neuron, of="conv2", wrt=["pool1", INPUT], rule=ruling.MAGNITUDE)
    weight = model.parameters("conv2")["weight"][..., 1]
    share = np.zeros_like(values["pool1"])
    share[0, 2:5, 1:4] = np.abs(values["pool1"][0, 2:5, 1:4] * weight)
    np.testing.assert_allclose(found.gradients["pool1"], share / share.sum(), atol=1e-9)
    # The first layer hands down evenly, to every colour alike.
    colours = found.gradients[INPUT]
    np.testing.assert_allclose(colours, np.repeat(colours[..., :1], 3, axis=-1), atol=1e-12)


def test_relevance_adds_up_as_the_page_says(tmp_path, monkeypatch):
    (block,) = blocks("relevance.md", "## Does it add up?")[:1]
    monkeypatch.chdir(tmp_path)
    for picture, _ in scenes()[:5]:
        Image.fromarray(picture.pixels).save("cat.jpg", quality=95)
        names = {"cnnviz": cnnviz, "net": network("numpy")}
        exec(block, names)
        assert names["kept"] == pytest.approx(1, abs=0.02)


def test_every_composite_is_on_the_page():
    text = (DOCS / "relevance.md").read_text()
    assert all(f"`{name}`" in text for name in get_registry().rules)
    readme = (DOCS.parent / "README.md").read_text()
    assert re.findall(r"\((\w+) composites", readme) == ["twelve"]
    assert len(get_registry().rules) == 12


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
