"""Writes the JSON Schemas of docs/schemas: ``python -m tools.schemas``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from csa_deploy.policy.schema import json_schema
from csa_deploy.results import dump_json

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {"gate-policy.schema.json": json_schema}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, made in SCHEMAS.items():
        (FOLDER / name).write_text(dump_json(made()), encoding="utf-8")
