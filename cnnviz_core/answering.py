"""The model of a function that only answers: a service, an exported file, somebody else's code."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np

from cnnviz_core.checks import check_inputs
from cnnviz_core.errors import (
    AnswerError,
    ArrayError,
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
)
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    Array,
    Cotangent,
    InputInfo,
    Inputs,
    LayerInfo,
    Pullback,
    Replacement,
    Trace,
    as_float,
    input_node,
)
from cnnviz_core.rules import STANDARD, BackwardRule

__all__ = ["AnsweringModel"]

_NAME: Final = "input"
_ACTIVATIONS: Final = ("softmax", "sigmoid", "probabilities", "none")
_LONGEST_WAIT: Final = 60.0
"""Seconds beyond which the wait before another try is not doubled."""
_KEPT_BYTES: Final = 256 * 2**20
"""What the answers that are remembered take at most."""
_SUMS_TO_ONE: Final = 1e-2
"""How far probabilities may be from summing to 1: services round them."""


class AnsweringModel:
    """A function from a batch of samples to their scores, behind the `Model` protocol.

    It answers, and that is all: it has no layers and no gradients, so `capabilities` is empty and
    only methods that need nothing can look at it.  `LOGITS` and `OUTPUT` are both what the function
    returned, so the score of a class is the very number that was returned for it.

    The function gets an array of its own each time, and its answers are copied, so it may write
    into either.  Answers are remembered by the sample's content: a sample is asked for once, and
    where the function fails in the middle of long work, the same work done again goes on from
    there.  A function that answers the same sample differently each time wants ``remember=0``.

    Parameters
    ----------
    function : callable
        Takes an array (N, H, W, C), float32 or float64; of signals (N, L, C), of volumes
        (N, D, H, W, C).  Returns N rows, (N, K), or (N,) where there is a single score, as an
        array or as lists.
    input_shape : tuple of int or None, optional
        (H, W, C), of signals (L, C), of volumes (D, H, W, C); None for any size.  Of any shape if
        left out.
    channels : int, optional
        How many channels pictures have, where their size is free.
    output : str, int or callable, optional
        What of a result holds the scores: a key, an index, or a function that picks it.
    activation : {"softmax", "sigmoid", "probabilities", "none"}, optional
        What turns the scores into probabilities; "probabilities" where they are such already,
        "none" where they are none.  If left out it is learnt from the first answers: rows of at
        least two numbers that are not negative and sum to 1 (to 0.01) are probabilities; of other
        rows a softmax is taken, unless they hold a single number or all lie in [0, 1].
    retry : int
        How often a call that raised is made again, before `AnswerError` is raised.
    wait : float
        Seconds before the second try; doubled each time up to a minute, if it is not longer itself.
    rate : float, optional
        How many calls a second are made at most; tries count.
    batch_size : int, optional
        How many samples one call takes at most; larger batches are divided.
    remember : int
        How many answers are kept; those that were not asked for longest go first.  They never take
        more than 256 MiB.
    clock, sleep : callable
        A monotonic clock in seconds, and what waits so many seconds.

    Raises
    ------
    ParameterError
        If a parameter is out of its range, or `channels` contradicts `input_shape`.

    Notes
    -----
    Several threads may ask one model at once; the function is then called from each of them.

    Examples
    --------
    >>> model = AnsweringModel(lambda x: x.mean((1, 2)), activation="none")
    >>> model.forward(np.ones((2, 4, 4, 3))).output.shape
    (2, 3)
    """

    framework: Final = "function"
    capabilities: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        input_shape: tuple[int | None, ...] | None = None,
        channels: int | None = None,
        output: str | int | Callable[[Any], Any] | None = None,
        activation: str | None = None,
        retry: int = 0,
        wait: float = 1.0,
        rate: float | None = None,
        batch_size: int | None = None,
        remember: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._how: dict[str, Any] = {
            "input_shape": input_shape,
            "channels": channels,
            "output": output,
            "activation": activation,
            "retry": retry,
            "wait": wait,
            "rate": rate,
            "batch_size": batch_size,
            "remember": remember,
            "clock": clock,
            "sleep": sleep,
        }
        _check(self._how)
        self._function = function
        self._info = InputInfo(_NAME, _shape(input_shape, channels))
        self._output = output
        self._activation = activation
        self._retry = retry
        self._wait = wait
        self._sleep = sleep
        self._pace = _Pace(rate, clock, sleep)
        self._batch_size = batch_size
        self._memory = _Memory(remember)
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def activation(self) -> str:
        """What turns the scores into probabilities; "softmax" as long as no answer was seen."""
        return self._activation or "softmax"

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The one input."""
        return MappingProxyType({_NAME: self._info})

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """No layer."""
        return MappingProxyType({})

    def changed(self, **how: Any) -> AnsweringModel:
        """Give a model of the same function that is asked in another way.

        Parameters
        ----------
        **how
            Parameters of this class that are to differ.

        Returns
        -------
        AnsweringModel
            It knows the answers that this one remembers, unless another `output` is picked.
        """
        other = AnsweringModel(self._function, **{**self._how, **how})
        if "output" not in how:
            other._memory.learn(self._memory)
        return other

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Ask the function; see `Model.forward`.

        Raises
        ------
        AnswerError
            If the function raised, and raised again in each of the tries that it was to have.  What
            it had answered before is remembered.
        ArrayError
            If `x` does not fit, or the function returned no such array as it should.
        MissingCapabilityError
            If a layer is to be looked at, or a value to be replaced.
        """
        if replace:
            _lacks("replace", f"replacing {', '.join(map(repr, replace))}")
        ends = (INPUT, input_node(_NAME), LOGITS, OUTPUT)
        inside = [node for node in capture if node not in ends]
        if inside:
            _lacks("capture", f"looking at {', '.join(map(repr, inside))}")
        batch = self._checked(x)
        answers = self._answers(batch)
        if self._activation is None:
            self._activation = _activation_of(answers)
        values = dict(zip(ends, (batch, batch, answers, answers), strict=True))
        return Trace({node: values[node] for node in (OUTPUT, LOGITS, *capture)})

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Refuse: a function that only answers has no gradient.

        Raises
        ------
        MissingCapabilityError
            Always.
        """
        _lacks("gradient", "a vector-Jacobian product")

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Refuse: a function that only answers has no layers.

        Raises
        ------
        MissingCapabilityError
            Always.
        """
        _lacks("parameters", f"reading the arrays of {layer!r}")

    def _checked(self, x: Inputs) -> Array:
        """Check a batch; float64 stays, all else becomes float32."""
        given = x.get(_NAME) if isinstance(x, Mapping) else x
        double = np.asarray(given).dtype == np.float64
        info = dataclasses.replace(self._info, dtype="float64" if double else "float32")
        return check_inputs({_NAME: info}, x)[_NAME]

    def _answers(self, x: Array) -> Array:
        """Answer a batch, asking the function only for what is not known."""
        keys = self._memory.keys_of(x)
        rows = {key: row for row, key in reversed(list(enumerate(keys)))}
        known = {key: self._memory.get(key) for key in rows}
        missing = sorted((key for key in rows if known[key] is None), key=rows.__getitem__)
        most = self._batch_size or len(x)
        for start in range(0, len(missing), most):
            part = missing[start : start + most]
            for key, answer in zip(part, self._ask(x, [rows[k] for k in part]), strict=True):
                known[key] = answer
                self._memory.put(key, answer)
        return np.stack([known[key] for key in keys])  # type: ignore[misc]

    def _ask(self, x: Array, rows: list[int]) -> Array:
        """Call the function for some rows of a batch, as often as it takes."""
        pause = self._wait
        for left in range(self._retry, -1, -1):
            self._pace.keep()
            try:
                given = self._function(x[rows])  # such an index copies
                break
            except CnnvizError:
                raise
            except Exception as error:
                if not left:
                    raise self._gave_up(error) from error
                self._sleep(pause)
                pause = min(2 * pause, max(self._wait, _LONGEST_WAIT))
        return self._read(given, len(rows), x.shape[1:])

    def _gave_up(self, error: Exception) -> AnswerError:
        """Say that the function raised, and what is kept of its answers."""
        tries = "" if self._retry == 0 else f", in each of {self._retry + 1} tries"
        kept = len(self._memory)
        return AnswerError(
            f"the function raised {type(error).__name__}{tries}: {error}",
            "scores for a batch of samples",
            f"{kept} answers are kept: do the same again with the same net = "
            "cnnviz.wrap(function), and only the others are asked for; so does "
            f"cnnviz.wrap(net, retry={max(3, 2 * self._retry)}), which tries again by itself"
            if kept
            else "see the error above; cnnviz.wrap(function, retry=3) tries again by itself",
        )

    def _read(self, given: Any, samples: int, form: tuple[int, ...]) -> Array:
        """Check what the function returned, and copy it as (N, ..., K)."""
        answers = _as_array(self._picked(given))
        if answers.ndim == 0 or len(answers) != samples:
            raise ArrayError(
                f"the function returned an array of the shape {answers.shape} for {samples} "
                f"sample{'' if samples == 1 else 's'} of the shape {form}",
                f"a row for each sample: ({samples}, K), or ({samples},) of single scores",
                "return the scores of the whole batch; scores[None] adds the batch axis to those "
                "of one sample",
            )
        answers = answers[:, None] if answers.ndim == 1 else answers
        lost = int((~np.isfinite(answers)).sum())
        if lost or 0 in answers.shape:
            bad = f"{lost} values that are NaN or infinite in " if lost else ""
            raise ArrayError(
                f"the function returned {bad}an array of the shape {answers.shape}",
                "finite scores, and at least one for each sample",
                "look at what it returns for this batch",
            )
        self._check_shape(answers.shape[1:], form)
        return answers

    def _picked(self, given: Any) -> Any:
        """Pick the scores of what the function returned."""
        if self._output is None:
            return given
        try:
            return self._output(given) if callable(self._output) else given[self._output]
        except Exception as error:
            raise ArrayError(
                f"output={self._output!r} could not be picked from what the function returned, "
                f"{_told(given)} ({type(error).__name__}: {error})",
                "a key, an index, or a function that picks the scores",
                "pass cnnviz.wrap(function, output=...) as it returns them",
            ) from error

    def _check_shape(self, shape: tuple[int, ...], form: tuple[int, ...]) -> None:
        """Check that answers have the shape of those before, and always as many scores."""
        before = next(iter(self._shapes.values()), shape)
        same = self._shapes.setdefault(form, shape)
        if shape != same or shape[-1] != before[-1]:
            raise ArrayError(
                f"the function returned answers of the shape {shape}, and before of the shape "
                f"{same if shape != same else before}",
                "the same scores for each sample, in one order",
                "fill up what is missing, as where a service names the first few classes only",
            )


class _Pace:
    """Keeps calls apart."""

    def __init__(
        self, rate: float | None, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._apart = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._sleep = sleep
        self._next = -math.inf
        self._lock = threading.Lock()

    def keep(self) -> None:
        """Wait until it is this call's turn."""
        if not self._apart:
            return
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._apart
        if turn > now:
            self._sleep(turn - now)


