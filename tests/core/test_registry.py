"""Finding plugins: a broken one is reported and harms nobody."""

from __future__ import annotations

import sys
import types
import warnings
from importlib.metadata import EntryPoint

import pytest

from cnnviz_core.errors import (
    ConflictError,
    MissingBackendError,
    ParameterError,
    PluginError,
    RuleError,
    UnknownMethodError,
    UnsupportedModelError,
)
from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.importing import import_string, installed
from cnnviz_core.naming import folded
from cnnviz_core.registry import Registry, get_registry
from cnnviz_core.rules import BackwardRule, relevance_rule
from cnnviz_core.specs import BackendSpec, ExplainerSpec, RuleSpec
from cnnviz_core.steps import alpha_beta, epsilon, z_box, z_plus


def explainer(name, target="cnnviz_cam.grad_cam:GradCAM", **kwargs):
    return ExplainerSpec(name, target, "a method", "cam", frozenset(), **kwargs)


class FakeDistribution:
    version = "1.2"

    def __init__(self, name):
        self.name = name


@pytest.fixture
def plugin(monkeypatch):
    """Make an entry point of a distribution that announces what it is given."""

    def make(dist, explainers=(), backends=(), hook=None, rules=()):
        module = types.ModuleType(f"plugin_of_{dist}")
        if explainers:
            module.cnnviz_explainers = hookimpl(lambda: list(explainers))
        if backends:
            module.cnnviz_backends = hookimpl(lambda: list(backends))
        if rules:
            module.cnnviz_rules = hookimpl(lambda: list(rules))
        if hook:
            module.cnnviz_explainers = hookimpl(hook)
        for attr in ("cnnviz_explainers", "cnnviz_backends", "cnnviz_rules"):
            if hasattr(module, attr):
                getattr(module, attr).__name__ = attr
        monkeypatch.setitem(sys.modules, module.__name__, module)
        point = EntryPoint(dist, module.__name__, "cnnviz")
        vars(point)["dist"] = FakeDistribution(dist)
        return point

    return make


def test_the_built_in_ones_are_found():
    registry = get_registry()
    assert {"torch", "tensorflow"} <= set(registry.backends)
    assert registry.spec("Grad_CAM").name == "grad-cam"
    assert registry.spec("gradcam").name == "grad-cam"
    assert registry.explainer("grad-cam", layer="x").layer == "x"


def test_every_announced_target_can_be_imported_and_declares_the_same_needs():
    registry = get_registry()
    for name, spec in registry.explainers.items():
        assert registry.explainer(name).needs == spec.needs, name
        assert spec.references, name
    for spec in registry.backends.values():
        if installed(spec.packages[0]):
            for target in (spec.accepts, spec.wrap, spec.describe, spec.build):
                assert callable(import_string(target))
            for target in (*spec.sources.values(), *spec.suffixes.values()):
                assert callable(import_string(target))


def test_a_plugin_that_raises_harms_nobody(plugin):
    def broken():
        raise RuntimeError("out of order")

    points = [
        plugin("good", [explainer("mine")]),
        plugin("bad", hook=broken),
        EntryPoint("absent", "no_such_module_anywhere", "cnnviz"),
        plugin("fine", [explainer("yours")]),
    ]
    with pytest.warns(RuntimeWarning) as caught:
        registry = Registry(points)
    assert len(caught) == 2
    assert set(registry.explainers) == {"mine", "yours"}
    assert [p.entry_point for p in registry.plugins] == ["good", "fine"]
    bad, absent = registry.failures
    assert (bad.distribution, bad.version, bad.stage) == ("bad", "1.2", "announce")
    assert "out of order" in bad.error
    assert "in broken" in bad.traceback
    assert absent.stage == "load"
    with pytest.raises(PluginError, match="out of order"):
        registry.spec("bad")


