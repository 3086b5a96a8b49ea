"""The records by which plugins announce explainers, inspectors, backends, rules and metrics.

A record holds names and import strings (``"package.module:attribute"``) only, so that listing what
there is imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

__all__ = [
    "API",
    "BackendSpec",
    "ExplainerSpec",
    "InspectorSpec",
    "MetricSpec",
    "RuleSpec",
    "Shown",
]

API: Final = 1
"""The version of the contract between plugins and the core."""


@dataclass(frozen=True)
class ExplainerSpec:
    """An explainer, announced.

    Attributes
    ----------
    name : str
        The method's usual name, lower case with hyphens: "grad-cam".
    target : str
        Import string of the explainer's dataclass: "cnnviz_cam.grad_cam:GradCAM".
    summary : str
        One line for listings.
    family : str
        "cam", "gradient", "perturbation", "relevance", "features", "wrapper", "control" or a new
        one.
    needs : frozenset of str
        The capabilities that a model must have.
    references : tuple of str
        Papers: authors, title, venue and year.
    aliases : tuple of str
        Other names under which people look for it.
    cost : str
        The work for one sample, in words: "1 forward, 1 backward", "1 forward a channel".
    class_agnostic : bool
        Whether the map is the same for every target.
    api : int
        The contract's version that it was written for.
    """

    name: str
    target: str
    summary: str
    family: str
    needs: frozenset[str]
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    cost: str = ""
    class_agnostic: bool = False
    api: int = API


Shown: TypeAlias = Literal["nothing", "pictures", "pictures or nothing", "labelled pictures"]
"""What an inspector is shown beside the network."""


@dataclass(frozen=True)
class InspectorSpec:
    """An inspector, announced.

    Attributes
    ----------
    name : str
        What it shows, lower case with hyphens: "filters"; also the name of its command.
    target : str
        Import string of the inspector's dataclass: "cnnviz_features.filters:Filters".
    summary : str
        One line for listings.
    needs : frozenset of str
        The capabilities that a model must have.
    shown : {"nothing", "pictures", "pictures or nothing", "labelled pictures"}
        What it looks at beside the network.  A collection of pictures may be larger than memory.
    targeted : bool
        Whether it looks at a class or another target, which a caller may name.
    references : tuple of str
        Papers: authors, title, venue and year.
    aliases : tuple of str
        Other names under which people look for it.
    cost : str
        The work, in words: "1 forward a picture".
    api : int
        The contract's version that it was written for.
    """

    name: str
    target: str
    summary: str
    needs: frozenset[str]
    shown: Shown
    targeted: bool = False
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    cost: str = ""
    api: int = API


@dataclass(frozen=True)
class BackendSpec:
    """A backend, announced.

    Attributes
    ----------
    name : str
        "torch", "tensorflow", ...
    wrap : str
        Import string of ``wrap(native, *, input_shape=None, output=None) -> Model``.
    packages : tuple of str
        Root packages of the classes whose objects it takes, such as ``("torch",)``; also what must
        be installed.
    accepts : str
        Import string of ``accepts(native) -> bool``, in a module that imports no framework; asked
        only about objects of a class of `packages`.
    describe : str or None
        Import string of ``describe(native) -> Described``: the published preprocessing and class
        names of a network of a known collection.
    sources : mapping of str to str
        From the scheme of a source ("torchvision" of "torchvision:resnet50") to the import string
        of a loader ``load(name, **options) -> Described``.
    suffixes : mapping of str to str
        From a file's suffix (".keras") to the import string of a loader
        ``load(path, **options) -> Described``.
    extra : str
        The extra of the distribution that installs the framework.
    build : str or None
        Import string of ``build(netspec, *, dtype="float32") -> native``; the type is "float32" or
        "float64".
    path_of : str or None
        Import string of ``path_of(native, layer) -> str or None``: where in a network a layer given
        as an object is, as `cnnviz_core.model.LayerInfo.path` has it; None where it is no layer of
        this network.
    pooled : str or None
        Import string of ``pooled(native, layer: LayerInfo, head: Head) -> native``: a copy of the
        network up to a layer, with global pooling and a linear layer behind it; the parts are named
        as `cnnviz_core.heads` says.
    fitted : str or None
        Import string of ``fitted(native, samples, validation, training) -> (native, list of
        Epoch)``: a trained copy, by the settings of `cnnviz_core.heads.Training`.
    api : int
        The contract's version that it was written for.
    """

    name: str
    wrap: str
    packages: tuple[str, ...]
    accepts: str
    describe: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    suffixes: Mapping[str, str] = field(default_factory=dict)
    extra: str = ""
    build: str | None = None
    path_of: str | None = None
    pooled: str | None = None
    fitted: str | None = None
    api: int = API

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        object.__setattr__(self, "suffixes", MappingProxyType(dict(self.suffixes)))


@dataclass(frozen=True)
class RuleSpec:
    """A rule of relevance, announced.

    Attributes
    ----------
    name : str
        What people call it, lower case with hyphens: "epsilon-plus".
    target : str
        Import string of a `cnnviz_core.rules.BackwardRule`, or of a function whose arguments all
        have defaults and that returns one: "cnnviz_relevance.composites:epsilon_plus".
    summary : str
        One line for listings.
    references : tuple of str
        Papers: authors, title, venue and year.
    aliases : tuple of str
        Other names under which people look for it.
    api : int
        The contract's version that it was written for.
    """

    name: str
    target: str
    summary: str
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    api: int = API


@dataclass(frozen=True)
class MetricSpec:
    """A metric of maps, announced.

    Attributes
    ----------
    name : str
        The metric's usual name, lower case with hyphens: "pointing-game".
    target : str
        Import string of the metric's dataclass: "cnnviz_metrics.pointing:PointingGame".
    summary : str
        One line for listings.
    family : str
        What it judges: "localisation", "faithfulness", "robustness", "complexity", "sanity" or a
        new one.
    higher_is_better : bool or None
        Which of two values is the better one; None where neither is.
    asks : frozenset of str
        What of the annotation it cannot do without: "boxes", "mask" and "label", of which one
        suffices where they stand in one text, as "boxes or mask".
    needs : frozenset of str
        The capabilities that a model must have.
    references : tuple of str
        Papers: authors, title, venue and year.
    aliases : tuple of str
        Other names under which people look for it.
    cost : str
        The work for one map, in words: "none", "57 forwards".
    api : int
        The contract's version that it was written for.
    """

    name: str
    target: str
    summary: str
    family: str
    higher_is_better: bool | None
    asks: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    cost: str = "none"
    api: int = API
