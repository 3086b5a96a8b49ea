"""An evaluation that is killed goes on where it was, and ends with the same numbers."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

SCRIPT = """
    import os
    import sys
    import time
    from dataclasses import dataclass
    from typing import ClassVar

    import numpy as np

    import cnnviz
    from cnnviz_core.testing.nets import NETS
    from cnnviz_core.testing.reference import ReferenceModel

    OUT, LOG = sys.argv[1:]
    PAUSE = 0.004


    @dataclass(frozen=True)
    class Noisy:
        '''Scores of changed pictures, drawn by the seed.'''

        power: float = 1.0
        needs: ClassVar[frozenset[str]] = frozenset()
        higher_is_better: ClassVar[bool] = True

        def measure(self, explained):
            names = [annotation.name for annotation in explained.annotations]
            if self.power == 1 and {"picture-10", "picture-31"} & set(names):
                raise ValueError("this picture is refused")
            with open(LOG, "a") as log:
                for name in names:
                    log.write(f"{type(explained.explainer).__name__} {name}\\n")
            time.sleep(PAUSE)
            rng = np.random.default_rng(explained.seed)
            x = explained.x + rng.normal(size=explained.x.shape[1:])
            means = explained.model.forward(x).logits @ (1 / np.arange(3.0, 8.0)) ** self.power
            heat = explained.shown.mean(axis=(1, 2))
            return {"mean": means * heat, "curve": np.stack([means, heat / 3], axis=1)}

        def summarise(self, records):
            return {"mean": float(np.nanmean(records["mean"])) if len(records["mean"]) else np.nan}


    # The upper left corner of the pictures is cut away.
    steps = cnnviz.Preprocessing(size=(12, 9), resize=(16, 13))
    network = cnnviz.wrap(ReferenceModel(NETS["plain"]()), preprocess=steps, name="plain")
    rng = np.random.default_rng(1)
    data = {
        "pictures": rng.integers(0, 256, (60, 14, 11, 3), dtype=np.uint8),
        "labels": [i % 5 for i in range(60)],
        "boxes": [[[0, 0, 1, 1]] if i % 7 == 0 else [[2, 2, 9, 9]] for i in range(60)],
    }
    cnnviz.evaluate(
        network,
        data,
        "grad-cam, saliency, smoothgrad(samples=3), occlusion(window=5, stride=3)",
        [Noisy(), Noisy(2)],
        out=OUT,
        batch_size=4,
        resamples=20,
    )
"""
FILES = ("results.csv", "summary.csv", "problems.csv")


@pytest.fixture
def start(tmp_path):
    """Start an evaluation in a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def run(out, log):
        arguments = [sys.executable, script, tmp_path / out, tmp_path / log]
        return subprocess.Popen(arguments, stderr=subprocess.PIPE)

    return run


def records(path):
    """All records of a file, byte by byte, whatever the numbers of their columns."""
    with sqlite3.connect(path) as base:
        rows = base.execute(
            "SELECT key, item, form, numbers FROM records JOIN columns ON columns.id = column"
        ).fetchall()
    base.close()
    return sorted(rows)


def test_killed_at_any_moment_it_ends_with_the_same_numbers(start, tmp_path):
    whole = start("whole", "whole.log")
    assert whole.wait(120) == 0, whole.stderr.read()
    whole.stderr.close()
    rng, kills, log = np.random.default_rng(), 0, tmp_path / "killed.log"
    for _ in range(5):
        before = log.stat().st_size if log.exists() else 0
        process = start("killed", "killed.log")
        while process.poll() is None and (log.stat().st_size if log.exists() else 0) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert kills, "it was never killed in the middle"
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    half = records(tmp_path / "killed" / "records.sqlite")
    last = start("killed", "killed.log")
    assert last.wait(120) == 0, last.stderr.read()
    last.stderr.close()
    for file in FILES:
        same = (tmp_path / "whole" / file).read_bytes()
        assert (tmp_path / "killed" / file).read_bytes() == same, file
    done = records(tmp_path / "killed" / "records.sqlite")
    assert done == records(tmp_path / "whole" / "records.sqlite")
    assert set(half) < set(done)
    told = (tmp_path / "whole" / "problems.csv").read_text()
    assert (told.count("\nnot visible"), told.count("\nfailed")) == (9, 4 * 2)
    # Only what was under way when it was killed was measured twice.
    lines = [(tmp_path / f"{name}.log").read_text().splitlines() for name in ("whole", "killed")]
    assert len(lines[0]) == len(done) == 4 * (2 * 60 - 2)
    assert set(lines[0]) == set(lines[1])
    assert len(lines[1]) - len(lines[0]) <= kills * 4 * 2


def test_a_batch_is_written_whole_or_not_at_all(tmp_path):
    """A process that dies in the middle of writing leaves nothing of its batch."""
    script = tmp_path / "dying.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from pathlib import Path
            import numpy as np
            from cnnviz.evaluation.store import Seen, Store

            class Dying(dict):
                def items(self):
                    for key, value in super().items():
                        yield key, value
                    os.kill(os.getpid(), signal.SIGKILL)

            store = Store(Path(sys.argv[1]))
            seen = {"a": Seen("cat", 1.0, "ok"), "b": Seen("cat", 2.0, "ok")}
            record = {"v": np.arange(3.0)}
            store.write(1, seen, {2: {"a": record, "b": record}})
            store.write(3, seen, {4: Dying(a=record, b=record)})
            """
        )
    )
    path = tmp_path / "records.sqlite"
    done = subprocess.run([sys.executable, script, path], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    from cnnviz.evaluation.store import Store

    store = Store(path)
    store.want(["a", "b"])
    assert [len(store.seen(column)) for column in (1, 3)] == [2, 0]
    assert [store.done([column]) for column in (2, 4)] == [2, 0]
    np.testing.assert_array_equal(store.records(2)["v"], [[0, 1, 2], [0, 1, 2]])
    store.close()
