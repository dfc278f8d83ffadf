"""Both sides of every tensor that crosses a cut, as engines have them, held against each other.

DLA takes FP16 as ``chw16`` and INT8 as ``chw32`` (TensorRT's developer guide, I/O formats on DLA); a GPU gives both, so
that no reformatting stands between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import constant_tensor
from csa_deploy.graph.interface import interface_of
from csa_deploy.network_parts import PartSetting
from csa_deploy.records.split import BoundarySide, CutTensor, SplitFinding
from csa_deploy.spec import TensorSpec

_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_FLOAT_WORDS = tuple(_WORDS.values())
_FLOATS = (*_WORDS, "float64")
_NATIVE = {"fp16": "chw16", "int8": "chw32"}
LINEAR, DLA_LINEAR = "chw", "dla_linear"
_LEAST_AXES = 3  # of a format with channels


@dataclass(frozen=True)
class EnginePart:
    """A part as it is built.

    Attributes:
        floating: whether TensorRT makes the precision itself, of an FP32 graph.
        scales: of the calibration cache that it then takes, by tensor.
    """

    name: str
    setting: PartSetting
    graph: onnx.ModelProto
    floating: bool = False
    scales: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> dict[str, TensorSpec]:
        """By name."""
        return {spec.name: spec for spec in interface_of(self.graph)[0]}

    @cached_property
    def outputs(self) -> dict[str, TensorSpec]:
        """By name."""
        return {spec.name: spec for spec in interface_of(self.graph)[1]}

    @property
    def on_dla(self) -> bool:
        """Whether it is for a DLA."""
        return self.setting.dla_core is not None

    def kind(self, spec: TensorSpec) -> str:
        """The type that its engine has of a tensor that crosses the cut: the graph's, or what TensorRT makes of it."""
        number = spec.dtype in _FLOATS or spec.dtype == "int8"
        if self.floating and number and not (spec.dtype == "int8" and self.setting.precision == "int8"):
            return "fp16"
        return kind_of(spec)

    def side(self, spec: TensorSpec, layout: str) -> BoundarySide:
        """Its side of that."""
        kind = self.kind(spec)
        return BoundarySide(self.name, kind, layout, self._scale(spec.name) if kind == "int8" else None)

    def _scale(self, name: str) -> float | None:
        """The scale that its graph or calibration cache states; None where none or several do."""
        if self.floating:
            return self.scales.get(name)
        graph = ir.from_proto(self.graph).graph
        ends = (("QuantizeLinear", lambda node: node.outputs[0]), ("DequantizeLinear", lambda node: node.inputs[0]))
        nodes = [
            n for op, end in ends for n in graph if n.op_type == op and (v := end(n)) is not None and v.name == name
        ]
        tensors = [constant_tensor(node.inputs[1]) for node in nodes]
        found = {float(t.numpy().astype(np.float32).item()) for t in tensors if t is not None and t.size == 1}
        return found.pop() if len(found) == 1 and None not in tensors else None


def kind_of(spec: TensorSpec) -> str:
    """TensorRT's word for a type."""
    return _WORDS.get(spec.dtype, spec.dtype)


def crossings(parts: Sequence[EnginePart]) -> tuple[CutTensor, ...]:
    """Every tensor that crosses the cut, with its sides.

    Args:
        parts: the encoder first.
    """
    encoder, heads = parts[0], parts[1:]
    names = dict.fromkeys(name for head in heads for name in head.inputs)
    shared = [n for n in names if n in encoder.outputs or n in encoder.inputs]
    return tuple(_crossing(name, encoder, [head for head in heads if name in head.inputs]) for name in shared)


def _crossing(name: str, encoder: EnginePart, heads: list[EnginePart]) -> CutTensor:
    produced = encoder.outputs.get(name)
    ends = [(encoder, produced or encoder.inputs[name]), *((head, head.inputs[name]) for head in heads)]
    native = {_NATIVE.get(part.kind(spec), DLA_LINEAR) for part, spec in ends if part.on_dla}
    shape = heads[0].inputs[name].static_shape
    plain = len(shape) < _LEAST_AXES

    def layout(part: EnginePart, spec: TensorSpec) -> str:
        if part.on_dla:
            return DLA_LINEAR if plain else _NATIVE.get(part.kind(spec), DLA_LINEAR)
        return LINEAR if plain or len(native) != 1 or part.kind(spec) == "fp32" else next(iter(native))

    sides = [part.side(spec, layout(part, spec)) for part, spec in ends]
    producer = sides[0] if produced else None
    size = {"fp16": 2, "int8": 1}.get(sides[0].kind, np.dtype(ends[0][1].dtype).itemsize)
    return CutTensor(name, shape, prod(shape) * size, producer, tuple(sides[1:] if produced else sides))


def mismatches(tensors: Iterable[CutTensor]) -> Iterator[SplitFinding]:
    """What does not fit: other types, scales or layouts on the two sides."""
    for tensor in tensors:
        alike: dict[BoundarySide, list[str]] = {}
        for side in tensor.consumers:
            alike.setdefault(replace(side, part=""), []).append(side.part)
        for side, parts in alike.items():
            consumer = replace(side, part=" and ".join(parts))
            found = _compared(tensor.name, tensor.producer, consumer) if tensor.producer else None
            if found is not None:
                yield found


def wide(parts: Mapping[str, EnginePart], tensors: Iterable[CutTensor]) -> Iterator[SplitFinding]:
    """INT8 heads on a DLA that take a tensor in more bytes than they compute in."""
    for tensor in tensors:
        for side in tensor.consumers:
            part = parts[side.part]
            if part.on_dla and part.setting.precision == "int8" and side.kind in _FLOAT_WORDS:
                message = f"{side.part} is INT8 and takes '{tensor.name}' in {side.kind}: not all that reads it is INT8"
                yield SplitFinding("note", side.part, message, "make all heads that read it INT8, or leave it so")


def _compared(name: str, producer: BoundarySide, consumer: BoundarySide) -> SplitFinding | None:
    both = f"'{name}' leaves {producer} and enters {consumer}"
    if producer.kind != consumer.kind:
        return SplitFinding("converts", name, f"{both}: the application converts", _how_to_convert(producer, consumer))
    if producer.kind == "int8" and (producer.scale is None or producer.scale != consumer.scale):
        fix = "cut both parts of one quantized graph: INT8 means its number times the scale"
        return SplitFinding("mismatch", name, f"{both}: not one scale", fix)
    if producer.layout != consumer.layout:
        fix = "give all heads that read it the same precision and kind of target, or reformat it between them"
        return SplitFinding("mismatch", name, f"{both}: not one layout", fix)
    return None


def _how_to_convert(producer: BoundarySide, consumer: BoundarySide) -> str:
    if consumer.kind == "int8":
        scale = f"{consumer.scale:.9g}" if consumer.scale is not None else "the scale"
        return (
            f"quantize it element by element, clip(round(x / {scale}), -128, 127), as NVIDIA's multi-task example does "
            "in a kernel; or build for TensorRT 10 or later, whose typed encoder quantizes it itself"
        )
    if producer.kind == "int8":
        scale = f"{producer.scale:.9g}" if producer.scale is not None else "the scale"
        return f"multiply it by {scale}, or give {consumer.part} INT8"
    return f"give {producer.part} and {consumer.part} one precision with --part, or convert it between them"
