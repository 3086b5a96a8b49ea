"""Each inspector is a command: ``cnnviz filters MODEL``, ``cnnviz features PICTURE -M MODEL``."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

import cnnviz
from cnnviz.inspecting import inspect
from cnnviz.inspection import Inspection
from cnnviz_core.parameters import parameters_of
from cnnviz_core.registry import get_registry
from support.commands import runner
from support.inspectors import BRIEF

MODEL = ("--model", "cli_networks:plain")
DEMO = ("--model", "demo", "--backend", "numpy")
INSPECTORS = list(get_registry().inspectors)
FEATURES = ("features", "a.png", *MODEL, "--count", "3")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in a folder with networks, pictures and a folder of labelled pictures."""
    run = runner(tmp_path, monkeypatch)
    for label, source in (("ant", "a.png"), ("bee", "b.png")):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        shutil.copy(tmp_path / source, tmp_path / "labelled" / label)
    return run


def arguments_for(name):
    """Give what an inspector is shown, and parameters with which it is done soon."""
    shown = get_registry().inspectors[name].shown
    pictures = {"nothing": [], "labelled pictures": ["labelled"]}.get(shown, ["a.png"])
    options = [f"--{key.replace('_', '-')}={value}" for key, value in BRIEF.get(name, {}).items()]
    return [name, *pictures, *options]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def error_of(done):
    assert done.exit_code == 1, done.output
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)["error"]["type"]


