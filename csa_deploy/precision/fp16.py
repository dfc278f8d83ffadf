"""FP16 written into the graph: typed weights and activations, and casts only where the type changes.

TensorRT from 10 on takes precision from the graph (strongly typed networks), and the same file runs in ONNX Runtime,
so what is verified is what is built. ``onnxruntime.transformers.float16`` is not used: it keeps Resize in FP32 unless
told otherwise, writes nodes out of topological order, clips weights beyond FP16's range instead of keeping their node
in FP32, raises the smallest weights to FP16's smallest number, types operators that it does not know, and puts
cancelling casts between neighbouring FP32 nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from csa_deploy.errors import UsageError
from csa_deploy.graph.operators import GATES
from csa_deploy.graph.shapes import editable, infer_shapes
from csa_deploy.naming import did_you_mean
from csa_deploy.precision.half_chains import LARGEST
from csa_deploy.precision.half_typing import HalfTyping
from csa_deploy.records.precision import HalfFigures, KeptNode
from csa_deploy.results import jsonable


@dataclass(frozen=True, kw_only=True)
class Fp16Result(HalfFigures):
    """A graph in FP16.

    Attributes:
        model: the typed graph; the argument of :func:`to_fp16` is never changed.
    """

    model: onnx.ModelProto

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the model."""
        return {name: jsonable(value) for name, value in self.said().items()}

    def said(self) -> dict[str, Any]:
        """All but the model."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "model"}


def to_fp16(
    model: onnx.ModelProto,
    *,
    io: Literal["fp32", "fp16"] = "fp32",
    keep_fp32: Iterable[str] = (),
    largest: Mapping[str, float] | None = None,
) -> Fp16Result:
    """Type a graph in FP16.

    Every FP32 value becomes FP16 except those of nodes that stay in FP32: nodes named in ``keep_fp32``, nodes with a
    weight beyond FP16's range or lost below its smallest normal number, nodes next to an activation that was measured
    to leave FP16's range, operators without an FP16 form, custom operators, and nodes with subgraphs; operators that
    read positions, and whatever :mod:`csa_deploy.precision.half_chains` keeps with others. Resize scales stay FP32, as
    TensorRT and ONNX demand.

    Args:
        model: a graph of known shapes and types; not changed.
        io: type of the network's inputs and outputs. With ``fp32`` each has one Cast.
        keep_fp32: names of nodes to keep in FP32.
        largest: measured largest absolute value by activation, where there are measurements.

    Raises:
        UsageError: ``keep_fp32`` names a node that is not there, or ``io`` is unknown.
    """
    if io not in ("fp32", "fp16"):
        raise UsageError(f"unknown input and output precision '{io}'", fix="use fp32 or fp16")
    typed = editable(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(typed)
    infer_shapes(typed)
    keep = beyond_range(typed.graph, largest or {}) | dict.fromkeys(_known(typed.graph, keep_fp32), "kept on request")
    typing = HalfTyping(typed, half_io=io == "fp16", keep=keep, largest=largest or {})
    typing.apply()
    RemoveUnusedNodesPass()(typed)
    return Fp16Result(
        model=ir.to_proto(typed),
        kept=tuple(KeptNode(node.name or "", node.op_type, reason) for node, reason in typing.kept),
        nodes=typing.nodes,
        casts=typing.casts,
        weights=typing.weights,
        underflowed=typing.underflowed,
        subnormal=typing.subnormal,
        overflowing=typing.overflowing,
        largest_weight=typing.largest_weight,
    )


def beyond_range(graph: ir.Graph, largest: Mapping[str, float]) -> dict[str, str]:
    """Nodes that make or read an activation beyond FP16's range, with the reason; the activation stays FP32 then.

    What has no measurement of its own is as large as what it is computed from.
    """
    named = [(value, str(value.name)) for value in graph.inputs]
    size = {value: (largest[name], name) for value, name in named if largest.get(name, 0.0) > LARGEST}
    found = {}
    for node in graph:
        read = [size[v] for v in node.inputs if v in size]
        for value in node.outputs:
            name = str(value.name)
            unmeasured = (1.0, name) if node.op_type in GATES else max(read, default=(0.0, ""))
            own = (largest[name], name) if name in largest else unmeasured
            if own[0] > LARGEST:
                size[value] = own
        beyond = read + [size[v] for v in node.outputs if v in size]
        if beyond and node.name:
            worst, name = max(beyond)
            found[node.name] = f"activation '{name}' reaches {worst:.4g}, beyond FP16's {LARGEST:.0f}"
    return found


def _known(graph: ir.Graph, names: Iterable[str]) -> frozenset[str]:
    """The names, all of which must be nodes of the graph."""
    nodes = [node.name for node in graph if node.name]
    wanted = frozenset(names)
    for name in sorted(wanted.difference(nodes)):
        known = did_you_mean(name, nodes, "nodes are named in the optimized graph")
        raise UsageError(f"no node '{name}' to keep in FP32", fix=known)
    return wanted
