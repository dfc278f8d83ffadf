"""Names of graphs and engines as people read them."""

from __future__ import annotations

from csa_deploy import units
from csa_deploy.records.report import Row

NAMES = {**{label: f"{label} graph" for label in ("exported", "fp32", "fp16", "int8")}, "split": "parts, chained"}
SIZE = "size of weights"  # heading of the column that size_of fills

_ORDER = ("exported", "fp32", "fp16", "int8")


def rank(label: str) -> tuple[bool, int, str]:
    """Place of a label in tables and charts: graphs before engines, then by precision, then by name."""
    precision = label.removeprefix("engine ").partition(" ")[0]
    return label.startswith("engine"), _ORDER.index(precision) if precision in _ORDER else len(_ORDER), label


def label_of(label: str) -> str:
    """A label that has no name for people is its own; the ``fp32`` graph may be a repaired one."""
    return NAMES.get(label, label)


def size_of(row: Row) -> str:
    """Bytes of a graph's weights; of an engine its file's, and said so."""
    shown = units.size(row.bytes)
    return f"{shown} file" if row.label.startswith("engine") and row.bytes is not None else shown


def timed_on(label: str) -> str:
    """Where a latency is from: a graph's is this CPU's, an engine's a device's, never one for the other.

    A Q/DQ graph on a CPU computes in floating point and rounds in between: slower than FP32 there, unlike an engine.
    """
    if label.startswith("engine"):
        return "device"
    return "CPU, fake-quantized" if label == "int8" else "CPU"
