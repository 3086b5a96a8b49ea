"""How a network is called: its inputs, and a function from their tensors to what it returns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import tensorflow as tf

from cnnviz_core.errors import ArrayError, UnsupportedModelError
from cnnviz_core.model import InputInfo
from cnnviz_tf.accepts import is_saved_model, keras_of
from cnnviz_tf.capture import layer_paths

__all__ = ["DeclaredShape", "Entry", "entry_of"]

DeclaredShape: TypeAlias = tuple[int | None, ...] | Mapping[str, tuple[int | None, ...]]
"""The shape of a network's input without the batch, or of each of its inputs by name."""

_UNNAMED: Final = re.compile(r"(input|input_layer|keras_tensor|x|inputs|args_\d+)(_\d+)?")
"""Names that a framework or a habit gave, where nobody named the input."""


@dataclass(frozen=True)
class Entry:
    """How a network is called.

    Attributes
    ----------
    inputs : mapping of str to InputInfo
        As the `Model` protocol tells them.
    call : callable
        From a mapping of input name to tensor to what the network returns, in inference mode.
    dtypes : mapping of str to tf.DType
        The type that the network itself takes, by input; a missing one is as in `inputs`.
    batch : int or None
        The only batch size that it takes, if there is but one.
    native : object
        The network itself, which owns the variables that a graph of it reads.
    root : keras.Layer or None
        The network again, where it is of Keras.
    layers : mapping of str to keras.Layer
        The layers inside it, by their path.
    built : mapping of str to tuple, or None
        The shapes, without batch, that the network was built with, where `inputs` does not say.
    """

    inputs: Mapping[str, InputInfo]
    call: Callable[[Mapping[str, tf.Tensor]], Any]
    dtypes: Mapping[str, tf.DType] = field(default_factory=dict)
    batch: int | None = None
    native: object = None
    root: Any | None = None
    layers: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, tuple[int | None, ...]] | None = None


def entry_of(native: object, input_shape: DeclaredShape | None = None) -> Entry:
    """Find out how a network is called.

    Parameters
    ----------
    native : object
        A Keras layer or model, a loaded SavedModel, a ``tf.Module``, or a function of TensorFlow.
    input_shape : tuple, or mapping of str to tuple, optional
        The input's shape without batch, where the network does not say or allows several.

    Returns
    -------
    Entry

    Raises
    ------
    UnsupportedModelError
        If it cannot be called as a network of this backend.
    ArrayError
        If `input_shape` contradicts the network.
    """
    if not tf.executing_eagerly():
        raise UnsupportedModelError(
            "TensorFlow is not in its eager mode here",
            "eager mode, outside of tf.function, as is usual since TensorFlow 2",
            "call cnnviz outside of graphs, without tf.compat.v1.disable_eager_execution()",
        )
    keras = keras_of(native)
    if keras is not None:
        _check_keras(keras, native)
        known = bool(_symbolic_inputs(native))
        entry = (_functional if known else _subclassed)(native, input_shape)
        return replace(entry, native=native, root=native, layers=layer_paths(native))
    function = _main_function(native) if is_saved_model(native) else native
    return replace(_function(function, input_shape), native=native)


# ---------------------------------------------------------------- Keras


def _check_keras(keras: Any, native: Any) -> None:
    """Refuse what this backend cannot trace."""
    engine = keras.backend.backend()
    if engine != "tensorflow":
        raise UnsupportedModelError(
            f"this Keras runs on the {engine!r} engine",
            "Keras on the TensorFlow engine",
            "set the environment variable KERAS_BACKEND=tensorflow before Keras is imported, and "
            "load the network again",
        )
    if not native.built:
        raise UnsupportedModelError(
            f"the network {native.name!r} is not built yet: it has no weights",
            "a network that was called or built",
            "call it once on an example, or load its weights",
        )
    for path, layer in layer_paths(native).items():
        if getattr(layer, "data_format", None) == "channels_first":
            raise UnsupportedModelError(
                f"layer {path!r} keeps its channels first",
                "channels last, as everywhere in this backend",
                "build the network with data_format='channels_last'; its weights stay the same",
            )


