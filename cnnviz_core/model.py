"""The ``Model`` protocol: what a backend offers and all that an explainer may use.

Arrays at this boundary are NumPy, batch first and channels last: (N, H, W, C) for pictures,
(N, L, C) for signals, (N, D, H, W, C) for volumes.  They are float32, or float64 where the network
computes in float64; half precision comes back as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import MissingCapabilityError
from cnnviz_core.rules import STANDARD, BackwardRule

if TYPE_CHECKING:
    from cnnviz_core.spatial import Geometry

__all__ = [
    "INPUT",
    "LOGITS",
    "OUTPUT",
    "PREPARE",
    "Array",
    "CopyableModel",
    "Cotangent",
    "Curvature",
    "CurvedModel",
    "InputInfo",
    "Inputs",
    "LayerInfo",
    "Model",
    "PreparableModel",
    "Pullback",
    "Replacement",
    "SpatialModel",
    "Trace",
    "copyable",
    "curved",
    "input_node",
    "preparable",
    "spatial",
]

Array: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = Array | Mapping[str, Array]
"""One array for a network with one input, or one array for each named input."""
Cotangent: TypeAlias = Array | Callable[[Array], Array]
"""An array of the value's shape, or a function from the value to such an array."""
Replacement: TypeAlias = Array | Callable[[Array], Array]

INPUT: Final = "@input"
"""The network's input; of several, the first."""
LOGITS: Final = "@logits"
"""The scores before the final softmax or sigmoid, also where the network ends in one."""
OUTPUT: Final = "@output"
"""What the network returns; of several tensors, the main one."""
PREPARE: Final = "prepare"
"""The capability of a model that can make a private copy of itself that runs faster."""


def input_node(name: str) -> str:
    """Name the node of one of several inputs.

    Parameters
    ----------
    name : str
        A key of `Model.inputs`.

    Returns
    -------
    str
        The node, for ``wrt=`` of `Model.pullback`.
    """
    return f"{INPUT}:{name}"