class _Memory:
    """The answers that were given last, by the content of the samples."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._known: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def keys_of(self, x: Array) -> list[Hashable]:
        """Name the samples of a batch: by content, or by number where nothing is kept."""
        if not self._most:
            return list(range(len(x)))
        # The type needs no mention: it shows in the number of bytes.
        form = hashlib.blake2b(repr(x.shape[1:]).encode(), digest_size=16)
        keys: list[Hashable] = []
        for sample in x:
            content = form.copy()
            content.update(sample.data)
            keys.append(content.digest())
        return keys

    def get(self, key: Hashable) -> Array | None:
        """Give an answer, if it is known."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Hashable, answer: Array) -> None:
        """Keep an answer, and forget those that were not asked for longest."""
        with self._lock:
            if not self._most or key in self._known:
                return
            # A copy: a row would keep its whole batch.
            self._known[key] = answer.copy()
            self._bytes += answer.nbytes
            while len(self._known) > self._most or self._bytes > _KEPT_BYTES:
                self._bytes -= self._known.popitem(last=False)[1].nbytes

    def learn(self, other: _Memory) -> None:
        """Keep what another memory knows."""
        for key, answer in list(other._known.items()):
            self.put(key, answer)


def _check(how: Mapping[str, Any]) -> None:
    """Check the numbers and words that say how a function is asked."""
    whole, real = (int, np.integer), (int, float, np.integer, np.floating)
    wanted: dict[str, tuple[tuple[type, ...], float, str]] = {
        "retry": (whole, 0, "a whole number of at least 0"),
        "wait": (real, 0, "a finite number of seconds of at least 0"),
        "rate": (real, math.ulp(0), "a finite number of calls a second above 0, or None"),
        "batch_size": (whole, 1, "a whole number of at least 1, or None"),
        "remember": (whole, 0, "a whole number of at least 0"),
        "channels": (whole, 1, "a whole number of at least 1, or None"),
    }
    for name, (types, least, expected) in wanted.items():
        value = how[name]
        if value is None and "None" in expected:
            continue
        number = isinstance(value, types) and not isinstance(value, bool)
        if not number or not least <= value < math.inf:
            raise ParameterError(
                f"{name}={value!r} was given", expected, "pass such, or leave it out"
            )
    if how["activation"] not in (None, *_ACTIVATIONS):
        raise ParameterError(
            f"activation={how['activation']!r} was given",
            f"one of {', '.join(map(repr, _ACTIVATIONS))}",
            "say 'probabilities' where the function returns such",
        )


