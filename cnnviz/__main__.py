"""``python -m cnnviz`` is the command ``cnnviz``."""

from __future__ import annotations

from cnnviz.cli import main

if __name__ == "__main__":
    main(prog_name="cnnviz")
