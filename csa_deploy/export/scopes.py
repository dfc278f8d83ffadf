"""Keeps, on every ONNX node, the path of the PyTorch module it came from, and drops what would betray this machine.

The dynamo exporter writes the scopes as ``pkg.torch.onnx.name_scopes``, a printed list of module paths from the root
inwards, and adds stack traces with file paths; the latter make the same network export to other bytes elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from csa_deploy.graph.scopes import SCOPES, scopes_text

KEPT = (SCOPES, "pkg.torch.onnx.class_hierarchy")


def keep_scopes(model: onnx.ModelProto, native: Mapping[str, str]) -> None:
    """Leave on each node only its module scopes; those that are missing are taken from ``native`` by node name."""
    for node in model.graph.node:
        props = {p.key: p.value for p in node.metadata_props if p.key in KEPT}
        if SCOPES not in props and node.name in native:
            props[SCOPES] = native[node.name]
        del node.metadata_props[:]
        for key, value in sorted(props.items()):
            node.metadata_props.add(key=key, value=value)
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""


def scopes_of(model: onnx.ModelProto) -> dict[str, str]:
    """The scopes that the dynamo exporter wrote, by node name."""
    return {n.name: text for n in model.graph.node if n.name and (text := scopes_text(n)) is not None}


def scopes_from_names(model: onnx.ModelProto) -> dict[str, str]:
    """Scopes of a TorchScript export, whose node names are module paths: ``/stages.0/stages.0.0/v/Conv``.

    A part that repeats its parent (``stages.0.0`` inside ``stages.0``) is a full path, any other is relative.
    """
    found = {}
    for node in model.graph.node:
        if not node.name.startswith("/"):
            continue
        *modules, leaf = node.name.strip("/").split("/")
        scopes, path = [""], ""
        for part in modules:
            parent = path.rsplit(".", 1)[-1] if path else ""
            if parent and part.startswith(f"{parent}."):
                path = f"{path}{part[len(parent) :]}"
            else:
                path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
            scopes.append(path)
        found[node.name] = str([*scopes, leaf])
    return found
