"""The class activation maps that ask the network about changed pictures or feature maps."""

from __future__ import annotations

from cnnviz_core.specs import ExplainerSpec

__all__ = ["PERTURBING"]

PERTURBING: list[ExplainerSpec] = []
