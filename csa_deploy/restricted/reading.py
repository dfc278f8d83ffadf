"""Read an ONNX file without its weights.

A check needs the graph and the small constants (shapes, scales, bounds), never the weights. The file is mapped into
memory and its protobuf wire format is walked; the payload of every tensor above :data:`KEEP_BYTES` is skipped, so
neither time nor memory grows with the weights. Field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from math import prod
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from csa_deploy.errors import UsageError
from csa_deploy.graph.external import ExternalData, ExternalDataError, open_regular
from csa_deploy.graph.limits import require_bounded

KEEP_BYTES = 4096
"""Payload of a tensor up to which its values are kept."""

_MOST_DEPTH = 100
"""Messages within one another; protobuf reads no more."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_TENSOR_PAYLOAD = frozenset({4, 5, 6, 7, 9, 10, 11})  # float, int32, string, int64, raw, double, uint64 data
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}


def read_model(path: Path) -> ModelProto:
    """The model in ``path`` without the payload of its large tensors; external data is not read.

    Raises:
        UsageError: missing, unreadable, empty, truncated, or not ONNX.
    """
    try:
        with open_regular(path) as file:  # the map outlives the file and goes with its last view
            skimmed = bytes(_skim(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), "model"))
    except ValueError as error:  # an empty file cannot be mapped; a broken one does not parse
        raise _not_onnx(path, str(error)) from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}", fix="give the path of an ONNX file"
        ) from error
    model = ModelProto()
    try:
        model.ParseFromString(skimmed)
    except DecodeError as error:
        raise _not_onnx(path, "its protobuf content does not parse") from error
    require_model(model, str(path))
    return model


def strip_model(model: ModelProto) -> ModelProto:
    """A copy of ``model`` without the payload of its large tensors; the weights are never copied."""
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    _strip_graph(model.graph, copy.graph)
    require_model(copy, "the model")
    return copy


def require_model(model: ModelProto, name: str) -> None:
    """Refuse a message that parses but is no model: random bytes often are a valid empty protobuf.

    Raises:
        UsageError: no operator set, no graph, no output, broken names, or beyond :mod:`csa_deploy.graph.limits`.
    """
    if not model.opset_import:
        raise UsageError(f"{name} is not an ONNX model: it imports no operator set", fix="export the model again")
    if not model.graph.output:
        raise UsageError(f"{name} is not an ONNX network: its graph has no output", fix="export the model again")
    require_bounded(model, name)


def _not_onnx(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is not an ONNX file, or is truncated: {why}", fix="export or copy the file again")


def _skim(data: memoryview, kind: str, depth: int = 0) -> bytearray:
    if depth > _MOST_DEPTH:
        raise ValueError("its parts are nested too deep")
    kept = bytearray()
    children = _CHILDREN[kind]
    for number, wire, start, begin, end in _fields(data):
        if kind == "tensor" and number in _TENSOR_PAYLOAD and wire == _LENGTH and end - begin > KEEP_BYTES:
            continue
        if wire == _LENGTH and number in children and end - begin > KEEP_BYTES:
            inner = _skim(data[begin:end], children[number], depth + 1)
            kept += _varint_bytes(number << 3 | _LENGTH) + _varint_bytes(len(inner)) + inner
        else:
            kept += data[start:end]
    return kept


def _fields(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, start of the tag, start of the value, end of the value) of each field."""
    position, size = 0, len(data)
    while position < size:
        start = position
        tag, position = _varint(data, position)
        wire = tag & 7
        begin = position
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire == _LENGTH:
            length, begin = _varint(data, position)
            position = begin + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if position > size:
            raise ValueError(f"a field ends {position - size} bytes behind the end")
        yield tag >> 3, wire, start, begin, position


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _varint_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _strip_graph(source: GraphProto, target: GraphProto) -> None:
    target.name = source.name
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.value_info.extend(source.value_info)
    for tensor in source.initializer:
        _strip_tensor(tensor, target.initializer.add())
    for tensor in source.sparse_initializer:
        target.sparse_initializer.add().CopyFrom(tensor)
    for node in source.node:
        _strip_node(node, target.node.add())


def _strip_node(source: NodeProto, target: NodeProto) -> None:
    if not any(attribute.HasField("t") or attribute.HasField("g") for attribute in source.attribute):
        target.CopyFrom(source)
        return
    target.name, target.op_type, target.domain = source.name, source.op_type, source.domain
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.metadata_props.extend(source.metadata_props)
    for attribute in source.attribute:
        _strip_attribute(attribute, target.attribute.add())


def _strip_attribute(source: AttributeProto, target: AttributeProto) -> None:
    target.name, target.type = source.name, source.type
    if source.HasField("t"):
        _strip_tensor(source.t, target.t)
    elif source.HasField("g"):
        _strip_graph(source.g, target.g)
    else:
        target.CopyFrom(source)


def _strip_tensor(source: TensorProto, target: TensorProto) -> None:
    if prod(source.dims) * _item_bytes(source.data_type) <= KEEP_BYTES:  # asking for the payload would copy it
        target.CopyFrom(source)
        return
    target.name, target.data_type = source.name, source.data_type
    target.dims.extend(source.dims)


def _item_bytes(data_type: int) -> int:
    try:
        return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, TypeError, ValueError):  # text, or no type at all
        return 1


_PAYLOAD_NAMES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def has_payload(tensor: TensorProto) -> bool:
    """Whether the values of a tensor are here: neither stripped nor external."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    return 0 in tensor.dims or any(getattr(tensor, name) for name in _PAYLOAD_NAMES)


def small_external(tensor: TensorProto, data: ExternalData, file: Path) -> TensorProto | None:
    """The tensor with its external values read, when they are small; otherwise None."""
    if data.length is None or data.length > KEEP_BYTES:
        return None
    try:
        with open_regular(file) as stream:
            stream.seek(data.offset)
            raw = stream.read(data.length)
    except OSError as error:
        raise ExternalDataError(f"cannot be read: {error.strerror or error}") from None
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)
