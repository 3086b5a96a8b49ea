"""What a reader of maps must know comes along wherever the maps go."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
from front.made import explanation
from front.test_report import Page

import cnnviz
from cnnviz.archive import as_arrays
from cnnviz.explaining import join
from cnnviz.explanation import Explanation
from cnnviz.pages import html_fragment, render_report
from cnnviz.sheets import how_run, sheet
from cnnviz_core.registry import get_registry
from support.commands import runner

NOTES = ("the gradient passed Softmax", "<b>two</b> things were left out")


@pytest.fixture
def noting(monkeypatch):
    """Let saliency say something of the samples that it was shown: how many they were."""
    saliency = get_registry().explainer_class("saliency")
    explain = saliency.explain

    def noted(self, model, x, targets):
        maps = explain(self, model, x, targets)
        return dataclasses.replace(maps, notes=("it is makeshift", f"of a batch of {len(x)}"))

    monkeypatch.setattr(saliency, "explain", noted)


def test_they_are_part_of_the_result():
    e = explanation(notes=list(NOTES))
    assert e.notes == NOTES
    assert explanation().notes == ()
    assert e != explanation()
    assert e == explanation(notes=NOTES)
    for other in (e[0], e[1:], e.shown(sign="signed"), pickle.loads(pickle.dumps(e))):
        assert other.notes == NOTES
    with pytest.raises(cnnviz.CnnvizError, match="notes"):
        e.notes = ()


def test_batches_have_their_notes_joined_each_once():
    parts = [explanation(2, notes=notes) for notes in (("b", "a"), (), ("c", "b"))]
    assert join(parts).notes == ("b", "a", "c")


def test_a_method_s_notes_reach_the_result(network, pictures, noting):
    e = cnnviz.explain(network, pictures, "saliency", batch_size=2)
    assert e.notes == ("it is makeshift", "of a batch of 2", "of a batch of 1")
    comparison = cnnviz.compare(network, pictures, ["saliency", "grad-cam"])
    assert comparison["saliency"].notes == ("it is makeshift", "of a batch of 3")
    assert comparison["grad-cam"].notes == ()
    assert comparison.shown(sign="absolute")["saliency"].notes == comparison["saliency"].notes


def test_they_are_saved(tmp_path):
    e = explanation(notes=NOTES)
    again = Explanation.load(e.save(tmp_path / "e.npz"))
    assert again == e
    assert again.notes == NOTES


def test_archives_of_earlier_versions_are_read(tmp_path):
    arrays = as_arrays(explanation())
    text = json.loads(str(arrays["explanation"]))
    del text["notes"]
    np.savez(tmp_path / "old.npz", **{**arrays, "explanation": np.array(json.dumps(text))})
    assert Explanation.load(tmp_path / "old.npz") == explanation()


def test_the_repr_tells_them():
    assert repr(explanation(notes=NOTES)).splitlines()[-2:] == [f"note: {note}" for note in NOTES]
    assert "note" not in repr(explanation())


def test_a_dataset_has_them():
    pytest.importorskip("xarray", reason="xarray is not installed")
    assert explanation(notes=NOTES).to_xarray().attrs["notes"] == "; ".join(NOTES)


@pytest.mark.parametrize("methods", [1, 2, 12])
def test_pages_mark_the_method_and_tell_them(methods):
    given = {f"method-{i}": explanation(2) for i in range(methods)}
    given["method-0"] = explanation(2, notes=NOTES)
    page = Page(render_report(given))
    assert page.text.count("method-0 *") == 2  # once for each sample
    assert len(re.findall(r"method-\d+ \*", page.text)) == 2
    for note in NOTES:
        assert page.text.count(f"* {note}") == 1
    piece = Page(html_fragment(given))
    assert piece.text.count("method-0 *") == 2
    for note in NOTES:
        assert piece.text.count(f"* method-0: {note}") == 1


@pytest.mark.parametrize("methods", [1, 2, 12])
def test_sheets_say_them_at_the_foot(methods):
    plain = {f"method-{i}": explanation(1) for i in range(methods)}
    noted = {**plain, "method-0": explanation(1, notes=NOTES)}
    lines = how_run(noted, {"other": "it cannot"})
    assert lines[-3:] == [*(f"* method-0: {note}" for note in NOTES), "not run: other: it cannot"]
    assert sheet(noted).height > sheet(plain).height


def test_the_command_line_tells_them(tmp_path, monkeypatch, noting):
    run = runner(tmp_path, monkeypatch)
    model = ("--model", "cli_networks:plain", "-m", "saliency,grad-cam")
    done = run("explain", "a.png", "b.png", *model)
    assert done.exit_code == 0, done.output
    told = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert told == ["note: saliency: it is makeshift", "note: saliency: of a batch of 1"]
    results = json.loads(run("explain", "a.png", *model, "--json").stdout)["results"]
    notes = {result["method"]: result["notes"] for result in results}
    assert notes == {"saliency": ["it is makeshift", "of a batch of 1"], "grad-cam": []}

    done = run("compare", "a.png", "b.png", *model, "--out", "c.html")
    told = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert told == ["note: saliency: it is makeshift", "note: saliency: of a batch of 2"]
    methods = json.loads(run("compare", "a.png", *model, "--json").stdout)["methods"]
    assert methods["saliency"]["notes"] == ["it is makeshift", "of a batch of 1"]