def _symbolic_inputs(native: Any) -> list[Any]:
    """Give the symbolic inputs of a functional or Sequential model, or none."""
    try:
        return list(native.inputs or ())
    except AttributeError:
        return []


def _functional(native: Any, input_shape: DeclaredShape | None) -> Entry:
    """Describe a model that knows its inputs."""
    tensors = _symbolic_inputs(native)
    names = _input_names([t.name for t in tensors])
    shapes = {name: tuple(t.shape)[1:] for name, t in zip(names, tensors, strict=True)}
    dtypes = {name: tf.as_dtype(t.dtype) for name, t in zip(names, tensors, strict=True)}
    structure = tensors[0] if len(tensors) == 1 else native.input

    def call(given: Mapping[str, tf.Tensor]) -> Any:
        if len(tensors) == 1:
            return native(given[names[0]], training=False)
        by_tensor = {id(t): given[name] for name, t in zip(names, tensors, strict=True)}
        return native(tf.nest.map_structure(lambda t: by_tensor[id(t)], structure), training=False)

    return Entry(
        inputs=_infos(_narrowed(shapes, input_shape), dtypes),
        call=call,
        dtypes=dtypes,
    )


def _subclassed(native: Any, input_shape: DeclaredShape | None) -> Entry:
    """Describe a layer or model that only its own ``call`` knows."""
    built = _built_shapes(native)
    shapes: dict[str, Any]
    if input_shape is None:
        shapes = dict.fromkeys(built or {"input": None})
    else:
        shapes = dict(_by_name(input_shape, "input"))
    dtype = "float64" if native.compute_dtype == "float64" else "float32"
    taken = inspect.signature(native.call).parameters
    by_keyword = len(shapes) > 1 and set(shapes) <= set(taken)

    def call(given: Mapping[str, tf.Tensor]) -> Any:
        if by_keyword:
            return native(**given, training=False)
        only = next(iter(given.values()))
        return native(only if len(given) == 1 else dict(given), training=False)

    return Entry(
        inputs={name: InputInfo(name, shape, dtype) for name, shape in shapes.items()},
        call=call,
        built=built if built and set(built) == set(shapes) else None,
    )


def _built_shapes(native: Any) -> dict[str, tuple[int | None, ...]] | None:
    """Give the input shapes that a subclassed model was built with, if Keras kept them."""
    config = native.get_build_config() if hasattr(native, "get_build_config") else None
    shapes = (config or {}).get("shapes_dict") or {"input": (config or {}).get("input_shape")}
    if isinstance(shapes.get("input"), Mapping):
        shapes = shapes["input"]
    named = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    if not all(isinstance(s, (tuple, list)) and _is_shape(s) for s in named.values()):
        return None
    return {name: tuple(shape[1:]) for name, shape in named.items()}


def _is_shape(shape: Any) -> bool:
    """Tell whether a sequence is one shape with a batch axis."""
    return len(shape) > 1 and all(n is None or isinstance(n, int) for n in shape)


# ---------------------------------------------------------------- TensorFlow


def _main_function(saved: Any) -> Any:
    """Pick the function of a SavedModel that is the network."""
    for key in ("serving_default", "serve", *saved.signatures):
        if key in saved.signatures:
            return saved.signatures[key]
    for name in ("__call__", "serve"):
        function = getattr(saved, name, None)
        if function is not None and getattr(function, "concrete_functions", ()):
            return function.concrete_functions[0]
    raise UnsupportedModelError(
        "the SavedModel has no signature and cannot be called",
        "a SavedModel with a serving signature or a traced __call__",
        "save it with model.export(path), or with tf.saved_model.save(model, path, signatures=...)",
    )


