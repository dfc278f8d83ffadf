"""Layers of an engine held against the graph that it was built of: TensorRT fuses, so a layer stands for many nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.engine.layer_nodes import nodes_of
from csa_deploy.engine.passport import passport_of, read_passport
from csa_deploy.profile.cost import fused_costs, graph_cost
from csa_deploy.records.device import EngineLayer

if TYPE_CHECKING:
    from csa_deploy.context import Context


def map_layers(times_ms: Mapping[str, float], inspection: Mapping[str, Any], graph: Path) -> list[EngineLayer]:
    """Say which nodes and modules each timed layer stands for.

    Args:
        times_ms: layer -> time in milliseconds.
        inspection: the engine inspector's JSON; layers that are names only, or none at all, are no error.
        graph: the ONNX file that the engine was built of.
    """
    known = {node.name: node for node in graph_cost(graph).nodes}
    order = list(known)
    metadata = {
        layer["Name"]: layer.get("Metadata", "")
        for layer in inspection.get("Layers", [])
        if isinstance(layer, Mapping) and "Name" in layer
    }
    origins = {name: nodes_of(name, metadata.get(name, ""), order) for name in times_ms}
    costs = fused_costs(graph, [nodes for nodes, _ in origins.values()])
    total = sum(times_ms.values())
    found = []
    for (name, (nodes, mapped_by)), cost in zip(origins.items(), costs, strict=True):
        modules = dict.fromkeys(known[node].module for node in nodes)
        found.append(
            EngineLayer(
                name=name,
                time_us=round(1e3 * times_ms[name], 3),
                share=round(times_ms[name] / total, 5) if total else 0.0,
                nodes=nodes,
                modules=tuple(module for module in modules if module),
                mapped_by=mapped_by,
                operations=cost.operations,
                bytes=cost.bytes,
                precision=cost.precision,
            )
        )
    return found


def built_of(context: Context, engine: str, graphs: Mapping[str, str]) -> Path:
    """The graph of the workspace that an engine was built of, as its passport says."""
    name = read_passport(passport_of(context.path(engine))).graph.file
    return next(context.path(graph) for graph in graphs.values() if Path(graph).name == name)
