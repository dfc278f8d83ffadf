"""What a probe is, and the short words in which probes are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]

FLOATS = ("float32", "float16")
COMMON = ("float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")
EVERY = (*COMMON, "float8", "int4", "float4")
SHAPE = (1, 4, 8, 8)


@dataclass(frozen=True)
class Probe:
    """One small network.

    Attributes:
        id: unique, stable and readable: what is probed, then the value.
        statements: the network for TensorRT's API, see ``networks.py``; empty for an ONNX probe.
        onnx: the model in ONNX's textual form; empty for an API probe.
    """

    id: str
    statements: tuple[Statement, ...] = ()
    onnx: str = ""


def tensor(dtype: str = "float32", shape: Iterable[int] = SHAPE) -> Statement:
    """A network input."""
    return {"op": "input", "dtype": dtype, "shape": list(shape)}


def constant(dtype: str = "float32", shape: Iterable[int] = ()) -> Statement:
    """A constant of ones."""
    return {"op": "constant", "dtype": dtype, "shape": list(shape)}


def integers(*values: int, dtype: str = "int64", scalar: bool = False) -> Statement:
    """A constant of whole numbers: axes, shapes, depths."""
    return {"op": "integers", "values": list(values), "dtype": dtype, "scalar": scalar}


def layer(op: str, *operands: int, **attributes: Any) -> Statement:
    """A layer on earlier tensors (by default on the first)."""
    return {"op": op, "in": list(operands or (0,)), **{k: v for k, v in attributes.items() if v is not None}}


def word(value: Any) -> str:
    """A value as part of a probe's id."""
    if isinstance(value, (list, tuple)):
        return "x".join(word(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).lower()


def probe(name: str, value: Any, *statements: Statement) -> Probe:
    """An API probe whose id is its name and the probed value."""
    return Probe(f"{name}.{word(value)}", tuple(statements))


def distinct(probes: Iterable[Probe]) -> Iterator[Probe]:
    """Pass the probes on; two with one id are a mistake of the plan.

    Raises:
        ValueError: an id occurs twice.
    """
    seen: set[str] = set()
    for item in probes:
        if item.id in seen:
            raise ValueError(f"two probes are called {item.id}")
        seen.add(item.id)
        yield item
