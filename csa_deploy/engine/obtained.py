"""The precision that a build obtained: of the engine's layers where they are known, else of the network as parsed.

A layer of an engine counts with the type of its first input, as NVIDIA's TREx counts it. One that holds several nodes
and changes the type (a region of TensorRT's graph compiler) does not tell what it computes in: there the types of the
parsed network count, which bind a strongly typed build; without these it is unknown. In a parsed network a layer counts
as INT8 where all its operands come out of DequantizeLinear: TensorRT may compute it so, and the engine's layers say
whether it does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from csa_deploy.engine.layer_nodes import nodes_of, plain_type
from csa_deploy.engine.result import BuildResult, ParsedLayer
from csa_deploy.graph.shapes import inferred
from csa_deploy.graph.stats import node_macs
from csa_deploy.records.obtained import NARROW, ObtainedPrecision, TypeShare, WideLayer

_UNTOLD = "unknown"
_NO_WORK = (
    *("CAST", "CONSTANT", "DEQUANTIZE", "IDENTITY", "QUANTIZE", "SHUFFLE"),  # as parsed
    *("Constant", "NoOp", "Reformat", "Shuffle"),  # of an engine
)
_FLOATS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "uint8", "int4")

_Typed = tuple[str, str, int]  # layer, type, multiply-accumulates


def obtained_precision(result: BuildResult, model: onnx.ModelProto) -> ObtainedPrecision:
    """What a build obtained.

    Args:
        model: the graph that was built.
    """
    asked = result.plan.precision
    macs = {node.name or "": node_macs(node) or 0 for node in inferred(model).graph}
    parsed = dict(_parsed(result.layers, macs))
    layers = _engine_layers(result.inspection)
    if layers:
        return _stated(asked, "layers of the engine", _fused(layers, macs, parsed))
    if parsed:
        typed = [(name, kind, macs.get(_node(name), 0)) for name, kind in parsed.items()]
        return _stated(asked, "network as parsed", typed)
    return ObtainedPrecision(asked, reason="neither the parsed network nor the engine's layers are known")


def _node(name: str) -> str:
    """The node in the name of a layer; of a local function's node the calling one."""
    return name.split(" | ")[0]


def _parsed(layers: Sequence[ParsedLayer], macs: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    """By node, or by layer where the parser added it, the type that it computes in."""
    dequantized = {tensor.name for layer in layers if layer.type == "DEQUANTIZE" for tensor in layer.outputs}
    for layer in layers:
        if layer.type in _NO_WORK:
            continue
        operands = [tensor for tensor in layer.inputs if plain_type(tensor.dtype) in _FLOATS]
        name = layer.onnx_node or layer.name
        if macs.get(_node(name)) and len(operands) > 1 and {t.name for t in operands[:2]} <= dequantized:
            yield name, "int8"
        elif operands:
            yield name, plain_type(operands[0].dtype)


def _engine_layers(inspection: Path | None) -> list[Mapping[str, Any]]:
    """Layers of the inspector's JSON; none where it holds names only."""
    try:
        layers = json.loads(inspection.read_text(encoding="utf-8"))["Layers"] if inspection else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [layer for layer in layers if isinstance(layer, Mapping) and (layer.get("Inputs") or layer.get("Outputs"))]


def _fused(layers: Sequence[Mapping[str, Any]], macs: Mapping[str, int], parsed: Mapping[str, str]) -> Iterable[_Typed]:
    order, seen = list(macs), set[str]()
    for layer in layers:
        if layer.get("LayerType") in _NO_WORK:
            continue
        nodes, _ = nodes_of(str(layer.get("Name", "")), str(layer.get("Metadata", "")), order)
        nodes = tuple(node for node in nodes if node not in seen)
        seen.update(nodes)
        sides = [
            [plain_type(str(t.get("Format/Datatype", ""))) for t in layer.get(side) or []]
            for side in ("Inputs", "Outputs")
        ]
        kinds = [[kind for kind in side if kind in _FLOATS] for side in sides]
        first = (kinds[0] or kinds[1] or [""])[0]
        if not first:
            continue
        working = [node for node in nodes if macs[node]]
        if len(working) < 2 and "Foreign" not in str(layer.get("Name")):
            yield str(layer["Name"]), first, sum(macs[node] for node in working)
            continue
        for node in working or nodes:
            yield node, _inside(parsed.get(node), {kind for side in kinds for kind in side}), macs[node]


def _inside(parsed: str | None, kinds: set[str]) -> str:
    """The type of a node in a region with these types at its borders."""
    if parsed is not None and parsed != "int8":
        return parsed  # binding: the network is strongly typed
    return kinds.pop() if len(kinds) == 1 and parsed is None else _UNTOLD


def _stated(asked: str, source: str, typed: Iterable[_Typed]) -> ObtainedPrecision:
    layers, macs, stayed = Counter[str](), Counter[str](), []
    for name, kind, work in typed:
        layers[kind] += 1
        macs[kind] += work
        if work and kind not in NARROW[asked]:
            stayed.append(WideLayer(name, kind, work))
    types = sorted((TypeShare(kind, layers[kind], macs[kind]) for kind in layers), key=lambda t: (-t.macs, -t.layers))
    wide = sorted(stayed, key=lambda layer: -layer.macs)
    return ObtainedPrecision(asked, source, tuple(types), tuple(wide), "" if types else "no layer tells its type")