@pytest.mark.parametrize("name", INSPECTORS)
def test_every_inspector_is_a_command(run, tmp_path, name):
    done = run(*arguments_for(name), *MODEL, "--out", "new/out", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["inspector"] == name
    assert document["model"] == "plain"
    assert document["title"]
    assert document["arrays"]
    assert document["failures"] == document["replaced"] == []
    (file,) = document["files"]
    with Image.open(tmp_path / file) as picture:
        assert min(picture.size) > 50
    assert files(tmp_path / "new/out") == [file.rpartition("/")[2]]


@pytest.mark.parametrize("name", INSPECTORS)
def test_the_help_tells_every_parameter(run, name):
    done = run(name, "--help")
    assert done.exit_code == 0, done.output
    spec = get_registry().inspectors[name]
    text = " ".join(done.stdout.split())
    assert spec.summary in text
    for parameter in parameters_of(get_registry().inspector_class(name)):
        assert f"--{parameter.name.replace('_', '-')}" in text
        assert " ".join(parameter.help.split()) in text
    assert ("--target" in text) == spec.targeted
    assert ("--truth" in text) == (spec.shown == "labelled pictures")
    assert ("MODEL" in text.partition("Options")[0]) == (spec.shown == "nothing")


@pytest.mark.parametrize("alias", ["deepdream", "DeepDream", "feature-maps", "kernels"])
def test_an_alias_is_a_command_too(run, alias):
    name = get_registry().inspector_spec(alias).name
    assert get_registry().inspectors[name].summary in " ".join(run(alias, "--help").stdout.split())


def test_the_help_has_three_parts(run):
    text = run("--help").stdout
    places = [text.index(f"{title}:") for title in ("Explain", "See inside", "Look around")]
    assert places == sorted(places)
    assert places[0] < text.index("  compare") < places[1]
    for name in INSPECTORS:
        assert places[1] < text.index(f"  {name} ") < places[2]
    assert places[2] < text.index("  inspectors ")


def test_what_is_written_is_what_the_library_finds(run):
    done = run(*FEATURES, "-l", "conv1", "-f", "npz", "-f", "html", "-f", "png")
    assert done.exit_code == 0, done.output
    stem = "a-features-plain-conv1-count-3"
    found = inspect(cnnviz.load("cli_networks:plain"), "features", "a.png", layer="conv1", count=3)
    assert Inspection.load(f"{stem}.npz") == found
    for suffix in ("npz", "html", "png"):
        assert f"Look at {stem}.{suffix}\n" in done.stdout
    assert found.title in done.stdout


def test_the_network_is_an_argument_or_an_option(run, tmp_path):
    for arguments in (("cli_networks:plain",), MODEL):
        done = run("filters", *arguments, "--json")
        assert json.loads(done.stdout)["files"] == ["filters-plain.png"], done.output
    for arguments in ((), ("demo", *MODEL), ("demo", "demo")):
        done = run("filters", *arguments)
        assert done.exit_code == 2
        assert "Usage: " in done.stderr


def test_on_the_embedded_network(run):
    done = run("filters", "demo", "--backend", "numpy")
    assert done.exit_code == 0, done.output
    assert "Look at filters-digits-in-the-wild.png" in done.stdout


def test_out_is_a_folder_or_a_file(run, tmp_path):
    def written(*arguments):
        done = run(*FEATURES, *arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["files"]

    assert written("-o", "deep/er/x.html") == ["deep/er/x.html"]
    assert written("-o", "x.webp", "-f", "npz") == ["x.webp", "x.npz"]
    assert written("-o", "run-1.5/") == ["run-1.5/a-features-plain-count-3.png"]
    assert written("-o", "run-1.5") == ["run-1.5/a-features-plain-count-3.png"]
    assert error_of(run(*FEATURES, "-o", "x.docx", "--json")) == "ParameterError"
    assert error_of(run(*FEATURES, "-o", "a.png/x/", "--json")) == "ParameterError"


def test_different_results_have_different_names(run, tmp_path):
    asked = [
        ("features", "a.png", *MODEL),
        ("features", "a.png", *MODEL, "-l", "conv1"),
        ("features", "a.png", *MODEL, "--count", "2"),
        ("features", "b.png", *MODEL),
        ("features", "a.png", "b.png", *MODEL),
        ("features", "labelled", *MODEL),
        ("features", "a.png", "--model", "cli_networks:bare", "--preprocess", "unit"),
        ("filters", *MODEL),
    ]
    npz = ("-o", "out", "-f", "npz")
    for arguments in asked:
        done = run(*arguments, *npz)
        assert done.exit_code == 0, done.output
        assert "written over" not in done.stdout
    assert len(files(tmp_path / "out")) == len(asked)
    assert "a-and-1-more-features-plain.npz" in files(tmp_path / "out")
    again = run(*asked[0], *npz)
    assert again.stdout.endswith("(written over)\n")
    done = run(*asked[0], *npz, "--json")
    assert json.loads(done.stdout)["replaced"] == ["out/a-features-plain.npz"]
    assert len(files(tmp_path / "out")) == len(asked)


def test_a_target_is_asked_for_by_name(run):
    asked = (*arguments_for("occlusion-analysis"), *MODEL, "-f", "npz")
    done = run(*asked, "--target", "big cat", "--json")
    assert done.exit_code == 0, done.output
    assert "-big-cat-" in json.loads(done.stdout)["files"][0]
    assert error_of(run(*asked, "-t", "mouse", "--json")) == "UnknownClassError"
    several = run(
        "class-model", *MODEL, "--steps", "1", "-t", "cat", "-t", "0", "-o", "two.npz", "--json"
    )
    assert json.loads(several.stdout)["facts"]["classes"] == [2, 0]
    assert run(*FEATURES, "-t", "cat").exit_code == 2


def test_the_truth_comes_from_folders_or_a_file(run, tmp_path):
    asked = ("errors", *MODEL, "--count", "1", "--json", "-o", "out/", "-f", "npz")
    by_folder = run(*asked, "labelled")
    assert by_folder.exit_code == 0, by_folder.output
    (tmp_path / "truth.csv").write_text("picture,label\na.png,ant\nb.png,bee\n")
    (tmp_path / "truth.json").write_text('{"a": "ant", "b": 1}')
    for option in ("--truth=truth.csv", "--truth=truth.json", "--labels=truth.csv"):
        by_file = run(*asked, "a.png", "b.png", option)
        assert by_file.exit_code == 0, by_file.output
        told, expected = (json.loads(done.stdout)["arrays"] for done in (by_file, by_folder))
        assert told == expected
    (tmp_path / "names.txt").write_text("v\nw\nx\ny\nz\n")
    done = run(*asked, "a.png", "b.png", "--labels", "names.txt", "--truth", "truth.csv")
    assert error_of(done) == "UnknownClassError"
    assert error_of(run(*asked, "a.png", "--truth", "nowhere.csv")) == "ParameterError"


def test_a_picture_that_cannot_be_read_is_left_out(run, tmp_path):
    done = run("features", "a.png", "broken.png", *MODEL, "--json")
    assert done.exit_code == 3
    (failure,) = json.loads(done.stdout)["failures"]
    assert failure["picture"] == "broken.png"
    assert failure["error"]["type"] == "ImageError"
    assert "broken.png" in done.stderr
    assert error_of(run("features", "broken.png", *MODEL, "--json")) == "ImageError"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("features", "a.png", "-l", "conv9", *MODEL), "UnknownLayerError"),
        (("features", "a.png", "--count", "few", *MODEL), "ParameterError"),
        (("features", "a.png", "--count", "0", *MODEL), "ParameterError"),
        (("features", "a.png", "-f", "gif", *MODEL), "ParameterError"),
        (("features", "nowhere.png", *MODEL), "ImageError"),
        (("features", "a.png", "-M", "torchvison:resnet50"), "ModelSourceError"),
        (("filters", "nowhere.pt"), "ModelSourceError"),
        (("errors", "sub", *MODEL), "TargetError"),
        (("inspectors", "dreem"), "UnknownMethodError"),
    ],
)
def test_errors_are_explained(run, arguments, kind):
    assert error_of(run(*arguments, "--json")) == kind
    assert run(*arguments).stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("features",),
        ("features", "a.png"),
        ("features", *MODEL),
        ("features", "a.png", *MODEL, "--widow", "3"),
        ("features", "a.png", *MODEL, "--format", "docx"),
        ("xyz", "demo"),
    ],
)
def test_mistyped_commands_are_usage_errors(run, arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("group", [(), ("inspect",)])
def test_a_command_that_is_called_alike_is_named(run, group):
    done = run(*group, "filtres", "demo")
    assert done.exit_code == 2
    assert "Usage:" in done.stderr
    assert "Perhaps 'filters' was meant" in done.stderr


def test_tables_are_printed_and_in_the_document(run):
    asked = ("receptive-fields", *MODEL, "-f", "npz")
    (table,) = json.loads(run(*asked, "--json").stdout)["tables"]
    assert table["columns"][0] == "layer"
    text = run(*asked).stdout
    assert table["title"] in text
    assert all(cell in text for row in table["rows"] for cell in row)


@pytest.mark.parametrize("asked", [("--frames", "1"), ()])
def test_an_animation_is_written_where_there_is_one(run, tmp_path, asked):
    done = run(*arguments_for("dream"), *MODEL, *asked, "-o", "grow.gif")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "grow.gif") as film:
        assert film.n_frames > 1


