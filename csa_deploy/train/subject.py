"""What is to be trained, from what the user typed."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from csa_deploy.errors import UsageError
from csa_deploy.network import NetworkEntry
from csa_deploy.source import Source, load_source


def entry_of(spec: str) -> NetworkEntry:
    """The registered network, or one made of a factory in a file or module.

    Raises:
        UsageError: not found, an ONNX file, or a network whose input is no image.
    """
    source = load_source(spec)
    if source.kind == "onnx":
        raise UsageError(f"{spec}: a graph cannot be trained", fix="name the PyTorch network it came from")
    if source.entry is not None:
        return source.entry
    network = source.make_network()
    if network.preprocessing is None:
        raise UsageError(f"{spec}: its input is no image", fix="train networks that declare their preprocessing")
    return NetworkEntry(
        name=source.name,
        summary=spec,
        factory=partial(_make, source),
        preprocessing=network.preprocessing,
        weights=network.weights,
    )


def _make(source: Source, input_size: tuple[int, int] | None = None) -> nn.Module:
    made: Any = source.make_network(input_size=input_size).module
    return made
