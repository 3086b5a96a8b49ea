"""The benchmarks run; what they measure is not looked at."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from support.benchmarked import benchmarked, check_rows, check_tables, python


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return benchmarked(tmp_path_factory.mktemp("suite"), "torch")


def test_every_section_gives_numbers(suite):
    check_rows(suite.run)


def test_the_tables_are_well_formed(suite):
    check_tables(suite.markdown)
    assert suite.printed.strip() == suite.markdown.strip()


def test_peers_have_a_version_or_are_said_to_be_missing(suite):
    assert set(suite.run["peers"]) == {
        "captum",
        "torchcam",
        "pytorch-grad-cam",
        "zennit",
        "lucent",
    }
    for name, version in suite.run["peers"].items():
        assert (version is None) == (name in suite.run["missing"])
        assert name in suite.markdown


def test_a_run_without_a_peer_says_so_and_goes_on(tmp_path):
    found = benchmarked(tmp_path, "torch", "--sections", "cams", without="captum")
    assert found.run["peers"]["captum"] is None
    assert re.search(r"Left out: .*captum \(", found.markdown)
    assert found.run["rows"][0]["label"] == "grad-cam"
    assert all("captum" not in row["peers"] for row in found.run["rows"])


def test_the_page_on_scaling_is_made_of_its_numbers(tmp_path):
    python("-m", "benchmarks", "scaling", "--quick", "--write", str(tmp_path))
    page = (tmp_path / "scaling.md").read_text()
    points = json.loads((tmp_path / "scaling.json").read_text())["points"]
    scales = list(dict.fromkeys(point["scale"] for point in points))
    assert scales == ["batch", "size", "channels", "classes", "positions", "depth"]
    assert all(point["ms"] > 0 and point["cost"] > 0 for point in points)
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert pictures == [f"images/scaling-{scale}.png" for scale in scales]
    for picture in pictures:
        Image.open(tmp_path / picture).verify()
    numbers = str(tmp_path / "scaling.json")
    again = tmp_path / "again"
    again.mkdir()
    python("-m", "benchmarks", "scaling", "--read", numbers, "--write", str(again))
    assert (again / "scaling.md").read_text() == page
