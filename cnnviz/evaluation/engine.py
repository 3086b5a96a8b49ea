"""The evaluation itself: what is to be done, what it costs, and doing what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cnnviz.datasets import DatasetError, Label, Problem, prepare_item
from cnnviz.evaluation.asking import Measure, Method
from cnnviz.evaluation.batching import (
    Batch,
    Entry,
    Ready,
    Running,
    batches_of,
    explained,
    measured,
    seen,
)
from cnnviz.evaluation.cost import Cost, passes_to_measure
from cnnviz.evaluation.entries import TRUTH
from cnnviz.evaluation.failures import UNFIT, Failure, Failures
from cnnviz.evaluation.identity import preparation_of, probe
from cnnviz.evaluation.store import Store
from cnnviz.network import Network
from cnnviz.targeting import Asked
from cnnviz_core.errors import (
    AnswerError,
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
)
from cnnviz_core.explainer import passes_of, require
from cnnviz_core.fast import prepared
from cnnviz_core.layers import AUTO, resolve_layers
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.progress import advance
from cnnviz_core.targets import target_to_dict

__all__ = ["Plan"]

_BAR: Final = "forward passes"

Missing: TypeAlias = dict[str, dict[tuple[str, ...], list[str]]]
"""What is to be done: by method, and by the metrics that lack, the items' keys."""


