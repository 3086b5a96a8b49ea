"""Loading networks: from torchvision and timm by name, from exported and scripted files."""

from __future__ import annotations

import importlib
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from cnnviz_core.errors import MissingBackendError, ModelSourceError, near
from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_torch.published import describe

__all__ = ["load_exported", "load_timm", "load_torchscript", "load_torchvision"]


def load_torchvision(name: str, *, weights: str | None = "DEFAULT") -> Described:
    """Load a network of torchvision.

    Parameters
    ----------
    name : str
        Such as "resnet50".
    weights : str or None
        Which of its published weights, such as "IMAGENET1K_V1"; "DEFAULT" are the best ones.  None
        for random weights, which need no download.

    Returns
    -------
    Described
        With the preprocessing and the class names that belong to the weights.

    Raises
    ------
    MissingBackendError
        If torchvision is not installed, or does not fit the installed torch.
    ModelSourceError
        If there is no such network or weights, or they cannot be downloaded.
    """
    models = _imported("torchvision.models")
    _check_known(name, models.list_models(), "torchvision")
    chosen = None
    if weights is not None:
        published = models.get_model_weights(name)
        if weights not in published.__members__:
            raise ModelSourceError(
                f"torchvision has no weights {weights!r} for {name!r}",
                f"one of {', '.join(published.__members__)}, or None for random weights",
                "choose one of these",
            )
        chosen = published[weights]
    try:
        native = models.get_model(name, weights=chosen).eval()
    except OSError as error:
        raise _download_failed(f"torchvision:{name}", error) from error
    if chosen is None:
        found = describe(native)
        return Described(native, found.preprocessing, found.labels, name)
    labels = tuple(chosen.meta.get("categories", ())) or None
    return Described(native, _preset(chosen.transforms()), labels, name)


def _preset(transforms: Any) -> Preprocessing | None:
    """Read a preset of torchvision's for pictures."""
    if type(transforms).__name__ not in ("ImageClassification", "SemanticSegmentation"):
        return None
    crop, resize = getattr(transforms, "crop_size", None), transforms.resize_size
    return Preprocessing(
        size=None if crop is None else (crop[0], crop[-1]),
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def load_timm(name: str, *, pretrained: bool = True) -> Described:
    """Load a network of timm.

    Parameters
    ----------
    name : str
        Such as "convnext_tiny" or "convnext_tiny.fb_in22k".
    pretrained : bool
        Whether to load its published weights; otherwise they are random.

    Returns
    -------
    Described
        With the preprocessing of its configuration, and the class names where they are
        ImageNet-1k's.

    Raises
    ------
    MissingBackendError
        If timm is not installed.
    ModelSourceError
        If there is no such network, or its weights cannot be downloaded.
    """
    timm = _imported("timm")
    if ":" not in name:  # else it is one of a hub
        _check_known(name.split(".")[0], timm.list_models(), "timm")
    try:
        native = timm.create_model(name, pretrained=pretrained).eval()
    except (OSError, RuntimeError) as error:
        raise _download_failed(f"timm:{name}", error) from error
    found = describe(native)
    return Described(native, found.preprocessing, found.labels, name)


def load_exported(path: str | Path) -> Described:
    """Load a program that ``torch.export.save`` wrote.

    Parameters
    ----------
    path : str or Path
        A ".pt2" file.

    Returns
    -------
    Described

    Raises
    ------
    ModelSourceError
        If the file holds no such program.
    """
    try:
        program = torch.export.load(str(path))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ModelSourceError(
            f"{str(path)!r} holds no exported program ({type(error).__name__}: {error})",
            "a file that torch.export.save wrote",
            "write it with torch.export.save(torch.export.export(network, (x,)), path), with a "
            "version of torch not newer than this one",
        ) from error
    return Described(program, name=Path(path).stem)


def load_torchscript(path: str | Path) -> Described:
    """Load a TorchScript file; never unpickles anything.

    Parameters
    ----------
    path : str or Path
        A ".pt" or ".pth" file that ``torch.jit.save`` wrote.

    Returns
    -------
    Described

    Raises
    ------
    ModelSourceError
        If it is a pickled network, which can run any code when it is read, or a state dict, which
        lacks the architecture; or no file of torch's.
    """
    names = _names_in(path)
    if names is not None and any("/code/" in name for name in names):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
                native = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise ModelSourceError(
                f"{str(path)!r} cannot be read as TorchScript ({error})",
                "a file that torch.jit.save wrote, with a version of torch not newer than this one",
                "write it again, or export the network with torch.export.save",
            ) from error
        return Described(native, name=Path(path).stem)
    raise _refusal(path, names)


def _names_in(path: str | Path) -> list[str] | None:
    """List what a file of torch's holds; None if it is not a zip archive."""
    if not zipfile.is_zipfile(path):
        Path(path).open("rb").close()  # raises FileNotFoundError where it should
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _refusal(path: str | Path, names: list[str] | None) -> ModelSourceError:
    """Say why a file that is not TorchScript is not read."""
    remedy = (
        "write a function that makes the network and loads the weights into it "
        "(load_state_dict(torch.load(path, weights_only=True))), and name it: "
        "'package.module:factory'; or save the network with torch.export.save"
    )
    pickled = next((name for name in names or () if name.endswith("/data.pkl")), None)
    if pickled is None:
        return ModelSourceError(
            f"{str(path)!r} is not a file that torch.jit.save wrote",
            "TorchScript (an archive with code and weights)",
            remedy,
        )
    if _holds_only_tensors(path, pickled):
        return ModelSourceError(
            f"{str(path)!r} holds weights only (a state dict), without the architecture",
            "a network: TorchScript (.pt) or an exported program (.pt2)",
            remedy,
        )
    return ModelSourceError(
        f"{str(path)!r} holds a pickled network; reading it could run any code",
        "a network in a format without code of its own: an exported program (.pt2), TorchScript",
        remedy,
    )


def _holds_only_tensors(path: str | Path, pickled: str) -> bool:
    """Tell whether a pickle names nothing but tensors and dicts, without reading it."""
    with zipfile.ZipFile(path) as archive:
        operations = pickletools.genops(archive.read(pickled))
        named = {str(value).split()[0] for op, value, _ in operations if op.name == "GLOBAL"}
    return named <= {"collections", "torch", "torch._utils"}


def _imported(module: str) -> Any:
    """Import a collection's module, or say how to get it."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingBackendError(
            f"{error.name} is not installed",
            f"{package}, which has the network",
            f"pip install {package}",
        ) from error
    except (ImportError, RuntimeError) as error:
        raise MissingBackendError(
            f"{package} cannot be imported ({error})",
            f"a {package} that was built for the installed torch {torch.__version__}",
            f"install {package} and torch together: pip install --upgrade torch {package}",
        ) from error


def _check_known(name: str, known: list[str], collection: str) -> None:
    """Check that a collection has a network."""
    if name not in known:
        alike = near(name, known) or known[:3]
        raise ModelSourceError(
            f"{collection} has no network {name!r}",
            f"a name such as {', '.join(map(repr, alike))}",
            f"list them with {collection}.list_models()"
            if collection == "timm"
            else "list them with torchvision.models.list_models()",
        )


def _download_failed(source: str, error: Exception) -> ModelSourceError:
    """Say that weights could not be fetched."""
    without = "weights=None" if source.startswith("torchvision") else "pretrained=False"
    return ModelSourceError(
        f"the weights of {source!r} cannot be had ({error})",
        "a connection to the collection's server, or weights in the local cache "
        f"({torch.hub.get_dir()})",
        f"connect, or copy the file into the cache; {without} gives a network with random weights",
    )
