from __future__ import annotations

import sys
import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import cnnviz
from cnnviz_core.errors import (
    MissingBackendError,
    ModelSourceError,
    ParameterError,
    UnsupportedModelError,
)
from cnnviz_core.registry import Registry
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

TOY = """
    from cnnviz_core.errors import ParameterError
    from cnnviz_core.hookspecs import hookimpl
    from cnnviz_core.preprocessing import Described, Preprocessing
    from cnnviz_core.specs import BackendSpec
    from cnnviz_core.testing.nets import NETS
    from cnnviz_core.testing.reference import ReferenceModel

    class Net:
        pass

    def accepts(native):
        return isinstance(native, Net)

    class TwoInputs(Net):
        pass

    def wrap(native, **how):
        two = isinstance(native, TwoInputs)
        shape = how.get("input_shape")
        if two and isinstance(shape, tuple) or not two and shape == (1, 1, 3):
            raise ParameterError("one shape was given", "another", "pass another")
        model = ReferenceModel(NETS["two_inputs" if two else "plain"]())
        model.how = how
        return model

    def describe(native):
        return Described(native, Preprocessing(size=(12, 9)), tuple("abcde"), "toy net")

    def load(name, **options):
        assert options == {}
        return describe(Net())

    def load_file(path, **options):
        return Described(Net())

    @hookimpl
    def cnnviz_backends():
        here = __name__
        yield BackendSpec(
            name="toy", wrap=f"{here}:wrap", packages=(here,), accepts=f"{here}:accepts",
            describe=f"{here}:describe", sources={"zoo": f"{here}:load"},
            suffixes={".toy": f"{here}:load_file", "saved_model.pb": f"{here}:load_file"},
            extra="toy",
        )
        yield BackendSpec(
            name="future", wrap="x:y", packages=("framework_of_the_future",), accepts="x:y",
            sources={"future": "x:y"}, suffixes={".future": "x:y"}, extra="fut",
        )
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A backend of its own, and one whose framework is not installed."""
    (tmp_path / "toy_backend.py").write_text(textwrap.dedent(TOY))
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([EntryPoint("toy", "toy_backend", "cnnviz")])
    for module in ("cnnviz.network", "cnnviz.sources"):
        monkeypatch.setattr(f"{module}.get_registry", lambda: registry)
    yield sys.modules["toy_backend"]
    del sys.modules["toy_backend"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_backends_network_is_described_by_its_publisher(toy):
    net = toy.Net()
    network = cnnviz.wrap(net)
    assert network.native is net
    assert network.labels == tuple("abcde")
    assert network.name == "toy net"
    assert network.preprocessing.size == (12, 9)
    assert network.model.how == {"input_shape": (12, 9, 3)}


def test_what_the_caller_says_wins(toy):
    steps = cnnviz.Preprocessing(size=(6, 5), channels="L")
    network = cnnviz.wrap(toy.Net(), preprocess=steps, labels="vwxyz", name="mine")
    assert (network.preprocessing, network.labels, network.name) == (steps, tuple("vwxyz"), "mine")
    assert network.model.how == {"input_shape": (6, 5, 1)}
    how = {"input_shape": (4, 4, 3), "output": "aux", "activation": "sigmoid"}
    assert cnnviz.wrap(toy.Net(), **how).model.how == how


def test_wrapping_again_changes_only_what_is_given(toy):
    network = cnnviz.wrap(toy.Net())
    again = cnnviz.wrap(network, labels="vwxyz")
    assert again.model is network.model
    assert (again.name, again.preprocessing) == (network.name, network.preprocessing)
    assert cnnviz.wrap(network) == network
    other = cnnviz.wrap(network, activation="none")
    assert other.model.how == {"input_shape": (12, 9, 3), "activation": "none"}
    assert other.labels == network.labels


def test_an_object_that_obeys_the_protocol_is_taken_as_it_is(model):
    network = cnnviz.wrap(model)
    assert network.model is model
    with pytest.raises(ParameterError, match="output cannot be changed in a ReferenceModel"):
        cnnviz.wrap(model, output="aux")


def test_imagenet_labels_go_by_a_name(model):
    assert cnnviz.wrap(model, labels="imagenet-1k").labels[281] == "tabby"


def test_an_object_of_no_framework_is_told():
    with pytest.raises(UnsupportedModelError, match=r"builtins\.dict"):
        cnnviz.wrap({})
    with pytest.raises(UnsupportedModelError, match=r"cnnviz.load\('torchvision:resnet50'\)"):
        cnnviz.wrap("torchvision:resnet50")


def test_schemes_and_suffixes_find_their_loader(toy, folder):
    assert cnnviz.load("zoo:lion").name == "toy net"
    (folder / "mine.toy").touch()
    assert cnnviz.load("mine.toy").name == "mine"
    assert cnnviz.load(folder / "mine.toy", backend="toy").name == "mine"
    (folder / "exported").mkdir()
    (folder / "exported" / "saved_model.pb").touch()
    assert cnnviz.load("exported").name == "exported"


def test_a_framework_that_is_not_installed_names_its_extra(toy, folder):
    (folder / "mine.future").touch()
    for source in ("future:net", "mine.future"):
        with pytest.raises(MissingBackendError, match=r"pip install 'cnnviz\[fut\]'"):
            cnnviz.load(source)


@pytest.mark.parametrize("source", ["lion", "missing.toy", "folder/missing.toy"])
def test_a_missing_file_is_told(toy, folder, source):
    with pytest.raises(ModelSourceError, match=rf"there is no file '{source}'[\s\S]*zoo:NAME"):
        cnnviz.load(source)


def test_an_unknown_file_is_told(toy, folder):
    (folder / "net.onnx").touch()
    with pytest.raises(ModelSourceError, match=r"net.onnx[\s\S]*\.toy, saved_model\.pb"):
        cnnviz.load("net.onnx")


def test_a_misspelt_collection_is_told(toy):
    with pytest.raises(ModelSourceError, match="perhaps 'zoo:lion' was meant"):
        cnnviz.load("zooo:lion")


@pytest.fixture
def own(folder):
    """A module of the user's in the current folder."""
    code = """
        import cnnviz
        from cnnviz_core.testing.nets import NETS
        from cnnviz_core.testing.reference import ReferenceModel

        def factory(seed=0):
            return ReferenceModel(NETS["plain"](seed))

        def described():
            return cnnviz.wrap(factory(), labels="abcde", name="known")

        class Zoo:
            make = staticmethod(factory)

        network = factory(3)
        number = 5

        def broken():
            raise RuntimeError("no weights")
    """
    (folder / "own_networks.py").write_text(textwrap.dedent(code))
    (folder / "own_broken.py").write_text("import module_that_is_not_there")
    yield
    sys.modules.pop("own_networks", None)


def test_a_function_of_the_users_own(own):
    before = list(sys.path)
    network = cnnviz.load("own_networks:factory")
    assert isinstance(network.model, ReferenceModel)
    assert network.name == "factory"
    assert cnnviz.load("own_networks:described").name == "known"
    assert cnnviz.load("own_networks:Zoo.make").name == "Zoo.make"
    assert cnnviz.load("own_networks:network").model is sys.modules["own_networks"].network
    x = np.ones((1, 12, 9, 3), np.float32)
    seeded = cnnviz.load("own_networks:factory", seed=4).model.forward(x).logits
    expected = ReferenceModel(NETS["plain"](4)).forward(x).logits
    np.testing.assert_array_equal(seeded, expected)
    assert sys.path == before


def test_what_goes_wrong_in_the_users_own_code_is_told(own):
    with pytest.raises(ModelSourceError, match="raised RuntimeError: no weights"):
        cnnviz.load("own_networks:broken")
    with pytest.raises(ModelSourceError, match=r"raised ModuleNotFoundError.*not_there"):
        cnnviz.load("own_broken:factory")
    with pytest.raises(ModelSourceError, match="perhaps 'factory' was meant"):
        cnnviz.load("own_networks:factry")
    with pytest.raises(ModelSourceError, match="raised TypeError"):
        cnnviz.load("own_networks:number")
    with pytest.raises(ModelSourceError, match="called 'no_such_module'"):
        cnnviz.load("no_such_module:factory")


def test_the_size_of_a_picture_is_not_the_shape_of_several_inputs(toy):
    """A backend that takes no one shape for several inputs is asked without one."""
    size = cnnviz.Preprocessing(size=(8, 10))
    network = cnnviz.wrap(toy.TwoInputs(), preprocess=size)
    assert network.model.how == {}
    assert network.preprocessing == size
    shapes = {"image": (8, 10, 3), "vector": (4,)}
    network = cnnviz.wrap(toy.TwoInputs(), preprocess=size, input_shape=shapes)
    assert network.model.how == {"input_shape": shapes}
    # Of a network with one input the shape is wrong, and it is said so.
    with pytest.raises(ParameterError, match="one shape was given"):
        cnnviz.wrap(toy.Net(), preprocess=cnnviz.Preprocessing(size=(1, 1)))
