"""What a list of the package holds, its page tells: nobody looks for what stands in no document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest

from csa_deploy import registry
from csa_deploy.data.layouts import LAYOUTS
from csa_deploy.graph.optimize import RULES
from csa_deploy.graph.repair import REPAIRS
from csa_deploy.precision.thresholds import METHODS
from csa_deploy.restricted.schema import scopes
from csa_deploy.setting_values import LIMITED
from csa_deploy.trtexec.settings import TrtexecOptions

DOCS = Path(__file__).parents[2] / "docs"
LISTED: dict[str, Iterable[str]] = {
    "restricted.md": scopes(),
    "optimize.md": [*REPAIRS, *(rule.name for rule in RULES)],
    "precision.md": METHODS,
    "profile.md": LIMITED,
    "targets.md": [item.name for item in fields(TrtexecOptions)],
    "models.md": [name for name in registry.names() if registry.module_of(name).startswith("csa_models")],
    "data.md": [layout.name for layout in LAYOUTS],
}


def told(text: str) -> set[str]:
    """Words that stand as code, and what the rows of tables begin with."""
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    code = {word for span in re.findall(r"`([^`]+)`", text) for word in span.removesuffix(".NAME").split()}
    return code | set(re.findall(r"(?m)^\| ([\w ]+?)(?: \||:)", text))


@pytest.mark.parametrize("page", LISTED)
def test_a_page_names_all_of_its_list(page: str) -> None:
    names = set(LISTED[page])
    assert names and sorted(names - told((DOCS / page).read_text(encoding="utf-8"))) == []


def test_only_what_a_page_names_as_such_is_told() -> None:
    page = "the mse\n```\n`a`\n```\n`p50_ms p90_ms`, `pools.NAME`\n| YOLO | x |\n| COCO: a file | y |\n| `b` | z |\n"
    assert told(page) == {"p50_ms", "p90_ms", "pools", "YOLO", "COCO", "b"}