@dataclass
class Plan:
    """An evaluation that has not been run, and what it would cost.

    Attributes
    ----------
    network : Network
        What is looked at.
    entries : tuple of Entry
        On which pictures.
    numbers : mapping of (str or int) to int
        The network's numbers of the classes.
    methods : tuple of Method
    measures : tuple of Measure
    store : Store
        Where records are kept.
    target : "truth", or as for `cnnviz.explain`
    layer : str
        The layer that was asked for by name, or "auto".
    batch_size, seed : int
    problems : tuple of Problem
        Of the data set and its classes.
    failures : Failures
        What failed.
    cost : Cost
        Found when it is made.
    """

    network: Network
    entries: tuple[Entry, ...]
    numbers: Mapping[Label, int]
    methods: tuple[Method, ...]
    measures: tuple[Measure, ...]
    store: Store
    target: Asked = TRUTH
    layer: str = AUTO
    batch_size: int = 16
    seed: int = 0
    problems: tuple[Problem, ...] = ()
    failures: Failures = field(default_factory=Failures)
    cost: Cost = field(init=False)
    columns: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    _passes: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    _planned: dict[str, list[str]] = field(init=False, default_factory=dict)
    _preparation: int = field(init=False, default=0)
    _sample: Array = field(init=False)
    _worked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ParameterError(
                f"batch_size is {self.batch_size}", "at least 1", "pass batch_size=16"
            )
        self._leave_out_unfit()
        first = self._first()
        if self.layer != AUTO:
            resolve_layers(self.network.model, self.layer, first.x[None])  # fails at once
        self._sample = first.x[None]
        shape, many = first.x.shape, min(self.batch_size, len(self.entries))
        answers, seconds = probe(self.network, shape, many)
        self._find_columns(shape, answers)
        self.store.want([entry.key for entry in self.entries])
        self._note_what_works()
        self._find_passes(first)
        self._planned = self._able_now()
        self.cost = self._cost(seconds)

    # ------------------------------------------------------------------------- before it runs

    def _leave_out_unfit(self) -> None:
        """Leave out what this network cannot run."""
        for method in self.methods:
            try:
                require(method.explainer.needs, self.network.model, method.label)
            except MissingCapabilityError as error:
                self.failures.give_up(error.problem, method.label)
        for measure in self.measures:
            try:
                require(measure.metric.needs, self.network.model, measure.label)
            except MissingCapabilityError as error:
                for method in self.methods:
                    self.failures.give_up(error.problem, method.label, measure.label)
        if not any(self._able(method) for method in self.methods):
            raise self._nothing()

    def _able(self, method: Method) -> list[Measure]:
        """List the metrics by which a method is still measured."""
        out = self.failures.left_out
        if (method.label, "") in out:
            return []
        return [m for m in self.measures if (method.label, m.label) not in out]

    def _able_now(self) -> dict[str, list[str]]:
        """List the methods that are still run, and by which metrics each is measured."""
        able = {method.label: [m.label for m in self._able(method)] for method in self.methods}
        return {method: metrics for method, metrics in able.items() if metrics}

    def _first(self) -> Ready:
        """Prepare the first picture that can be."""
        tried: list[Failure] = []
        for entry in self.entries:
            try:
                return self._prepared(entry)
            except CnnvizError as error:
                tried.append(Failure.of(error, entry.item.id))
        raise DatasetError(
            f"none of the {len(tried)} pictures can be prepared; the first: {tried[0]}",
            "pictures that can be read and prepared for the network",
            tried[0].remedy,
        )

    def _prepared(self, entry: Entry) -> Ready:
        """Read and prepare a picture."""
        prepared = prepare_item(entry.item, self.network, self.numbers)
        return Ready(entry, prepared.sample.x, prepared.annotation, prepared.problems)

    def _find_columns(self, shape: tuple[int, ...], answers: Array) -> None:
        """Find where in the store each method and metric is kept."""
        true = isinstance(self.target, str) and self.target == TRUTH
        about = {"framework": self.network.model.framework, "input": list(shape)}
        common = {
            "network": self.store.network(about, answers),
            "preparation": preparation_of(self.network.preprocessing),
            "target": TRUTH if true else target_to_dict(self.entries[0].target),
            "seed": self.seed,
        }
        preparation = {name: common[name] for name in ("preparation", "network")}
        self._preparation = self.store.column(preparation)
        for method in self.methods:
            key = {**common, "method": method.identity}
            self.columns[method.label, ""] = self.store.column(key)
            for measure in self.measures:
                number = self.store.column({**key, "metric": measure.identity})
                self.columns[method.label, measure.label] = number

    def _note_what_works(self) -> None:
        """Note what has worked in an earlier run."""
        for label in self.columns:
            if label[1] and self.store.done([self.columns[label]]):
                self.failures.succeeded(*label)
                self.failures.succeeded(label[0])

    def _find_passes(self, first: Ready) -> None:
        """Ask each method and metric what a picture costs."""
        model, x = self.network.model, first.x[None]
        for method in self.methods:
            try:
                own = passes_of(method.explainer, model, x)
            except UNFIT as error:
                self.failures.give_up(error.problem, method.label)
                continue
            self._passes[method.label, ""] = own
            for measure in self.measures:
                passes = passes_to_measure(measure.metric, model, x, own)
                self._passes[method.label, measure.label] = passes
        if not any(self._able(method) for method in self.methods):
            raise self._nothing()

    def _cost(self, seconds: float) -> Cost:
        """Add up what is done and what is to be done."""
        many = len(self.entries)
        whole = done = 0
        for method, metrics in self._planned.items():
            columns = {metric: self.columns[method, metric] for metric in metrics}
            counts = {label: self.store.done([column]) for label, column in columns.items()}
            counts[""] = self.store.done(list(columns.values()))
            for label, count in counts.items():
                whole += many * self._passes[method, label]
                done += count * self._passes[method, label]
        return Cost(many, len(self._planned), len(self.measures), whole - done, done, seconds)

    def _nothing(self) -> CnnvizError:
        """Make the error of an evaluation of which nothing is left."""
        reasons = [
            f"{', '.join(filter(None, label))}: {reason}"
            for label, reason in self.failures.left_out.items()
        ]
        return MissingCapabilityError(
            f"nothing can be evaluated: {'; '.join(reasons)}",
            "a method and a metric that this network can run",
            "choose others; `cnnviz methods` and `cnnviz metrics` say what they need",
        )

    # ---------------------------------------------------------------------------- running it

    def run(self) -> None:
        """Do what is missing, a batch of pictures at a time.

        Raises
        ------
        AnswerError
            If a function that stands for the network does not answer.  What is done is kept.
        MissingCapabilityError
            If no method turns out to fit the network.
        """
        self._advance(0)
        # What is decided is the same for a run that goes on with another one's work.
        passes = self.cost.done + self.cost.passes
        fast = prepared(self.network.model, self._sample, passes)
        running = Running(self.network, fast)
        for start in range(0, len(self.entries), self.batch_size):
            entries = self.entries[start : start + self.batch_size]
            end = self._worked + self._work_of(self._missing(entries, self._planned))
            missing = self._missing(entries, self._able_now())
            wanted = {
                key for groups in missing.values() for keys in groups.values() for key in keys
            }
            ready = self._read([entry for entry in entries if entry.key in wanted])
            for batch in batches_of(running, ready):
                self._run_batch(batch, missing)
            # What was planned and could not be done is behind us too.
            self._advance(end)
        if not any(self._able(method) for method in self.methods):
            raise self._nothing()
        # Another process may have done some of it.
        self._advance(self.cost.passes)

    def _missing(self, entries: Sequence[Entry], able: Mapping[str, Sequence[str]]) -> Missing:
        """Say what is missing of a batch."""
        there = self.store.measured([entry.key for entry in entries])
        missing: Missing = {}
        for method, metrics in able.items():
            for entry in entries:
                lacking = tuple(
                    metric
                    for metric in metrics
                    if (entry.key, self.columns[method, metric]) not in there
                )
                if lacking:
                    missing.setdefault(method, {}).setdefault(lacking, []).append(entry.key)
        return missing

    def _work_of(self, missing: Missing) -> int:
        """Count the passes that are told of what is missing."""
        return sum(
            len(keys) * self._work(method, metrics)
            for method, groups in missing.items()
            for metrics, keys in groups.items()
        )

    def _work(self, method: str, metrics: Sequence[str]) -> int:
        """Count the passes that are told of explaining a picture once and measuring the map."""
        return sum(self._passes[method, label] for label in ("", *metrics))

    def _read(self, entries: Sequence[Entry]) -> list[Ready]:
        """Read and prepare pictures, noting those that cannot be."""
        ready = []
        for entry in entries:
            try:
                ready.append(self._prepared(entry))
            except CnnvizError as error:
                self.failures.add(error, entry.item.id)
        told = {
            each.entry.key: [dataclasses.asdict(problem) for problem in each.problems]
            for each in ready
            if each.problems
        }
        if told:
            self.store.remark(self._preparation, told)
        return ready

    def all_problems(self) -> tuple[Problem, ...]:
        """Give the data set's problems, and those that preparing its pictures has shown."""
        remarks = self.store.remarks(self._preparation)
        return (*self.problems, *(Problem(**each) for each in remarks))

    def all_failures(self) -> tuple[Failure, ...]:
        """Give what failed, in the order of pictures, methods and metrics."""
        places = {entry.item.id: i for i, entry in enumerate(self.entries)}
        methods = ["", *(method.label for method in self.methods)]
        metrics = ["", *(measure.label for measure in self.measures)]

        def place(failure: Failure) -> tuple[int, int, int]:
            where = places.get(failure.picture, len(places))
            return where, methods.index(failure.method), metrics.index(failure.metric)

        return tuple(sorted(self.failures.found, key=place))

    def _run_batch(self, batch: Batch, missing: Missing) -> None:
        """Run all methods on a batch, as far as it is missing."""
        for method in self.methods:
            for labels, keys in missing.get(method.label, {}).items():
                part = batch.only([key for key in keys if key in batch.keys])
                if len(part):
                    self._run_method(method, [m for m in self.measures if m.label in labels], part)
                    self._advance(self._worked + len(part) * self._work(method.label, labels))

    def _run_method(self, method: Method, measures: Sequence[Measure], batch: Batch) -> None:
        """Explain a batch by a method and measure it; by single pictures if that fails."""
        if len(batch) == 1:
            self._run_alone(method, measures, batch)
            return
        try:
            found = explained(method, batch, self.batch_size, self.seed)
            records = {measure.label: measured(measure, batch, found) for measure in measures}
        except AnswerError:
            raise
        except Exception:
            # What fails, and on which picture, shows when they are taken one by one.
            for key in batch.keys:
                able = [measure for measure in self._able(method) if measure in measures]
                if able:
                    self._run_alone(method, able, batch.only([key]))
        else:
            self._keep(method, batch, found, records)

    def _run_alone(self, method: Method, measures: Sequence[Measure], batch: Batch) -> None:
        """Explain one picture and measure it, noting what fails."""
        name = batch.ready[0].entry.item.id
        try:
            found = explained(method, batch, self.batch_size, self.seed)
        except AnswerError:
            raise
        except Exception as error:
            self._note(error, name, method.label)
            return
        records = {}
        for measure in measures:
            try:
                records[measure.label] = measured(measure, batch, found)
            except AnswerError:
                raise
            except Exception as error:
                self._note(error, name, method.label, measure.label)
        self._keep(method, batch, found, records)

    def _note(self, error: Exception, name: str, method: str, metric: str = "") -> None:
        """Note a failure, or leave out what does not fit the network at all."""
        if isinstance(error, UNFIT):
            self.failures.give_up(error.problem, method, metric)
        else:
            self.failures.add(error, name, method, metric)

    def _keep(
        self,
        method: Method,
        batch: Batch,
        found: Explained,
        records: Mapping[str, Mapping[str, Mapping[str, Array]]],
    ) -> None:
        """Write what a batch gave by one method."""
        self.store.write(
            self.columns[method.label, ""],
            seen(batch, found),
            {self.columns[method.label, label]: given for label, given in records.items()},
        )
        for label in ("", *records):
            self.failures.succeeded(method.label, label)

    def _advance(self, worked: int) -> None:
        """Say how far the work has come."""
        self._worked = worked
        total = max(1, self.cost.passes)
        advance(_BAR, worked if self.cost.passes else total, total)
