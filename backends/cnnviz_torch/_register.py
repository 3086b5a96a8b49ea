"""Announces the PyTorch backend; imports no framework."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import BackendSpec


@hookimpl
def cnnviz_backends() -> list[BackendSpec]:
    """Announce the PyTorch backend."""
    return [
        BackendSpec(
            name="torch",
            wrap="cnnviz_torch.model:wrap",
            packages=("torch",),
            accepts="cnnviz_torch.accepts:accepts",
            describe="cnnviz_torch.published:describe",
            sources={
                "torchvision": "cnnviz_torch.sources:load_torchvision",
                "timm": "cnnviz_torch.sources:load_timm",
            },
            suffixes={
                ".pt2": "cnnviz_torch.sources:load_exported",
                ".pt": "cnnviz_torch.sources:load_torchscript",
                ".pth": "cnnviz_torch.sources:load_torchscript",
            },
            extra="torch",
            build="cnnviz_torch.build:build",
            path_of="cnnviz_torch.paths:path_of",
            pooled="cnnviz_torch.heads:pooled",
            fitted="cnnviz_torch.heads:fitted",
        )
    ]
