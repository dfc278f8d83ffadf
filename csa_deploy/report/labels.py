"""Names of graphs and engines as people read them."""

from __future__ import annotations

NAMES = {"exported": "exported graph", "fp32": "optimized graph", "fp16": "fp16 graph", "int8": "int8 graph"}


def label_of(label: str) -> str:
    """``fp32`` is the optimized graph; a label that has no other name is its own."""
    return NAMES.get(label, label)