@dataclass(frozen=True)
class InputInfo:
    """One input of a network.

    Attributes
    ----------
    name : str
        The input's name; "input" where the framework gives none.
    shape : tuple of (int or None), or None
        Shape without the batch axis, channels last; None stands for any size.  The whole is None
        where the network does not say.
    dtype : str
        The NumPy name of the type in which the network computes: "float32" or "float64".
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"


@dataclass(frozen=True)
class LayerInfo:
    """One call of one layer.

    Attributes
    ----------
    name : str
        The node's name: the layer's path in the network; ``path@k`` (k counts from 0) for the
        k-th call where the layer is called several times in a forward pass.
    kind : str
        What it does, in the same words for every framework: "conv", "linear", "relu",
        "activation", "pool", "pad", "norm", "add", "concat", "reshape", "dropout", "attention",
        "container" or "other".
    type : str
        The class's name in the framework, such as "Conv2d".
    shape : tuple of int
        Shape of its output without the batch axis, channels last.
    grid : tuple of int or None
        The spatial positions of the output, (h, w) for pictures; None where it has none.
    prefix : int
        How many leading tokens are not on the grid (class and register tokens of a transformer);
        0 for convolutional layers.
    path : str
        The layer's path, without the call's index.
    call : int
        Which call of this layer it is, from 0.
    calls : int
        How often the layer is called in one forward pass.
    same_as : str or None
        An earlier node whose value this one hands on unchanged (a container does so with the value
        of its last layer).
    affine : bool
        Whether the logits are an affine function of this value while all else is held, as they are
        of the last feature maps where only pooling by means and linear layers follow: replacing
        ``a`` by ``a + d`` then adds ``<gradient, d>`` to every score that is linear in the logits.
        False where the backend does not know.
    """

    name: str
    kind: str
    type: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None = None
    prefix: int = 0
    path: str = ""
    call: int = 0
    calls: int = 1
    same_as: str | None = None
    affine: bool = False


@dataclass(frozen=True)
class Trace:
    """What a forward pass returns.

    Attributes
    ----------
    values : mapping of str to ndarray
        `OUTPUT`, `LOGITS`, and every node that was asked for in ``capture``.
    """

    values: Mapping[str, Array]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def __getitem__(self, node: str) -> Array:
        return self.values[node]

    @property
    def output(self) -> Array:
        """What the network returned, (N, ...)."""
        return self.values[OUTPUT]

    @property
    def logits(self) -> Array:
        """The scores before the final softmax or sigmoid, (N, ...)."""
        return self.values[LOGITS]


@dataclass(frozen=True)
class Pullback:
    """What a vector-Jacobian product returns.

    Attributes
    ----------
    values : mapping of str to ndarray
        The values at ``of``, at every node in ``wrt`` but the inputs, and at `LOGITS` and `OUTPUT`.
    gradients : mapping of str to ndarray
        For every node in ``wrt``, the gradient of ``sum(cotangent * value at of)``, of that node's
        shape; under a rule of relevance, the node's relevance.
    unruled : tuple of str
        The operations on the way for which a rule that marks them has no step, so that they passed
        the gradient by their own derivative.
    """

    values: Mapping[str, Array]
    gradients: Mapping[str, Array]
    unruled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "gradients", MappingProxyType(dict(self.gradients)))


@dataclass(frozen=True)
class Curvature:
    """What the derivative of a vector-Jacobian product in a direction returns.

    With ``f`` the way from the value ``a`` at ``wrt`` to the value at ``of``, the cotangent ``c``
    and the direction ``v``:

    Attributes
    ----------
    values : mapping of str to ndarray
        The values at ``of``, at ``wrt`` unless it is an input, and at `LOGITS` and `OUTPUT`.
    gradient : ndarray
        ``J^T c``, the gradient of ``sum(c * f(a))`` with respect to `a`, of its shape.
    tangent : ndarray
        ``J v``, the derivative of ``f(a + t v)`` by ``t`` at 0, of the shape of the value at
        ``of``.
    bend : ndarray
        ``(sum_k c_k H_k) v``, the derivative of `gradient` along `v` with the cotangent held fixed,
        of the shape of `a`; 0 where ``f`` is piecewise linear.

    Notes
    -----
    The Hessian-vector product of a score ``T(f(a))`` along ``v`` is `bend`, for the cotangent
    ``T'(f(a))``, plus the gradient for the cotangent ``T''(f(a)) @ tangent``; the second part is
    one more `Model.pullback`, and 0 where ``T`` is linear, as a class's logit is (Pearlmutter,
    "Fast exact multiplication by the Hessian", Neural Computation 6, 1994).
    """

    values: Mapping[str, Array]
    gradient: Array
    tangent: Array
    bend: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))


@runtime_checkable
class Model(Protocol):
    """A network of some framework, as explainers see it.

    A model never changes the network that it stands for: after any call, also one that raised, the
    network's parameters, gradients, hooks and modes are what they were.

    A model whose `capabilities` name "curvature", "geometry", "copy" or "prepare" has one more
    operation, `CurvedModel.curvature`, `SpatialModel.geometry`, `CopyableModel.copied` or
    `PreparableModel.prepared`; `curved`, `spatial`, `copyable` and `preparable` give it to those
    who need it.

    Attributes
    ----------
    framework : str
        "torch", "tensorflow", "numpy", ...
    capabilities : frozenset of str
        What this very network offers: "capture", "replace", "gradient", "parameters",
        "curvature", "geometry", "copy", "prepare", "blend" (`forward` takes a batch that is
        described, and makes it where the network computes), "ablate" (likewise a replacement), and
        ``"rule:<kind>"`` for every kind of operation whose backward step a rule may override
        ("rule:relu").
    activation : str
        What turns `LOGITS` into probabilities: "softmax", "sigmoid" or "none"; "probabilities"
        where they are such already.  The network's own head where it has one; "softmax" where it
        ends in raw scores.
    inputs : mapping of str to InputInfo
        The named inputs, in the order of the call; most networks have one.
    layers : mapping of str to LayerInfo
        Every call of every layer, in the order in which the calls end.  Where shapes depend on the
        input they are those of the declared input shape or, failing that, of the first input seen.
    """

    @property
    def framework(self) -> str:
        """The framework's name."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """What this very network offers."""
        ...

    @property
    def activation(self) -> str:
        """What turns the logits into probabilities."""
        ...

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The named inputs, in the order of the call."""
        ...

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Every call of every layer, in the order in which the calls end."""
        ...

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network, without gradients.

        Parameters
        ----------
        x : ndarray (N, ...), or mapping of str to ndarray
            The input, in the network's own value range.  A model that offers "blend" also takes a
            `cnnviz_core.blended.Blended` in the place of an array: one sample under many masks,
            with the results, but for rounding, of the batch that it describes.
        capture : sequence of str
            Nodes whose values to return too.
        replace : mapping of str to (ndarray or callable), optional
            Values to put in the place of a node's: an array of its shape (N, ...), or a function
            from the value to such an array.  A model that offers "ablate" also takes a
            `cnnviz_core.ablated.Ablated` in the place of an array.

        Returns
        -------
        Trace

        Raises
        ------
        ArrayError
            If `x` does not fit the network's input, or holds NaN or infinity.
        UnknownLayerError
            If a node is not in `layers`.
        OutOfMemoryError
            If the memory of the network's device does not suffice.
        """
        ...

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Compute a vector-Jacobian product, and the values on its way.

        Parameters
        ----------
        x : ndarray (N, ...), or mapping of str to ndarray
            The input, in the network's own value range.
        cotangent : ndarray or callable
            What multiplies the value at `of`: an array of its shape, or a function of that value.
        of : str
            The node that is differentiated.
        wrt : sequence of str
            The nodes with respect to which it is differentiated.
        rule : BackwardRule
            How the gradient, or relevance, passes certain operations.  Under a rule of relevance
            the cotangent is the relevance of the values at `of`.

        Returns
        -------
        Pullback

        Raises
        ------
        ArrayError
            If `x` or the cotangent does not fit.
        UnknownLayerError
            If a node is not in `layers`, or `of` does not depend on a node in `wrt`.
        RuleError
            If the rule would change nothing between `of` and the nodes in `wrt`, has a step that
            does not fit its kind of operation, or refuses an operation for which it has none.
        """
        ...

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays.

        Parameters
        ----------
        layer : str
            A key of `layers`, or a layer's path.

        Returns
        -------
        mapping of str to ndarray
            Copies.  A convolution has "weight" (...kernel, C_in / groups, C_out) and "bias"
            (C_out,) where it has one; a linear layer "weight" (C_in, C_out) and "bias"; a batch
            normalisation "scale", "shift", "mean", "variance" and "epsilon", which is added to the
            variance, each (C,) and those that it has.  Empty for a layer
            without arrays.

        Raises
        ------
        UnknownLayerError
            If there is no such layer.
        """
        ...


class CurvedModel(Model, Protocol):
    """A model with the optional operation "curvature"; see `curved`."""

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Compute the derivative of a vector-Jacobian product in a direction.

        Parameters
        ----------
        x : ndarray (N, ...), or mapping of str to ndarray
            The input, in the network's own value range.
        cotangent : ndarray or callable
            What multiplies the value at `of`: an array of its shape, or a function of that value.
            It is held fixed along the direction.
        direction : ndarray or callable
            Which way the value at `wrt` moves: an array of its shape, or a function of that value.
        of : str
            The node that is differentiated.
        wrt : str
            The node with respect to which it is differentiated.

        Returns
        -------
        Curvature

        Raises
        ------
        ArrayError
            If `x`, the cotangent or the direction does not fit.
        UnknownLayerError
            If a node is not in `layers`, or `of` does not depend on `wrt`.
        UnsupportedModelError
            If an operation on the way has no second derivative in the framework.
        """
        ...


