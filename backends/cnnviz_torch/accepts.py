"""Which objects this backend takes; imports no framework."""

from __future__ import annotations

__all__ = ["accepts"]

_TAKEN = {
    ("torch.nn.modules.module", "Module"),
    ("torch.export.exported_program", "ExportedProgram"),
}
_KERAS = ("keras", "tf_keras")


def accepts(native: object) -> bool:
    """Tell whether an object is a network of PyTorch.

    Parameters
    ----------
    native : object
        Anything.

    Returns
    -------
    bool
        True for an ``nn.Module`` (compiled and TorchScript ones too) and an ``ExportedProgram``.
        False for a Keras layer, which on Keras' torch engine is an ``nn.Module`` too, and for a
        function: what it computes with cannot be found.
    """
    classes = type(native).__mro__
    if any(c.__module__.split(".")[0] in _KERAS for c in classes):
        return False
    return any((c.__module__, c.__qualname__) in _TAKEN for c in classes)