def _function(function: Any, input_shape: DeclaredShape | None) -> Entry:
    """Describe a ``tf.Module``, or a function of TensorFlow."""
    kinds = tf.types.experimental
    if isinstance(function, kinds.ConcreteFunction):
        args, kwargs = function.structured_input_signature
        return _signed(function, (*args, *kwargs.values()), tuple(kwargs), input_shape)
    if not callable(function):
        raise UnsupportedModelError(
            f"an object of the class {type(function).__name__} cannot be called",
            "a network with a __call__",
            "pass the function that is the network, or a tf.Module with a __call__",
        )
    python = function if isinstance(function, kinds.PolymorphicFunction) else function.__call__
    signature = getattr(python, "input_signature", None)
    if signature is not None:
        return _signed(function, tuple(signature), (), input_shape)
    shapes = {"input": None} if input_shape is None else dict(_by_name(input_shape, "input"))
    taken = inspect.signature(getattr(python, "python_function", python)).parameters
    flags = {name: False for name in ("training", "is_training") if name in taken}
    by_keyword = len(shapes) > 1 and set(shapes) <= set(taken)

    def call(given: Mapping[str, tf.Tensor]) -> Any:
        if by_keyword:
            return function(**given, **flags)
        only = next(iter(given.values()))
        return function(only if len(given) == 1 else dict(given), **flags)

    return Entry({name: InputInfo(name, shape) for name, shape in shapes.items()}, call)


def _signed(
    function: Any, arguments: tuple[Any, ...], keywords: tuple[str, ...], declared: Any
) -> Entry:
    """Describe a function whose arguments have known shapes."""
    positional = arguments[: len(arguments) - len(keywords)]
    is_input = [isinstance(a, tf.TensorSpec) for a in arguments]
    specs = [a for a, ok in zip(arguments, is_input, strict=True) if ok]
    if not specs or any(s.shape.rank in (None, 0) for s in specs):
        raise UnsupportedModelError(
            "the signature of the function takes no tensors with a batch axis",
            "arguments that are tensors (N, ...)",
            "save or trace it with such a signature",
        )
    names = _input_names([s.name or f"input_{i}" for i, s in enumerate(specs)])
    batches = {s.shape[0] for s in specs} - {None}

    def call(given: Mapping[str, tf.Tensor]) -> Any:
        tensors = iter(given[name] for name in names)
        values = [next(tensors) if ok else a for a, ok in zip(arguments, is_input, strict=True)]
        named = dict(zip(keywords, values[len(positional) :], strict=True))
        return function(*values[: len(positional)], **named)

    shapes = {name: tuple(s.shape)[1:] for name, s in zip(names, specs, strict=True)}
    dtypes = {name: s.dtype for name, s in zip(names, specs, strict=True)}
    return Entry(
        inputs=_infos(_narrowed(shapes, declared), dtypes),
        call=call,
        dtypes=dtypes,
        batch=batches.pop() if batches else None,
    )


# ---------------------------------------------------------------- names and shapes


def _input_names(names: list[str]) -> list[str]:
    """Call a network's only input "input" unless somebody gave it a name."""
    if len(names) == 1 and _UNNAMED.fullmatch(names[0]):
        return ["input"]
    return names


def _by_name(declared: DeclaredShape, only: str) -> Mapping[str, tuple[int | None, ...]]:
    """Give declared shapes as a mapping."""
    return declared if isinstance(declared, Mapping) else {only: tuple(declared)}


def _narrowed(
    shapes: dict[str, tuple[int | None, ...]], declared: DeclaredShape | None
) -> dict[str, tuple[int | None, ...]]:
    """Put declared sizes where the network allows any."""
    if declared is None:
        return shapes
    given = _by_name(declared, next(iter(shapes)))
    for name, shape in given.items():
        known = shapes.get(name)
        fits = known is not None and len(known) == len(shape)
        if not fits or any(k not in (None, d) for k, d in zip(known or (), shape, strict=True)):
            raise ArrayError(
                f"input_shape says {tuple(shape)} for the input {name!r}",
                f"what the network says: {shapes}, without the batch axis and channels last",
                "leave input_shape out, or correct it",
            )
    return {**shapes, **{name: tuple(shape) for name, shape in given.items()}}


def _infos(
    shapes: Mapping[str, tuple[int | None, ...]], dtypes: Mapping[str, tf.DType]
) -> dict[str, InputInfo]:
    """Describe inputs of known shapes and types."""
    for name, dtype in dtypes.items():
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            raise UnsupportedModelError(
                f"the input {name!r} takes values of the type {dtype.name}",
                "numbers",
                "wrap the part of the network that follows the conversion to numbers",
            )
    return {
        name: InputInfo(name, shape, "float64" if dtypes[name] == tf.float64 else "float32")
        for name, shape in shapes.items()
    }
