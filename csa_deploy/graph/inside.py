"""Compares what two graphs compute inside: tensors of the same name, a bounded number at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from csa_deploy.graph.inputs import Arrays
from csa_deploy.graph.proof import Allowance
from csa_deploy.graph.sessions import CannotRunError, Runs, Session
from csa_deploy.graph.shapes import inferred, static_shape

_AT_ONCE = 32
_BYTES_AT_ONCE = 2**28


@dataclass(frozen=True)
class SharedTensors:
    """Some tensors that both graphs compute under the same name, in the order of the first.

    Attributes:
        wrong: those that differ beyond their bound.
        problem: why they could not be compared; empty where they were.
    """

    names: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    problem: str = ""


def inside(
    a: onnx.ModelProto, b: onnx.ModelProto, comparison: Allowance, on: str, arrays: Arrays
) -> Iterator[SharedTensors]:
    """Compare tensors inside, group by group.

    Args:
        a: the original.
        b: the other, of the same inputs.
        comparison: its bounds.
        on: name of the inputs.
        arrays: the inputs.
    """
    theirs = {name for node in b.graph.node for name in node.output}
    common = [name for node in a.graph.node for name in node.output if name and name in theirs]
    for names in _some_at_a_time(a, common):
        try:
            before, after = Runs(_exposing(a, names), keep=False), Session(_exposing(b, names))
            verdicts = comparison.run(before, after, [(on, arrays)])
        except (CannotRunError, ValueError) as error:
            said = f"{len(names)} tensors inside, the first is '{names[0]}', could not be compared: {error}"
            yield SharedTensors(tuple(names), problem=said)
            continue
        yield SharedTensors(tuple(names), tuple(name for name in names if name in verdicts and verdicts[name].wrong))


def _some_at_a_time(model: onnx.ModelProto, names: list[str]) -> Iterator[list[str]]:
    """Tensors in groups that memory holds."""
    view = inferred(model)
    sizes = {str(v.name): 4 * math.prod(static_shape(v) or (0,)) for node in view.graph for v in node.outputs}
    group, size = list[str](), 0
    for name in names:
        if group and (len(group) == _AT_ONCE or size + sizes.get(name, 0) > _BYTES_AT_ONCE):
            yield group
            group, size = [], 0
        group.append(name)
        size += sizes.get(name, 0)
    if group:
        yield group


def _exposing(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with tensors inside as outputs; the runtime finds their types."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return exposed
