"""What a framework offers to the suite: networks, a clock, a count of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.case import Case
from benchmarks.work import Work


class Room(Protocol):
    """A framework, with its device.

    Attributes
    ----------
    framework : {"torch", "tensorflow"}
    version : str
        The framework's.
    device : str
        The name of what the networks run on.
    """

    framework: str
    version: str
    device: str

    def networks(self) -> tuple[str, ...]:
        """Name the networks that there are."""
        ...

    def case(self, network: str, work: Work, batch: int = 1) -> Case:
        """Make a network with random weights, which do not change the cost, and a batch for it.

        Parameters
        ----------
        network : str
            One of `networks`.
        work : Work
            How much is done; its side is the picture's.
        batch : int
            How many pictures.

        Returns
        -------
        Case
        """
        ...

    def clock(self) -> float:
        """Tell the time in seconds, when all that was asked of the device is done.

        Returns
        -------
        float
            Processor time of the whole process; on an accelerator, time as it passes.
        """
        ...

    def growth(self, run: Callable[[], Any]) -> float:
        """Run something, and tell how much memory it took at most, in MiB.

        Parameters
        ----------
        run : callable
            What is run.

        Returns
        -------
        float
            Of the process; on an accelerator, of the device.  NaN where nobody counts.
        """
        ...


def open_room(framework: str) -> Room:
    """Import a framework.

    Parameters
    ----------
    framework : {"torch", "tensorflow"}

    Returns
    -------
    Room

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    if framework == "torch":
        from benchmarks.on_torch import TorchRoom

        return TorchRoom()
    from benchmarks.on_tensorflow import TensorFlowRoom

    return TensorFlowRoom()
