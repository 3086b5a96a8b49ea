"""What is published: a wheel and a source archive that work in an empty environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "cnnviz",
    "cnnviz_core",
    "cnnviz_torch",
    "cnnviz_tf",
    "cnnviz_cam",
    "cnnviz_features",
    "cnnviz_gradient",
    "cnnviz_metrics",
    "cnnviz_perturbation",
    "cnnviz_relevance",
    "cnnviz_wrapper",
}


def run(*command, **kwargs):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900, **kwargs
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Build the source archive, and the wheel from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    (wheel,) = out.glob("*.whl")
    (archive,) = out.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="session")
def environment(built, tmp_path_factory):
    """Install the wheel with its extra ``torch`` into an empty environment."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    run(bin_folder / "python", "-m", "pip", "install", "--quiet", f"{built[0]}[torch]")
    return bin_folder


def test_the_wheel_has_every_package_under_its_import_name(built):
    names = zipfile.ZipFile(built[0]).namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {r for r in roots if not r.endswith(".dist-info")} == PACKAGES
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert "cnnviz/demo/data/digits_in_the_wild.npz" in names
    assert "cnnviz/data/imagenet_1k.txt" in names
    assert "cnnviz/templates/report.html" in names


def test_the_embedded_weights_are_small(built):
    wheel = zipfile.ZipFile(built[0])
    assert wheel.getinfo("cnnviz/demo/data/digits_in_the_wild.npz").file_size < 1_000_000
    assert built[0].stat().st_size < 3_000_000


def test_the_source_archive_has_the_tests(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tox.ini", "constraints.txt"} <= names
    assert "tests/core/test_targets.py" in names


def test_the_demo_runs_with_nothing_else_installed(environment, tmp_path):
    out = run(environment / "cnnviz", "demo", "--out", tmp_path / "demo", cwd=tmp_path)
    assert "grad-cam" in out
    pictures = list((tmp_path / "demo").glob("*.png"))
    assert pictures
    assert all(p.stat().st_size > 10_000 for p in pictures)


def test_the_doctor_finds_nothing_wrong(environment, tmp_path):
    report = json.loads(run(environment / "cnnviz", "doctor", "--json", cwd=tmp_path))
    assert report["failures"] == []
    states = {backend["name"]: backend["state"] for backend in report["backends"]}
    assert states["torch"] == "ok"
    assert "not installed" in states["tensorflow"]


def test_a_backend_that_is_not_installed_names_its_extra(environment, tmp_path):
    done = subprocess.run(
        [environment / "cnnviz", "demo", "--backend", "tf"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 1
    assert "cnnviz[tf]" in done.stderr