def _shape(
    input_shape: tuple[int | None, ...] | None, channels: int | None
) -> tuple[int | None, ...] | None:
    """Give the shape of a sample, as far as it is known."""
    if isinstance(input_shape, Mapping):
        raise ParameterError(
            "a mapping was given as the input_shape of a function",
            "one shape: a function takes one array",
            "hold the other inputs in a function of yours that calls this one",
        )
    if input_shape is None:
        return None if channels is None else (None, None, channels)
    shape = tuple(input_shape)
    if channels not in (None, *shape[-1:]):
        raise ParameterError(
            f"channels={channels} was given with the input's shape {shape}",
            "the last number of the shape",
            "leave channels out, or let the preprocessing make as many",
        )
    return shape


def _lacks(capability: str, what: str) -> NoReturn:
    """Say that a function only answers."""
    raise MissingCapabilityError(
        f"{what} needs {capability!r}, and a function only answers",
        "a method that needs nothing but answers, such as occlusion",
        "wrap the network that the function asks",
    )


def _as_array(given: Any) -> Array:
    """Copy what a function returned as an array of real numbers."""
    try:
        array = np.asarray(given)
    except Exception as error:
        raise ArrayError(
            f"the function returned {_told(given)}, of which no array can be made "
            f"({type(error).__name__}: {error})",
            "an array of scores (N, K), or lists of N rows of one length",
            "convert it in the function, as with tensor.detach().cpu().numpy()",
        ) from error
    if array.dtype.kind not in "fiu":
        raise ArrayError(
            f"the function returned {_told(given)}, an array of {array.dtype}",
            "an array of real scores (N, K)",
            "pass cnnviz.wrap(function, output=...) where the scores are an entry of the result",
        )
    # The function may hand out one buffer again and again.
    return np.array(as_float(array))


def _told(given: Any) -> str:
    """Say what an object is, in short."""
    kind = type(given).__name__
    if isinstance(given, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, list(given)[:9]))}"
    return f"a {kind} of {len(given)}" if isinstance(given, (list, tuple)) else f"a {kind}"


def _activation_of(answers: Array) -> str:
    """Learn from answers what turns them into probabilities."""
    if answers.shape[-1] == 1:
        return "none"
    if answers.min() < 0 or answers.max() > 1 + _SUMS_TO_ONE:
        return "softmax"
    whole = np.abs(answers.sum(-1) - 1).max() <= _SUMS_TO_ONE
    return "probabilities" if whole else "none"
