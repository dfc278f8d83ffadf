"""Recurrent state: outputs of a network that feed inputs of it on the next frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.naming import unknown
from csa_deploy.spec import Arrays, TensorSpec

STATE_ENTRY = "csa_deploy.state"
"""Entry of an ONNX file's metadata that states the links."""


@dataclass(frozen=True)
class StateLink:
    """An output whose value an input gets on the next frame."""

    output: str
    input: str


def links_of(
    stated: Sequence[str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[StateLink, ...]:
    """What ``--state OUTPUT:INPUT`` says of a network.

    Raises:
        UsageError: no such output or input, they differ in shape or type, an input is named twice, or none is left for
            the data.
    """
    links = tuple(_link(text, [s.name for s in outputs], [s.name for s in inputs]) for text in stated)
    shapes = {spec.name: spec for spec in inputs}
    made = {spec.name: spec for spec in outputs}
    for link in links:
        first, second = made[link.output], shapes[link.input]
        if (first.shape, first.dtype) != (second.shape, second.dtype):
            raise UsageError(
                f"--state {link.output}:{link.input}: the output is {_said(first)}, the input {_said(second)}",
                fix="link an output with an input of the same shape and type",
            )
        if [other.input for other in links].count(link.input) > 1:
            raise UsageError(f"--state: input '{link.input}' is fed twice", fix="link it with one output")
    if links and len(links) == len(inputs):
        raise UsageError("--state: every input is a state, none is left for the data", fix="link fewer of them")
    return links


def _link(text: str, outputs: Sequence[str], inputs: Sequence[str]) -> StateLink:
    """The link that a text names; names may hold colons themselves."""
    parts = text.split(":")
    pairs = [(":".join(parts[:i]), ":".join(parts[i:])) for i in range(1, len(parts))]
    if not pairs:
        raise UsageError(f"--state {text}: no link", fix="write OUTPUT:INPUT, such as --state state_out:state_in")
    output, given = next(((o, i) for o, i in pairs if o in outputs and i in inputs), pairs[0])
    for what, name, known in (("output", output, outputs), ("input", given, inputs)):
        if name not in known:
            raise UsageError(f"--state {text}: {unknown(what, name, known)}", fix=f"{what}s: {', '.join(known)}")
    return StateLink(output, given)


def stated_links(metadata: Mapping[str, str]) -> tuple[StateLink, ...]:
    """The links that a graph's metadata state."""
    try:
        return tuple(StateLink(**link) for link in json.loads(metadata.get(STATE_ENTRY, "[]")))
    except (ValueError, TypeError):
        return ()


def initial_state(links: Sequence[StateLink], inputs: Sequence[TensorSpec], file: Path | None = None) -> Arrays:
    """The state at the start of a sequence, by input: zeros, or what an ``.npz`` holds under the inputs' names.

    Raises:
        UsageError: the file cannot be read, or holds another name or shape.
    """
    specs = {spec.name: spec for spec in inputs if spec.name in {link.input for link in links}}
    zeros = {name: np.zeros(spec.static_shape, spec.dtype) for name, spec in specs.items()}
    if file is None:
        return zeros
    try:
        with np.load(file, allow_pickle=False) as archive:
            given = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"--state-init {file}: not readable: {error}", fix="write it with numpy.savez") from None
    for name, array in given.items():
        if name not in specs:
            raise UsageError(f"--state-init {file}: {unknown('state', name, specs)}", fix=f"states: {', '.join(specs)}")
        if array.shape != zeros[name].shape:
            raise UsageError(
                f"--state-init {file}: '{name}' has the shape {list(array.shape)}, the input {_said(specs[name])}",
                fix="save it in the input's shape",
            )
    return {**zeros, **{name: array.astype(zeros[name].dtype) for name, array in given.items()}}


def _said(spec: TensorSpec) -> str:
    return f"{spec.dtype} {[extent or '?' for extent in spec.shape]}"
