"""What travels inside the ONNX file: where it came from, with which tools, and how its input is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from csa_deploy.boxes import Postprocessing
from csa_deploy.network import Preprocessing

PREFIX = "csa_deploy."
POSTPROCESSING = "postprocessing"


def write_metadata(model: onnx.ModelProto, entries: Mapping[str, Any], preprocessing: Preprocessing | None) -> None:
    """Store entries (JSON-encoded unless text) under ``csa_deploy.*``, replacing what was there."""
    kept = {p.key: p.value for p in model.metadata_props if not p.key.startswith(PREFIX)}
    for key, value in entries.items():
        kept[PREFIX + key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if preprocessing is not None:
        kept[f"{PREFIX}preprocessing"] = json.dumps(preprocessing.to_json(), sort_keys=True)
    del model.metadata_props[:]
    for key in sorted(kept):
        model.metadata_props.add(key=key, value=kept[key])


def stated_postprocessing(graph: onnx.ModelProto | Path) -> Postprocessing | None:
    """How the outputs of a graph become boxes, where it states that; of a file no tensor is read."""
    model = onnx.load(str(graph), load_external_data=False) if isinstance(graph, Path) else graph
    stated = next((entry.value for entry in model.metadata_props if entry.key == f"{PREFIX}{POSTPROCESSING}"), None)
    try:
        return Postprocessing.from_json(json.loads(stated)) if stated else None
    except (ValueError, KeyError, TypeError):
        return None


def read_preprocessing(model: onnx.ModelProto) -> Preprocessing | None:
    """Preprocessing of a graph that csa-deploy exported; None for a graph from elsewhere."""
    for entry in model.metadata_props:
        if entry.key == f"{PREFIX}preprocessing":
            try:
                return Preprocessing.from_json(json.loads(entry.value))
            except (ValueError, KeyError, TypeError, IndexError):
                return None
    return None
