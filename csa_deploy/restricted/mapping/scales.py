"""What Q/DQ and FP16 say about the layers of a graph: INT8 scales of their tensors, and weights behind Q/DQ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from csa_deploy.graph.operators import QUANTIZERS
from csa_deploy.restricted.graph import Graph, Node, Value
from csa_deploy.restricted.mapping.recorder import TrtLayer, batch_of

_FLOATS = ("float32", "float16", "bfloat16")
_WITH_WEIGHTS = (*QUANTIZERS, "Conv", "ConvTranspose")


@dataclass(frozen=True)
class Scales:
    """INT8 in a graph.

    Attributes:
        by_tensor: what a DequantizeLinear makes has its scale, and what QuantizeLinear alone reads has its one. A
            tensor that another node, or the caller of the network, reads in floating point has none; neither has one
            that is quantized by channel, or by scales that differ.
        known: tensors that Q/DQ makes of constants: weights.
    """

    by_tensor: dict[str, float] = field(default_factory=dict)
    known: frozenset[str] = frozenset()

    @classmethod
    def of(cls, graph: Graph) -> Scales:
        """Those of a graph."""
        found: dict[str, float] = {}
        known: set[str] = set()
        quantized: defaultdict[str, list[float | None]] = defaultdict(list)
        for node in graph.walk():
            for value in filter(None, node.inputs):
                quantized[value.name].append(_scale(node) if node.op == "QuantizeLinear" else None)
            made = {value.name for value in node.outputs[:1]}  # damaged files have nodes without an output
            if node.op in QUANTIZERS and all(
                value is None or value.const or value.name in known for value in node.inputs
            ):
                known |= made
            elif node.op == "DequantizeLinear" and (scale := _scale(node)) is not None:
                found |= dict.fromkeys(made, scale)
        outputs = {value.name for value in graph.outputs}
        for name, scales in quantized.items():
            first = scales[0]
            if first is not None and name not in outputs and all(scale == first for scale in scales):
                found[name] = first
        return cls(found, frozenset(known))

    def floats(self, values: Iterable[Value | None]) -> list[str]:
        """Names of the floating-point tensors that are computed at run time."""
        return [
            value.name for value in values if value is not None and value.dtype in _FLOATS and not self.stored(value)
        ]

    def stored(self, value: Value) -> bool:
        """Whether a value is known at build time."""
        return value.const or value.name in self.known


def _scale(node: Node) -> float | None:
    """The one scale of a Quantize or Dequantize node that is known."""
    scale = node.input(1)
    return float(scale.data.item()) if scale is not None and scale.data is not None and scale.data.size == 1 else None


def is_quantized(layers: Sequence[TrtLayer]) -> bool:
    """Whether there is Q/DQ among the layers."""
    return any(layer.type in ("QUANTIZE", "DEQUANTIZE") for layer in layers)


def is_typed(layers: Sequence[TrtLayer]) -> bool:
    """Whether the graph states types of its own: Q/DQ, or FP16."""
    return is_quantized(layers) or any("float16" in layer.facts.get("out_dtype", ()) for layer in layers)


def with_scales(graph: Graph, layers: Sequence[TrtLayer]) -> list[TrtLayer]:
    """The layers with the facts about types and scales; a layer's are those of the tensors of its node."""
    typed, scales = is_typed(layers), Scales.of(graph) if is_quantized(layers) else None
    return [replace(layer, facts={**layer.facts, "typed": typed, **_facts(layer.node, scales)}) for layer in layers]


def _facts(node: Node | None, scales: Scales | None) -> dict[str, object]:
    """Facts about a node's tensors; ``scales`` is None in a graph without any."""
    known = scales or Scales()
    asked = node is not None and node.op not in QUANTIZERS
    read, written = (known.floats(node.inputs), known.floats(node.outputs)) if node and asked else ([], [])
    sets = [sorted({known.by_tensor[name] for name in names if name in known.by_tensor}) for names in (read, written)]
    every = dict.fromkeys([*read, *written])
    return {
        "in_scales": sets[0],
        "out_scales": sets[1],
        "in_scales_agree": len(sets[0]) <= 1,
        "scales_agree": len({*sets[0], *sets[1]}) <= 1,
        "unscaled": [] if scales is None else [name for name in every if name not in known.by_tensor],
        **(_of_weights(node, known) if node and node.op in _WITH_WEIGHTS else {}),
    }


def _of_weights(node: Node, scales: Scales) -> dict[str, object]:
    """Whether weights are known, and the batches of what is no weight."""
    weights = node.inputs[:1] if node.op in QUANTIZERS else node.inputs[1:]
    tensors = [value for value in (*node.inputs, *node.outputs) if value is not None and not scales.stored(value)]
    return {
        "weights_known": all(value is None or scales.stored(value) for value in weights),
        "batch": [batch_of(value.shape) for value in tensors],
    }
