"""Cuts the part of a graph out that came from one PyTorch module, with onnx-graphsurgeon."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from csa_deploy.errors import UsageError
from csa_deploy.graph.scopes import module_paths
from csa_deploy.naming import nearest


def extract(model: onnx.ModelProto, module: str) -> onnx.ModelProto:
    """The subgraph of a module, such as ``stages.0.1``; what crosses its border becomes inputs and outputs.

    Args:
        model: a graph with module paths and inferred shapes, as csa-deploy exports and optimizes it; not changed.
        module: path of the module; its sub-modules belong to it.

    Raises:
        UsageError: no node came from such a module; names the nearest ones.
    """
    paths = module_paths(model)
    inside = {name for name, around in paths.items() if module in around}
    if not inside:
        known = sorted({path for around in paths.values() for path in around})
        near = nearest(module, known, most=3) or known[:3]
        raise UsageError(f"no node came from a module '{module}'", fix=f"modules are named like {', '.join(near)}")
    try:
        return _cut(model, module, inside)
    except Exception as error:  # graphsurgeon has a class of its own for each mishap
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"module '{module}' cannot be cut out: {type(error).__name__}: {reason}", fix="optimize the graph first"
        ) from error


def _cut(model: onnx.ModelProto, module: str, inside: set[str]) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    nodes = [node for node in graph.nodes if node.name in inside]
    made = {tensor.name for node in nodes for tensor in node.outputs}
    inputs: dict[str, gs.Variable] = {}
    for node in nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Variable) and not tensor.is_empty() and tensor.name not in made:
                inputs[tensor.name] = tensor
    ends = {tensor.name for tensor in graph.outputs}
    outputs = [
        t for n in nodes for t in n.outputs if t.name in ends or any(user.name not in inside for user in t.outputs)
    ]
    graph.inputs, graph.outputs = list(inputs.values()), outputs
    graph.name = module
    graph.cleanup(remove_unused_graph_inputs=True)
    cut = gs.export_onnx(graph)
    cut.ir_version = model.ir_version
    return cut
