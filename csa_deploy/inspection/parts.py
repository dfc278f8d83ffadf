"""The parts of a graph or an engine: one per node or layer, with the module that it comes from and its type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from csa_deploy.engine.layer_nodes import plain_type
from csa_deploy.engine.passport import passport_of, read_passport
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import load_model
from csa_deploy.profile.cost import graph_cost

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class NamedPart:
    """One node of a graph or layer of an engine.

    Attributes:
        name: its name; for a layer, that of the ONNX node where it is known.
        module: module of the network; empty when nothing says.
        type: type that it computes in (``"fp32"``, ``"fp16"``, ``"int8"``; of a layer, that of its outputs).
        macs: multiply-accumulates; None when not known.
    """

    name: str
    op: str
    module: str
    type: str
    macs: int | None


def is_engine(path: Path) -> bool:
    """Whether a file is taken for an engine, by its name."""
    return path.suffix in ENGINE_SUFFIXES


def read_parts(path: Path) -> list[NamedPart]:
    """The parts of an ONNX file or of an engine.

    Raises:
        UsageError: not readable, or an engine of which nothing tells the layers.
    """
    return _engine_parts(path) if is_engine(path) else _graph_parts(path)


def _graph_parts(path: Path) -> list[NamedPart]:
    model = load_model(path, full_check=False)
    parts = [NamedPart(n.name, n.op, n.module, n.precision, n.macs) for n in graph_cost(path).nodes]
    dequantized = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    in_int8 = {_name(n) for n in model.graph.node if len(n.input) > 1 and set(n.input[:2]) <= dequantized}
    users = _users(model)
    modules = {part.name: part.module for part in parts}
    return [
        replace(
            part,
            module=part.module or _module_of_users(part.name, users, modules),
            type="int8" if part.name in in_int8 else part.type,
        )
        for part in parts
    ]


def _name(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else "")


def _users(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Node -> the nodes that read its outputs."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(_name(node))
    return {_name(node): [user for out in node.output for user in readers.get(out, [])] for node in model.graph.node}


def _module_of_users(name: str, users: Mapping[str, Sequence[str]], modules: Mapping[str, str]) -> str:
    """A node that a tool put in (a cast, a quantization) belongs to the first module behind it."""
    waiting, seen = list(users.get(name, [])), {name}
    while waiting:
        user = waiting.pop(0)
        if modules.get(user):
            return modules[user]
        if user not in seen:
            seen.add(user)
            waiting += users.get(user, [])
    return ""


def _engine_parts(path: Path) -> list[NamedPart]:
    layers = _parsed_layers(path) or _fused_layers(path)
    if not layers:
        raise UsageError(
            f"{path}: nothing beside it tells its layers",
            fix="give an engine of a workspace, with its .network.json or .layers.json",
        )
    nodes = _nodes_behind(path)
    return [
        replace(part, module=nodes[part.name].module, macs=nodes[part.name].macs) if part.name in nodes else part
        for part in layers
    ]


def _parsed_layers(path: Path) -> list[NamedPart]:
    """The network as NVIDIA's parser built it, before fusion."""
    file = path.with_name(f"{path.name}.network.json")
    return [
        NamedPart(
            layer["onnx_node"].split(" | ")[0] or layer["name"],
            layer["type"],
            "",
            _types(tensor["dtype"] for tensor in layer["outputs"]),
            None,
        )
        for layer in _json(file, [])
    ]


def _fused_layers(path: Path) -> list[NamedPart]:
    """The engine's layers after fusion, from TensorRT's inspector; a fused layer stands for its first node."""
    file = path.with_name(f"{path.name}.layers.json")
    found = []
    for layer in _json(file, {"Layers": []})["Layers"]:
        if isinstance(layer, dict):
            origin = _ORIGIN.search(layer.get("Metadata", ""))
            types = _types(output["Format/Datatype"] for output in layer.get("Outputs", []))
            name = origin[1] if origin else layer["Name"]
            found.append(NamedPart(name, layer.get("LayerType", "unknown"), "", types, None))
    return found


def _types(stated: Iterable[str]) -> str:
    """Types in the words of graphs."""
    return "/".join(sorted({plain_type(text) for text in stated}))


def _nodes_behind(path: Path) -> dict[str, NamedPart]:
    """The nodes of the graph that an engine was built of, where that graph lies in the same workspace or bundle."""
    if not passport_of(path).is_file():
        return {}
    name = read_passport(passport_of(path)).graph.file
    for folder in ("onnx", "graph"):
        graph = path.parent.parent / folder / name
        if graph.is_file():
            return {part.name: part for part in _graph_parts(graph)}
    return {}


def _json(path: Path, without: Any) -> Any:
    if not path.is_file():
        return without
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not readable ({error})", fix="build the engine again") from None
