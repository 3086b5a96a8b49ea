"""What an evaluation found: intervals, files, the page, plots, and the command."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser

import numpy as np
import pytest
from front.evaluated import Asking, Inside, annotated

import cnnviz
from cnnviz.datasets import open_dataset
from cnnviz.evaluation import Evaluation
from cnnviz.evaluation.asking import measures_of
from cnnviz.evaluation.plots import plots_of
from cnnviz.evaluation.store import FILE, Store
from cnnviz.evaluation.summary import Resampling, scores_of
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.exhibits import Curves, Line, Table

METHODS = "grad-cam, saliency, occlusion(window=5, stride=4)"


@pytest.fixture
def data():
    """Seven pictures of four sizes, of which one has no box."""
    return annotated()


@pytest.fixture
def evaluation(network, data):
    return cnnviz.evaluate(network, data, METHODS, [Inside(), Asking()], resamples=50)


# ------------------------------------------------------------------------------- intervals


def of(*values):
    """The records of a method."""
    return {"share": np.array(values, float), "place": np.zeros((len(values), 2))}


def test_intervals_are_those_of_a_plain_loop():
    rng = np.random.default_rng(2)
    records = {name: of(*rng.random(30)) for name in ("a", "b")}
    draws = Resampling(30, 200, seed=7)
    scores = scores_of(measures_of([Inside()])[0], records, draws)
    again = np.random.default_rng(7)
    means = {"a": [], "b": []}
    for _ in range(200):
        chosen = [int(i) for i in again.integers(0, 30, 30)]
        for name, found in means.items():
            found.append(sum(records[name]["share"][i] for i in chosen) / 30)
    for score in scores:
        if score.headline:
            ends = np.percentile(means[score.method], [2.5, 97.5])
            np.testing.assert_allclose([score.low, score.high], ends, rtol=1e-12)
            assert score.value == pytest.approx(records[score.method]["share"].mean())


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of many data sets of 40 pictures, about 95 % of the intervals hold the mean of all."""
    rng, held = np.random.default_rng(0), 0
    (measure,) = measures_of([Inside()])
    for i in range(120):
        records = {"a": of(*rng.beta(2, 3, 40))}
        score = scores_of(measure, records, Resampling(40, 100, seed=i))[0]
        held += score.low <= 0.4 <= score.high
    assert 0.87 <= held / 120 <= 0.99


def test_the_best_and_those_as_good_are_marked():
    """Pairs tell apart what two intervals alone cannot."""
    rng = np.random.default_rng(1)
    base = rng.random(60)
    records = {
        "best": of(*base + 0.05),
        "worse on every picture": of(*base),
        "perhaps": of(*base + 0.04 + rng.normal(size=60) / 5),
    }
    scores = scores_of(measures_of([Inside()])[0], records, Resampling(60, 300, 0))
    heads = {s.method: s for s in scores if s.headline}
    best, worse, perhaps = heads.values()
    assert (best.best, best.close) == (True, False)
    assert (worse.best, worse.close) == (False, False)
    assert (perhaps.best, perhaps.close) == (False, True)
    assert worse.high > best.low  # their intervals overlap

    class Lower(Inside):
        higher_is_better = False

    scores = scores_of(measures_of([Lower()])[0], records, Resampling(60, 50, 0))
    assert [s.method for s in scores if s.best] == ["worse on every picture"]


def test_draws_are_the_same_in_pieces(monkeypatch):
    """So a data set of any size is resampled in bounded memory."""
    draws = Resampling(7, 25, seed=3)
    (whole,) = draws.counts()
    monkeypatch.setattr("cnnviz.evaluation.summary._HELD", 7 * 4)
    pieces = list(draws.counts())
    assert [len(piece) for piece in pieces] == [4] * 6 + [1]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert set(whole.sum(axis=1)) == {7}
    records = {name: of(*np.random.default_rng(i).random(7)) for i, name in enumerate("ab")}
    scores = scores_of(measures_of([Inside()])[0], records, draws)
    monkeypatch.undo()
    assert scores_of(measures_of([Inside()])[0], records, draws) == scores


def test_nothing_measured_and_nothing_resampled():
    (measure,) = measures_of([Inside()])
    records = {"a": of(*[np.nan] * 4), "b": of(1, 1, np.nan, 1)}
    nothing, one = (s for s in scores_of(measure, records, Resampling(4, 20, 0)) if s.headline)
    assert (str(nothing), nothing.pictures, nothing.best) == ("-", 0, False)
    assert (str(one), one.pictures) == ("1.000 [1.000, 1.000]", 3)
    score = scores_of(measure, {"b": of(1, 2)}, Resampling(2, 0, 0))[0]
    assert str(score) == "1.500"


