"""Probes through ONNX: what the validator sees of an operator depends on the layers that the parser makes of it.

The models are data (``onnx_models.toml``) in ONNX's textual form, so that each can be read and rebuilt.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tools.probe.probe import Probe

_MODELS = Path(__file__).with_name("onnx_models.toml")
_OPSET = 18
_EVERY = ("float", "float16", "bfloat16", "double", "int8", "uint8", "int16", "int32", "int64", "uint32", "bool")
_MAIN = ("float", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")
_ATTRIBUTES = {"BitShift": ' <direction = "LEFT">'}


def probes() -> Iterator[Probe]:
    """Yield the probes of this file."""
    table = tomllib.loads(_MODELS.read_text(encoding="utf-8"))
    for op, dtype in product(table["one_input"], _EVERY):
        yield _model(op.lower(), dtype, "{T}[1,4,8,8] x", f"y = {op} (x)", _OPSET)
    for op, dtype in product(table["two_inputs"], _EVERY):
        nodes = f"y = {op}{_ATTRIBUTES.get(op, '')} (x, z)"
        yield _model(op.lower(), dtype, "{T}[1,4,8,8] x, {T}[1,4,8,8] z", nodes, _OPSET)
    for opset in (18, 24):
        for (name, text), dtype in product(table[f"opset{opset}"].items(), _MAIN):
            inputs, nodes = text.split(" | ")
            yield _model(f"node.{name}", dtype, inputs, nodes, opset)


def _model(name: str, dtype: str, inputs: str, nodes: str, opset: int) -> Probe:
    # The dtype of the results is corrected by shape inference when the model is built.
    start = re.search(r"(?:^|[ )>])(y(?:, \w+)* )= ", nodes)
    assert start, nodes
    results = ", ".join(f"float {item.strip()}" for item in start[1].split(","))
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    text = f"{header} probe ({inputs}) => ({results}) {{ {nodes} }}".replace("{T}", dtype)
    return Probe(f"onnx.{name}.{dtype}", onnx=text)


def build(text: str) -> bytes:
    """Build the model that a probe's text describes.

    Returns:
        The serialized model; the types of its outputs are inferred, and left out where that is impossible.
    """
    import onnx

    model = onnx.parser.parse_model(text)
    for output in model.graph.output:
        output.ClearField("type")
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError:  # a dtype that the operator does not take: the probe asks what happens
        for output in model.graph.output:
            output.type.CopyFrom(model.graph.input[0].type)
    return model.SerializeToString()
