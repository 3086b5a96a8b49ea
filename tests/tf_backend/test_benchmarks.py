"""The benchmarks run; what they measure is not looked at."""

from __future__ import annotations

import re

import pytest

from support.benchmarked import benchmarked, check_rows, check_tables


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return benchmarked(tmp_path_factory.mktemp("suite"), "tensorflow")


def test_every_section_gives_numbers(suite):
    check_rows(suite.run)


def test_the_tables_are_well_formed(suite):
    check_tables(suite.markdown)
    assert suite.printed.strip() == suite.markdown.strip()


def test_peers_have_a_version_or_are_said_to_be_missing(suite):
    assert set(suite.run["peers"]) == {"tf-keras-vis", "xplique"}
    for name, version in suite.run["peers"].items():
        assert (version is None) == (name in suite.run["missing"])
        assert name in suite.markdown


def test_a_run_without_a_peer_says_so_and_goes_on(tmp_path):
    absent = "xplique tf_keras_vis"
    found = benchmarked(tmp_path, "tensorflow", "--sections", "eigen-cam", without=absent)
    assert found.run["peers"] == {"tf-keras-vis": None, "xplique": None}
    assert re.search(r"Beside it: nobody\.\nLeft out: .*xplique \(", found.markdown)
    assert [row["label"] for row in found.run["rows"]] == ["eigen-cam"]
