"""Strangers' distributions add an explainer, inspectors and a rule; one raises and harms nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from cnnviz_core.errors import ParameterError
from cnnviz_core.hookspecs import GROUP
from cnnviz_core.model import INPUT
from cnnviz_core.registry import Registry, get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.testing.rules import CHECKS, backends_that_build

DISTRIBUTIONS = Path(__file__).parents[1] / "distributions"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the distributions into a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--disable-pip-version-check", "--target", target),
            *(DISTRIBUTIONS / name for name in ("edge", "lens", "shares", "broken")),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return target


@pytest.fixture
def cnnviz(installed, tmp_path):
    """Run the command with the strangers' distributions installed."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "cnnviz", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(installed), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_the_strangers_method_is_listed_with_its_parameters(cnnviz):
    done = cnnviz("methods", "--json")
    assert done.returncode == 0, done.stderr
    methods = {m["name"]: m for m in json.loads(done.stdout)["methods"]}
    assert {"edge-cam", "grad-cam", "occlusion"} <= set(methods)
    assert methods["edge-cam"]["distribution"] == "cnnviz-edge"
    assert [p["name"] for p in methods["edge-cam"]["parameters"]] == ["layer", "power"]


def test_the_strangers_method_runs_with_an_option_of_its_own(cnnviz, tmp_path):
    from skimage import data
    from skimage.io import imsave

    imsave(tmp_path / "cat.png", data.chelsea(), check_contrast=False)
    done = cnnviz(
        *("explain", "cat.png", "--model", "demo", "--backend", "numpy"),
        *("--method", "edge-cam", "--power", "2", "--out", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["method"] == "edge-cam"
    assert result["params"]["power"] == 2
    assert (tmp_path / "out" / "cat-edge-cam.png").stat().st_size > 1000


def test_the_strangers_inspector_is_listed_with_its_parameters(cnnviz):
    done = cnnviz("inspectors", "--json")
    assert done.returncode == 0, done.stderr
    listed = {i["name"]: i for i in json.loads(done.stdout)["inspectors"]}
    assert {"strength", "filters"} <= set(listed)
    assert listed["strength"]["distribution"] == "cnnviz-lens"
    assert listed["strength"]["version"] == "0.2.0"
    assert [p["name"] for p in listed["strength"]["parameters"]] == [
        "layer",
        "power",
        "batch_size",
    ]
    (plugin,) = (
        p
        for p in json.loads(cnnviz("doctor", "--json").stdout)["plugins"]
        if p["distribution"] == "cnnviz-lens"
    )
    assert plugin["inspectors"] == ["strength", "layers", "shards"]


def test_the_strangers_inspector_is_a_command(cnnviz, tmp_path):
    from skimage import data
    from skimage.io import imsave

    imsave(tmp_path / "cat.png", data.chelsea(), check_contrast=False)
    assert "How strongly a layer answers, by a stranger" in cnnviz("--help").stdout
    told = cnnviz("layer-strength", "--help")
    assert "--power" in told.stdout, told.stderr
    assert "Journal of Strangers" in told.stdout
    done = cnnviz(
        *("strength", "cat.png", "--model", "demo", "--backend", "numpy"),
        *("--layer", "conv2_1", "--power", "2", "--batch-size", "3", "--out", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["facts"] == {"layer": "conv2_1", "at once": 3}
    assert document["arrays"]["strength"]["shape"][0] == 1
    (file,) = (tmp_path / "out").iterdir()
    assert file.name.startswith("cat-strength-")
    assert file.stat().st_size > 1000


def test_a_command_of_ours_goes_before_an_inspector_of_its_name(cnnviz):
    done = cnnviz("layers", "demo", "--backend", "numpy")
    assert "conv1_1" in done.stdout, done.stderr
    done = cnnviz("inspect", "layers", "demo", "--backend", "numpy")
    assert "has " in done.stdout, done.stderr
    assert "conv1_1" not in done.stdout
    assert "how many layers there are" not in cnnviz("--help").stdout.casefold()
    assert "how many layers there are" in cnnviz("inspect", "--help").stdout.casefold()


def test_an_inspector_whose_module_is_not_there_harms_no_other(cnnviz):
    done = cnnviz("inspectors", "--json")
    assert done.returncode == 0
    assert "cnnviz_lens_lost" in done.stderr
    assert "shards" not in {i["name"] for i in json.loads(done.stdout)["inspectors"]}
    assert "shards" in cnnviz("--help").stdout
    failed = [f["entry_point"] for f in json.loads(cnnviz("doctor", "--json").stdout)["failures"]]
    assert "shards (cnnviz_lens_lost:Shards)" in failed
    done = cnnviz("shards", "demo", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "PluginError"
    assert "Traceback" not in done.stderr


def test_the_strangers_inspectors_pass_the_checks(installed, monkeypatch):
    from cnnviz_core.testing.inspectors import CHECKS

    monkeypatch.syspath_prepend(str(installed))
    from cnnviz_lens import LayerCount, Strength

    for inspector in (Strength(), Strength(layer="conv1", power=2.0), LayerCount()):
        for check in CHECKS:
            check(inspector)


@pytest.fixture
def registry(installed, monkeypatch):
    """Give the registry of an environment with the strangers' distributions, but the broken one."""
    get_registry()  # that of this process stays without them
    monkeypatch.syspath_prepend(str(installed))
    return Registry(point for point in entry_points(group=GROUP) if point.name != "broken")


def test_the_strangers_rule_is_found(registry):
    assert "magnitude" in registry.rules
    assert registry.rule_spec("sign-blind").references[0].endswith("Journal of Strangers 2026")
    (plugin,) = (p for p in registry.plugins if p.distribution == "cnnviz-shares")
    assert (plugin.version, plugin.announced["rules"]) == ("0.1.2", ("magnitude",))
    assert not plugin.announced["explainers"]
    rule = registry.rule("Magnitude", epsilon=None)
    assert rule.conserves
    with pytest.raises(ParameterError, match="no option 'epsilon'"):
        registry.rule("magnitude", epsilon=0.1)


def test_the_strangers_rule_passes_the_checks_on_every_backend(registry):
    rule = registry.rule("magnitude")
    for backend in backends_that_build():
        for check in CHECKS:
            check(rule, backend)


def test_the_strangers_rule_is_a_composite_of_lrp(registry, monkeypatch):
    monkeypatch.setattr("cnnviz_relevance.lrp.get_registry", lambda: registry)
    net = NETS["residual"]()
    model, x = ReferenceModel(net, "float64"), random_input(net)["image"]
    found = registry.explainer("lrp", composite="sign-blind").explain(model, x, [ClassScore(2)] * 2)

    def score(logits):
        return logits * (np.arange(5) == 2)

    expected = model.pullback(x, score, rule=registry.rule("magnitude")).gradients[INPUT]
    np.testing.assert_allclose(found.raw, expected, rtol=1e-6)
    # Shares of no sign keep that of the score, and all of it but for stabilisers.
    scores = model.forward(x).logits[:, 2]
    assert (np.sign(scores)[:, None, None, None] * expected >= 0).all()
    np.testing.assert_allclose(expected.sum((1, 2, 3)), scores, rtol=0.01)


def test_the_strangers_rule_is_an_option_of_the_command(cnnviz, tmp_path):
    from skimage import data
    from skimage.io import imsave

    imsave(tmp_path / "cat.png", data.chelsea(), check_contrast=False)
    done = cnnviz(
        *("explain", "cat.png", "--model", "demo", "--backend", "numpy"),
        *("--method", "lrp", "--composite", "magnitude", "--out", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["params"]["composite"] == "magnitude"
    assert (tmp_path / "out" / "cat-lrp.png").stat().st_size > 1000


def test_the_broken_one_is_one_warning_and_a_report(cnnviz):
    done = cnnviz("methods")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("out of order") == 1
    assert "Traceback" not in done.stderr
    report = cnnviz("doctor", "--json")
    failures = {f["distribution"]: f for f in json.loads(report.stdout)["failures"]}
    failure = failures["cnnviz-broken"]
    assert failure["version"] == "9.9"
    assert "RuntimeError: this plugin is out of order" in failure["traceback"]
    assert "out of order" in cnnviz("doctor").stdout


def test_asking_for_the_broken_one_says_why(cnnviz, tmp_path):
    done = cnnviz("methods", "broken")
    assert done.returncode == 1
    assert "out of order" in done.stderr


def test_strict_plugins_stop(cnnviz):
    for asked in ("methods", "--help", "strength"):
        done = cnnviz(asked, CNNVIZ_STRICT_PLUGINS="1")
        assert done.returncode == 1
        assert "cnnviz-broken" in done.stderr
        assert "Traceback" not in done.stderr
