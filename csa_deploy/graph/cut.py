"""The part of a graph that ONNX Runtime can run: what is left when custom operators become inputs and outputs.

Rewrites never touch a custom operator, so a graph is unchanged if, for any values that come out of these operators,
the same values go into them and into the network's outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import numpy_helper

from csa_deploy.graph.shapes import inferred

_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True)
class Runnable:
    """A graph without custom operators.

    Attributes:
        model: the graph; the original itself where it has no custom operators.
        inputs: input names by a key that survives rewriting.
        outputs: output names by such a key.
    """

    model: onnx.ModelProto
    inputs: dict[str, str]
    outputs: dict[str, str]


def runnable_part(model: onnx.ModelProto) -> Runnable:
    """Cut a model at its custom operators.

    Raises:
        ValueError: the type or shape of a value at the cut is not known.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.name for value in model.graph.input if value.name not in weights}
    outputs = {value.name: value.name for value in model.graph.output}
    foreign = list(_foreign(model))
    if not foreign:
        return Runnable(model, inputs, outputs)
    made = {name for node in foreign for name in node.output}
    outputs = {key: name for key, name in outputs.items() if name not in made}
    for number, node in enumerate(foreign):
        key = f"{node.op_type} {number}"
        inputs.update({f"{key} output {i}": name for i, name in enumerate(node.output) if name})
        read = {f"{key} input {i}": name for i, name in enumerate(node.input) if name and name not in weights}
        outputs.update({k: name for k, name in read.items() if name not in inputs.values() and name not in made})
    return Runnable(_cut(model, foreign, set(inputs.values()), set(outputs.values())), inputs, outputs)


def _foreign(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    own = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in own:
            yield node


@dataclass(frozen=True)
class CustomOperator:
    """A node that cannot run.

    Attributes:
        name: domain and operator.
        attributes: serialized, in the order of their names.
        inputs: of each where it comes from: a weight by its content, an input of the network by its name, a custom
            operator by its place and output; empty for what is computed, which is compared in numbers.
        outputs: names of the network's outputs that it makes; empty for others.
    """

    name: str
    attributes: tuple[bytes, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def unlike_customs(a: onnx.ModelProto, b: onnx.ModelProto) -> str:
    """Why the custom operators of two graphs are not the same; empty where they are, so that cutting both is fair."""
    first, second = customs(a), customs(b)
    names = [[node.name for node in side] for side in (first, second)]
    if names[0] != names[1]:
        listed = [", ".join(dict.fromkeys(side)) or "none" for side in names]
        return f"custom operators, which cannot run here, are not the same in both: {listed[0]}, and {listed[1]}"
    for one, other in zip(first, second, strict=True):
        for what in ("attributes", "inputs", "outputs"):
            if getattr(one, what) != getattr(other, what):
                return f"the custom operator {one.name}, which cannot run here, has other {what}"
    return ""


def customs(model: onnx.ModelProto) -> list[CustomOperator]:
    """The custom operators of the main graph, in its order."""
    foreign = list(_foreign(model))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: f"{number}.{i}" for number, node in enumerate(foreign) for i, name in enumerate(node.output) if name}
    made |= {value.name: f"input {value.name}" for value in model.graph.input}
    shown = {value.name for value in model.graph.output}

    def source(name: str) -> str:
        return _content(weights[name]) if name in weights else made.get(name, "" if name else "left out")

    return [
        CustomOperator(
            f"{node.domain}::{node.op_type}",
            tuple(item.SerializeToString(deterministic=True) for item in sorted(node.attribute, key=lambda a: a.name)),
            tuple(map(source, node.input)),
            tuple(name if name in shown else "" for name in node.output),
        )
        for node in foreign
    ]


def _content(tensor: onnx.TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _cut(model: onnx.ModelProto, foreign: list[onnx.NodeProto], ins: set[str], outs: set[str]) -> onnx.ModelProto:
    """``model`` without the ``foreign`` nodes and with these inputs and outputs."""
    cut = ir.to_proto(inferred(model))
    values = (*cut.graph.value_info, *model.graph.input, *model.graph.output)
    known = {value.name: value for value in values if value.type.tensor_type.HasField("shape")}
    for node in foreign:
        cut.graph.node.remove(node)
    for field, names in ((cut.graph.input, ins), (cut.graph.output, outs)):
        present = {value.name for value in field}
        for name in sorted(names - present):
            if name not in known:
                raise ValueError(f"the shape of '{name}' beside a custom operator is not known")
            field.add().CopyFrom(known[name])
    for value in [value for value in cut.graph.output if value.name not in outs]:
        cut.graph.output.remove(value)
    return cut
