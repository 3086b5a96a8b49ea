"""The front door's `inspect`: what an inspector is given, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.inspecting import make_inspector, subject_of
from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import (
    ArrayError,
    ImageError,
    MissingCapabilityError,
    ParameterError,
    TargetError,
    UnknownMethodError,
)
from cnnviz_core.exhibits import Gallery, Tile
from cnnviz_core.inspector import Findings
from cnnviz_core.model import InputInfo
from cnnviz_core.parameters import Help, Range
from cnnviz_core.registry import get_registry
from cnnviz_core.specs import InspectorSpec
from cnnviz_core.targets import ClassScore, Contrast
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


@dataclass(frozen=True)
class Looker:
    """Keeps what it was given."""

    layer: Annotated[str, Help("the layer")] = "auto"
    level: Annotated[int, Range(0, 255), Help("how bright")] = 7

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})
    seen: ClassVar[list] = []

    def inspect(self, subject):
        self.seen.append((self, subject))
        x = [b.x for b in subject.pictures.batches(2)]
        tile = Tile(np.full((2, 2, 3), self.level, dtype=np.uint8))
        arrays = {"x": np.concatenate(x) if x else np.zeros(1)}
        return Findings(arrays, (Gallery(((tile,),)),), {"level": self.level})


class Open(Delegate):
    """A network for pictures of any size."""

    inputs: ClassVar = {"image": InputInfo("image", (None, None, 3))}


@pytest.fixture(autouse=True)
def lookers(monkeypatch):
    """Announce an inspector of each kind."""
    kinds = ("nothing", "pictures", "pictures or nothing", "labelled pictures")
    specs = {
        name: InspectorSpec(name, f"{__name__}:Looker", "", Looker.needs, shown, targeted)
        for name, shown, targeted in (
            ("looker", kinds[2], True),
            ("loner", kinds[0], False),
            ("viewer", kinds[1], False),
            ("judge", kinds[3], False),
        )
    }
    registry = get_registry()
    monkeypatch.setattr(registry, "inspectors", specs)
    monkeypatch.setattr(registry, "inspector_spec", specs.__getitem__)
    monkeypatch.setattr(registry, "inspector_class", lambda name: Looker)
    Looker.seen.clear()
    return specs


def subject():
    return Looker.seen[-1][1]


def test_what_an_inspector_found_comes_back(network, picture):
    found = cnnviz.inspect(network, "looker", picture, level=9, layer="conv1")
    assert found.inspector == "looker"
    assert found.params == {"layer": "conv1", "level": 9}
    assert found.facts == {"level": 9}
    assert found.provenance["model"] == "plain"
    np.testing.assert_array_equal(found.arrays["x"], subject().pictures.all().x)
    assert "looker of plain" in found.title


def test_a_layer_may_be_a_number_from_the_end(network):
    cnnviz.inspect(network, "looker", layer=-2)
    assert Looker.seen[-1][0].layer == "-2"


def test_without_pictures_the_shape_is_what_the_preprocessing_says(network):
    cnnviz.inspect(network, "loner")
    assert len(subject().pictures) == 0
    assert subject().shape == (12, 9, 3)
    assert subject().targets == ()


def test_a_folder_is_streamed_and_its_sub_folders_are_classes(network, tmp_path):
    for name in ("dog", "bee"):
        (tmp_path / name).mkdir()
        for k in range(2):
            pixels = np.full((20, 20, 3), 50 * k, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    cnnviz.inspect(network, "judge", tmp_path)
    assert subject().pictures.names == ("bee/0.png", "bee/1.png", "dog/0.png", "dog/1.png")
    assert list(subject().pictures.truth) == [1, 1, 3, 3]
    cnnviz.inspect(network, "judge", tmp_path, truth={"dog/0.png": "ant"})
    assert list(subject().pictures.truth) == [None, None, 0, None]


def test_a_prepared_batch(network):
    x = np.random.default_rng(0).random((3, 12, 9, 3), dtype=np.float32)
    cnnviz.inspect(network, "judge", x, preprocessed=True, truth=[0, None, "dog"])
    np.testing.assert_array_equal(subject().pictures.all().x, x)
    assert list(subject().pictures.truth) == [0, None, 3]


def test_targets(network, pictures):
    cnnviz.inspect(network, "looker", target="dog")
    assert subject().targets == (ClassScore(3),)
    cnnviz.inspect(network, "looker", target=["dog", 0])
    assert subject().targets == (ClassScore(3), ClassScore(0))
    cnnviz.inspect(network, "looker", pictures, target=["dog", 0, "bee - ant"])
    assert subject().target(2) == Contrast(1, 0)
    cnnviz.inspect(network, "looker", pictures, target=2)
    assert [subject().target(i) for i in range(3)] == [ClassScore(2)] * 3
    with pytest.raises(TargetError, match="several classes"):
        cnnviz.inspect(network, "looker", pictures, target="top-2")
    with pytest.raises(TargetError, match="1 targets were given for 3"):
        cnnviz.inspect(network, "looker", pictures, target=["dog"])


def test_what_does_not_fit_is_refused(network, picture, model):
    for match, call in {
        "looks at pictures, and none": lambda: cnnviz.inspect(network, "viewer"),
        "images was given, and loner": lambda: cnnviz.inspect(network, "loner", picture),
        "truth was given": lambda: cnnviz.inspect(network, "looker", truth=[1]),
        "looks at no class": lambda: cnnviz.inspect(network, "viewer", picture, target=1),
        "has no parameter 'depth'": lambda: cnnviz.inspect(network, "loner", depth=3),
        "level=300": lambda: cnnviz.inspect(network, "loner", level=300),
        "batch_size is 0": lambda: cnnviz.inspect(network, "loner", batch_size=0),
    }.items():
        with pytest.raises(ParameterError, match=match):
            call()
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ImageError, match="no file"):
        cnnviz.inspect(network, "viewer", "absent.png")
    mute = cnnviz.wrap(Offering(model, frozenset()), preprocess=network.preprocessing)
    with pytest.raises(MissingCapabilityError, match="looker needs capture"):
        cnnviz.inspect(mute, "looker")


def test_an_unknown_inspector_is_told_with_its_neighbours(monkeypatch, network):
    monkeypatch.undo()
    with pytest.raises(UnknownMethodError, match="there is no inspector 'filtres'"):
        cnnviz.inspect(network, "filtres")


def test_the_size_must_be_known_where_there_is_no_picture():
    open_net = ReferenceModel(NETS["plain"]())
    shape = open_net.inputs["image"].shape
    assert subject_of(cnnviz.wrap(open_net)).shape == shape
    boundless = Open(open_net)
    with pytest.raises(ArrayError, match="leaves the size of its input open"):
        subject_of(cnnviz.wrap(boundless))
    how = cnnviz.Preprocessing(size=(6, 5))
    assert subject_of(cnnviz.wrap(boundless, preprocess=how)).shape == (6, 5, 3)


def space_of(how):
    return subject_of(cnnviz.wrap(ReferenceModel(NETS["plain"]()), preprocess=how)).space


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_colours_are_those_that_the_preprocessing_makes_input_of(channels):
    how = cnnviz.Preprocessing(
        size=(12, 9), scale=1 / 127.5, mean=(1.0, 0.5, 0.25), std=(2.0, 1.0, 0.5), channels=channels
    )
    pixels = np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    from cnnviz.images import read_picture
    from cnnviz.preprocess import prepare

    x, _ = prepare(read_picture(pixels), how)
    space = space_of(how)
    np.testing.assert_allclose(space.to_input(pixels / 255), x, atol=1e-5)
    np.testing.assert_array_equal(space.pixels(x), pixels)
    # The gradient by colours is the transposed map of that by input values.
    g, c = np.random.default_rng(2).normal(size=(2, 4, 3))
    change = space.to_input(c) - space.to_input(np.zeros_like(c))
    assert np.sum(change * g) == pytest.approx(np.sum(c * space.pulled(g)), rel=1e-12)


def test_a_function_of_the_users_is_probed():
    how = cnnviz.Preprocessing(size=(12, 9), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))

    def function(pixels):
        return ((pixels[:12, :9] / 255 - how.mean) / how.std)[..., ::-1]

    found = space_of(function)
    np.testing.assert_allclose(found.matrix, space_of(how).matrix[:, ::-1], rtol=1e-9)
    np.testing.assert_allclose(found.offset, space_of(how).offset[::-1], rtol=1e-9)


def test_a_function_that_greys_leaves_one_colour():
    space = space_of(lambda pixels: np.repeat(pixels.mean(-1, keepdims=True) / 255, 3, -1))
    assert space.colours == 1
    np.testing.assert_allclose(space.to_input(np.array([[0.5]])), [[0.5, 0.5, 0.5]])


def test_a_function_that_bends_colours_is_refused():
    with pytest.raises(ParameterError, match="cannot be undone"):
        space_of(lambda pixels: (pixels / 255.0) ** 3)


def test_without_pictures_other_inputs_are_held_at_zero():
    two = ReferenceModel(NETS["two_inputs"]())
    first, second = two.inputs.values()
    found = subject_of(cnnviz.wrap(two))
    assert found.shape == first.shape
    x = np.random.default_rng(0).random((2, *first.shape), dtype=np.float32)
    zeros = np.zeros((2, *second.shape), dtype=np.float32)
    expected = two.forward({first.name: x, second.name: zeros}).output
    np.testing.assert_array_equal(found.model.forward(x).output, expected)


def test_pictures_have_the_type_in_which_the_network_computes(picture):
    how = cnnviz.Preprocessing(size=(12, 9))
    for dtype in ("float32", "float64"):
        net = cnnviz.wrap(ReferenceModel(NETS["plain"](), dtype), preprocess=how)
        assert subject_of(net, picture).pictures.all().x.dtype == dtype


@dataclass(frozen=True)
class Batcher:
    """Has a batch size of its own."""

    batch_size: Annotated[int, Range(1), Help("how many at once")] = 5


def test_a_batch_size_reaches_the_inspector_and_the_subject(monkeypatch, network):
    cnnviz.inspect(network, "loner", batch_size=3)
    assert subject().batch_size == 3
    registry = get_registry()
    monkeypatch.setattr(registry, "inspector_class", lambda name: Batcher)
    assert make_inspector("loner", "auto", {}, 3) == Batcher(3)
    assert make_inspector("loner", "auto", {}) == Batcher(5)
