"""Evaluating methods on annotated pictures: how well they find objects, how faithful they are."""

from __future__ import annotations

from cnnviz.evaluation.cost import Cost
from cnnviz.evaluation.evaluating import evaluate, plan
from cnnviz.evaluation.failures import Failure
from cnnviz.evaluation.planned import Planned
from cnnviz.evaluation.result import Evaluation, Row
from cnnviz.evaluation.summary import Score

__all__ = ["Cost", "Evaluation", "Failure", "Planned", "Row", "Score", "evaluate", "plan"]
