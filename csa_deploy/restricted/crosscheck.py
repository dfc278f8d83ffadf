"""Compares the mapping with the network that NVIDIA's ONNX parser really builds (TensorRT-RTX)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from csa_deploy.installing import install_command
from csa_deploy.restricted import crosscheck_child
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.mapping.network import map_graph
from csa_deploy.restricted.mapping.recorder import Layer
from csa_deploy.restricted.vocabulary import UNMAPPED

BUILDER_FAMILY = (11,)
"""Family of the mapping that TensorRT-RTX's parser is held against: the newest."""

Answer = Literal["agrees", "differs", "not-parsed", "crashed", "timed-out", "not-available"]


@dataclass(frozen=True)
class Difference:
    """Where the mapping and the parser disagree.

    Attributes:
        where: the ONNX node, or 'the network' for counts over all of it.
        layer: TensorRT layer type.
        mapped: layers of this type by the mapping.
        built: layers of this type that the parser built.
    """

    where: str
    layer: str
    mapped: int
    built: int


@dataclass(frozen=True)
class CrossCheck:
    """Result of the comparison.

    Attributes:
        version: version of TensorRT-RTX ('' when it is not there).
        layers: layers that the parser built, those that only compute constants left out.
        differences: disagreements, by node first.
        reason: why there is no comparison ('' when there is).
        answer: the outcome in one word.
    """

    answer: Answer
    version: str = ""
    layers: int = 0
    differences: tuple[Difference, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def crosscheck(model: Path, *, timeout: float = 300.0) -> CrossCheck:
    """Parse ``model`` with TensorRT-RTX in a child process and compare its layers with the mapping.

    Args:
        model: ONNX file.
        timeout: seconds that the parser may take.

    Raises:
        UsageError: the file is no readable ONNX model.
    """
    mapped = list(map_graph(load_graph(model), BUILDER_FAMILY))[:-1]
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
    answer: Answer = "differs" if differences else "agrees"
    return CrossCheck(answer, reply["version"], len(reply["layers"]), tuple(differences))


def compare(mapped: Sequence[Layer], built: Sequence[tuple[str, str]]) -> list[Difference]:
    """Differences between mapped layers and built ones (type and ONNX node, '' where the parser left it open).

    A node whose labelled layers are all mapped may have more, unlabelled ones; those are compared over the network.
    """
    ours = [layer for layer in mapped if not _computes_constant(layer)]
    by_node = Counter((layer.node.proto.name, layer.type) for layer in ours if layer.node is not None)
    labelled = Counter((node, kind) for kind, node in built if node)
    known = {node for node, _ in by_node}
    differences = [
        Difference(node, kind, by_node[node, kind], count)
        for (node, kind), count in labelled.items()
        if node in known and count > by_node[node, kind]
    ]
    totals, found = Counter(layer.type for layer in ours), Counter(kind for kind, _ in built)
    return differences + [
        Difference("the network", kind, totals[kind], found[kind])
        for kind in sorted(totals.keys() | found.keys())
        if totals[kind] != found[kind]
    ]


def _computes_constant(layer: Layer) -> bool:
    if layer.type in ("CONSTANT", UNMAPPED):
        return layer.type == "CONSTANT"
    if layer.type == "SHAPE":
        return not layer.facts["dynamic"]
    constant = layer.facts.get("in_const") or [False]
    return all(constant)
