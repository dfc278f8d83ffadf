"""The records of a workspace as JSON Schema, from the classes that read and write them."""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import TypeAdapter

import csa_deploy.records
from csa_deploy.results import StageRecord
from tools.site.markdown import page, table


def records() -> dict[str, type[StageRecord]]:
    """Stage -> class of its record."""
    modules = [import_module(f"csa_deploy.records.{found.name}") for found in iter_modules(csa_deploy.records.__path__)]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    found = {kind.stage: kind for kind in kinds if issubclass(kind, StageRecord) and kind is not StageRecord}
    return dict(sorted(found.items()))


def schema(kind: type[StageRecord]) -> dict[str, Any]:
    """JSON Schema of what a class writes; properties that follow from others may stand beside its fields."""
    made = TypeAdapter(kind).json_schema(mode="serialization")
    hidden = {item.name for item in dataclasses.fields(kind) if not item.metadata.get("json", True)} | {*kind.unstated}
    made["properties"] = {name: value for name, value in made["properties"].items() if name not in hidden}
    made["required"] = [name for name in made.get("required", []) if name in made["properties"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def schema_pages() -> dict[str, str]:
    """Path -> text: a JSON Schema of each record, and the page that lists them."""
    made = {f"reference/schemas/{stage}.json": json.dumps(schema(kind), indent=2) for stage, kind in records().items()}
    rows = [
        (
            f"`records/{stage}.json`",
            inspect.cleandoc(kind.__doc__ or "").split("\n")[0],
            f"[schema](schemas/{stage}.json)",
        )
        for stage, kind in records().items()
    ]
    made["reference/records.md"] = page(
        "Records",
        "Each stage leaves one record in the workspace: `records/<stage>.json`. It is the same for the same inputs.",
        "The schemas are JSON Schema 2020-12. A record may have properties beside those of its schema: values that",
        "follow from the others, written for readers.",
        table(("file", "states", "JSON Schema"), rows),
    )
    return made