def test_the_pictures_can_be_written_apart(run, tmp_path):
    done = run(*arguments_for("dream"), *MODEL, "--pictures", "apart", "--json")
    written = json.loads(done.stdout)["pictures"]
    assert len(written) == len(list((tmp_path / "apart").glob("*.png"))) > 1


def test_an_animation_of_what_does_not_move_is_refused_before_the_work(run, tmp_path):
    done = run("features", "absent.png", "--model", "no_such_module:net", "-f", "gif", "--json")
    assert "features makes none" in json.loads(done.stdout)["error"]["problem"]
    assert not list(tmp_path.glob("*.gif"))


def test_the_input_shape_can_be_given(run):
    done = run("filters", *MODEL, "--input-shape", "12,nine,3", "--json")
    assert error_of(done) == "ParameterError"


def test_any_inspector_by_the_general_command(run):
    done = run("inspect", "filters", "cli_networks:plain", "--json")
    assert json.loads(done.stdout)["inspector"] == "filters", done.output
    text = run("inspect", "--help").stdout
    assert all(f"  {name} " in text for name in INSPECTORS)


def test_inspectors_are_listed(run):
    listed = {i["name"]: i for i in json.loads(run("inspectors", "--json").stdout)["inspectors"]}
    assert list(listed) == INSPECTORS
    assert listed["features"]["shown"] == "pictures"
    assert listed["features"]["parameters"][0]["name"] == "layer"
    lines = run("inspectors").stdout.splitlines()
    assert max(map(len, lines)) <= 130
    assert all(any(line.strip().startswith(f"{n} ") for line in lines) for n in INSPECTORS)
    limited = json.loads(run("inspectors", "--json", "-M", "cli_networks:plain").stdout)
    assert {i["name"] for i in limited["inspectors"]} <= set(INSPECTORS)


def test_an_inspector_is_described(run):
    text = run("inspectors", "DeepDream").stdout
    assert text.startswith("dream: ")
    assert "Mordvintsev" in text
    assert "octaves" in text
    assert "deepdream" in text
    record = json.loads(run("inspectors", "errors", "--json").stdout)
    assert record["shown"] == "labelled pictures"
    assert record["distribution"] == "cnnviz"


def test_doctor_tells_inspectors(run):
    report = json.loads(run("doctor", "--json").stdout)
    assert {i for plugin in report["plugins"] for i in plugin["inspectors"]} >= set(INSPECTORS)
    assert "occlusion-analysis" in run("doctor").stdout
