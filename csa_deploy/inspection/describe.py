"""What a file holds: a graph, or an engine with what lies beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from csa_deploy.engine.passport import check_engine, plan_version
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import load_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.inspection.parts import is_engine, read_parts
from csa_deploy.workspace import sha256_of


def describe(path: Path) -> dict[str, Any]:
    """Look at an ONNX file or an engine.

    Returns:
        ``kind``, ``file``, ``sha256``, ``bytes``; of a graph its inputs, outputs, opsets, statistics, types and
        metadata; of an engine the version in its header, its passport, and its layers as far as something tells them.

    Raises:
        UsageError: missing, not readable, an engine that is not its passport's, or one that nothing tells to be one.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}", fix="give an .onnx or .engine file")
    found = {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
    return {**found, **(_engine(path) if is_engine(path) else _graph(path))}


def _graph(path: Path) -> dict[str, Any]:
    import onnx

    model = load_model(path, full_check=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    parts = read_parts(path)

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
                "shape": [d.dim_value or d.dim_param or None for d in value.type.tensor_type.shape.dim],
            }
            for value in values
            if value.name not in weights
        ]

    return {
        "kind": "graph",
        "inputs": tensors(model.graph.input),
        "outputs": tensors(model.graph.output),
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "statistics": graph_statistics(model).to_json(),
        "types": dict(Counter(part.type for part in parts).most_common()),
        "modules": len({part.module for part in parts if part.module}),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def _engine(path: Path) -> dict[str, Any]:
    passport = check_engine(path)
    notes = [] if passport else ["no passport beside it: nothing says what it was built of"]
    version = plan_version(path)
    if version is None:
        notes.append("no TensorRT header: no engine, a safety engine, or a DLA loadable")
    try:
        parts = read_parts(path)
    except UsageError as error:
        parts = []
        notes.append(error.message)
    if version is None and not passport and not parts:
        raise UsageError(
            f"{path}: nothing tells that it is an engine: no TensorRT header, and no passport or layers beside it",
            fix="check the file; a safety engine or DLA loadable needs its .passport.json beside it",
        )
    return {
        "kind": "engine",
        "built_by": version,
        "passport": passport,
        "layers": dict(Counter(part.op for part in parts).most_common()) or None,
        "types": dict(Counter(part.type for part in parts).most_common()) or None,
        "notes": notes,
    }
