"""How many threads the frameworks and the libraries below them use."""

from __future__ import annotations

import os


def limit_threads(threads: int) -> None:
    """Say how many threads frameworks may use; before they are imported.

    Parameters
    ----------
    threads : int
    """
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
