"""What a network says of labelled pictures, beside what they are."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnknownClassError
from cnnviz_core.files import replacing
from cnnviz_core.inspector import Batch, Subject
from cnnviz_core.model import Array
from cnnviz_core.progress import advance
from cnnviz_core.targets import probabilities

__all__ = ["Judged", "judge"]

_FORMAT: Final = 1
"""The version of the file in which the state is kept."""
_SAVE_EVERY: Final = 512
"""After how many pictures the file is written again."""
_ALIKE: Final = 1e-4
"""How far two runs of one network may differ, relative to the largest score."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network says of N labelled pictures.

    Attributes
    ----------
    classes : int
        How many classes the network knows, K.
    pictures : ndarray (N,) of int
        Which pictures of the collection they are, ascending.
    truth, predicted : ndarray (N,) of int
        The class that a picture has, and the one with the highest score; of equal scores the lower
        class.
    p_true, p_predicted : ndarray (N,)
        Their probabilities; their scores, where the network has no probabilities.
    rank : ndarray (N,) of int
        How many classes come before the picture's own; 0 where the answer is right.
    loss : ndarray (N,)
        Minus the logarithm of `p_true`, computed without underflow; minus the score, where the
        network has no probabilities.
    """

    classes: int
    pictures: Array
    truth: Array
    predicted: Array
    p_true: Array
    p_predicted: Array
    rank: Array
    loss: Array

    @classmethod
    def of(
        cls, pictures: Sequence[int], truth: Sequence[int], logits: Array, activation: str
    ) -> Judged:
        """Judge a batch.

        Parameters
        ----------
        pictures : sequence of int
            Which they are.
        truth : sequence of int
            Their classes.
        logits : ndarray (n, K)
            The network's scores.
        activation : {"softmax", "sigmoid", "none", "probabilities"}
            What makes probabilities of them.

        Returns
        -------
        Judged
        """
        from scipy.special import logsumexp

        own = np.asarray(truth, dtype=np.int64)
        rows = np.arange(len(own))
        order = np.argsort(-logits, axis=-1, kind="stable")
        p = probabilities(logits, activation)
        score = logits[rows, own]
        if activation == "softmax":
            loss = logsumexp(logits, axis=-1) - score
        elif activation == "sigmoid":
            loss = np.logaddexp(0, -score)
        elif activation == "probabilities":
            loss = -np.log(np.maximum(score, np.finfo(score.dtype).tiny))
        else:
            loss = -score
        return cls(
            logits.shape[1],
            np.asarray(pictures, dtype=np.int64),
            own,
            order[:, 0],
            p[rows, own],
            p[rows, order[:, 0]],
            (order == own[:, None]).argmax(-1),
            loss.astype(logits.dtype),
        )

    def arrays(self) -> dict[str, Array]:
        """Give the arrays by their names.

        Returns
        -------
        dict of str to ndarray
        """
        names = [each.name for each in fields(self) if each.name != "classes"]
        return {name: getattr(self, name) for name in names}

    def then(self, later: Judged) -> Judged:
        """Append what was said of later pictures.

        Parameters
        ----------
        later : Judged
            That.

        Returns
        -------
        Judged
        """
        more = later.arrays()
        both = [np.concatenate([array, more[name]]) for name, array in self.arrays().items()]
        return Judged(self.classes, *both)


def judge(subject: Subject, state: str = "") -> Judged:
    """Ask a network about all pictures whose class is known, in bounded memory.

    Parameters
    ----------
    subject : Subject
        The network and the pictures.  Those whose class is not known, and those that cannot be
        read, are left out.
    state : str
        The path of an .npz file in which to keep how far the work has come; none if empty.  A file
        of the same network and pictures is gone on from, after the last picture that it counts.  It
        is written now and then, always whole, and also when the work is interrupted.

    Returns
    -------
    Judged

    Raises
    ------
    TargetError
        If no picture's class is known, or the network gives no vector of scores.
    UnknownClassError
        If the network has no such class.
    ArrayError
        If there is no picture that can be read.
    ParameterError
        If the file is of other pictures, of another network, or none, or cannot be written.
    """
    known = {i: int(truth) for i, truth in enumerate(subject.pictures.truth) if truth is not None}
    probe = _first_scores(subject, known)
    nothing = Judged.of([], [], probe[:0], subject.model.activation)
    store = _Store.of(subject, known, probe, state) if state else None
    done, judged = (0, nothing) if store is None else store.load(nothing)
    saved = done
    try:
        for batch in subject.pictures.batches(subject.batch_size, done):
            rows = [row for row, index in enumerate(batch.indices) if index in known]
            found = _judged(subject, batch, rows, known) if rows else nothing
            # Both at once, so that the state is right whenever the work is interrupted.
            judged, done = judged.then(found), batch.indices[-1] + 1
            advance("errors", done, len(subject.pictures))
            if store is not None and done - saved >= _SAVE_EVERY:
                store.save(done, judged)
                saved = done
    finally:
        if store is not None and done > saved:
            store.save(done, judged)
    return judged


def _judged(
    subject: Subject, batch: Batch, rows: Sequence[int], known: Mapping[int, int]
) -> Judged:
    """Judge some pictures of a batch."""
    pictures = [batch.indices[row] for row in rows]
    logits = subject.model.forward(batch.x[rows]).logits
    truth = [known[index] for index in pictures]
    return Judged.of(pictures, truth, logits, subject.model.activation)


def _first_scores(subject: Subject, known: Mapping[int, int]) -> Array:
    """Ask about the first labelled picture, (1, K), and check that the classes fit."""
    if subject.pictures.names and not known:
        raise TargetError(
            f"of none of the {len(subject.pictures)} pictures the class is known",
            "labelled pictures",
            "say which class each picture has, or sort them into a folder for each class",
        )
    read = (subject.pictures.read(index) for index in known)
    x = next((x for x in read if x is not None), None)
    if x is None:
        raise ArrayError(
            "no labelled picture can be read" if known else "no picture was given",
            "at least one labelled picture",
            "pass a folder of them",
        )
    logits = subject.model.forward(x[None]).logits
    if logits.ndim != 2:
        raise TargetError(
            f"the output of a sample has the shape {logits.shape[1:]}",
            "a vector with one score for each class",
            "use a network that classifies whole pictures",
        )
    wrong = [truth for truth in known.values() if not 0 <= truth < logits.shape[1]]
    if wrong:
        raise UnknownClassError(
            f"a picture's class is {wrong[0]}, and the network has {logits.shape[1]} classes",
            f"classes from 0 to {logits.shape[1] - 1}",
            "check that the labels are those of this network",
        )
    return logits


@dataclass(frozen=True, eq=False)
class _Store:
    """The file in which the state is kept, and what it must be of."""

    path: str
    identity: str
    probe: Array

    @classmethod
    def of(cls, subject: Subject, known: Mapping[int, int], probe: Array, path: str) -> _Store:
        """Describe the work whose state is to be kept."""
        told = json.dumps([_FORMAT, subject.pictures.identity, list(known.items())])
        return cls(path, hashlib.sha256(told.encode()).hexdigest(), probe)

    def save(self, done: int, judged: Judged) -> None:
        """Write how far the work has come, whole or not at all."""
        arrays: dict[str, Any] = judged.arrays()
        with replacing(self.path) as file:
            np.savez(file, identity=self.identity, probe=self.probe, done=done, **arrays)

    def load(self, nothing: Judged) -> tuple[int, Judged]:
        """Read how far the work has come; not at all, where there is no file."""
        path = Path(self.path).expanduser()
        if not path.exists():
            self.save(0, nothing)  # A path that cannot be written is told at once.
            return 0, nothing
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                held = {key: file[key] for key in file.files}
            identity, probe, done = str(held["identity"]), held["probe"], int(held["done"])
            judged = Judged(nothing.classes, *(held[name] for name in nothing.arrays()))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise self._refused("is no state of this work") from error
        if identity != self.identity:
            raise self._refused("is the state of a work on other pictures, or other classes")
        if probe.shape != self.probe.shape or not self._alike(probe):
            raise self._refused("is the state of a work with another network")
        return done, judged

    def _alike(self, probe: Array) -> bool:
        """Tell whether the network says of the first picture what it said then."""
        tolerance = _ALIKE * np.abs(self.probe).max()
        return bool(np.allclose(probe, self.probe, rtol=0, atol=tolerance))

    def _refused(self, what: str) -> ParameterError:
        """Make the error of a file that this work cannot go on from."""
        return ParameterError(
            f"state={self.path!r} {what}",
            "the state of this very network on these labelled pictures",
            "name another file, or delete this one to begin anew",
        )
