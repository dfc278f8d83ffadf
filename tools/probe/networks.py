"""Build the small network that a probe describes, through TensorRT's API.

A probe is a list of statements, each a table with ``op``, the operands ``in`` (numbers of earlier tensors, in the
order in which statements create them) and the attributes of that layer. Every tensor that no layer reads becomes
a network output. Runs in the validator's process: standard library and TensorRT only.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tools.probe.layers import LAYERS

Statement = dict[str, Any]

DTYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "float8": "FP8",
    "float4": "FP4",
    "int4": "INT4",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "float4": 4, "int4": 4, "int32": 32, "int64": 64}
_ONE = {"float32": b"\0\0\x80?", "float16": b"\0<", "bfloat16": b"\x80?", "float8": b"8", "float4": b"\x22"}


class NetworkFromProbe:
    """Adds statements to a network; keeps the constants alive until the network is built."""

    def __init__(self, trt: Any, network: Any) -> None:
        self.trt = trt
        self.network = network
        self.tensors: list[Any] = []
        self._used: set[int] = set()
        self._inputs: set[int] = set()
        self._buffers: list[Any] = []

    def add(self, statements: list[Statement]) -> None:
        """Add every statement and mark the outputs.

        Raises:
            ValueError: TensorRT refuses to create a layer.
        """
        for statement in statements:
            arguments = dict(statement)
            op = arguments.pop("op")
            numbers = arguments.pop("in", [])
            self._used.update(numbers)
            operands = [self.tensors[number] for number in numbers]
            made = LAYERS[op](self, operands, **arguments)
            if made is None:
                raise ValueError(f"TensorRT does not create this {op} layer")
            self._collect(op, made)
        for number, tensor in enumerate(self.tensors):
            if number not in self._used and number not in self._inputs:
                self.network.mark_output(tensor)

    def _collect(self, op: str, made: Any) -> None:
        if op == "input":
            self._inputs.add(len(self.tensors))
            self.tensors.append(made)
            return
        for layer in made if isinstance(made, list) else [made]:
            outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
            self.tensors += [tensor for tensor in outputs if tensor is not None]

    def dtype(self, name: str) -> Any:
        """TensorRT's DataType of a dtype name."""
        return getattr(self.trt.DataType, DTYPES[name])

    def weights(self, dtype: str, count: int, value: int = 1) -> Any:
        """Weights that are all ``value`` (ones for floating-point types unless it is 0)."""
        if count == 0:
            return self.trt.Weights(self.dtype(dtype))
        size = (count * _BITS.get(dtype, 8) + 7) // 8
        one = _ONE.get(dtype) or int(value).to_bytes(_BITS.get(dtype, 8) // 8 or 1, "little", signed=True)
        data = bytes(size) if value == 0 else (one * (size // len(one) + 1))[:size]
        buffer = ctypes.create_string_buffer(data, size)
        self._buffers.append(buffer)
        return self.trt.Weights(self.dtype(dtype), ctypes.addressof(buffer), count)

    def integers(self, values: list[int], *, scalar: bool = False, dtype: str = "int64") -> Any:
        """A constant tensor of whole numbers."""
        kind = ctypes.c_int64 if dtype == "int64" else ctypes.c_int32
        buffer = (kind * len(values))(*values)
        self._buffers.append(buffer)
        weights = self.trt.Weights(self.dtype(dtype), ctypes.addressof(buffer), len(values))
        return self.network.add_constant(() if scalar else (len(values),), weights).get_output(0)
