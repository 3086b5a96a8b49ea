"""``cnnviz report``: what was saved, on one page."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from front.made import explanation
from front.shown import inspection

from cnnviz.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, ["report", *map(str, args)])


def test_explanations_and_inspections_stand_on_one_page(run, tmp_path):
    explanation(method="layer-cam").save("a.npz")
    inspection(title="What conv1 knows").save("b.npz")
    done = run("a.npz", "b.npz", "-o", "page.html", "--title", "All of it")
    assert done.exit_code == 0, done.output
    assert "Look at page.html" in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert "<title>All of it</title>" in page
    assert page.index("layer-cam") < page.index("What conv1 knows")


def test_the_document_names_the_file(run, tmp_path):
    inspection().save("b.npz")
    told = json.loads(run("b.npz", "--json").stdout)
    assert told == {"results": ["b.npz"], "file": "report.html"}
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(("name", "content"), [("absent.npz", None), ("x.npz", b"no archive")])
def test_what_is_no_result_is_told(run, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run(name, "--json")
    assert done.exit_code == 1
    assert name in json.loads(done.stdout)["error"]["problem"]
    assert not (tmp_path / "report.html").exists()
