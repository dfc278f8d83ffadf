"""What a layer of an engine says of itself: the ONNX nodes that it stands for, and the types of its tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from csa_deploy.records.device import MappedBy

# The ONNX parser notes the node in a layer's metadata; a fused layer has several, with a record separator between.
_ORIGIN = re.compile(r"\[ONNX Layer: (.*)\]")
_SEPARATOR = "\x1e"
_RANGE = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+?)\]\}")
_COPY = "Reformatting CopyNode"  # its name ends with the node that it serves; it does no work of that node
_BETWEEN_NAMES = re.compile(r"[\s,|+(){}\[\]]+")
_TYPE = re.compile(
    r"\b(?:(?P<fp32>fp32|float)|(?P<fp16>fp16|half)|(?P<bf16>bf(?:loat)?16)|fp8|u?int8|int4|int32|int64|bool)\b",
    re.IGNORECASE,
)


def nodes_of(name: str, metadata: str, order: Sequence[str]) -> tuple[tuple[str, ...], MappedBy]:
    """Nodes of a layer in the graph's order, and what told them.

    Args:
        metadata: the layer's, empty where the inspector gives none.
        order: names of the graph's nodes.
    """
    stated = [match[1] for part in metadata.split(_SEPARATOR) if (match := _ORIGIN.search(part))]
    named = _known([node for text in stated for node in text.split(" | ")], order)
    if named:
        return named, "metadata"
    if match := _RANGE.search(name):
        ends = [order.index(node) for node in match.groups() if node in order]
        if len(ends) == 2:
            return tuple(order[min(ends) : max(ends) + 1]), "range"
    if name.startswith(_COPY):
        return (), "nothing"
    named = _known([name, *_BETWEEN_NAMES.split(name)], order)
    return (named, "name") if named else ((), "nothing")


def _known(names: Sequence[str], order: Sequence[str]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(node for node in order if node in wanted)


def plain_type(text: str) -> str:
    """A type in the words of graphs: TensorRT says ``HALF``, ``Half`` or ``Row major linear FP16 format``."""
    found = _TYPE.search(text)
    return (found.lastgroup or found[0].lower()) if found else text
