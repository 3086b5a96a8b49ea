"""Errors on labelled pictures: against scikit-learn, brute force and the explainers themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

import cnnviz_features.judging
from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    TargetError,
    UnknownClassError,
    UnknownMethodError,
)
from cnnviz_core.exhibits import Gallery, Matrix, Table
from cnnviz_core.explainer import Presentation, present, require
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.maps import resize
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.errors import Errors
from cnnviz_features.judging import Judged

N, CLASSES = 60, 5
LABELS = ("ant, pismire", "bee", "cat", "dog", "eel")
SHORT = ["ant", "bee", "cat", "dog", "eel"]


def pictures_of(name, n=N, seed=3):
    (x,) = random_input(NETS[name](), n, seed).values()
    return x.astype(np.float64)


def network(name="plain"):
    return ReferenceModel(NETS[name](), "float64")


X = 3 * pictures_of("plain")
LOGITS = network().forward(X).logits
ANSWERS = LOGITS.argmax(-1)
TRUTH = np.where(np.arange(N) % 3, ANSWERS, np.random.default_rng(1).integers(0, CLASSES, N))


class Pictures(ArrayPictures):
    """Pictures of which some cannot be read."""

    unreadable = frozenset()

    def read(self, index):
        return None if index in self.unreadable else super().read(index)


def subject(x=X, truth=TRUTH, model=None, unreadable=(), **more):
    classes = tuple(None if t is None else int(t) for t in truth)
    pictures = Pictures(x, tuple(f"{k}.png" for k in range(len(x))), classes)
    object.__setattr__(pictures, "unreadable", frozenset(unreadable))
    space = PixelSpace(np.eye(3) * 4, np.full(3, -2.0))
    model = model or network()
    return Subject(model, pictures, space, x.shape[1:], labels=LABELS, name="plain", **more)


def probabilities_of(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


P = probabilities_of(LOGITS)
FOUND = Errors(count=6).inspect(subject())

# ------------------------------------------------------------------------------------ judging


@parametrize_with_checks(
    [
        Errors(count=2),
        Errors(order="loss", method="layer-cam", difference="maps", classes=2),
    ]
)
def test_kit(inspector, check):
    check(inspector)


def test_the_confusion_is_scikit_learns():
    expected = confusion_matrix(TRUTH, ANSWERS, labels=range(CLASSES))
    np.testing.assert_array_equal(FOUND.arrays["confusion"], expected)
    assert FOUND.facts["mistakes"] == N - np.trace(expected) > 10


def test_accuracies_and_loss_are_scikit_learns():
    assert FOUND.facts["top_1"] == accuracy_score(TRUTH, ANSWERS)
    assert FOUND.facts["top_5"] == 1.0
    np.testing.assert_allclose(FOUND.facts["mean_loss"], log_loss(TRUTH, P, labels=range(CLASSES)))
    for k in (1, 2, 3):
        near = top_k_accuracy_score(TRUTH, LOGITS, k=k, labels=range(CLASSES))
        assert (FOUND.arrays["rank"] < k).mean() == near


def test_what_is_said_of_each_picture():
    rows = np.arange(N)
    found = FOUND.arrays
    np.testing.assert_array_equal(found["pictures"], rows)
    np.testing.assert_array_equal(found["truth"], TRUTH)
    np.testing.assert_array_equal(found["predicted"], ANSWERS)
    np.testing.assert_allclose(found["p_true"], P[rows, TRUTH], rtol=1e-12)
    np.testing.assert_allclose(found["p_predicted"], P.max(-1), rtol=1e-12)
    np.testing.assert_allclose(found["loss"], -np.log(P[rows, TRUTH]), rtol=1e-10)
    before = [(LOGITS[n] > LOGITS[n, TRUTH[n]]).sum() for n in rows]
    np.testing.assert_array_equal(found["rank"], before)


@pytest.mark.parametrize("order", ["margin", "loss"])
def test_the_worst_are_the_worst(order):
    found = Errors(count=7, order=order).inspect(subject()).arrays
    wrong = [n for n in range(N) if ANSWERS[n] != TRUTH[n]]
    badness = {
        n: P[n].max() - P[n, TRUTH[n]] if order == "margin" else -P[n, TRUTH[n]] for n in wrong
    }
    assert found["worst"].tolist() == sorted(wrong, key=badness.get, reverse=True)[:7]


def test_margin_and_loss_are_different_orders():
    by_loss = Errors(count=7, order="loss").inspect(subject()).arrays["worst"]
    assert by_loss.tolist() != Errors(count=7).inspect(subject()).arrays["worst"].tolist()


def test_of_equal_scores_the_lower_class_comes_first():
    logits = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    judged = Judged.of([0, 1], [2, 0], logits, "softmax")
    assert judged.predicted.tolist() == [1, 0]
    assert judged.rank.tolist() == [1, 0]
    many = Judged.of(range(50), range(50), np.zeros((50, 50)), "softmax")
    assert many.rank.tolist() == list(range(50))
    assert not many.predicted.any()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_does_not_underflow(activation):
    logits = np.array([[900.0, -900.0]], dtype=np.float32)
    judged = Judged.of([0], [1], logits, activation)
    expected = {"softmax": 1800.0, "sigmoid": 900.0}[activation]
    assert judged.p_true[0] == 0
    assert judged.loss[0] == expected
    assert judged.loss.dtype == np.float32


def test_a_network_without_probabilities_is_judged_by_its_scores():
    judged = Judged.of([0], [1], np.array([[3.0, -1.0]]), "none")
    assert (judged.p_true[0], judged.p_predicted[0], judged.loss[0]) == (-1, 3, 1)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_how_many_go_through_at_once_makes_no_difference(batch_size):
    other = Errors(count=6).inspect(subject(batch_size=batch_size))
    for name, array in FOUND.arrays.items():
        np.testing.assert_allclose(other.arrays[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


def test_unknown_and_unreadable_pictures_are_left_out():
    truth = [None if n % 4 == 0 else int(t) for n, t in enumerate(TRUTH)]
    found = Errors().inspect(subject(truth=truth, unreadable={1, 2, 4}))
    kept = [n for n in range(N) if n % 4 and n not in (1, 2)]
    assert found.arrays["pictures"].tolist() == kept
    np.testing.assert_array_equal(found.arrays["truth"], TRUTH[kept])
    np.testing.assert_array_equal(found.arrays["predicted"], ANSWERS[kept])
    assert found.facts["pictures"] == len(kept)
    assert found.facts["unlabelled"] == 15
    assert found.facts["unreadable"] == 2


def test_batches_without_a_labelled_picture_are_passed_over():
    truth = [int(t) if n in (31, 33) else None for n, t in enumerate(TRUTH)]
    found = Errors().inspect(subject(truth=truth, batch_size=4))
    assert found.arrays["pictures"].tolist() == [31, 33]


def test_a_picture_that_can_no_longer_be_read_gives_its_place_to_the_next():
    asked = subject()
    worst = FOUND.arrays["worst"]

    class Vanishing(ReferenceModel):
        def forward(self, x, **more):
            if len(x) == N - 48:  # the last batch has been read
                object.__setattr__(asked.pictures, "unreadable", frozenset({int(worst[1])}))
            return super().forward(x, **more)

    object.__setattr__(asked, "model", Vanishing(NETS["plain"](), "float64"))
    found = Errors(count=5).inspect(asked)
    assert found.arrays["worst"].tolist() == np.delete(worst, 1).tolist()
    assert found.facts["pictures"] == N


def test_memory_is_bounded_and_progress_is_told():
    seen, told = [], []

    class Counting(ReferenceModel):
        def forward(self, x, **more):
            seen.append(len(x))
            return super().forward(x, **more)

    model = Counting(NETS["plain"](), "float64")
    with listening(lambda *said: told.append(said)):
        Errors(count=3).inspect(subject(model=model, batch_size=25))
    assert seen == [1, 25, 25, 10]
    assert told[:3] == [("errors", 25, N), ("errors", 50, N), ("errors", 60, N)]
    assert told[-1] == ("errors, explanations", 3, 3)


# ------------------------------------------------------------------------------------- the maps


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients", "saliency"])
def test_the_maps_are_the_methods_own(method):
    found = Errors(count=4, method=method).inspect(subject(batch_size=3)).arrays
    explainer = get_registry().explainer(method)
    for k, n in enumerate(found["worst"]):
        for name, index in (("maps_predicted", ANSWERS[n]), ("maps_true", TRUTH[n])):
            maps = explainer.explain(network(), X[[n]], [ClassScore(int(index))])
            expected = present(maps.raw, (12, 9), maps.presentation)[0][0]
            np.testing.assert_allclose(found[name][k], expected, rtol=1e-9, atol=1e-12)


def test_contrast_is_the_difference_of_the_raw_results_divided_by_its_largest_magnitude():
    found = Errors(count=6, method="layer-cam").inspect(subject()).arrays
    explainer = get_registry().explainer("layer-cam")
    for k, n in enumerate(found["worst"]):
        targets = [ClassScore(int(ANSWERS[n])), ClassScore(int(TRUTH[n]))]
        predicted, true = explainer.explain(network(), X[[n, n]], targets).raw
        (difference,) = resize((predicted - true)[None], (12, 9))
        expected = difference / np.abs(difference).max()
        np.testing.assert_allclose(found["difference"][k], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "occlusion"])
def test_contrast_of_a_linear_method_is_its_map_of_the_scores_difference(method):
    found = Errors(count=6, method=method).inspect(subject()).arrays
    explainer = get_registry().explainer(method)
    for k, n in enumerate(found["worst"]):
        maps = explainer.explain(network(), X[[n]], [Contrast(int(ANSWERS[n]), int(TRUTH[n]))])
        signed = present(maps.raw, (12, 9), Presentation(sign="signed"))[0][0]
        expected = signed / np.abs(signed).max()
        np.testing.assert_allclose(found["difference"][k], expected, rtol=1e-9, atol=1e-12)


def test_maps_are_subtracted_on_their_common_scale():
    found = Errors(count=6, difference="maps").inspect(subject()).arrays
    for a, b, d in zip(
        found["maps_predicted"], found["maps_true"], found["difference"], strict=True
    ):
        np.testing.assert_allclose(d, (a - b) / max(a.max(), b.max()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("difference", ["contrast", "maps"])
@pytest.mark.parametrize("method", ["grad-cam", "score-cam", "integrated-gradients", "saliency"])
def test_the_difference_changes_its_sign_with_the_two_classes(method, difference):
    # What is added to a score changes the answer, and no map.
    net = NETS["plain"]()
    biased = {name: array.copy() for name, array in net.parameters.items()}
    biased["fc.bias"][4] += 1e3
    other_model = ReferenceModel(replace(net, parameters=biased), "float64")
    mistaken = np.flatnonzero(ANSWERS != 4)[:5]
    looked = Errors(method=method, difference=difference)
    one = looked.inspect(subject(X[mistaken], np.full(5, 4))).arrays
    other = looked.inspect(subject(X[mistaken], ANSWERS[mistaken], other_model)).arrays
    assert (other["predicted"] == 4).all()
    first, second = np.argsort(one["worst"]), np.argsort(other["worst"])
    for mine, theirs, sign in (
        ("difference", "difference", -1),
        ("maps_predicted", "maps_true", 1),
        ("maps_true", "maps_predicted", 1),
    ):
        np.testing.assert_allclose(
            one[mine][first], sign * other[theirs][second], rtol=1e-9, atol=1e-9
        )
    assert (np.abs(one["difference"]).max((1, 2)) > 0.1).all()


def test_the_gallery_shows_a_row_a_mistake():
    gallery = FOUND.exhibits[0]
    assert isinstance(gallery, Gallery)
    assert len(gallery.rows) == 6
    for k, (picture, predicted, true, difference) in enumerate(gallery.rows):
        n = FOUND.arrays["worst"][k]
        expected = np.rint(np.clip((X[n] + 2) / 4, 0, 1) * 255).astype(np.uint8)
        np.testing.assert_array_equal(picture.pixels, expected)
        assert picture.caption == f"{n}.png"
        answer, own = (SHORT[i] for i in (ANSWERS[n], TRUTH[n]))
        assert predicted.caption == f"{answer}, {100 * P[n].max():.0f} %"
        assert true.caption.startswith(own)
        assert true.caption.endswith(f"(#{FOUND.arrays['rank'][n] + 1})")
        assert difference.signed
        top = max(FOUND.arrays[name][k].max() for name in ("maps_predicted", "maps_true"))
        np.testing.assert_allclose(predicted.heat, FOUND.arrays["maps_predicted"][k] / top)
        np.testing.assert_allclose(true.heat, FOUND.arrays["maps_true"][k] / top)
        np.testing.assert_array_equal(difference.heat, FOUND.arrays["difference"][k])


# ----------------------------------------------------------------------------------- the tables


def table(found, title):
    return next(e for e in found.exhibits if isinstance(e, Table) and e.title.startswith(title))


def test_few_classes_are_a_matrix_and_many_are_not():
    (matrix,) = [e for e in FOUND.exhibits if isinstance(e, Matrix)]
    np.testing.assert_array_equal(matrix.values, FOUND.arrays["confusion"])
    assert matrix.row_labels == tuple(SHORT)
    few = Errors(classes=4).inspect(subject())
    assert not [e for e in few.exhibits if isinstance(e, Matrix)]
    np.testing.assert_array_equal(few.arrays["confusion"], FOUND.arrays["confusion"])


def test_a_matrix_has_only_the_classes_that_occur():
    answered = np.flatnonzero(np.isin(ANSWERS, [ANSWERS[0], ANSWERS[1]]))
    found = Errors().inspect(subject(X[answered], np.full(len(answered), 1)))
    (matrix,) = [e for e in found.exhibits if isinstance(e, Matrix)]
    seen = sorted({1, int(ANSWERS[0]), int(ANSWERS[1])})
    assert matrix.row_labels == tuple(SHORT[i] for i in seen)
    np.testing.assert_array_equal(matrix.values, found.arrays["confusion"][np.ix_(seen, seen)])


def test_the_pairs_that_are_confused_most_come_first_each_with_its_worst_example():
    listed = table(FOUND, "What is taken for what")
    confusion = FOUND.arrays["confusion"]
    totals = confusion.sum(1)
    counts = []
    for true, answer, told, example in listed.rows:
        i, j, n = SHORT.index(true), SHORT.index(answer), int(example.split(".")[0])
        counts.append(int(confusion[i, j]))
        assert told == f"{confusion[i, j]} of {totals[i]}"
        leads = {n: P[n, j] - P[n, i] for n in range(N) if TRUTH[n] == i and ANSWERS[n] == j}
        assert n == max(leads, key=leads.get)
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == FOUND.facts["mistakes"]


def test_the_class_that_is_recognised_least_comes_first():
    listed = table(FOUND, "How often each class")
    assert "top-5" not in listed.columns  # of five classes
    shares = []
    for name, count, right, taken in listed.rows:
        i = SHORT.index(name)
        row = FOUND.arrays["confusion"][i]
        assert count == str(row.sum())
        shares.append(row[i] / row.sum())
        assert right == f"{100 * shares[-1]:.0f} %"
        others = np.delete(row, i)
        assert taken == "" if not others.any() else row[SHORT.index(taken)] == others.max()
    assert shares == sorted(shares)


def test_many_classes_are_kept_as_triples(monkeypatch):
    monkeypatch.setattr("cnnviz_features.errors._SQUARE", 4)
    found = Errors(count=1).inspect(subject()).arrays
    assert "confusion" not in found
    square = np.zeros((CLASSES, CLASSES), int)
    for true, answer, count in found["confusion_triples"]:
        square[true, answer] = count
    np.testing.assert_array_equal(square, FOUND.arrays["confusion"])


def test_a_perfect_network_is_said_to_be_so():
    found = Errors().inspect(subject(truth=ANSWERS))
    assert found.title == f"plain makes no mistake on {N} pictures: top-1 100.0 %"
    assert found.arrays["worst"].shape == (0,)
    assert found.arrays["difference"].shape == (0, 12, 9)
    assert [type(e) for e in found.exhibits] == [Matrix, Table]
    assert found.facts["worst"] == []
    json.dumps(dict(found.facts), allow_nan=False)


def test_a_sigmoid_network_is_judged_by_its_highest_score():
    model = network("sigmoid_head")
    logits = model.forward(X).logits
    truth = (logits.argmax(-1) + np.arange(N) % 2) % CLASSES
    found = Errors(count=3).inspect(subject(truth=truth, model=model))
    np.testing.assert_array_equal(found.arrays["predicted"], logits.argmax(-1))
    expected = 1 / (1 + np.exp(-logits[np.arange(N), truth]))
    np.testing.assert_allclose(found.arrays["p_true"], expected, rtol=1e-12)
    np.testing.assert_allclose(found.arrays["loss"], -np.log(expected), rtol=1e-12)
    assert "do not exclude each other" in found.exhibits[0].note
    assert "do not exclude each other" not in FOUND.exhibits[0].note


# ------------------------------------------------------------------------------------ going on


class Killed(Exception):
    pass


class Mortal(ReferenceModel):
    """A network that dies after a number of forward passes, and counts its pictures."""

    def __init__(self, lives=10**6, net="plain", seed=0):
        super().__init__(NETS[net](seed), "float64")
        self.lives, self.judged = lives, 0

    def forward(self, x, **more):
        if not self.lives:
            raise Killed
        self.lives -= 1
        self.judged += len(x)
        return super().forward(x, **more)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    looked = Errors(count=6, state=str(tmp_path / "state.npz"))
    with pytest.raises(Killed):
        looked.inspect(subject(model=Mortal(4), batch_size=8))
    second = Mortal()
    again = looked.inspect(subject(model=second, batch_size=8))
    assert second.judged == 1 + N - 3 * 8
    for name, array in FOUND.arrays.items():
        np.testing.assert_allclose(again.arrays[name], array, rtol=1e-9, atol=1e-12, err_msg=name)
    third = Mortal()
    looked.inspect(subject(model=third, batch_size=8))
    assert third.judged == 1


def test_the_state_is_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(cnnviz_features.judging, "_SAVE_EVERY", 20)
    path, held = tmp_path / "state.npz", []

    def note(what, done, total):
        with np.load(path) as file:
            held.append(int(file["done"]))

    with listening(note):
        Errors(count=1, state=str(path)).inspect(subject(batch_size=8))
    assert held[:8] == [0, 0, 0, 24, 24, 24, 48, 48]
    assert held[-1] == N


def test_a_state_of_something_else_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    looked = Errors(count=1, state=str(path))
    looked.inspect(subject())
    kept = path.read_bytes()
    others = {
        "other pictures": subject(X[:-1], TRUTH[:-1]),
        "other classes": subject(truth=(TRUTH + 1) % CLASSES),
        "another network": subject(model=Mortal(seed=1)),
    }
    for what, other in others.items():
        with pytest.raises(ParameterError, match=what):
            looked.inspect(other)
        assert path.read_bytes() == kept
    path.write_text("nothing")
    with pytest.raises(ParameterError, match="is no state"):
        looked.inspect(subject())
    with pytest.raises(ParameterError, match="cannot be written"):
        Errors(state=str(tmp_path / "none" / "state.npz")).inspect(subject())


# ---------------------------------------------------------------------------------- what is wrong


def test_it_needs_what_its_method_needs():
    for method in ("grad-cam", "saliency", "occlusion"):
        assert Errors(method=method).needs == get_registry().explainer(method).needs
    poor = Offering(network(), frozenset())
    with pytest.raises(MissingCapabilityError):
        require(Errors().needs, poor, "errors")
    Errors(method="occlusion(window=6)", count=1).inspect(subject(model=poor))


def test_what_does_not_fit_is_refused():
    with pytest.raises(TargetError, match="of none of the 60 pictures the class is known"):
        Errors().inspect(subject(truth=[None] * N))
    with pytest.raises(UnknownClassError, match="class is 9, and the network has 5 classes"):
        Errors().inspect(subject(truth=[9] * N))
    with pytest.raises(ArrayError, match="no labelled picture can be read"):
        Errors().inspect(subject(unreadable=range(N)))
    with pytest.raises(ArrayError, match="no picture was given"):
        Errors().inspect(subject(X[:0], ()))
    signals = pictures_of("signal")
    with pytest.raises(ArrayError, match="signals and volumes"):
        Errors().inspect(subject(signals, model=network("signal")))
    with pytest.raises(UnknownMethodError):
        Errors(method="tea-leaves").inspect(subject())
    with pytest.raises(ParameterError, match="the same map for every class"):
        Errors(method="eigen-cam").inspect(subject())
    with pytest.raises(ParameterError, match="occlusion looks at no layer"):
        Errors(method="occlusion", layer="conv1").inspect(subject())


def test_the_layer_goes_to_the_method():
    found = Errors(count=1, layer="conv1").inspect(subject())
    assert found.facts["layer"] == "conv1"
    assert FOUND.facts["layer"] == "relu2"


def test_the_loss_of_probabilities_is_minus_their_logarithm():
    given = np.array([[0.25, 0.75], [1.0, 0.0]])
    judged = Judged.of([0, 1], [1, 1], given, "probabilities")
    np.testing.assert_allclose(judged.loss[0], -np.log(0.75))
    assert np.isfinite(judged.loss).all()
    assert judged.p_true.tolist() == [0.75, 0.0]
