"""Chooses the renderer by the name of its format.

Every renderer takes the JSON form of :class:`~csa_deploy.records.check.RuleReport`, or of an object that adds
to it (the validator's answer, a higher level of evidence), so that a stored record can be rendered again.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from csa_deploy.errors import UsageError

FORMATS = ("text", "json", "sarif", "junit", "html", "markdown", "model-explorer")


def render(data: dict[str, Any], name: str) -> str:
    """The report as one text; the same data give the same bytes.

    Raises:
        UsageError: no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown report format '{name}'", fix=f"use one of {', '.join(FORMATS)}")
    module = import_module(f"csa_deploy.restricted.reporters.as_{name.replace('-', '_')}")
    rendered: str = module.render(data)
    return rendered
