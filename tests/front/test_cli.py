from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz_core.errors import ParameterError
from cnnviz_core.registry import get_registry
from support.commands import runner


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in a folder with networks and pictures."""
    return runner(tmp_path, monkeypatch)


MODEL = ("--model", "cli_networks:plain")


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_for_each_picture_and_method(run, tmp_path):
    done = run(
        *("explain", "a.png", "b.png", *MODEL, "-m", "grad-cam", "-m", "saliency"),
        *("--out", "new/out", "--boxes"),
    )
    assert done.exit_code == 0, done.output
    assert files(tmp_path / "new/out") == [
        "a-grad-cam.png",
        "a-saliency.png",
        "b-grad-cam.png",
        "b-saliency.png",
    ]
    with Image.open(tmp_path / "new/out/a-grad-cam.png") as overlay:
        assert overlay.size == (30, 20)
    for word in ("a.png", "saliency", "relu2", "plain (numpy)"):
        assert word in done.stdout


def test_the_files_are_what_the_library_makes(run, tmp_path):
    done = run("explain", "a.png", *MODEL, "-t", "cat", "-f", "npz", "-f", "png", "--boxes")
    assert done.exit_code == 0, done.output
    network = cnnviz.load("cli_networks:plain")
    e = cnnviz.explain(network, "a.png", target="cat")
    assert cnnviz.Explanation.load("a-grad-cam-cat.npz") == e
    with Image.open("a-grad-cam-cat.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(e.overlay(boxes=True)))


def test_top_k_writes_a_file_for_each_class(run, tmp_path):
    done = run("explain", "a.png", *MODEL, "--target", "top-5", "--out", "out", "--json")
    results = json.loads(done.stdout)["results"]
    assert [r["target"] for r in results] == [p["label"] for p in results[0]["predictions"]]
    names = {f"a-grad-cam-{label}.png" for label in ("ant", "bee", "cat", "dog", "big-cat")}
    assert set(files(tmp_path / "out")) == names


def test_pictures_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    Image.open("a.png").save("a.jpg")
    done = run("explain", "a.png", "sub/a.png", "a.jpg", *MODEL, "--out", "out", "--json")
    assert done.exit_code == 0
    written = [f for r in json.loads(done.stdout)["results"] for f in r["files"]]
    assert len(set(written)) == 3
    assert files(tmp_path / "out") == ["a-2-grad-cam.png", "a-3-grad-cam.png", "a-grad-cam.png"]


def test_json_is_one_document(run):
    done = run("explain", "a.png", "broken.png", *MODEL, "-m", "occlusion", "--json")
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    (result,) = document["results"]
    e = cnnviz.explain(cnnviz.load("cli_networks:plain"), "a.png", "occlusion")
    assert result["target"] == e.target_labels[0]
    assert result["score"] == pytest.approx(float(e.scores[0]))
    assert result["probability"] == pytest.approx(float(e.probabilities[0]))
    assert result["boxes"] == e.boxes()[0].tolist()
    assert result["params"]["fill"] == "mean"
    (failure,) = document["failures"]
    assert failure["picture"] == "broken.png"
    assert failure["error"]["type"] == "ImageError"


def test_one_bad_picture_does_not_stop_the_others(run, tmp_path):
    done = run("explain", "broken.png", "a.png", "missing.png", *MODEL, "--out", "out")
    assert done.exit_code == 3
    assert files(tmp_path / "out") == ["a-grad-cam.png"]
    assert "broken.png" in done.stderr
    assert "missing.png" in done.stderr
    assert run("explain", "broken.png", "missing.png", *MODEL).exit_code == 1


def test_options_come_from_the_methods(run):
    text = run("explain", "--method", "occlusion", "--help").stdout
    assert "Options of occlusion" in text
    for parameter in get_registry().parameters("occlusion"):
        assert f"--{parameter.name.replace('_', '-')}" in text
    assert "--window" not in run("explain", "--help").stdout
    both = run("explain", "-m", "grad-cam", "-mocclusion", "--help").stdout
    assert "Options of grad-cam, occlusion" in both


def test_options_reach_the_method(run):
    done = run(
        *("explain", "a.png", *MODEL, "--json", "-m", "grad-cam", "--method=occlusion"),
        *("--window", "3", "--stride", "2", "--fill", "0.5", "--batch-size", "7"),
    )
    assert done.exit_code == 0, done.output
    cam, occlusion = json.loads(done.stdout)["results"]
    assert "window" not in cam["params"]
    assert occlusion["params"] == {
        "window": 3,
        "stride": 2,
        "shape": "box",
        "fill": 0.5,
        "seed": 0,
        "batch_size": 7,
    }


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("-m", "grad-cma"), "UnknownMethodError"),
        (("-m", "grad-cma", "--widow", "3"), "UnknownMethodError"),
        (("-l", "conv9"), "UnknownLayerError"),
        (("-t", "mouse"), "UnknownClassError"),
        (("-t", "9"), "UnknownClassError"),
        (("-m", "saliency", "-l", "conv1"), "ParameterError"),
        (("-m", "occlusion", "--window", "wide"), "ParameterError"),
        (("-m", "occlusion", "--window", "0"), "ParameterError"),
        (("--labels", "nowhere.txt"), "ParameterError"),
        (("--preprocess", "nowhere.json"), "ParameterError"),
        (("--out", "a.png/sub"), "ParameterError"),
    ],
)
def test_errors_are_explained(run, arguments, kind):
    done = run("explain", "a.png", *MODEL, *arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "what to do:" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("explain", "a.png", *MODEL, *arguments, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["type"] == kind


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain",),
        ("explain", "a.png"),
        ("explain", "a.png", *MODEL, "--widow", "3"),
        ("explain", "a.png", *MODEL, "--threshold", "1"),
        ("explain", "a.png", *MODEL, "--format", "gif"),
        ("explian",),
        ("compare", *MODEL),
        ("layers",),
    ],
)
def test_mistyped_commands_are_usage_errors(run, arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_an_unknown_source_lists_what_there_is(run):
    done = run("explain", "a.png", "--model", "torchvison:resnet50")
    assert done.exit_code == 1
    assert "torchvision:resnet50" in done.stderr
    assert "demo" in done.stderr


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(run):
    done = run("explain", "a.png", "--model", "cli_networks:bare")
    assert done.exit_code == 0
    assert len([line for line in done.stderr.splitlines() if line]) == 1
    assert done.stderr.startswith("warning: the preprocessing of bare is not known")


def test_labels_and_preprocessing_can_be_given(run, tmp_path):
    (tmp_path / "names.txt").write_text("v\nw\nx\ny\nz\n")
    (tmp_path / "how.json").write_text('{"size": [12, 9], "mean": [0.5], "std": [0.5]}')
    given = ("--model", "cli_networks:bare", "--labels", "names.txt", "--json")
    done = run("explain", "a.png", *given, "--preprocess", "how.json")
    assert done.exit_code == 0
    assert done.stderr == ""
    document = json.loads(done.stdout)
    steps = cnnviz.Preprocessing(size=(12, 9), mean=(0.5,), std=(0.5,))
    network = cnnviz.load("cli_networks:bare")
    e = cnnviz.explain(network, "a.png", preprocess=steps)
    assert document["results"][0]["score"] == pytest.approx(float(e.scores[0]))
    assert document["results"][0]["target"] in "vwxyz"
    unit = run("explain", "a.png", *given, "--preprocess", "unit")
    assert unit.stderr == ""
    (tmp_path / "how.json").write_text('{"sise": [12, 9]}')
    assert (
        "unknown field 'sise'" in run("explain", "a.png", *given, "--preprocess", "how.json").stderr
    )


def test_compare_writes_one_file(run, tmp_path):
    done = run("compare", "a.png", "b.png", *MODEL, "--out", "new/both.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "new/both.html").read_text(encoding="utf-8")
    for method in get_registry().explainers:
        assert method in page
    done = run(
        *("compare", "a.png", "broken.png", *MODEL, "--out", "one.png", "--json"),
        *("-m", "occlusion", "-m", "cam", "--window", "4", "-t", "bee"),
    )
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert list(document["methods"]) == ["occlusion", "cam"]
    assert document["targets"] == ["bee"]
    assert document["file"] == "one.png"
    assert (tmp_path / "one.png").is_file()


def test_compare_leaves_out_what_cannot_run(run):
    done = run("compare", "a.png", "--model", "cli_networks:smooth", "--preprocess", "unit")
    assert done.exit_code == 0, done.output
    assert "left out" in done.stdout


def test_methods_are_listed(run):
    listed = {m["name"]: m for m in json.loads(run("methods", "--json").stdout)["methods"]}
    assert list(get_registry().explainers) == sorted(listed)
    text = run("methods").stdout
    assert all(name in text for name in listed)
    assert listed["occlusion"]["parameters"][0]["name"] == "window"
    limited = json.loads(run("methods", "--json", "-M", "cli_networks:plain").stdout)["methods"]
    assert len(limited) == len(listed)


def test_a_method_is_described(run):
    text = run("methods", "GradCAM").stdout
    assert text.startswith("grad-cam: ")
    assert "Selvaraju" in text
    assert "layer" in text
    record = json.loads(run("methods", "occlusion", "--json").stdout)
    assert record["parameters"][3]["default"] == "mean"
    assert record["composites"] == []
    assert run("methods", "occlusoin").exit_code == 1


def test_a_method_that_takes_composites_lists_them(run):
    rules = get_registry().rules
    text = run("methods", "lrp").stdout
    assert "rules of relevance" in text  # not each kind of operation
    assert all(f" {name} " in text and rule.summary in text for name, rule in rules.items())
    record = json.loads(run("methods", "lrp", "--json").stdout)
    assert [each["name"] for each in record["composites"]] == list(rules)
    assert "rule:conv" in record["needs"]
    assert "epsilon-plus" not in run("methods", "deep-taylor").stdout
    announced = [name for p in doctored(run)["plugins"] for name in p["rules"]]
    assert set(rules) <= set(announced)
    assert "epsilon-gamma-box" in run("doctor").stdout


def doctored(run):
    return json.loads(run("doctor", "--json").stdout)


def test_doctor_shows_a_rule_that_cannot_be_made(run, monkeypatch):
    whole = type(get_registry()).rule

    def rule(self, name, **options):
        if name == "gamma":
            raise cnnviz.CnnvizError("it broke", "not to break", "repair it")
        return whole(self, name, **options)

    monkeypatch.setattr(type(get_registry()), "rule", rule)
    (failure,) = doctored(run)["failures"]
    assert failure["entry_point"] == "gamma (cnnviz_relevance.composites:gamma)"


def test_layers_are_listed(run):
    records = json.loads(run("layers", "cli_networks:plain", "--json").stdout)["layers"]
    assert [r["name"] for r in records if r["auto"]] == ["relu2"]
    assert records[0]["shape"] == [12, 9, 6]
    assert "12 x 9 x 6" in run("layers", "cli_networks:plain").stdout
    assert run("layers", "cli_networks:plain", "--input-shape", "12,nine,3").exit_code == 1


def test_doctor_tells_versions_and_plugins(run):
    report = json.loads(run("doctor", "--json").stdout)
    assert report["packages"]["numpy"] == np.__version__
    assert {b["name"] for b in report["backends"]} == {"torch", "tensorflow"}
    announced = {name for plugin in report["plugins"] for name in plugin["explainers"]}
    assert set(get_registry().explainers) <= announced
    assert report["failures"] == []
    assert "No plugin failed" in run("doctor").stdout


def test_doctor_shows_what_cannot_be_imported(run, monkeypatch):
    registry = get_registry()

    def parameters(name):
        if name == "occlusion":
            raise cnnviz.CnnvizError("it broke", "not to break", "repair it") from OSError("disk")
        return ()

    monkeypatch.setattr(registry, "parameters", parameters)
    done = run("doctor", "--json")
    assert done.exit_code == 0
    (failure,) = json.loads(done.stdout)["failures"]
    assert failure["stage"] == "import"
    assert failure["error"] == "OSError: disk"
    assert "occlusion" in run("doctor").stdout


def test_version(run):
    assert run("--version").stdout == f"cnnviz {cnnviz.__version__}\n"
    assert "demo" in run("--help").stdout


def test_python_dash_m():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "cnnviz", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cnnviz {cnnviz.__version__}\n"


def test_progress_is_shown_on_a_terminal_and_nowhere_else(monkeypatch, capsys):
    import sys

    from cnnviz.cli.base import progress
    from cnnviz_core.progress import advance

    with progress():
        advance("work", 1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress():
        advance("work", 1, 2)
        advance("work", 2, 2)
    captured = capsys.readouterr()
    assert "work" in captured.err
    assert captured.out == ""


def test_methods_are_named_with_commas_or_one_by_one(run):
    asked = ("compare", "a.png", *MODEL, "--json", "-o", "c.html")
    for names in (("--methods", "cam,grad-cam"), ("-m", "cam", "--method", "grad-cam")):
        done = run(*asked, *names)
        assert list(json.loads(done.stdout)["methods"]) == ["cam", "grad-cam"]
    done = run("explain", "a.png", *MODEL, "--json", "-m", "cam,saliency")
    assert [r["method"] for r in json.loads(done.stdout)["results"]] == ["cam", "saliency"]


def test_the_budget_leaves_out_what_is_slow_and_was_not_named(run):
    asked = ("compare", "a.png", *MODEL, "--json", "-o", "c.html", "--budget")
    document = json.loads(run(*asked, "5", "--methods", "all").stdout)
    assert "raise the budget" in document["skipped"]["occlusion"]
    document = json.loads(run(*asked, "5", "-m", "all,occlusion", "--window", "4").stdout)
    assert "occlusion" in document["methods"]
    assert run(*asked, "none", "-m", "cam").exit_code == 0
    assert run(*asked, "few", "-m", "cam").exit_code == 1


def test_the_presentation_is_an_option(run, tmp_path):
    asked = ("explain", "a.png", *MODEL, "-m", "saliency", "-f", "npz")
    plain, shown = tmp_path / "plain", tmp_path / "shown"
    assert run(*asked, "--out", plain).exit_code == 0
    how = ("--sign", "signed", "--reduce", "mean", "--upsample", "nearest")
    assert run(*asked, "--out", shown, *how).exit_code == 0
    one, other = (cnnviz.Explanation.load(f / "a-saliency.npz") for f in (plain, shown))
    assert other == one.shown(sign="signed", reduce="mean", upsample="nearest")
    for scale in ("max", "percentile", "min-max", "none"):
        done = run("explain", "a.png", *MODEL, "--normalise", scale, "--out", scale)
        assert done.exit_code == 0, done.output
    minmax, top = (Image.open(tmp_path / s / "a-grad-cam.png") for s in ("none", "max"))
    assert minmax.tobytes() != top.tobytes()
    done = run("compare", "a.png", *MODEL, "-m", "cam", *how, "--normalise", "min-max")
    assert done.exit_code == 0, done.output


def test_layers_and_targets_in_words(run):
    records = json.loads(run("layers", "cli_networks:plain", "--json").stdout)["layers"]
    at = {record["name"]: record["from_the_end"] for record in records}
    assert at[records[-1]["name"]] == -1
    asked = ("explain", "a.png", *MODEL, "--json", "--layer")
    for layer in (at["conv1"], "conv1*"):
        (result,) = json.loads(run(*asked, layer).stdout)["results"]
        assert result["layer"] == "conv1"
    for text, said in (
        ("cat - dog", "cat rather than dog"),
        ("2 rather than 3", "cat rather than dog"),
        ("p(cat)", "probability of cat"),
    ):
        (result,) = json.loads(run(*asked, "conv1", "--target", text).stdout)["results"]
        assert result["target"] == said
    assert "rather than" in run("explain", "--help").stdout


def test_the_list_of_methods_is_grouped_and_narrow(run):
    text = run("methods").stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    heads = [line.strip() for line in lines]
    assert heads.index("cam") < heads.index("gradient") < heads.index("perturbation")
    assert any("eigen-cam *" in line for line in lines)
    assert any("grad-cam " in line and "Selvaraju 2017" in line for line in lines)
    records = {m["name"]: m for m in json.loads(run("methods", "--json").stdout)["methods"]}
    assert records["eigen-cam"]["class_agnostic"]
    assert records["grad-cam"]["cost"] == "1 forward, 1 backward"
    for name in ("gradcam++", "GradCAMPlusPlus", "grad-cam-pp"):
        told = run("methods", name).stdout
        assert told.startswith("grad-cam++: ")
        assert "costs     1 forward, 1 backward" in told


@pytest.mark.parametrize("method", ["occlusion", "rise", "grad-cam", "integrated-gradients"])
def test_the_batch_size_may_be_measured(method, run):
    done = run("explain", "a.png", *MODEL, "-m", method, "-f", "npz", "--batch-size", "auto")
    assert done.exit_code == 0, done.output
    measured = cnnviz.Explanation.load(f"a-{method}.npz")
    given = cnnviz.explain(cnnviz.load("cli_networks:plain"), "a.png", method, batch_size=3)
    np.testing.assert_allclose(measured.raw, given.raw, rtol=1e-4, atol=1e-6)


def test_another_word_is_no_batch_size(run):
    assert run("explain", "a.png", *MODEL, "--batch-size", "many").exit_code == 2
    with pytest.raises(ParameterError, match="'many'"):
        cnnviz.explain(cnnviz.load("cli_networks:plain"), "a.png", "occlusion", batch_size="many")
