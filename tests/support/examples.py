"""Running the example scripts as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script, *arguments, **environment):
    """Run a script with warnings as errors, and give what it printed."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *map(str, arguments)]
    whole = {**os.environ, **environment}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=whole, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