def curved(model: Model) -> CurvedModel:
    """Give a model as one with the operation "curvature".

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    CurvedModel
        The model itself.

    Raises
    ------
    MissingCapabilityError
        If it does not offer the operation.
    """
    if "curvature" in model.capabilities and callable(getattr(model, "curvature", None)):
        return cast(CurvedModel, model)
    raise MissingCapabilityError(
        f"second derivatives need 'curvature', which this {model.framework} model does not offer",
        f"a need among {', '.join(map(repr, sorted(model.capabilities)))}",
        "wrap the network that it was exported from, or use a method of first derivatives",
    )


class SpatialModel(Model, Protocol):
    """A model with the optional operation "geometry"; see `spatial`."""

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell which places the operations between an input and some nodes read.

        Parameters
        ----------
        nodes : sequence of str
            The nodes.
        x : ndarray (N, ...), or mapping of str to ndarray, optional
            An input, of which the sizes count; by default one of the declared shape.
        wrt : str
            The input's node.

        Returns
        -------
        Geometry
            With the nodes that depend on the input; the others are left out.

        Raises
        ------
        ArrayError
            If `x` does not fit, or is not given and the network declares no shape.
        UnknownLayerError
            If a node is not in `layers`.
        """
        ...


def spatial(model: Model) -> SpatialModel:
    """Give a model as one with the operation "geometry".

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    SpatialModel
        The model itself.

    Raises
    ------
    MissingCapabilityError
        If it does not offer the operation.
    """
    if "geometry" in model.capabilities and callable(getattr(model, "geometry", None)):
        return cast(SpatialModel, model)
    raise MissingCapabilityError(
        f"receptive fields need 'geometry', which this {model.framework} model does not offer",
        f"a need among {', '.join(map(repr, sorted(model.capabilities)))}",
        "wrap the network that it was exported from",
    )


class CopyableModel(Model, Protocol):
    """A model with the optional operation "copy"; see `copyable`."""

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> Model:
        """Copy the network, with other arrays in some of its layers.

        Parameters
        ----------
        parameters : mapping of str to mapping of str to ndarray
            For some layers, named as `parameters` takes them, some of their arrays, of the names
            and shapes that `parameters` gives them.

        Returns
        -------
        Model
            A model of the copy, which offers what this one does.  The network itself is as it was,
            and what happens to one of the two later is not seen by the other.  An array that
            several layers share is changed for all of them.

        Raises
        ------
        UnknownLayerError
            If there is no such layer.
        ArrayError
            If the layer has no such array, it has another shape, or holds NaN or infinity; or if it
            differs from one that is no variable of the network, such as the "epsilon" of a
            normalisation.
        UnsupportedModelError
            If the network cannot be copied.
        OutOfMemoryError
            If the memory does not suffice for a copy.
        """
        ...


def copyable(model: Model) -> CopyableModel:
    """Give a model as one with the operation "copy".

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    CopyableModel
        The model itself.

    Raises
    ------
    MissingCapabilityError
        If it does not offer the operation.
    """
    if "copy" in model.capabilities and callable(getattr(model, "copied", None)):
        return cast(CopyableModel, model)
    raise MissingCapabilityError(
        f"other weights need 'copy', which this {model.framework} model does not offer",
        f"a need among {', '.join(map(repr, sorted(model.capabilities)))}",
        "wrap the network that it was exported from",
    )


class PreparableModel(Model, Protocol):
    """A model with the optional operation "prepare"; see `preparable`."""

    def prepared(self, x: Inputs, samples: int | None = None) -> Model:
        """Give a model of the same network that takes longer to make, and less time to run.

        Parameters
        ----------
        x : ndarray (N, ...), or mapping of str to ndarray
            An input, of which the shape of a sample counts.
        samples : int, optional
            How many samples will go through it; if not given, any number.

        Returns
        -------
        Model
            One with the same layers, which gives the same values: within 1e-5 of the largest of a
            value in float32, and of a gradient as far as a rectifier near zero may open or close.
            It takes any input, but is faster only for those of this shape.  It is for the weights
            that the network has now, and must not be used when they have changed.  The model
            itself where nothing can be gained, or not with so few samples.

        Raises
        ------
        ArrayError
            If `x` does not fit.
        """
        ...


def preparable(model: Model) -> PreparableModel:
    """Give a model as one with the operation "prepare".

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    PreparableModel
        The model itself.

    Raises
    ------
    MissingCapabilityError
        If it does not offer the operation.
    """
    if PREPARE in model.capabilities and callable(getattr(model, "prepared", None)):
        return cast(PreparableModel, model)
    raise MissingCapabilityError(
        f"a faster copy needs {PREPARE!r}, which this {model.framework} model does not offer",
        f"a need among {', '.join(map(repr, sorted(model.capabilities)))}",
        "use it as it is",
    )


def as_float(values: Array) -> Array:
    """Give an array in the boundary's types: float64 stays, all else becomes float32."""
    values = np.asarray(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
