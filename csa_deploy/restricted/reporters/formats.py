"""Chooses the renderer by the name of its format.

A stored record can be rendered again: read it with ``Inspected.from_json``.
"""

from __future__ import annotations

from importlib import import_module

from csa_deploy.errors import UsageError
from csa_deploy.records.check import Inspected

FORMATS = ("text", "json", "sarif", "junit", "html", "markdown", "model-explorer")


def render(data: Inspected, name: str) -> str:
    """The report as one text; the same data give the same bytes.

    Raises:
        UsageError: no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown report format '{name}'", fix=f"use one of {', '.join(FORMATS)}")
    module = import_module(f"csa_deploy.restricted.reporters.as_{name.replace('-', '_')}")
    rendered: str = module.render(data)
    return rendered
