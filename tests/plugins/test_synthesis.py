"""The parts of synthesis: every adjoint, every gradient, every text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cnnviz_core.errors import TargetError, UnknownClassError, UnknownLayerError
from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.optimisers import Plain
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore, Neuron
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.synthesis.ascent import Climb, ascend, before_rectifier
from cnnviz_features.synthesis.diversity import Diversity
from cnnviz_features.synthesis.objectives import (
    Channel,
    Direction,
    Distance,
    Energy,
    Objective,
    pull,
)
from cnnviz_features.synthesis.parameterisation import COLOURS, Fourier, Pixels, parameterisation
from cnnviz_features.synthesis.priors import L2, AlphaNorm, TotalVariation, weighted
from cnnviz_features.synthesis.reading import read_objective
from cnnviz_features.synthesis.transformations import (
    Jitter,
    Pad,
    Resampling,
    Rotate,
    Scale,
    draw,
)

SHAPES = [(7, 9, 3), (8, 6, 3), (9, 8, 1), (1, 5, 3)]


def rng(seed=0):
    return np.random.default_rng(seed)


def slope(f, at, along, e=1e-6):
    """Differentiate along a direction by central differences."""
    return (f(at + e * along) - f(at - e * along)) / (2 * e)


# --------------------------------------------------------------------------- parameterisations


def makers(shape):
    return [
        parameterisation(kind, shape, decorrelate=mixed, bounded=bounded)
        for kind in ("pixel", "fourier")
        for mixed in (True, False)
        for bounded in (True, False)
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_parameterisation_is_differentiated_exactly(shape):
    for made_of in makers(shape):
        at, along = (made_of.noise(rng(k), 2, 0.5, "float64") for k in (1, 2))
        weights = rng(3).normal(size=(2, *shape))
        found = np.sum(made_of.pulled(at, weights) * along)
        expected = slope(lambda p, m=made_of, w=weights: np.sum(m.value(p) * w), at, along)
        assert found == pytest.approx(expected, rel=1e-6), made_of


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_unbounded_parameterisation_is_linear_with_an_exact_adjoint(shape):
    for made_of in (m for m in makers(shape) if not m.bounded):
        x, here = (made_of.noise(rng(k), 2, 1, "float64") for k in (1, 2))
        y = rng(3).normal(size=(2, *shape))
        forth = np.sum((made_of.value(x) - 0.5) * y)
        back = np.sum(x * made_of.pulled(here, y))
        assert back == pytest.approx(forth, rel=1e-12, abs=1e-12), made_of


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_parameterisation_reaches_any_picture(shape):
    picture = rng().uniform(0.01, 0.99, (2, *shape))
    for made_of in makers(shape):
        again = made_of.value(made_of.parameters(picture))
        np.testing.assert_allclose(again, picture, atol=1e-12)


def test_black_and_white_are_all_but_reached():
    picture = np.array([0.0, 1.0] * 6).reshape(1, 2, 2, 3)
    for made_of in makers((2, 2, 3)):
        again = made_of.value(made_of.parameters(picture))
        np.testing.assert_allclose(again, picture, atol=1e-3 + 1e-12)


def test_waves_are_those_of_a_plain_sum():
    h, w = 4, 5
    waves = Fourier((h, w, 1), bounded=False, decay=1.3, gain=0.7)
    parameters = waves.noise(rng(), 1, 1, "float64")
    y, x = np.indices((h, w))
    expected = np.full((h, w), 0.5)
    for k in range(h):
        for m in range(w):
            # The half spectrum's other half is its mirror image.
            mirrored = m > w // 2
            re, im = parameters[0, -k % h if mirrored else k, w - m if mirrored else m, 0]
            phase = 2 * np.pi * (k * y / h + m * x / w)
            frequency = np.hypot(min(k, h - k) / h, min(m, w - m) / w)
            size = 0.7 / max(frequency, 1 / 5) ** 1.3 / np.sqrt(h * w)
            if m == 0:
                # Without a partner in the half spectrum only the real part of the sum counts.
                expected += size * (re * np.cos(phase) - im * np.sin(phase))
            else:
                im = -im if mirrored else im
                expected += size * (re * np.cos(phase) - im * np.sin(phase))
    np.testing.assert_allclose(waves.value(parameters)[0, ..., 0], expected, atol=1e-12)


def test_noise_is_seeded_faint_and_the_same_however_many_follow():
    for made_of in makers((16, 12, 3)):
        few = made_of.noise(rng(5), 1, 0.01, "float32")
        many = made_of.noise(rng(5), 3, 0.01, "float32")
        np.testing.assert_array_equal(many[:1], few)
        assert not np.array_equal(many[1], many[0])
        assert made_of.value(many).dtype == np.float32
        assert 0 < np.abs(made_of.value(many) - 0.5).max() < 0.3
        np.testing.assert_allclose(made_of.value(0 * many), 0.5, atol=1e-7)


def test_grey_pictures_have_no_colours_to_mix():
    x = Pixels((3, 4, 1), bounded=False).noise(rng(), 1, 1, "float64")
    np.testing.assert_array_equal(Pixels((3, 4, 1), bounded=False).value(x), x + 0.5)


@pytest.mark.slow
def test_the_colours_are_those_of_photographs(test_data):
    folder = test_data / "boxes"
    files = [*folder.glob("coco205/**/*.jpg"), *folder.glob("ilsvrc_val1000_227/**/*.JPEG")]
    assert len(files) == 1205
    means, squares = np.zeros(3), np.zeros((3, 3))
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))[::3, ::3].reshape(-1, 3) / 255
        means += pixels.mean(0) / len(files)
        squares += pixels.T @ pixels / len(pixels) / len(files)
    covariance = squares - np.outer(means, means)
    np.testing.assert_allclose(COLOURS @ COLOURS.T, covariance, atol=5e-5)


def test_the_colours_are_uncorrelated():
    products = COLOURS.T @ COLOURS
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=2e-4)


# ----------------------------------------------------------------------------- transformations

MOVES = [
    (Jitter(3),),
    (Scale(0.6, 1.5),),
    (Rotate(40),),
    (Pad(2),),
    (Pad(1), Jitter(2), Scale(0.8, 1.2), Rotate(15), Jitter(1)),
]


@pytest.mark.parametrize("moves", MOVES, ids=lambda m: "-".join(type(t).__name__ for t in m))
def test_a_transformation_has_an_exact_adjoint(moves):
    for seed, shape in enumerate(SHAPES):
        moved = draw(moves, rng(seed), shape[:2])
        x, y = rng(9).normal(size=(2, 2, *shape))
        forth = np.sum((moved.apply(x) - moved.apply(np.zeros_like(x))) * y)
        assert np.sum(x * moved.adjoint(y)) == pytest.approx(forth, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("moves", MOVES, ids=lambda m: "-".join(type(t).__name__ for t in m))
def test_grey_stays_grey_and_the_type_stays(moves):
    grey = np.full((1, 9, 7, 3), 0.5, np.float32)
    moved = draw(moves, rng(), (9, 7)).apply(grey)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, grey)


def test_jitter_shifts_by_whole_pixels_and_shows_grey():
    x = rng().uniform(size=(1, 6, 5, 2))
    down, right = rng(3).integers(-2, 2, endpoint=True, size=2)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=0.5)
    expected = padded[:, 2 - down : 8 - down, 2 - right : 7 - right]
    np.testing.assert_allclose(draw((Jitter(2),), rng(3), (6, 5)).apply(x), expected, atol=1e-15)


def test_jitter_draws_every_shift():
    offsets = {
        tuple(Jitter(1).matrix(generator, (5, 5))[:2, 2]) for generator in map(rng, range(99))
    }
    assert offsets == {(float(a), float(b)) for a in (-1, 0, 1) for b in (-1, 0, 1)}


def test_a_quarter_turn_is_rot90():
    x = rng().uniform(size=(2, 6, 6, 3))
    turn = Resampling.of(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), (6, 6))
    np.testing.assert_allclose(turn.apply(x), np.rot90(x, -1, axes=(1, 2)), atol=1e-15)


def test_scaling_keeps_the_centre_and_a_ramp_stays_a_ramp():
    y, x = np.indices((9, 9)) - 4.0
    ramp = (0.5 + 0.01 * y - 0.02 * x)[None, ..., None]
    moved = draw((Scale(1.25, 1.25),), rng(), (9, 9)).apply(ramp)
    np.testing.assert_allclose(moved - 0.5, (ramp - 0.5) / 1.25, atol=1e-15)


def test_transformations_are_applied_in_their_order():
    x = np.full((1, 9, 9, 1), 0.5)
    x[0, 4, 4] = 1.0
    first = draw((_Shift(2), Scale(0.5, 0.5)), rng(), (9, 9)).apply(x)
    last = draw((Scale(0.5, 0.5), _Shift(2)), rng(), (9, 9)).apply(x)
    assert np.unravel_index(first.argmax(), first.shape)[1:3] == (5, 4)
    assert np.unravel_index(last.argmax(), last.shape)[1:3] == (6, 4)


class _Shift(Jitter):
    """A shift down that is not random."""

    def matrix(self, rng, size):
        matrix = np.eye(3)
        matrix[0, 2] = -self.pixels
        return matrix


def test_a_draw_does_not_depend_on_the_size():
    for moves in MOVES[:3]:
        np.testing.assert_array_equal(
            moves[0].matrix(rng(4), (9, 9)), moves[0].matrix(rng(4), (224, 99))
        )


def test_without_transformations_nothing_is_resampled():
    assert draw((), rng(), (4, 4)) is None


# -------------------------------------------------------------------------------------- priors


@pytest.mark.parametrize(
    "prior",
    [
        L2(),
        L2(np.array([0.2, 0.5, 0.7])),
        AlphaNorm(),
        AlphaNorm(3.0, 0.4),
        *(
            TotalVariation(beta, isotropic)
            for beta in (1, 1.5, 2, 3)
            for isotropic in (True, False)
        ),
    ],
    ids=repr,
)
def test_the_gradient_of_a_prior(prior):
    at, along = rng().uniform(size=(2, 2, 5, 6, 3))
    assert prior.value(at).shape == (2,)
    assert (prior.value(at) > 0).all()
    found = np.sum(prior.gradient(at) * along)
    assert found == pytest.approx(slope(lambda c: prior.value(c).sum(), at, along), rel=1e-7)


def test_priors_are_their_formulas():
    c = rng().uniform(size=(1, 4, 3, 2))
    expected = dict.fromkeys(("l2", "alpha", "isotropic", "anisotropic"), 0.0)
    for y in range(4):
        for x in range(3):
            for k in range(2):
                down = c[0, y + 1, x, k] - c[0, y, x, k] if y < 3 else 0.0
                right = c[0, y, x + 1, k] - c[0, y, x, k] if x < 2 else 0.0
                expected["l2"] += (c[0, y, x, k] - 0.5) ** 2
                expected["alpha"] += abs(c[0, y, x, k] - 0.5) ** 6
                expected["isotropic"] += (down**2 + right**2) ** 0.75
                expected["anisotropic"] += abs(down) + abs(right)
    found = {
        "l2": L2(),
        "alpha": AlphaNorm(),
        "isotropic": TotalVariation(1.5),
        "anisotropic": TotalVariation(isotropic=False),
    }
    for name, prior in found.items():
        assert prior.value(c)[0] == pytest.approx(expected[name], rel=1e-12), name


def test_priors_that_weigh_nothing_are_left_out():
    kept = (0.5, TotalVariation())
    assert weighted((0.0, L2()), kept) == (kept,)


def test_plain_grey_costs_nothing_and_has_no_slope():
    grey = np.full((1, 4, 5, 3), 0.5)
    for prior in (L2(), AlphaNorm(), TotalVariation(), TotalVariation(isotropic=False)):
        assert prior.value(grey).tolist() == [0]
        assert not prior.gradient(grey).any()


# ---------------------------------------------------------------------------------- objectives


def case(name="plain", dtype="float64"):
    net = NETS[name]()
    return ReferenceModel(net, dtype), next(iter(net.inputs.values()))


MODEL, SHAPE = case()
X = rng(1).uniform(size=(3, *SHAPE))
LABELS = ("ant", "bee", "tabby cat", "dog", "big-cat")


@pytest.mark.parametrize(
    "target",
    [
        Channel("a", 2),
        Direction("a", np.arange(-1.0, 4)),
        Direction("a", np.arange(-1.0, 4), 2),
        Energy("a"),
        Distance("a", rng(8).normal(size=(3, 4, 5))),
    ],
    ids=lambda t: type(t).__name__,
)
def test_the_gradient_of_a_target(target):
    at, along = rng(2).normal(size=(2, 3, 4, 5))
    found = target.gradient(at)
    assert found.dtype == at.dtype
    assert np.sum(found * along) == pytest.approx(slope(target.score, at, along), rel=1e-6)
    assert target.gradient(at.astype(np.float32)).dtype == np.float32
    assert target.resolve(at) is target


def test_targets_are_their_formulas():
    a = rng(3).normal(size=(2, 3, 4))
    v = np.array([1.0, -2, 0.5, 0])
    assert Channel("a", 1).score(a) == pytest.approx(a[..., 1].mean())
    assert Energy("a").score(a) == pytest.approx((a**2).mean())
    total = 0.0
    for row in a.reshape(-1, 4):
        cosine = row @ v / np.linalg.norm(row) / np.linalg.norm(v)
        total += row @ v * max(cosine, 0.1) ** 3
    assert Direction("a", v, 3).score(a) == pytest.approx(total / 6)
    a0 = rng(4).normal(size=(2, 3, 4))
    expected = np.linalg.norm(a - a0) ** 2 / np.linalg.norm(a0) ** 2
    assert Distance("a", a0).score(a) == pytest.approx(expected)
    assert Direction("a", v, 3).score(0 * a) == 0
    assert np.isfinite(Direction("a", v, 3).gradient(0 * a)).all()


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Channel("a", 5).score(np.zeros((2, 2, 5))),
        lambda: Direction("a", np.zeros(3)),
        lambda: Direction("a", np.ones((2, 3))),
        lambda: Direction("a", np.ones(4)).score(np.zeros((2, 2, 5))),
        lambda: Distance("a", np.zeros((2, 2))),
        lambda: Distance("a", np.ones((2, 3))).score(np.zeros((2, 2))),
        lambda: Objective(()),
        lambda: pull(MODEL, X, [Objective.of(ClassScore(0))]),
    ],
)
def test_what_does_not_fit_is_refused(broken):
    with pytest.raises(TargetError):
        broken()


def test_objectives_add_up():
    one, other = Objective.of(Channel("conv1", 3)), Objective.of(ClassScore(2))
    both = one - 0.5 * other
    assert both.terms == ((1.0, Channel("conv1", 3)), (-0.5, ClassScore(2)))
    assert both.nodes == ("conv1", LOGITS)
    assert str(both) == "conv1:3 - 0.5*class 2"
    assert str(-both) == "-conv1:3 + 0.5*class 2"


def test_pull_is_the_gradient_of_all_scores_over_several_layers():
    objectives = [
        read_objective("2*conv1:1 - class:3", MODEL, X),
        read_objective("relu2:4@1,2 + 0.5*conv1", MODEL, X),
        read_objective("-relu2:7", MODEL, X),
    ]
    tied = Diversity("relu2", 3, 0.7)

    def total(x):
        trace = MODEL.forward(x, capture=("conv1", "relu2"))
        a, b, logits = trace["conv1"], trace["relu2"], trace.logits
        score = 2 * a[0, ..., 1].mean() - logits[0, 3]
        score += b[1, 1, 2, 4] + 0.5 * (a[1] ** 2).mean()
        return score - b[2, ..., 7].mean() + tied.scores(b).sum()

    along = rng(6).normal(size=X.shape)
    pulled = pull(MODEL, X, objectives, coupling=tied)
    assert pulled.scores.sum() + pulled.shared.sum() == pytest.approx(total(X), rel=1e-12)
    assert np.sum(pulled.gradient * along) == pytest.approx(slope(total, X, along), rel=1e-6)


def test_each_node_takes_one_pass_with_the_pictures_that_are_about_it():
    calls = []

    class Noting:
        def __getattr__(self, name):
            return getattr(MODEL, name)

        def pullback(self, x, cotangent, **how):
            calls.append((how["of"], len(x)))
            return MODEL.pullback(x, cotangent, **how)

    texts = ("conv1:1 + conv1:2", "conv1:0 + conv2:1", "dog")
    pull(Noting(), X, [read_objective(t, MODEL, X, LABELS) for t in texts])
    assert calls == [("conv1", 2), ("conv2", 1), (LOGITS, 1)]


# ------------------------------------------------------------------------------- the text form


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("conv1:3", [(1, Channel("conv1", 3))]),
        (" relu2:7@1,2 ", [(1, Neuron("relu2", (1, 2, 7)))]),
        ("relu2:7@middle", [(1, Neuron("relu2", (3, 2, 7)))]),
        ("-conv1:3", [(-1, Channel("conv1", 3))]),
        ("0.5*conv1:3 - 2 * conv2:1", [(0.5, Channel("conv1", 3)), (-2, Channel("conv2", 1))]),
        ("conv1:0 + class:dog", [(1, Channel("conv1", 0)), (1, ClassScore(3))]),
        ("class:4", [(1, ClassScore(4))]),
        ("2", [(1, ClassScore(2))]),
        ("Tabby Cat", [(1, ClassScore(2))]),
        ("tabby", [(1, ClassScore(2))]),
        ("big-cat", [(1, ClassScore(4))]),
        ("bee - 0.1*ant", [(1, ClassScore(1)), (-0.1, ClassScore(0))]),
        ("relu1", [(1, Energy("relu1"))]),
        ("auto:2", [(1, Channel("relu2", 2))]),
    ],
)
def test_a_text_is_read(text, terms):
    read = read_objective(text, MODEL, X, LABELS)
    assert read.terms == tuple(terms)
    assert str(read) == text.strip()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", TargetError, "empty"),
        ("-", TargetError, "empty"),
        ("conv1:3 +", TargetError, "no channel"),
        ("conv9:3", UnknownLayerError, "conv9"),
        ("conv1:99", TargetError, "0 to 5"),
        ("conv1:x", TargetError, "no channel"),
        ("relu2:7@99,0", TargetError, "outside"),
        ("relu2:7@here", TargetError, "position"),
        ("fc:1@middle", UnknownLayerError, "no grid"),
        ("class:wolf", UnknownClassError, "wolf"),
        ("wolf", UnknownClassError, "neither a class nor a layer"),
        ("cat", UnknownClassError, "tabby cat"),
        ("class:7", UnknownClassError, "7"),
    ],
)
def test_a_text_that_cannot_be_read_is_told(text, error, said):
    with pytest.raises(error, match=said):
        read_objective(text, MODEL, X, LABELS)


def test_a_class_whose_name_looks_like_a_sum_comes_first():
    labels = ("black - and - tan", "conv1:3")
    for k, label in enumerate(labels):
        assert read_objective(label, MODEL, X, labels).terms == ((1, ClassScore(k)),)


def test_a_class_without_known_names_is_a_number():
    assert read_objective("281", MODEL, X).terms == ((1, ClassScore(281)),)
    with pytest.raises(UnknownClassError):
        read_objective("tabby", MODEL, X)


def test_a_neuron_of_a_transformer_is_found_on_its_grid():
    model, shape = case("tokens")
    info = model.layers["norm1"]
    read = read_objective("norm1:2@1,2", model, np.zeros((1, *shape)))
    assert read.terms == ((1, Neuron("norm1", (info.prefix + 1 * info.grid[1] + 2, 2))),)


# ----------------------------------------------------------------------------------- diversity


def test_diversity_is_its_formula():
    a = rng().normal(size=(4, 3, 2, 5))
    found = Diversity("a", 2, 3.0).scores(a)
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        g, h = (np.einsum("yxc,yxd->cd", v, v) for v in (a[i], a[j]))
        cosine = (g * h).sum() / np.linalg.norm(g) / np.linalg.norm(h)
        assert found[i] == pytest.approx(-3 * cosine)


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_the_gradient_of_diversity(group):
    at, along = rng(1).normal(size=(2, 6, 3, 2, 4))
    tied = Diversity("a", group, 1.7)
    found = np.sum(tied.gradient(at) * along)
    expected = slope(lambda v: tied.scores(v).sum(), at, along)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_pictures_that_excite_nothing_have_no_diversity():
    a = np.zeros((2, 3, 3, 4))
    assert Diversity("a", 2).scores(a).tolist() == [0, 0]
    assert not Diversity("a", 2).gradient(a).any()


# -------------------------------------------------------------------------------------- ascent

SPACE = PixelSpace.identity(3)


def climb(text="conv2:4", model=MODEL, n=1, **more):
    made_of = more.pop("made_of", Pixels(SHAPE, decorrelate=False, bounded=False))
    return Climb(model, SPACE, (read_objective(text, model, X),) * n, made_of, **more)


def test_pixels_without_transformations_are_a_plain_loop():
    found = ascend(climb(), X[:1] - 0.5, Plain(0.3), 7, rng=rng())
    x, scores = X[:1], []
    for _ in range(7):
        back = MODEL.pullback(x, Channel("conv2", 4).gradient, of="conv2")
        scores.append(back.values["conv2"][..., 4].mean())
        x = x + 0.3 * back.gradients[INPUT]
    np.testing.assert_allclose(found.parameters + 0.5, x, atol=1e-13)
    np.testing.assert_allclose(found.scores[:, 0], scores, rtol=1e-12)


def test_the_slope_is_that_of_score_less_penalties_through_all_there_is():
    space = PixelSpace(rng(1).normal(size=(3, 3)), np.array([0.1, -0.2, 0.3]))
    priors = ((0.02, L2()), (0.01, TotalVariation(2)))
    made_of = Fourier(SHAPE)
    whole = Climb(
        MODEL,
        space,
        (read_objective("conv2:4 + class:1", MODEL, X),) * 2,
        made_of,
        priors=priors,
        coupling=Diversity("relu2", 2, 0.3),
    )
    moved = draw((Jitter(1), Rotate(20)), rng(2), SHAPE[:2])
    at, along = (made_of.noise(rng(k), 2, 0.3, "float64") for k in (3, 4))

    def total(parameters):
        colours = made_of.value(parameters)
        trace = MODEL.forward(space.to_input(moved.apply(colours)), capture=("conv2", "relu2"))
        score = trace["conv2"][..., 4].mean((1, 2)) + trace.logits[:, 1]
        tied = Diversity("relu2", 2, 0.3).scores(trace["relu2"])
        return (score + tied - sum(w * p.value(colours) for w, p in priors)).sum()

    found = whole.slope(at, moved)
    assert np.sum(found.gradient * along) == pytest.approx(slope(total, at, along), rel=1e-6)
    expected = sum(w * p.value(made_of.value(at)) for w, p in priors)
    np.testing.assert_allclose(found.penalties, expected)


def test_progress_and_frames():
    told = []
    with listening(lambda *what: told.append(what)):
        found = ascend(climb(n=2), X[:2] - 0.5, Plain(0.1), 5, rng=rng(), every=2, what="it")
    assert told == [("it", k, 5) for k in range(1, 6)]
    assert [step for step, _ in found.frames] == [0, 2, 4, 5]
    for _, frame in found.frames:
        assert frame.shape == (2, *SHAPE)
        assert frame.dtype == np.uint8
    np.testing.assert_array_equal(found.frames[0][1], np.rint(X[:2] * 255).astype(np.uint8))


def test_what_settles_the_parameters_comes_after_each_step():
    found = ascend(climb(), X[:1], Plain(0.1), 2, rng=rng(), settle=lambda p: 0.5 * p)
    one = climb().slope(X[:1]).gradient
    first = 0.5 * (X[:1] + 0.1 * one)
    second = 0.5 * (first + 0.1 * climb().slope(first).gradient)
    np.testing.assert_allclose(found.parameters, second, atol=1e-14)


def test_transformations_are_the_same_for_all_pictures_of_a_step():
    moves = (Jitter(2), Scale(0.8, 1.2))
    both = ascend(climb(n=2, transformations=moves), X[:2], Plain(0.1), 4, rng=rng(3))
    second = ascend(climb(transformations=moves), X[1:2], Plain(0.1), 4, rng=rng(3))
    np.testing.assert_allclose(both.parameters[1:], second.parameters, atol=1e-13)


# ----------------------------------------------------------------------------- shut rectifiers


def shut_model(layer="conv1", by=-5.0, channel=2):
    """A network in which a channel of a layer (or all) is below 0 for pictures near grey."""
    net = NETS["plain"]()
    bias = net.parameters[f"{layer}.bias"].copy()
    bias[channel] += by
    shut = replace(net, parameters={**net.parameters, f"{layer}.bias": bias})
    return ReferenceModel(shut, "float64")


def test_a_shut_channel_climbs_from_before_its_rectifier():
    model = shut_model("conv2")
    start = X[:1] - 0.5
    still = climb("relu2:2", model, open_gates=False)
    found = ascend(still, start, Plain(1.0), 3, rng=rng())
    np.testing.assert_array_equal(found.parameters, start)
    assert found.flat.all()
    moving = climb("relu2:2", model)
    # The rectifier below stays what it is.
    before = model.pullback(X[:1], Channel("conv2", 2).gradient, of="conv2")
    np.testing.assert_allclose(moving.slope(start).gradient, before.gradients[INPUT], atol=1e-14)
    found = ascend(moving, start, Plain(2.0, normalise=True), 9, rng=rng())
    assert found.scores[0, 0] == 0 < found.scores[-1, 0]
    assert found.shut[0, 0]
    assert not found.shut[-1, 0]
    assert not found.flat.any()


def test_a_negative_channel_is_pressed_on_below_zero():
    model = shut_model()
    start = np.zeros((1, *SHAPE))
    found = ascend(climb("-relu1:2", model), start, Plain(1.0), 5, rng=rng())
    before, after = (
        model.forward(x + 0.5, capture=("conv1",))["conv1"][..., 2].mean()
        for x in (start, found.parameters)
    )
    assert after < before < 0


def test_only_the_picture_that_is_stuck_is_helped():
    model = shut_model()
    objectives = tuple(read_objective(t, model, X) for t in ("relu1:2", "relu1:0"))
    both = Climb(model, SPACE, objectives, Pixels(SHAPE, decorrelate=False, bounded=False))
    start = np.zeros((2, *SHAPE))
    found = both.slope(start)
    assert found.shut.tolist() == [True, False]
    alone = model.pullback(start[1:] + 0.5, Channel("relu1", 0).gradient, of="relu1")
    np.testing.assert_allclose(found.gradient[1:], alone.gradients[INPUT], atol=1e-14)


def test_through_all_rectifiers_where_those_before_are_shut_too():
    model = shut_model(by=-50, channel=slice(None))
    found = climb("conv2:1", model).slope(np.zeros((1, *SHAPE)))
    assert found.shut.all()
    assert found.gradient.any()


def test_what_is_before_a_rectifier():
    assert before_rectifier(MODEL.layers, "relu1") == "conv1"
    assert before_rectifier(MODEL.layers, "conv1") is None
    assert before_rectifier(MODEL.layers, LOGITS) is None
