"""Whether numbers beyond any activation's range may come a value's way: products with 0 make NaN of infinities."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.operators import Trait, having
from csa_deploy.graph.rewrite import DeclinedError

_GROW = ("Exp", "Pow", "Reciprocal", "Div", "Log")
_ORDINARY = having(Trait.WEIGHTED | Trait.GATE) | {
    *("DequantizeLinear", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
}
"""What makes numbers of a range that training gives."""


def require_finite(value: ir.Value | None) -> None:
    """The network's inputs are taken to be finite, and so is what a layer with weights makes.

    Raises:
        DeclinedError: an exponential, a logarithm or a quotient stands in front, with no such layer between.
    """
    grown = next((op for maker in _origins(value, set()) if (op := maker.op_type) in _GROW), "")
    if grown:
        raise DeclinedError(f"what it reads may be infinite, behind {grown}")


def _origins(value: ir.Value | None, seen: set[ir.Value]) -> Iterator[ir.Node]:
    """Nodes that decide the range of a value, behind those that pass it on."""
    maker = value.producer() if value is not None else None
    if value is None or maker is None or value in seen or constant(value) is not None:
        return
    seen.add(value)
    if maker.op_type in _ORDINARY or (maker.op_type in _GROW and not _divides_by_constant(maker)):
        yield maker
        return
    for given in maker.inputs:
        yield from _origins(given, seen)


def _divides_by_constant(node: ir.Node) -> bool:
    divisor = constant(node.inputs[1]) if node.op_type == "Div" else None
    return divisor is not None and bool(divisor.all())
