"""What is to be trained, from what the user typed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
    if network.preprocessing.layout != "NCHW":
        raise UsageError(f"{spec}: its layout is NHWC", fix="train networks that take (batch, channels, height, width)")
    return NetworkEntry(
        name=source.name,
        summary=spec,
        factory=_factory(source),
        preprocessing=network.preprocessing,
        weights=network.weights,
    )


def _factory(source: Source) -> Callable[..., nn.Module]:
    """The user's factory with its own parameters, callable again and again."""

    def make(**options: Any) -> nn.Module:
        with source.opened() as (factory, _):
            try:
                return factory if isinstance(factory, nn.Module) else factory(**options)
            except Exception as error:  # other people's code
                raise UsageError(f"{source.spec} fails with {options}: {type(error).__name__}: {error}") from error

    with source.opened() as (factory, _):
        known = inspect.Signature() if isinstance(factory, nn.Module) else inspect.signature(factory)
    make.__signature__ = known  # type: ignore[attr-defined]
    return make
