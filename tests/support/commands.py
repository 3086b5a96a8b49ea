"""Running the command in a folder with networks and pictures."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from cnnviz.cli import main

NETWORK = """
    import cnnviz
    from cnnviz_core.testing.nets import NETS
    from cnnviz_core.testing.reference import ReferenceModel

    def plain():
        return cnnviz.wrap(
            ReferenceModel(NETS["plain"]()),
            preprocess=cnnviz.Preprocessing(size=(12, 9)),
            labels=("ant", "bee", "cat", "dog", "big cat"),
            name="plain",
        )

    def bare():
        return ReferenceModel(NETS["plain"]())

    def smooth():
        return ReferenceModel(NETS["smooth"]())
"""


def runner(folder: Path, monkeypatch: Any) -> Callable[..., Result]:
    """Go to a folder, put networks and pictures there, and give what runs the command."""
    monkeypatch.chdir(folder)
    (folder / "cli_networks.py").write_text(textwrap.dedent(NETWORK))
    rng = np.random.default_rng(5)
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    monkeypatch.delitem(sys.modules, "cli_networks", raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    return run
