"""Strangers' distributions: one adds an explainer, one raises on import and harms nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DISTRIBUTIONS = Path(__file__).parents[1] / "distributions"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install both distributions into a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--disable-pip-version-check", "--target", target),
            *(DISTRIBUTIONS / "edge", DISTRIBUTIONS / "broken"),
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


def test_the_broken_one_is_one_warning_and_a_report(cnnviz):
    done = cnnviz("methods")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("out of order") == 1
    assert "Traceback" not in done.stderr
    report = cnnviz("doctor", "--json")
    (failure,) = json.loads(report.stdout)["failures"]
    assert failure["distribution"] == "cnnviz-broken"
    assert failure["version"] == "9.9"
    assert "RuntimeError: this plugin is out of order" in failure["traceback"]
    assert "out of order" in cnnviz("doctor").stdout


def test_asking_for_the_broken_one_says_why(cnnviz, tmp_path):
    done = cnnviz("methods", "broken")
    assert done.returncode == 1
    assert "out of order" in done.stderr


def test_strict_plugins_stop(cnnviz):
    done = cnnviz("methods", CNNVIZ_STRICT_PLUGINS="1")
    assert done.returncode == 1
    assert "cnnviz-broken" in done.stderr
