"""The templates of pages."""

from __future__ import annotations

from typing import Any

__all__ = ["template_of"]


def template_of(name: str) -> Any:
    """Load a template.

    Parameters
    ----------
    name : str
        The file's name.

    Returns
    -------
    jinja2.Template
        It escapes what it is given, and refuses names that it is not given.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cnnviz", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
