"""One forward pass with its calculation recorded, from the nodes that matter on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Recorder"]


@dataclass
class Recorder:
    """Starts recording at the first node that is differentiated with respect to.

    Attributes
    ----------
    everywhere : bool
        Record from the start, and go on where the network's own code switches recording off.
    inputs : list of Tensor
        The network's inputs, as far as they are recorded.
    leaves : dict of str to Tensor
        The values at the nodes that are differentiated with respect to.
    roots : dict of str to Tensor
        The values at the nodes that are differentiated.
    interrupted : bool
        Whether the network's own code switched recording off, so that something may be missing.
    """

    everywhere: bool
    inputs: list[torch.Tensor] = field(default_factory=list)
    leaves: dict[str, torch.Tensor] = field(default_factory=dict)
    roots: dict[str, torch.Tensor] = field(default_factory=dict)
    interrupted: bool = False

    def feed(
        self, tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, str]
    ) -> dict[str, Any]:
        """Make leaves of inputs.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            The inputs.
        wanted : mapping of str to str
            From the node to the name of the input.

        Returns
        -------
        dict of str to Tensor
            What to feed to the network, which may overwrite it.
        """
        for name, tensor in tensors.items():
            tensor.requires_grad_(self.everywhere or name in wanted.values())
        self.inputs = [tensor for tensor in tensors.values() if tensor.requires_grad]
        self.leaves.update({node: tensors[name] for node, name in wanted.items()})
        with torch.enable_grad():
            return {name: t.clone() if t.requires_grad else t for name, t in tensors.items()}

    def leaf(self, node: str, own: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
        """Make the action that keeps a value, in memory of its `own` or not, and records there."""

        def act(value: torch.Tensor) -> torch.Tensor:
            self._look()
            with torch.inference_mode(False), torch.enable_grad():
                # What is recorded may depend on an earlier leaf; all else becomes a leaf.
                recorded = value.requires_grad
                kept = value if own and not recorded else value.clone()
                kept = kept if recorded else kept.detach().requires_grad_()
                self.leaves[node] = kept
                handed_on = kept.clone()  # what follows may overwrite it
            torch.set_grad_enabled(True)
            return handed_on

        return act

    def root(self, node: str) -> Callable[[torch.Tensor], None]:
        """Make the action that keeps a value to be differentiated."""

        def act(value: torch.Tensor) -> None:
            self._look()
            with torch.enable_grad():
                self.roots[node] = value.clone()

        return act

    def _look(self) -> None:
        """Note whether recording, once begun, was switched off."""
        if self.leaves and not torch.is_grad_enabled():
            self.interrupted = True

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Run the network in this block."""
        with (
            torch.set_grad_enabled(self.everywhere or bool(self.leaves)),
            _Unswitchable() if self.everywhere else nullcontext(),
        ):
            yield
            self._look()


class _Unswitchable(TorchFunctionMode):
    """While it is active, recording cannot be switched on or off."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        return func(*args, **(kwargs or {}))
