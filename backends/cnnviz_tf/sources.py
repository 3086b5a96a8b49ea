"""Loading networks: of keras.applications, from Keras files, from SavedModels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cnnviz_core.errors import MissingBackendError, ModelSourceError, near
from cnnviz_core.preprocessing import Described

__all__ = ["load_application", "load_keras_file", "load_saved_model"]

_SAVED_MODEL: Final = "saved_model.pb"


def load_application(name: str, *, weights: str | None = "imagenet", **options: Any) -> Described:
    """Make a network of keras.applications.

    Parameters
    ----------
    name : str
        Its name, such as "MobileNetV2"; case and punctuation do not matter.
    weights : str or None
        "imagenet" for the published weights, which Keras downloads once; None for random ones; or
        the path of a file of weights.
    **options
        Passed on: ``input_shape``, ``classes``, ``classifier_activation``, ...

    Returns
    -------
    Described

    Raises
    ------
    ModelSourceError
        If there is no such network, its weights cannot be had, or an option is wrong.
    MissingBackendError
        If Keras is not installed.
    """
    known = _applications()
    wanted = {_folded(key): key for key in known}
    key = wanted.get(_folded(name))
    if key is None:
        alike = near(name, known) or list(known)[:3]
        raise ModelSourceError(
            f"keras.applications has no network {name!r}",
            f"a name such as {', '.join(map(repr, alike))}",
            "see https://keras.io/api/applications for the list",
        )
    try:
        native = known[key](weights=weights, **options)
    except Exception as error:  # Keras raises plain Exception where a download fails
        raise ModelSourceError(
            f"keras.applications could not make {key!r} with weights={weights!r} "
            f"({type(error).__name__}: {error})",
            "valid options, and access to the published weights or a copy in Keras' cache",
            "pass weights=None for random weights or weights='FILE.h5' for a file of your own, or "
            "run it once where the weights can be downloaded",
        ) from error
    return _described(native)


def load_keras_file(path: str | Path, *, safe_mode: bool = True, **options: Any) -> Described:
    """Load a network that Keras saved as one file.

    Parameters
    ----------
    path : str or Path
        A ``.keras`` or ``.h5`` file that holds the whole network, not only its weights.
    safe_mode : bool
        Refuse files that carry Python code (Lambda layers), which could do anything.
    **options
        Passed on to ``keras.saving.load_model``: ``custom_objects``.

    Returns
    -------
    Described

    Raises
    ------
    ModelSourceError
        If the file is missing, holds no network, or Keras cannot make it.
    MissingBackendError
        If Keras is not installed.
    """
    keras = _framework("keras")
    _check_file(Path(path))
    try:
        native = keras.saving.load_model(path, compile=False, safe_mode=safe_mode, **options)
    except Exception as error:
        raise ModelSourceError(
            f"Keras could not load {str(path)!r} ({type(error).__name__}: {_first_line(error)})",
            "a whole network that model.save(path) wrote, made of known layers",
            "pass custom_objects={name: class} for layers of your own, safe_mode=False for Lambda "
            "layers in a file that you trust, or save the whole network anew",
        ) from error
    return _described(native)


def load_saved_model(path: str | Path) -> Described:
    """Load a SavedModel.

    Parameters
    ----------
    path : str or Path
        The folder, or the file ``saved_model.pb`` in it.

    Returns
    -------
    Described
        Without preprocessing and labels, which a SavedModel does not tell.

    Raises
    ------
    ModelSourceError
        If the folder holds no SavedModel, or TensorFlow cannot load it.
    MissingBackendError
        If TensorFlow is not installed.
    """
    tf = _framework("tensorflow")
    path = Path(path)
    folder = path.parent if path.name == _SAVED_MODEL else path
    _check_file(folder / _SAVED_MODEL)
    try:
        native = tf.saved_model.load(str(folder))
    except Exception as error:
        raise ModelSourceError(
            f"TensorFlow could not load {str(folder)!r} "
            f"({type(error).__name__}: {_first_line(error)})",
            "a folder that model.export(path) or tf.saved_model.save wrote",
            "export the network anew",
        ) from error
    return Described(native, name=folder.name)


def _framework(name: str) -> Any:
    """Import Keras or TensorFlow."""
    try:
        if name == "keras":
            import keras

            return keras
        import tensorflow

        return tensorflow
    except ImportError as error:
        raise MissingBackendError(
            f"{name} cannot be imported ({error})",
            f"{name} in this environment",
            "pip install 'cnnviz[tf]'",
        ) from error


def _applications() -> dict[str, Callable[..., Any]]:
    """List the networks of keras.applications."""
    applications = _framework("keras").applications
    return {
        name: make
        for name, make in vars(applications).items()
        if name[0].isupper() and callable(make)
    }


def _described(native: Any) -> Described:
    """Say what is published of a loaded network."""
    from cnnviz_tf.published import describe

    return describe(native)


def _folded(name: str) -> str:
    """Drop case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _first_line(error: Exception) -> str:
    """Shorten a long message."""
    return next(iter(str(error).splitlines()), "")


def _check_file(path: Path) -> None:
    """Refuse a file that is not there."""
    if not path.is_file():
        raise ModelSourceError(
            f"there is no file {str(path)!r}",
            "the path of a saved network",
            "check the path",
        )
