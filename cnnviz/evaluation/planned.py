"""An evaluation that is ready to be run: what it costs, running it, summing it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnviz.evaluation.asking import Measure
from cnnviz.evaluation.cost import Cost
from cnnviz.evaluation.engine import Plan
from cnnviz.evaluation.failures import Failure
from cnnviz.evaluation.result import Evaluation, Pictured
from cnnviz.evaluation.summary import Resampling, Score, matrix, scores_of
from cnnviz.evaluation.writing import save
from cnnviz.provenance import provenance_of

__all__ = ["Planned"]


@dataclass(frozen=True)
class Planned:
    """An evaluation that is ready to be run.

    Attributes
    ----------
    plan : Plan
        What is to be done.
    data : str
        What the data set is called.
    draws : Resampling
        For the confidence intervals.
    settings : mapping of str to value
        How it is made.
    command : str
        What reruns it.
    folder : Path or None
        Where it is written.
    notes : tuple of str
        Of the data set.
    """

    plan: Plan
    data: str
    draws: Resampling
    settings: Mapping[str, Any]
    command: str
    folder: Path | None
    notes: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """What is done and what is to be done."""
        return self.plan.cost

    def run(self) -> Evaluation:
        """Do what is missing, sum it up, and write it where it is to be written.

        Returns
        -------
        Evaluation

        Raises
        ------
        CnnvizError
            As for `evaluate`.
        """
        plan = self.plan
        plan.run()
        scores = [score for measure in plan.measures for score in self._scores(measure)]
        methods = tuple(method.label for method in plan.methods)
        network = plan.network
        evaluation = Evaluation(
            title=f"{network.name or 'a network'} on {self.data}",
            pictures=tuple(
                Pictured(e.item.id, e.item.name, e.item.label, e.key) for e in plan.entries
            ),
            methods=methods,
            measures=plan.measures,
            summary=matrix(scores, methods, [measure.label for measure in plan.measures]),
            problems=plan.all_problems(),
            failures=plan.all_failures(),
            left_out=self._left_out(),
            notes=(*self.notes, *self._notes(scores)),
            cost=plan.cost,
            settings=self.settings,
            provenance=self._provenance(),
            command=self.command,
            store=plan.store,
            columns=plan.columns,
        )
        if self.folder is not None:
            save(evaluation, self.folder)
        return evaluation

    def _scores(self, measure: Measure) -> list[Score]:
        """Sum up one metric for all methods, noting where that fails."""
        found = {}
        try:
            for method in self.plan.methods:
                records = self.plan.store.records(self.plan.columns[method.label, measure.label])
                if records:
                    found[method.label] = records
            return scores_of(measure, found, self.draws)
        except Exception as error:
            self.plan.failures.found.append(Failure.of(error, "all pictures", metric=measure.label))
            return []

    def _left_out(self) -> dict[str, str]:
        """Say what was left out; a metric once if it is so for all methods."""
        out = self.plan.failures.left_out
        said = {}
        for (method, metric), reason in out.items():
            every = [out.get((each.label, metric)) for each in self.plan.methods]
            alike = metric and set(every) == {reason}
            said[metric if alike else ", ".join(filter(None, (method, metric)))] = reason
        return said

    def _notes(self, scores: Sequence[Score]) -> Iterator[str]:
        """Say what a reader of the numbers must know."""
        plan = self.plan
        for measure in plan.measures:
            counts = {score.pictures for score in scores if score.metric == measure.label}
            if counts == {0}:
                asks = f": it asks for {' and '.join(measure.asks)}" if measure.asks else ""
                yield f"{measure.label} found nothing to measure on any picture{asks}"
        for method in plan.methods:
            kinds = Counter(
                each.status for each in plan.store.seen(plan.columns[method.label, ""]).values()
            )
            for kind, count in kinds.items():
                if kind != "ok":
                    yield f"{method.label}: {count} of {kinds.total()} maps show nothing ({kind})"

    def _provenance(self) -> dict[str, str]:
        """Say by which versions it was made."""
        plan = self.plan
        identities = [m.identity for m in plan.methods] + [m.identity for m in plan.measures]
        told = ", ".join(dict.fromkeys(each["plugin"] for each in identities if each["plugin"]))
        return {**provenance_of(plan.network, None), **({"plugins": told} if told else {})}