def test_what_is_to_be_known_of_the_data_set_is_told(network, data):
    dataset = dataclasses.replace(open_dataset(data), notes=("boxes begin at 0",))
    done = cnnviz.evaluate(network, dataset, "saliency", [Inside()], resamples=0)
    assert done.notes[0] == "boxes begin at 0"
    assert done.counts == {}


# ----------------------------------------------------------------------------------- plots


def test_a_figure_for_each_line_with_a_line_for_each_method(evaluation):
    plots = evaluation.plots()
    assert list(plots) == ["Inside"]
    first, second = plots["Inside"]
    assert first.title == "Inside: Shares, first"
    assert second.title == "Inside: Shares, second"
    for plot in (first, second):
        assert [line.name for line in plot.lines] == list(evaluation.methods)
        assert all(line.spread is None for line in plot.lines)
    own = evaluation.records["saliency", "Inside"]
    curve = Inside().curves(own)[0]
    np.testing.assert_array_equal(second.lines[1].y, curve.lines[1].y)


def test_curves_over_different_axes_share_one():
    class Apart(Inside):
        def curves(self, records):
            x = records["share"]
            facts = Table(("what",), (("fact",),), title="Facts")
            lines = (Line("", x * x), Line("chance", np.full_like(x, 0.5)))
            return (Curves(x, lines, title="Apart"), facts)

    records = {"a": of(0.0, 1.0), "b": of(1.5, 0.5, 0.25)}
    plot, *tables = plots_of(measures_of([Apart()])[0], records)
    assert plot.title == "Apart"
    assert plot.x.tolist() == [0, 0.25, 0.5, 1, 1.5]
    np.testing.assert_array_equal(plot.lines[0].y, [0, 0.25, 0.5, 1, np.nan])
    np.testing.assert_array_equal(plot.lines[1].y, [np.nan, 0.0625, 0.25, 1.25, 2.25])
    assert [line.name for line in plot.lines] == ["a", "b", "chance"]
    assert [table.title for table in tables] == ["Apart of a: Facts", "Apart of b: Facts"]


# ----------------------------------------------------------------------------------- files


def test_what_is_written_can_be_read_again(evaluation, tmp_path):
    page = evaluation.save(tmp_path / "new" / "out")
    assert page == tmp_path / "new" / "out" / "leaderboard.html"
    assert sorted(p.name for p in (tmp_path / "new/out").iterdir() if p.suffix != ".parquet") == [
        *("evaluation.json", "leaderboard.html", "plots", "problems.csv", FILE),
        *("results.csv", "summary.csv"),
    ]
    again = cnnviz.Evaluation.load(tmp_path / "new" / "out")
    assert repr(again) == repr(evaluation)
    assert again.summary == evaluation.summary
    assert again.settings == evaluation.settings
    assert again.problems == evaluation.problems
    assert [m.metric for m in again.measures] == [Inside(), Asking()]
    for key, record in evaluation.records.items():
        for name, values in record.items():
            np.testing.assert_array_equal(again.records[key][name], values)
    again.save(tmp_path / "copy")
    for name in ("results.csv", "summary.csv", "leaderboard.html", "evaluation.json"):
        one, other = (tmp_path / folder / name for folder in ("new/out", "copy"))
        assert one.read_bytes() == other.read_bytes()


