"""The class activation maps made of feature maps alone, and the controls."""

from __future__ import annotations

from cnnviz_core.specs import ExplainerSpec

__all__ = ["ACTIVATIONS"]

ACTIVATIONS: list[ExplainerSpec] = []