def test_strict_plugins_raise(plugin, monkeypatch):
    monkeypatch.setenv("CNNVIZ_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="no_such_module"):
        Registry([EntryPoint("absent", "no_such_module_anywhere", "cnnviz")])


@pytest.mark.parametrize("announced", [["grad-cam"], [explainer("later", api=2)], 3])
def test_what_breaks_the_contract_is_reported(plugin, announced):
    with pytest.warns(RuntimeWarning, match="announce"):
        registry = Registry([plugin("odd", hook=lambda: announced)])
    assert not registry.explainers
    assert len(registry.failures) == 1


def test_an_unknown_hook_is_reported(plugin):
    point = plugin("newer", [explainer("mine")])
    module = sys.modules["plugin_of_newer"]
    module.cnnviz_paintings = hookimpl(lambda: [])
    module.cnnviz_paintings.__name__ = "cnnviz_paintings"
    with pytest.warns(RuntimeWarning, match="cnnviz_paintings"):
        assert not Registry([point]).explainers


def test_two_plugins_that_claim_one_name(plugin):
    registry = Registry(
        [plugin("one", [explainer("same")]), plugin("two", [explainer("same"), explainer("b")])]
    )
    with pytest.raises(ConflictError, match="one and two"):
        registry.spec("same")
    assert registry.spec("one:same") is not registry.spec("two:same")
    assert registry.spec("b").name == "b"


def test_two_methods_with_one_alias(plugin):
    registry = Registry(
        [
            plugin("one", [explainer("a", aliases=("x",))]),
            plugin("two", [explainer("b", "m:B", aliases=("x",))]),
        ]
    )
    with pytest.raises(ConflictError, match="a and b"):
        registry.spec("x")


def test_a_name_in_another_spelling_goes_before_an_alias(plugin):
    registry = Registry(
        [plugin("one", [explainer("other", aliases=("foobar",)), explainer("foo-bar", "m:B")])]
    )
    assert registry.spec("FooBar").name == "foo-bar"


def test_an_unknown_method_lists_near_ones():
    with pytest.raises(UnknownMethodError, match="perhaps 'grad-cam' was meant"):
        get_registry().spec("grad-camm")
    with pytest.raises(UnknownMethodError, match="perhaps 'grad-cam' was meant"):
        get_registry().spec("gradcm")  # nearest to the alias "gradcam"
    with pytest.raises(UnknownMethodError, match="cnnviz methods"):
        get_registry().spec("zzzz")


def test_an_explainer_whose_module_raises(plugin):
    registry = Registry([plugin("one", [explainer("lost", "no_such_module_anywhere:X")])])
    with pytest.raises(PluginError, match="could not be imported"):
        registry.explainer("lost")


def test_a_backend_whose_framework_is_missing(plugin):
    spec = BackendSpec("mars", "m:w", ("no_such_framework",), "m:a", extra="mars")
    registry = Registry([plugin("one", backends=[spec])])
    with pytest.raises(MissingBackendError, match=r"pip install 'cnnviz\[mars\]'"):
        registry.backend("mars")
    with pytest.raises(MissingBackendError, match="mars"):
        registry.backend("venus")


class Parent:
    pass


class Child(Parent):
    pass


def test_the_most_derived_class_decides(plugin, monkeypatch):
    monkeypatch.setattr(Parent, "__module__", "general.nn")
    monkeypatch.setattr(Child, "__module__", "special.layers")
    checks = types.ModuleType("checks_for_test")
    checks.yes = lambda native: True
    checks.no = lambda native: False
    monkeypatch.setitem(sys.modules, "checks_for_test", checks)
    general = BackendSpec("general", "m:w", ("general",), "checks_for_test:yes")
    special = BackendSpec("special", "m:w", ("special",), "checks_for_test:yes")
    refusing = BackendSpec("special", "m:w", ("special",), "checks_for_test:no")
    assert Registry([plugin("a", backends=[general, special])]).backend_of(Child()) is special
    assert Registry([plugin("b", backends=[general, refusing])]).backend_of(Child()) is general
    assert Registry([plugin("c", backends=[special, general])]).backend_of(Parent()) is general


def test_an_object_of_no_framework():
    with pytest.raises(UnsupportedModelError, match=r"builtins\.dict"):
        get_registry().backend_of({})
    with pytest.raises(UnsupportedModelError, match=r"cnnviz\.load"):
        get_registry().backend_of("resnet50")


def test_loading_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Registry()


@pytest.mark.parametrize(
    ("spelt", "same"),
    [("Grad-CAM++", "GradCAMPlusPlus"), ("grad_cam++", "gradcam plus plus"), ("A:Grad", "a:grad")],
)
def test_spellings_of_one_name_fold_alike(spelt, same):
    assert folded(spelt) == folded(same)
    assert folded(spelt) != folded("grad-cam")


def test_a_method_with_its_parameters_in_one_text():
    registry = get_registry()
    assert registry.configured("gradcam") == registry.explainer("grad-cam")
    made = registry.configured(
        " occlusion( window=4 , fill='mean',stride=2)", layer="x", batch_size=3
    )
    assert made == registry.explainer("occlusion", window=4, fill="mean", stride=2, batch_size=3)
    assert registry.configured("grad-cam(layer=a)", layer="b").layer == "a"
    for wrong in (
        "occlusion(window=0)",
        "occlusion(windw=3)",
        "occlusion(window)",
        "occlusion(",
        "",
    ):
        with pytest.raises(ParameterError):
            registry.configured(wrong)
    with pytest.raises(UnknownMethodError):
        registry.configured("nothing(x=1)")


def one_sided(alpha=2.0, *, stabiliser=0.5):
    return relevance_rule("one-sided", alpha_beta(alpha, alpha - 1, stabiliser))


@pytest.fixture
def ruled(plugin, monkeypatch):
    """Make a registry of one plugin that announces rules, by name and what they are."""

    def make(**announced):
        module = types.ModuleType("rules_for_test")
        vars(module).update(announced)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        specs = [RuleSpec(name, f"rules_for_test:{name}", "a rule") for name in announced]
        return Registry([plugin("rules", rules=specs)])

    return make


def test_rules_are_found_in_the_order_in_which_they_are_announced(ruled):
    rule = relevance_rule("b", z_plus())
    registry = ruled(b=rule, a=one_sided)
    assert list(registry.rules) == ["b", "a"]
    assert registry.plugins[0].announced["rules"] == ("b", "a")
    assert registry.rule_spec("B").target == "rules_for_test:b"
    assert registry.rule("b") is rule
    assert registry.rule("a") == one_sided()


def test_a_function_takes_the_options_that_it_names(ruled):
    registry = ruled(a=one_sided, b=relevance_rule("b", z_plus()))
    made = registry.rule("a", alpha=3, stabiliser=0.1)
    assert made == one_sided(3, stabiliser=0.1)
    assert registry.rule("a", alpha=None, gamma=None) == one_sided()
    assert registry.rule("b", alpha=None) == registry.rule("b")
    with pytest.raises(ParameterError, match="no option 'alhpa'") as caught:
        registry.rule("a", alhpa=3)
    assert caught.value.expected == "one of alpha, stabiliser"
    assert "'alpha' was meant" in caught.value.remedy
    with pytest.raises(ParameterError, match="no option at all"):
        registry.rule("b", alpha=2)
    with pytest.raises(ParameterError, match=r"alpha is 0\.5"):
        registry.rule("a", alpha=0.5)


def test_what_is_announced_must_be_a_rule_whose_steps_can_be_taken(ruled):
    misplaced = BackwardRule("misplaced", {"relu": epsilon()})
    functions = {"number": lambda: 3, "broken": lambda: 1 / 0, "needy": lambda x: x}
    registry = ruled(text="epsilon", misplaced=misplaced, **functions)
    for name, what in (("text", "a str"), ("number", "a int")):
        with pytest.raises(PluginError, match=f" is {what}"):
            registry.rule(name)
    for name, why in (("broken", "ZeroDivisionError"), ("needy", "argument: 'x'")):
        with pytest.raises(PluginError, match=why):
            registry.rule(name)
    with pytest.raises(RuleError, match="'relu'"):
        registry.rule("misplaced")
    absent = RuleSpec("absent", "no_such_module_anywhere:rule", "a rule")
    registry._plugins.named["rules"].claim("rules", absent)
    with pytest.raises(PluginError, match="the rule 'absent' could not be imported"):
        registry.rule("absent")


def test_a_rule_that_lacks_bounds_is_made_without(ruled):
    box = relevance_rule("box", epsilon(), first=z_box())
    assert ruled(box=box).rule("box") is box
    bad = BackwardRule("bad", {"relu": epsilon()}, first={"conv": z_box()})
    with pytest.raises(RuleError, match="'relu'"):
        ruled(bad=bad).rule("bad")


def test_unknown_rules_and_rules_of_two_plugins(plugin):
    spec = RuleSpec("epsilon-plus", "m:rule", "a rule", aliases=("ep",))
    registry = Registry(
        [plugin("one", rules=[spec]), plugin("two", rules=[RuleSpec("z", "m:z", "")])]
    )
    assert registry.rule_spec("EpsilonPlus") is registry.rule_spec("ep") is spec
    with pytest.raises(UnknownMethodError, match="no rule 'epsilon-pls'") as caught:
        registry.rule("epsilon-pls")
    assert "'epsilon-plus' was meant" in caught.value.remedy
    both = Registry([plugin("one", rules=[spec]), plugin("two", rules=[spec])])
    assert set(both.rules) == {"one:epsilon-plus", "two:epsilon-plus"}
    with pytest.raises(ConflictError, match="one and two"):
        both.rule("epsilon-plus")


def test_a_plugin_whose_rules_break_the_contract_is_left_out(plugin):
    points = [
        plugin("odd", [explainer("mine")], rules=["epsilon"]),
        plugin("fine", rules=[RuleSpec("z", "m:z", "")]),
    ]
    with pytest.warns(RuntimeWarning, match="a str, not RuleSpec"):
        registry = Registry(points)
    assert list(registry.rules) == ["z"]
    assert not registry.explainers


def test_every_announced_rule_can_be_made():
    registry = get_registry()
    for name in registry.rules:
        rule = registry.rule(name)
        assert rule.conserves, name