def test_the_tables_hold_all_digits(evaluation, tmp_path):
    evaluation.save(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shares = evaluation.records["grad-cam", "Inside"]["share"]
    assert [
        row["value"] for row in rows if (row["method"], row["name"]) == ("grad-cam", "share")
    ] == ["" if np.isnan(v) else repr(float(v)) for v in shares]
    with (tmp_path / "summary.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert [float(row["value"]) for row in scores] == [score.value for score in evaluation.summary]


def test_parquet_is_written_where_it_can_be(evaluation, tmp_path):
    import pyarrow.parquet as parquet

    evaluation.save(tmp_path)
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.num_rows == len(list(evaluation.rows()))


def test_plots_of_an_earlier_evaluation_go(network, data, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "mine.png").write_bytes(b"")
    cnnviz.evaluate(network, data, "saliency", [Inside()], out=tmp_path, resamples=0)
    first = {p.name for p in (tmp_path / "plots").iterdir()}
    assert {"mine.png", "inside-shares-first.png"} < first
    cnnviz.evaluate(network, data, "saliency", [Asking()], out=tmp_path, resamples=0)
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"mine.png"}


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_an_evaluation(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="holds no finished evaluation"):
        Evaluation.load(tmp_path / name)


def test_a_file_that_is_no_store(tmp_path):
    (tmp_path / FILE).write_text("something else, and long enough to be taken for a data base" * 9)
    with pytest.raises(ParameterError, match="the records cannot be kept in"):
        Store(tmp_path / FILE)


def test_records_keep_their_types_and_shapes():
    store = Store()
    given = {"hit": np.bool_(True), "grid": np.arange(6, dtype=np.int32).reshape(2, 3), "x": 0.1}
    store.write(1, {}, {2: {"a": given, "b": given}})
    store.want(["b", "a"])
    found = store.records(2)
    assert {name: (v.dtype.str, v.shape) for name, v in found.items()} == {
        "hit": ("|b1", (2,)),
        "grid": ("<i4", (2, 2, 3)),
        "x": ("<f8", (2,)),
    }
    store.want(["a", "c"])
    assert np.isnan(store.records(2)["hit"]).tolist() == [False, True]
    store.write(1, {}, {2: {"c": {"hit": np.zeros(4)}}})
    with pytest.raises(ArrayError, match="records of different forms"):
        store.records(2)


# ------------------------------------------------------------------------------------ page


class _Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in ("meta", "link", "img", "input", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(evaluation, tmp_path):
    text = evaluation.save(tmp_path).read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(source.startswith(("#", "data:")) for source in page.sources)
    assert page.tags.count("svg") == 2
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_the_page_ranks_the_methods_and_marks_the_best(evaluation, tmp_path):
    text = evaluation.save(tmp_path).read_text(encoding="utf-8")
    board = text[text.index('<table class="board">') : text.index("</table>")]
    heads = {s.method: s.value for s in evaluation.summary if s.headline and s.metric == "Inside"}
    board = board.replace("<wbr>", "")
    order = re.findall(r'<th scope="row">([^<]*)', board)
    assert order == sorted(heads, key=heads.get, reverse=True)
    best = board[board.index('class="best"') :]
    assert f"<b>{max(heads.values()):.3f}</b>" in best[:60]
    assert (
        board.count('class="best"') == sum(s.best for s in evaluation.summary) == 4
    )  # three equal
    assert "higher is better" in board
    assert "lower is better" in board


def test_the_page_draws_the_intervals_of_a_column_on_one_scale(evaluation, tmp_path):
    text = evaluation.save(tmp_path).read_text(encoding="utf-8")
    bars = re.findall(r'class="range" style="--at: (.*?)%; --low: (.*?)%; --high: (.*?)%"', text)
    bars = np.array(bars, float)
    heads = {(s.metric, s.method): s for s in evaluation.summary if s.headline}
    rows = re.findall(r'<th scope="row">(.*?)</th>', text[: text.index("</table>")])
    rows = [row.replace("<wbr>", "") for row in rows]
    own = np.array([[s.value, s.low, s.high] for s in (heads["Inside", row] for row in rows)])
    drawn = bars[:: len(bars) // len(rows)]
    scaled = 100 * (own - own.min()) / (own.max() - own.min())
    np.testing.assert_allclose(drawn, scaled, atol=0.051)


def test_the_page_has_room_only_for_what_was_measured(network, data, tmp_path):
    class Nothing(Asking):
        def measure(self, explained):
            return {"mean": np.full(len(explained), np.nan)}

        def summarise(self, records):
            return {"mean": np.nan}

    methods = ["saliency", "grad-cam(layer=fc)"]
    cnnviz.evaluate(network, data, methods, [Nothing(), Asking()], out=tmp_path, resamples=0)
    text = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    head = text[text.index("<thead>") : text.index("</thead>")]
    assert re.findall(r'<th scope="col"[^>]*>(\w+)', head) == ["method", "Asking"]
    assert "Nothing found nothing to measure" in text
    assert re.search(r'<td class="why" colspan="1">not run: .*fc', text)
    assert "confidence interval" not in text
    assert "≈" not in text[text.index("<body>") :]


def test_the_page_tells_what_went_wrong(network, data, tmp_path):
    data["boxes"][0], data["labels"][1] = [[500, 1, 600, 9]], "<b>unicorn</b>"
    e = cnnviz.evaluate(network, data, "saliency", [Inside()], out=tmp_path, resamples=0)
    text = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    for problem in e.problems:
        assert problem.kind in text
    assert "&lt;b&gt;unicorn&lt;/b&gt;" in text
    assert "<b>unicorn" not in text
    with (tmp_path / "problems.csv").open(newline="") as file:
        assert [row["what"] for row in csv.DictReader(file)] == [p.what for p in e.problems]


# --------------------------------------------------------------------------------- command

PLUGIN = """
    from dataclasses import dataclass
    from typing import Annotated, ClassVar

    import numpy as np

    import cnnviz
    from cnnviz_core.hookspecs import hookimpl
    from cnnviz_core.parameters import Help, Range
    from cnnviz_core.specs import MetricSpec
    from cnnviz_core.testing.nets import NETS
    from cnnviz_core.testing.reference import ReferenceModel


    @dataclass(frozen=True)
    class Area:
        '''Share of the map above a part of its maximum.'''

        above: Annotated[float, Range(0, 1), Help("part of the maximum")] = 0.5
        needs: ClassVar[frozenset[str]] = frozenset()

        def measure(self, explained):
            heat = explained.shown
            limit = self.above * heat.max(axis=(1, 2), keepdims=True)
            return {"area": (heat > limit).mean(axis=(1, 2))}

        def summarise(self, records):
            return {"area": float(np.mean(records["area"])) if len(records["area"]) else np.nan}


    @hookimpl
    def cnnviz_metrics():
        return [MetricSpec("small-area", "small_metrics:Area", "a share", "size", False)]


    def network():
        return cnnviz.wrap(
            ReferenceModel(NETS["plain"]()),
            preprocess=cnnviz.Preprocessing(size=(12, 9)),
            labels=("ant", "bee", "cat", "dog", "big cat"),
            name="plain",
        )
"""


@pytest.fixture
def run(tmp_path):
    """Run the command where a distribution with a metric is installed, and pictures lie."""
    from PIL import Image

    (tmp_path / "small_metrics.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "small_metrics-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-metrics\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[cnnviz]\nsmall = small_metrics\n")
    rng = np.random.default_rng(5)
    for label in ("ant", "cat"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in "xyz":
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{name}.png")

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "cnnviz", "evaluate", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return command


ASKED = (
    *("--model", "small_metrics:network", "--data", "data", "--resamples", "20"),
    *("--methods", "grad-cam,saliency", "--metrics", "small-area(above=0.25),small-area"),
)


def test_the_command(run, tmp_path):
    done = run(*ASKED, "--out", "found")
    assert done.returncode == 0, done.stderr
    assert "6 items, 2 methods, 2 metrics: about 36 forward passes" in done.stderr
    for word in ("plain on data", "grad-cam", "small-area(above=0.25)", "found/leaderboard.html"):
        assert word in done.stdout
    document = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert document["command"] == (
        "cnnviz evaluate --model small_metrics:network --data data --resamples 20 --methods "
        "grad-cam,saliency --metrics 'small-area(above=0.25),small-area' --out found"
    )
    assert "small-metrics 0.1" in document["provenance"]["plugins"]
    again = run(*ASKED, "--out", "found", "--json")
    assert "all is done already" in again.stderr
    scores = json.loads(again.stdout)["scores"]
    assert scores == document["scores"]


def test_the_command_says_that_a_picture_failed(run, tmp_path):
    (tmp_path / "data" / "ant" / "x.png").write_bytes(b"no picture")
    done = run(*ASKED)
    assert done.returncode == 3, done.stderr
    assert "unreadable file: 1" in done.stdout
    assert (tmp_path / "evaluation" / "leaderboard.html").exists()
    done = run(*ASKED[:-1], "no-such-metric")
    assert done.returncode == 1
    assert "no-such-metric" in done.stderr


def test_the_library_tells_the_same_command(run, tmp_path):
    code = (
        "import cnnviz; e = cnnviz.evaluate('small_metrics:network', 'data', "
        "'grad-cam,saliency', ['small-area(above=0.25)', 'small-area'], resamples=20, out='o', "
        "layer='relu2', classes={'ant': 0, 'cat': 'cat'}); print(e.command)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (
        "cnnviz evaluate --model small_metrics:network --data data --methods grad-cam,saliency "
        "--metrics 'small-area(above=0.25),small-area' --layer relu2 --resamples 20 "
        "--classes ant=0,cat=cat --out o"
    )
