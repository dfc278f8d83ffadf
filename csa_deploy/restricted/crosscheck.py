"""Compares the mapping with the network that NVIDIA's ONNX parser really builds (TensorRT-RTX)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from csa_deploy.installing import install_command
from csa_deploy.records.check import CrossCheck, LayerDifference, MappingAnswer
from csa_deploy.restricted import crosscheck_child
from csa_deploy.restricted.graph import Graph
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.mapping.network import map_graph
from csa_deploy.restricted.mapping.recorder import TrtLayer
from csa_deploy.restricted.vocabulary import UNMAPPED

BUILDER_FAMILY = (11,)
"""Family of the mapping that TensorRT-RTX's parser is held against: the newest."""


def crosscheck(model: Path, *, graph: Graph | None = None, timeout: float = 60.0) -> CrossCheck:
    """Parse ``model`` with TensorRT-RTX in a child process and compare its layers with the mapping.

    Args:
        graph: that of the model, where it was read already.
        timeout: seconds that the parser may take.

    Raises:
        UsageError: the file is no readable ONNX model.
    """
    mapped = list(map_graph(graph or load_graph(model), BUILDER_FAMILY))[:-1]
    if find_spec("tensorrt_rtx") is None:
        return CrossCheck("not-available", reason=f"TensorRT-RTX is not installed ({install_command('rtx')})")
    command = [sys.executable, str(Path(crosscheck_child.__file__)), str(model)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return CrossCheck("timed-out", reason=f"the parser took more than {timeout:g} s")
    lines = child.stdout.splitlines()
    if not lines:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return CrossCheck("crashed", reason=reason)
    reply = json.loads(lines[-1])
    if "errors" in reply:
        return CrossCheck("not-parsed", reply["version"], reason="; ".join(reply["errors"]))
    differences = compare(mapped, reply["layers"])
    answer: MappingAnswer = "differs" if differences else "agrees"
    return CrossCheck(answer, reply["version"], len(reply["layers"]), tuple(differences))


def compare(mapped: Sequence[TrtLayer], built: Sequence[tuple[str, str]]) -> list[LayerDifference]:
    """Differences between mapped layers and built ones (type and ONNX node, '' where the parser left it open).

    A node whose labelled layers are all mapped may have more, unlabelled ones; those are compared over the network.
    """
    ours = [layer for layer in mapped if not _computes_constant(layer)]
    by_node = Counter((layer.node.proto.name, layer.type) for layer in ours if layer.node is not None)
    labelled = Counter((node, kind) for kind, node in built if node)
    known = {node for node, _ in by_node}
    differences = [
        LayerDifference(node, kind, by_node[node, kind], count)
        for (node, kind), count in labelled.items()
        if node in known and count > by_node[node, kind]
    ]
    totals, found = Counter(layer.type for layer in ours), Counter(kind for kind, _ in built)
    return differences + [
        LayerDifference("the network", kind, totals[kind], found[kind])
        for kind in sorted(totals.keys() | found.keys())
        if totals[kind] != found[kind]
    ]


def _computes_constant(layer: TrtLayer) -> bool:
    if layer.type in ("CONSTANT", UNMAPPED):
        return layer.type == "CONSTANT"
    if layer.type == "SHAPE":
        return not layer.facts["dynamic"]
    constant = layer.facts.get("in_const") or [False]
    return all(constant)
