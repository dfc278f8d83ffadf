"""Attributes of a node by the type that its operator declares: the one reader of attributes of foreign graphs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, helper

_BODIES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def ill_typed(proto: NodeProto) -> str:
    """Name of an attribute that has another type than its operator declares, or none; empty where there is none."""
    return next((attribute.name for attribute in proto.attribute if not _fits(proto, attribute)), "")


def attribute_values(proto: NodeProto) -> dict[str, Any]:
    """Attributes as Python values, text decoded, tensors as they are; ill-typed ones and graphs are left out."""
    found: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.type not in _BODIES and _fits(proto, attribute):
            value = helper.get_attribute_value(attribute)
            found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def _fits(proto: NodeProto, attribute: AttributeProto) -> bool:
    """Whether an attribute has a value of a type that its operator, in any version, declares for it."""
    if attribute.type == AttributeProto.UNDEFINED or attribute.ref_attr_name:
        return False
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    declared = declared_types().get((domain, proto.op_type, attribute.name))
    return declared is None or attribute.type in declared


@lru_cache(maxsize=1)
def declared_types() -> dict[tuple[str, str, str], set[int]]:
    """(domain, operator, attribute) -> types that versions of the operator declare; takes about 30 ms."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        for name, attribute in schema.attributes.items():
            kind: Any = attribute.type  # an enumeration that onnx's stubs do not tell as one
            found.setdefault((schema.domain, schema.name, name), set()).add(int(kind))
    return found
