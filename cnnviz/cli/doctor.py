"""``cnnviz doctor``: what is installed, what works, and what failed."""

from __future__ import annotations

import dataclasses
import platform
import warnings
from importlib import metadata
from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz_core.importing import import_string, installed
from cnnviz_core.parameters import parameters_of
from cnnviz_core.plugins import KINDS, PluginInfo
from cnnviz_core.registry import Registry, get_registry
from cnnviz_core.specs import BackendSpec

__all__ = ["command"]

_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-image",
    "pluggy",
    "pillow",
    "matplotlib",
    "click",
    "rich",
    "jinja2",
    "xarray",
)
_FRAMEWORKS = ("torch", "torchvision", "timm", "tensorflow", "tensorflow-cpu", "keras")


@click.command("doctor", cls=Command)
@json_option
def command(as_document: bool) -> None:
    """Tell the versions, backends and plugins that are installed, and what failed to load.

    No framework is imported.  The exit code is 0 also where a plugin failed.
    """
    with warnings.catch_warnings():
        # What a warning would say in one line is told in full below.
        warnings.simplefilter("ignore", RuntimeWarning)
        registry = get_registry()
    report = _examine(registry)
    if as_document:
        as_json(report)
    else:
        _print(report)


def _version(package: str) -> str:
    """Give an installed distribution's version, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _examine(registry: Registry) -> dict[str, Any]:
    """Find out all there is to tell."""
    failures = [dataclasses.asdict(failure) for failure in registry.failures]
    for name, explainer in registry.explainers.items():
        try:
            registry.parameters(name)
        except Exception as error:
            failures.append(_failure(name, explainer.target, error))
    for name, inspector in registry.inspectors.items():
        try:
            parameters_of(registry.inspector_class(name))
        except Exception as error:
            failures.append(_failure(name, inspector.target, error))
    for name, rule in registry.rules.items():
        try:
            registry.rule(name)
        except Exception as error:
            failures.append(_failure(name, rule.target, error))
    for name, metric in registry.metrics.items():
        try:
            parameters_of(registry.metric_class(name))
        except Exception as error:
            failures.append(_failure(name, metric.target, error))
    return {
        "cnnviz": _version("cnnviz"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "frameworks": {name: v for name in _FRAMEWORKS if (v := _version(name))},
        "backends": [_backend(spec) for spec in registry.backends.values()],
        "plugins": [_plugin(plugin) for plugin in registry.plugins],
        "failures": failures,
    }


def _plugin(info: PluginInfo) -> dict[str, Any]:
    """Describe a plugin, and what it announced."""
    return {
        "distribution": info.distribution,
        "version": info.version,
        "entry_point": info.entry_point,
        **info.announced,
    }


def _failure(name: str, target: str, error: Exception) -> dict[str, str]:
    """Describe a method or whatever else was announced, whose own module is broken."""
    import traceback

    cause = error.__cause__ or error
    return {
        "distribution": "",
        "version": "",
        "entry_point": f"{name} ({target})",
        "stage": "import",
        "error": f"{type(cause).__name__}: {cause}",
        "traceback": "".join(traceback.format_exception(cause)),
    }


def _backend(spec: BackendSpec) -> dict[str, Any]:
    """Say whether a backend can be used, without importing its framework."""
    absent = [package for package in spec.packages[:1] if not installed(package)]
    if absent:
        state = f"{absent[0]} is not installed: pip install 'cnnviz[{spec.extra}]'"
    else:
        try:
            import_string(spec.accepts)
            state = "ok"
        except Exception as error:
            state = f"broken: {type(error).__name__}: {error}"
    return {
        "name": spec.name,
        "state": state,
        "sources": list(spec.sources),
        "suffixes": list(spec.suffixes),
    }


def _print(report: dict[str, Any]) -> None:
    """Print the report."""
    click.echo(f"cnnviz {report['cnnviz']}, Python {report['python']}, {report['platform']}\n")
    versions = {**report["packages"], **report["frameworks"]}
    click.echo(", ".join(f"{name} {version or '-'}" for name, version in versions.items()) + "\n")
    print_table(
        ("backend", "state", "loads", "files"),
        [
            (b["name"], b["state"], ", ".join(b["sources"]), ", ".join(b["suffixes"]))
            for b in report["backends"]
        ],
    )
    print_table(
        ("plugin", "from", "announces"),
        [
            (
                p["entry_point"],
                f"{p['distribution']} {p['version']}",
                ", ".join(name for kind in KINDS for name in p[kind]),
            )
            for p in report["plugins"]
        ],
    )
    for failure in report["failures"]:
        origin = " ".join(filter(None, (failure["distribution"], failure["version"])))
        click.secho(
            f"failed: plugin {failure['entry_point']!r}"
            + (f" of {origin}" if origin else "")
            + f", stage {failure['stage']!r}: {failure['error']}",
            fg="red",
        )
        click.echo(failure["traceback"])
    if not report["failures"]:
        click.echo("No plugin failed.")
