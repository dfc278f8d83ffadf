"""A graph with the verdicts as metadata of its nodes, for viewers such as Netron; it computes what it computed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from csa_deploy.records.check import Inspected

VERDICT_KEY = "csa_deploy.check."


def annotate(data: Inspected, model: onnx.ModelProto) -> int:
    """Write what ``check`` said into a model: each scope's verdict, and at each node what is wrong with it.

    Args:
        data: what was said about this model.
        model: changed in place.

    Returns:
        How many nodes have something to say.
    """
    said: dict[str, dict[str, list[str]]] = {}
    for scope in data.scopes:
        key = VERDICT_KEY + scope.scope
        _put(model, key, f"{scope.verdict} (evidence: {scope.level})")
        for finding in scope.findings:
            instead = f"; instead: {finding.instead}" if finding.instead else ""
            text = f"{finding.verdict} {finding.rule}: {finding.message}{instead}"
            said.setdefault(finding.node, {}).setdefault(key, []).append(text)
    marked = 0
    for name, node in _nodes(model.graph, ()):
        for key, texts in said.get(name, {}).items():
            _put(node, key, " | ".join(texts))
        marked += name in said
    return marked


def _nodes(graph: onnx.GraphProto, path: tuple[str, ...]) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Nodes with their names, those of the enclosing ones included: as findings name them."""
    for node in graph.node:
        name = node.name or next(filter(None, node.output), "")
        yield "/".join((*path, name)), node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body, (*path, name))


def _put(where: onnx.ModelProto | onnx.NodeProto, key: str, value: str) -> None:
    for entry in where.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    where.metadata_props.add(key=key, value=value)
