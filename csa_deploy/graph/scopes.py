"""Where a node came from: the module paths that exporters print into its metadata.

The dynamo exporter writes ``['', 'stages.0', 'stages.0.v', 'conv']``: module paths from the root inwards, the node's
own name last. The text comes from a file, so it is read by this grammar and never as Python; whatever else stands
there means that the node has no scope.
"""

from __future__ import annotations

import re

import onnx

SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of the metadata."""

MOST_TEXT = 1 << 16
MOST_SCOPES = 256

_STRING = re.compile(r"""'((?:[^'\\]|\\['"\\])*)'|"((?:[^"\\]|\\['"\\])*)\"""")
_COMMA = re.compile(r"\s*,\s*")
_ESCAPED = re.compile(r"\\(['\"\\])")


def parse_scopes(text: str) -> list[str]:
    """The strings of a printed list; empty where the text is anything else, or too long."""
    if len(text) > MOST_TEXT or not (text.startswith("[") and text.endswith("]")):
        return []
    found: list[str] = []
    position, end = 1, len(text) - 1
    while match := _STRING.match(text, position, end):
        found.append(_ESCAPED.sub(r"\1", match[1] if match[1] is not None else match[2]))
        position = match.end()
        if position == end:
            return found if len(found) <= MOST_SCOPES else []
        comma = _COMMA.match(text, position, end)
        if comma is None:
            return []
        position = comma.end()
    return []


def modules_around(text: str) -> list[str]:
    """Paths of the modules around a node, outermost first; the root and the node's own name are left out."""
    return [scope for scope in parse_scopes(text)[:-1] if scope]


def innermost_module(text: str) -> str:
    """Path of the innermost module around a node; empty where there is none."""
    return next(reversed(modules_around(text)), "")


def scopes_text(node: onnx.NodeProto) -> str | None:
    """What an exporter printed into a node's metadata; None where it printed nothing."""
    return next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)


def module_paths(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Per node name the paths of the modules around it, outermost first, the node's own name left out."""
    texts = {node.name: scopes_text(node) for node in model.graph.node}
    return {name: modules_around(text) for name, text in texts.items() if text is not None}
