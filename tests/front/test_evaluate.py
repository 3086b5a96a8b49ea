"""Evaluating methods: what is measured of which picture, what it costs, and what is kept."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from front.evaluated import Asking, Inside, N, annotated

import cnnviz
from cnnviz.datasets import DatasetError, dataset_of
from cnnviz.evaluation import plan
from cnnviz_core.errors import (
    MissingCapabilityError,
    ParameterError,
    TargetError,
    UnknownLayerError,
    UnknownMethodError,
)
from cnnviz_core.explainer import Maps
from cnnviz_core.progress import listening
from cnnviz_core.testing.reference import ReferenceModel


@dataclass(frozen=True)
class Again(Asking):
    """Runs the method twice more."""

    def explanations(self, model, x):
        return 2

    def measure(self, explained):
        for _ in range(2):
            explained.again(explained.x + 1, explained.maps.targets)
        return super().measure(explained)


@dataclass(frozen=True)
class Noting:
    """A method of five forward passes that tells who called it."""

    called: ClassVar[list] = []
    needs: ClassVar[frozenset[str]] = frozenset()

    def passes(self, model, x):
        return 5

    def explain(self, model, x, targets):
        self.called.append(len(x))
        rng = np.random.default_rng(0)
        for _ in range(5):
            model.forward(x + rng.normal(size=x.shape[1:]))
        return Maps(raw=np.abs(x), targets=tuple(targets))


@pytest.fixture
def data():
    """Seven pictures of four sizes, of which one has no box."""
    return annotated()


@pytest.fixture
def count(monkeypatch):
    """The passes of the reference network, in samples; a backward pass counts as two."""
    counted = [0]

    def counting(name, weight):
        original = getattr(ReferenceModel, name)

        def call(self, x, *how, **more):
            counted[0] += weight * len(x)
            return original(self, x, *how, **more)

        monkeypatch.setattr(ReferenceModel, name, call)

    counting("forward", 1)
    counting("pullback", 3)
    return counted


def followed(planned):
    """Run an evaluation; give what its bar told, as (done, total)."""
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        planned.run()
    bar = [(done, total) for what, done, total in told if what == "forward passes"]
    assert {total for _, total in bar} == {max(1, planned.cost.passes)}
    assert [done for done, _ in bar] == sorted(done for done, _ in bar)
    assert bar[-1][0] == bar[-1][1]
    return bar


def test_each_picture_is_explained_and_measured(network, data):
    """The engine agrees with explaining and measuring one picture after the other."""
    e = cnnviz.evaluate(network, data, "grad-cam, saliency", [Inside()], batch_size=3)
    assert (e.methods, e.metrics) == (("grad-cam", "saliency"), ("Inside",))
    for method in e.methods:
        shares = []
        for picture, label, boxes in zip(*data.values(), strict=True):
            one = cnnviz.explain(network, picture, method, target=label)
            if boxes is None:
                shares.append(np.nan)
                continue
            (x0, y0, x1, y1) = one.geometry[0].boxes_to_input(np.array(boxes))[0].round()
            heat = one.maps[0].astype(float)
            rows = slice(int(y0), int(y1)), slice(int(x0), int(x1))
            shares.append(heat[rows].sum() / heat.sum() if heat.sum() else 0.0)
        np.testing.assert_allclose(e.records[method, "Inside"]["share"], shares, rtol=1e-6)
        score = next(s for s in e.summary if s.method == method and s.headline)
        assert score.value == pytest.approx(np.nanmean(shares), rel=1e-6)
        assert (score.name, score.pictures) == ("share", N - 1)


def test_the_table_is_tidy(network, data):
    e = cnnviz.evaluate(network, data, "saliency", [Inside(), Asking()], resamples=0)
    rows = list(e.rows())
    assert len(rows) == 2 * N  # "place" is more than a number
    assert [row.label for row in rows[:N]] == data["labels"]
    assert [row.target for row in rows[:N]] == data["labels"]
    assert {(row.method, row.metric, row.name) for row in rows} == {
        ("saliency", "Inside", "share"),
        ("saliency", "Asking", "mean"),
    }
    table = pytest.importorskip("pandas").DataFrame(rows)
    assert list(e.table.columns) == list(table.columns)
    assert (e.table["value"].isna() == table["value"].isna()).all()


def test_the_stated_cost_is_what_is_spent(network, data, count):
    """All passes that are made are those that were told, one pass of each picture apart."""
    planned = plan(network, data, [Noting()], [Asking(), Again()], batch_size=4)
    # Of the method 5, of the metrics 3, and 3 with twice the method again.
    assert planned.cost.passes == N * (5 + 3 + 3 + 2 * 5)
    assert planned.cost.done == 0
    assert planned.cost.seconds > 0
    count[0] = 0
    bar = followed(planned)
    assert count[0] == planned.cost.passes + N  # this method never looks at the pictures themselves
    assert bar[0] == (0, planned.cost.passes)
    assert bar[1][0] == planned.cost.passes * 4 // N  # a batch of 4
    assert re.fullmatch(
        r"7 items, 1 method, 2 metrics: about 147 forward passes, .+ at .+ ms each",
        str(planned.cost),
    )


SPENDING = {
    # A map; a deletion of 4 steps from the picture to the fill; and the map of 2 neighbours.
    "saliency": (3, 5, 2 * 3),
    "grad-cam": (3, 5, 2 * 3),
    "guided-grad-cam": (6, 5, 2 * 6),
    "smoothgrad(samples=3)": (10, 5, 2 * 10),
    "occlusion(window=6, stride=3)": (7, 5, 2 * 7),
}


@pytest.mark.parametrize("batch_size", [3, N])
def test_the_passes_of_methods_and_metrics_add_up(network, data, count, batch_size):
    metrics = "deletion(steps=4), max-sensitivity(draws=2), energy-pointing-game"
    planned = plan(network, data, list(SPENDING), metrics, batch_size=batch_size, resamples=0)
    assert planned.cost.passes == N * sum(map(sum, SPENDING.values()))
    count[0] = 0
    bar = followed(planned)
    assert len(bar) >= len(SPENDING)
    # The methods share their forward passes of the pictures themselves, and so do the deletions.
    shared = 2 * len(SPENDING)
    assert planned.cost.passes - N * shared <= count[0] <= planned.cost.passes


@pytest.mark.parametrize("method", SPENDING)
def test_one_method_spends_what_is_stated_to_the_last_pass(network, data, count, method):
    planned = plan(network, data, method, "max-sensitivity(draws=2)", batch_size=4, resamples=0)
    assert planned.cost.passes == N * (SPENDING[method][0] + SPENDING[method][2])
    count[0] = 0
    followed(planned)
    assert count[0] == planned.cost.passes


def test_one_explanation_for_all_metrics_and_no_more_pictures_than_a_batch(network, data):
    noting = Noting()
    noting.called.clear()
    cnnviz.evaluate(network, data, [noting], [Inside(), Inside(2), Asking()], batch_size=3)
    assert noting.called == [3, 3, 1]


def test_pictures_are_read_a_batch_at_a_time(network, data, monkeypatch):
    from cnnviz.datasets import Item

    events = []
    read = Item.read
    monkeypatch.setattr(Item, "read", lambda self: events.append("read") or read(self))

    @dataclass(frozen=True)
    class Telling(Noting):
        def explain(self, model, x, targets):
            events.append("explain")
            return super().explain(model, x, targets)

    planned = plan(network, data, [Telling()], [Inside()], batch_size=3)
    events.clear()
    planned.run()
    assert "".join(event[0] for event in events) == "rrrerrrere"


def test_methods_share_their_passes(network, data, count):
    planned = plan(network, data, "grad-cam, hires-cam, xgrad-cam", [Inside()], batch_size=N)
    count[0] = 0
    planned.run()
    assert count[0] == 3 * N


def test_methods_are_told_the_bounds_and_the_layer(network, data):
    given = []

    @dataclass(frozen=True)
    class Bounded(Noting):
        low: float | np.ndarray | None = None
        high: float | np.ndarray | None = None
        layer: str = "auto"

        def explain(self, model, x, targets):
            given.append((float(np.min(self.low)), float(np.max(self.high))))
            return super().explain(model, x, targets)

    cnnviz.evaluate(network, data, [Bounded()], [Inside()])
    assert given == [(0.0, 1.0)]
    e = cnnviz.evaluate(network, data, "grad-cam", [Inside()], layer="relu1", resamples=0)
    own = cnnviz.evaluate(network, data, "grad-cam(layer=relu1)", [Inside()], resamples=0)
    assert (e.methods, own.methods) == (("grad-cam",), ("grad-cam(layer=relu1)",))
    one, other = (next(iter(each.records.values()))["share"] for each in (e, own))
    np.testing.assert_array_equal(one, other)


def test_what_is_asked_of_the_network(network, data):
    def targets(target):
        e = cnnviz.evaluate(network, data, "saliency", [Asking()], target=target, resamples=0)
        return [row.target for row in e.rows()]

    predicted = cnnviz.explain(network, data["pictures"], "saliency").target_labels
    assert targets("truth") == data["labels"]
    assert targets("predicted") == list(predicted)
    assert targets("bee") == ["bee"] * N
    assert targets("bee - ant") == ["bee rather than ant"] * N
    with pytest.raises(TargetError, match="stands for 2 targets"):
        targets("top-2")


def test_pictures_without_annotation(network, data):
    bare = {"pictures": data["pictures"]}
    with pytest.raises(DatasetError, match="no picture of arrays has a class to ask for"):
        cnnviz.evaluate(network, bare, "saliency", [Inside()])
    e = cnnviz.evaluate(network, bare, "saliency", [Inside()], target="predicted")
    assert np.isnan(e.summary[0].value)
    assert e.notes == ("Inside found nothing to measure on any picture: it asks for boxes",)
    assert "-" in repr(e)


def test_what_is_wrong_with_the_data_is_listed(network, data):
    data["labels"][1], data["labels"][2] = "unicorn", None
    data["boxes"][0] = [[5, 5, 5, 9], [500, 1, 600, 9], [1, 1, 9, 9]]
    e = cnnviz.evaluate(network, data, "saliency", [Inside()], resamples=0)
    assert len(e.pictures) == N - 2
    assert e.counts["unknown class"] == e.counts["box outside"] == e.counts["box without area"] == 1
    assert "problems of the data set" in repr(e)


def test_classes_may_be_wordnet_ids(network, data):
    wnids = [f"n0000000{i}" for i in range(5)]
    data["labels"] = [wnids[i % 5] for i in range(N)]
    e = cnnviz.evaluate(network, data, "saliency", Asking(), wnids=wnids, resamples=0)
    assert [row.target for row in e.rows()] == [network.labels[i % 5] for i in range(N)]


def test_a_limit_draws_the_same_pictures_and_more(network, data):
    ids = [
        {p.id for p in cnnviz.evaluate(network, data, "saliency", [Inside()], limit=n).pictures}
        for n in (1, 3, 6)
    ]
    assert [len(each) for each in ids] == [1, 3, 6]
    assert ids[0] < ids[1] < ids[2]
    with pytest.raises(ParameterError, match="limit is 0"):
        cnnviz.evaluate(network, data, "saliency", [Inside()], limit=0)


# ----------------------------------------------------------------------------- what fails


@dataclass(frozen=True)
class Fragile(Noting):
    """Fails on pictures whose mean is high."""

    above: float = 0.5

    def explain(self, model, x, targets):
        if (x.mean(axis=(1, 2, 3)) > self.above).any():
            raise RuntimeError("too bright")
        return super().explain(model, x, targets)


@dataclass(frozen=True)
class Touchy(Inside):
    """Fails on pictures whose mean is high."""

    above: float = 0.5

    def measure(self, explained):
        if (explained.x.mean(axis=(1, 2, 3)) > self.above).any():
            raise RuntimeError("too bright")
        return super().measure(explained)


@pytest.fixture
def bright(data):
    """The same with two pictures that are brighter than the others."""
    for i in (1, 4):
        data["pictures"][i] = data["pictures"][i] // 8 + 200
    return data


def test_a_method_that_fails_on_a_picture_harms_no_other(network, bright):
    e = cnnviz.evaluate(
        network, bright, ["saliency", Fragile(above=0.6)], [Inside(), Asking()], batch_size=3
    )
    assert [(f.picture, f.method, f.metric) for f in e.failures] == [
        (e.pictures[i].id, "Fragile(above=0.6)", "") for i in (1, 4)
    ]
    assert "RuntimeError: too bright" in str(e.failures[0])
    values = e.records["Fragile(above=0.6)", "Asking"]["mean"]
    assert np.flatnonzero(np.isnan(values)).tolist() == [1, 4]
    assert np.isfinite(e.records["saliency", "Asking"]["mean"]).all()


def test_a_metric_that_fails_on_a_picture_harms_no_other(network, bright):
    e = cnnviz.evaluate(network, bright, "saliency", [Touchy(above=0.6), Asking()], batch_size=3)
    assert [(f.picture, f.metric) for f in e.failures] == [
        (e.pictures[i].id, "Touchy(above=0.6)") for i in (1, 4)
    ]
    assert np.isfinite(e.records["saliency", "Asking"]["mean"]).all()
    heads = {s.metric: s.pictures for s in e.summary if s.headline}
    assert heads == {"Touchy(above=0.6)": N - 3, "Asking": N}


def test_what_never_works_is_given_up(network):
    rng = np.random.default_rng(0)
    many = {"pictures": rng.integers(0, 256, (40, 12, 9, 3), dtype=np.uint8), "labels": [0] * 40}
    e = cnnviz.evaluate(
        network, many, ["saliency", Fragile(above=-1)], [Asking(), Touchy(above=-1)], batch_size=4
    )
    assert e.left_out == {
        "Fragile(above=-1)": "it failed on the first 16 pictures",
        "saliency, Touchy(above=-1)": "it failed on the first 16 pictures",
    }
    assert len(e.failures) == 32
    assert np.isfinite(e.records["saliency", "Asking"]["mean"]).all()


def test_the_bar_goes_on_evenly_where_something_fails(network, tmp_path):
    """What is given up, and pictures that cannot be read, are behind it with their batch."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(
            tmp_path / f"{i:02}.png"
        )
    for i in (5, 6, 7, 38):
        whole = (tmp_path / f"{i:02}.png").read_bytes()
        (tmp_path / f"{i:02}.png").write_bytes(whole[: len(whole) // 2])
    methods, metrics = ["saliency", Fragile(above=-1)], [Asking(), Touchy(above=-1)]
    planned = plan(network, tmp_path, methods, metrics, target="predicted", batch_size=8)
    bar = followed(planned)
    each = planned.cost.passes // 5
    assert {each * batch for batch in range(6)} <= {done for done, _ in bar}
    steps = np.diff([done for done, _ in bar])
    assert steps.max() <= each


def test_what_does_not_fit_the_network_is_left_out(data):
    def scores(x):
        return x.reshape(len(x), -1)[:, :5]

    black_box = cnnviz.wrap(scores, preprocess=cnnviz.Preprocessing(size=(12, 9)))
    data["labels"] = [1] * N
    e = cnnviz.evaluate(black_box, data, "grad-cam, occlusion(window=4)", [Inside()], resamples=0)
    assert list(e.left_out) == ["grad-cam"]
    assert "grad-cam needs" in e.left_out["grad-cam"]
    assert {s.method for s in e.summary} == {"occlusion(window=4)"}
    with pytest.raises(MissingCapabilityError, match="nothing can be evaluated: grad-cam"):
        cnnviz.evaluate(black_box, data, "grad-cam", [Inside()])


def test_a_picture_that_cannot_be_read_is_listed(network, data, tmp_path):
    from PIL import Image

    for i, pixels in enumerate(data["pictures"]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    damaged = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(damaged[: len(damaged) // 2])
    e = cnnviz.evaluate(network, tmp_path, "saliency", [Asking()], target="predicted")
    assert [(f.picture, f.method) for f in e.failures] == [("2.png", "")]
    assert np.flatnonzero(np.isnan(e.records["saliency", "Asking"]["mean"])).tolist() == [2]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"methods": "grad-kam"}, UnknownMethodError, "grad-kam"),
        ({"methods": ""}, ParameterError, "no method was given"),
        ({"methods": "saliency, saliency"}, ParameterError, "'saliency' was asked for twice"),
        ({"methods": [3]}, ParameterError, "3 is no method"),
        ({"methods": "occlusion(size=3)"}, ParameterError, "size"),
        ({"methods": "grad-cam", "layer": "nowhere"}, UnknownLayerError, "nowhere"),
        ({"methods": "saliency", "layer": "relu1"}, ParameterError, "no method .* looks at a lay"),
        ({"metrics": "no-such-metric"}, UnknownMethodError, "no-such-metric"),
        ({"metrics": "deletion(steps"}, ParameterError, "does not name a metric"),
        ({"metrics": []}, ParameterError, "no metric was given"),
        ({"metrics": [object()]}, ParameterError, "is no metric"),
        ({"batch_size": 0}, ParameterError, "batch_size is 0"),
        ({"resamples": -1}, ParameterError, "resamples is -1"),
        ({"data": "no/such/folder"}, DatasetError, "there is no file"),
    ],
)
def test_mistakes_are_told_at_once(network, data, changed, error, message):
    given = {"data": data, "methods": "saliency", "metrics": [Inside()], **changed}
    with pytest.raises(error, match=message):
        plan(network, **given)


# ----------------------------------------------------------------------------- how it is asked


def test_methods_are_named_after_what_differs(network, data):
    e = cnnviz.evaluate(
        network,
        data,
        {"occlusion": {"window": 4}, "coarse": "occlusion(window=6, stride=3)", "mine": Noting()},
        {"sharp": Inside(power=2)},
        limit=1,
    )
    assert e.methods == ("occlusion(window=4)", "coarse", "mine")
    assert e.metrics == ("sharp",)
    e = cnnviz.evaluate(network, data, "Occlusion(window=6,stride=3),GradCAM", Inside(3), limit=1)
    assert e.methods == ("occlusion(window=6, stride=3)", "grad-cam")
    assert e.metrics == ("Inside(power=3)",)


def test_a_data_set_is_taken_as_it_is(network, data):
    dataset = dataset_of(**data, name="seven")
    e = cnnviz.evaluate(network, dataset, "saliency", [Inside()], resamples=0)
    assert e.title == "plain on seven"
    assert e.settings["data_fingerprint"] == dataset.fingerprint


# ----------------------------------------------------------------------------- what is kept


def calls(network, data, out, metrics=None, **how):
    """Evaluate, and tell how many pictures were explained for it."""
    Noting.called.clear()
    cnnviz.evaluate(network, data, [Noting()], metrics or Inside(), out=out, resamples=0, **how)
    return sum(Noting.called)


def test_what_is_done_is_not_done_again(network, data, tmp_path):
    assert calls(network, data, tmp_path, limit=3) == 3
    assert calls(network, data, tmp_path) == N - 3
    assert calls(network, data, tmp_path) == 0
    assert calls(network, data, tmp_path, batch_size=2) == 0
    assert calls(network, data, tmp_path, metrics=(Inside(), Asking())) == N
    assert plan(network, data, [Noting()], [Inside(), Asking()], out=tmp_path).cost.passes == 0


def test_a_resumed_run_tells_what_is_left_and_what_is_done(network, data, tmp_path, count):
    """Of 7 pictures 3 have been explained, in 3 passes, and measured by one metric, in 3."""
    both = [Asking(), Again()]
    cnnviz.evaluate(network, data, "saliency", both[:1], limit=3, out=tmp_path, resamples=0)
    for metrics, left, done in (
        (both[:1], 4 * (3 + 3), 3 * (3 + 3)),
        # With another metric all are explained again.
        (both, N * (3 + 3 + 2 * 3), N * 3),
        (both, 0, N * (3 + 3 + 3 + 2 * 3)),
    ):
        planned = plan(network, data, "saliency", metrics, out=tmp_path, batch_size=2, resamples=0)
        assert (planned.cost.passes, planned.cost.done) == (left, done)
        assert ("all is done already" in str(planned.cost)) == (left == 0)
        count[0] = 0
        bar = followed(planned)
        assert count[0] == left
        assert bar[0][0] == 0 or not left


def test_a_changed_setting_makes_new_records(network, data, tmp_path):
    assert calls(network, data, tmp_path) == N
    assert calls(network, data, tmp_path, metrics=[Inside(power=2)]) == N
    assert calls(network, data, tmp_path, target="bee") == N
    assert calls(network, data, tmp_path, seed=1) == N
    darker = dataclasses.replace(network, preprocessing=cnnviz.Preprocessing((12, 9), mean=(0.5,)))
    assert calls(darker, data, tmp_path) == N
    # And what was there first still is.
    assert calls(network, data, tmp_path) == 0


def test_a_changed_annotation_or_picture_makes_a_new_record(network, data, tmp_path):
    assert calls(network, data, tmp_path) == N
    data["boxes"][0] = [[1, 1, 5, 5]]
    data["pictures"][1] = 255 - data["pictures"][1]
    assert calls(network, data, tmp_path) == 2


def test_another_network_has_its_own_records(data, tmp_path):
    def of(shift):
        def scores(x):
            return x.reshape(len(x), -1)[:, shift : shift + 5]

        how = cnnviz.Preprocessing(size=(12, 9))
        return cnnviz.wrap(scores, preprocess=how, labels=("ant", "bee", "cat", "dog", "eel"))

    assert calls(of(0), data, tmp_path) == N
    assert calls(of(3), data, tmp_path) == N
    assert calls(of(0), data, tmp_path) == 0
