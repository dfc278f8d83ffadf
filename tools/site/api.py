"""The reference page of the Python API: one directive of mkdocstrings per public name."""

from __future__ import annotations

import csa_deploy
from tools.site.markdown import page


def api_page() -> str:
    """Functions, then what they return, then the errors."""
    where = csa_deploy._WHERE
    functions = [name for name in csa_deploy.__all__ if name in where and name[0].islower()]
    classes = [name for name in csa_deploy.__all__ if name in where and name[0].isupper()]
    return page(
        "Python API",
        "`import csa_deploy as csa`. Examples, each run by a test: [the Python API](../api.md).",
        "## Functions",
        *(f"::: {where[name]}.{name}" for name in functions),
        "## Results",
        *(f"::: {where[name]}.{name}" for name in classes),
        "## Errors",
        "::: csa_deploy.errors\n    options: {show_root_heading: false, show_root_toc_entry: false}",
    )
