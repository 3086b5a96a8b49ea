"""What an inspector found, in words: facts in lines, records in tables."""

from __future__ import annotations

import numpy as np

from cnnviz.cli.findings import print_findings
from cnnviz.inspection import Inspection
from cnnviz_core.exhibits import Gallery, Table, Tile


def told(capsys, **facts):
    """Print facts, and give the lines without the title."""
    print_findings(Inspection(inspector="features", title="What was found", facts=facts))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "What was found"
    return [line.strip() for line in lines if line.strip()]


def test_facts_are_lines(capsys):
    lines = told(capsys, layer="conv1", mean_loss=0.123456, kernel=[3, 3], signed=True, dead=[])
    assert [line.split() for line in lines] == [
        ["layer", "conv1"],
        ["mean", "loss", "0.1235"],
        ["kernel", "3,", "3"],
        ["signed", "yes"],
    ]


def test_a_mapping_of_values_is_a_line(capsys):
    assert told(capsys, kept={"rotate": 0.5, "scale": None}) == ["kept  rotate: 0.5, scale:"]


def test_lists_of_lists_are_told_apart(capsys):
    assert told(capsys, grids=[[8, 8], [4, 4]]) == ["grids  (8, 8), (4, 4)"]


def test_tables_are_printed(capsys):
    table = Table(("layer", "size"), (("conv1", "3"),) * 25, title="Receptive fields")
    exhibits = (Gallery(((Tile(heat=np.eye(2)),),)), table)
    print_findings(Inspection(inspector="receptive-fields", title="Found", exhibits=exhibits))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[1:3] == [["Receptive", "fields"], ["layer", "size"]]
    assert lines.count(["conv1", "3"]) == 20
    assert lines[-1][:4] == ["...", "and", "5", "more,"]


def test_a_long_list_is_cut(capsys):
    (line,) = told(capsys, names=[f"picture {i}" for i in range(40)])
    assert "picture 0, picture 1, " in line
    assert line.endswith(", ... (40)")
    assert len(line) < 100


def test_records_are_a_table_without_what_has_no_room(capsys):
    records = [{"picture": "a.png", "p": 0.5, "answers": [{"class": 1}], "grid": [3, 4]}] * 2
    title, head, _, *rows = told(capsys, pictures=records)
    assert (title, head.split()) == ("pictures", ["picture", "p", "grid"])
    assert [row.split() for row in rows] == [["a.png", "0.5", "3,", "4"]] * 2


def test_a_mapping_of_records_is_a_table_of_their_names(capsys):
    lines = told(capsys, layers={"conv1": {"rule": "guided"}, "conv2": {"rule": "deconvnet"}})
    assert [line.split() for line in lines[-2:]] == [["conv1", "guided"], ["conv2", "deconvnet"]]


def test_a_long_table_is_cut(capsys):
    lines = told(capsys, worst=[{"rank": i} for i in range(50)])
    assert lines[-1] == "... and 30 more, which --json shows"
    assert lines[-2] == "19"
