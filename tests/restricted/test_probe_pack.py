"""What the static check says under drive-os-7, without the validator: cases that probes and corpora brought up."""

from __future__ import annotations

import onnx
import pytest

from csa_deploy.restricted.check import check
from csa_deploy.restricted.loading import load_graph
from tools.probe.plan_onnx import build


def text(inputs: str, nodes: str, outputs: str = "float y", opset: int = 18) -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}]> net ({inputs}) => ({outputs}) {{ {nodes} }}'


def verdict(inputs: str, nodes: str) -> str:
    model = onnx.load_model_from_string(build(text(inputs, nodes)))
    return check(model, ["drive-os-7"]).scopes[0].verdict


CASES = {
    "a convolution": ("float[1,4,8,8] x, float[4,4,3,3] w", "y = Conv (x, w)", "allowed"),
    "a kernel of 19": ("float[1,2,32,32] x, float[2,2,19,19] w", "y = Conv (x, w)", "denied"),
    "a pointwise convolution with padding": (
        "float[1,4,8,8] x, float[4,4,1,1] w",
        "y = Conv <pads = [1, 1, 1, 1]> (x, w)",
        "denied",
    ),
    "a dilated kernel larger than the input": (
        "float[1,4,8,8] x, float[4,4,3,3] w",
        'y = Conv <auto_pad = "SAME_LOWER", dilations = [5, 5]> (x, w)',
        "denied",
    ),
    "chosen padding beyond the limit on written padding": (
        "float[1,2,32,32] x, float[2,2,16,16] w",
        'y = Conv <auto_pad = "SAME_UPPER", dilations = [2, 2]> (x, w)',
        "allowed",
    ),
    "an operator on constants": (
        "float[1,4,8,8] x",
        "s = Constant <value = int64[4] {1, 4, 8, 8}> () c = ConstantOfShape (s) l = LRN <size = 3> (c) y = Add (x, l)",
        "denied",
    ),
    "weights that are stored in bfloat16": (
        "float[2] x",
        "c = Constant <value = bfloat16[2] {1, 2}> () f = Cast <to = 1> (c) y = Add (x, f)",
        "denied",
    ),
    "the shape of an int8 tensor": ("int8[2,3] x", "s = Shape (x) y = Cast <to = 1> (s)", "denied"),
    "the shape of a float16 tensor": ("float16[2,3] x", "s = Shape (x) y = Cast <to = 1> (s)", "allowed"),
    "an image in uint8 to float32": ("uint8[1,3,8,8] x", "y = Cast <to = 1> (x)", "denied"),
    "an image in uint8 to float16": ("uint8[1,3,8,8] x", "y = Cast <to = 10> (x)", "allowed"),
    "a float64 input, which the parser makes float32": ("double[2,3] x", "y = Relu (x)", "allowed"),
    "unsigned quantization around zero": (
        "float[1,4] x",
        "s = Constant <value = float {0.1}> () z = Constant <value = uint8 {0}> () "
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
        "allowed",
    ),
    "unsigned quantization around 128": (
        "float[1,4] x",
        "s = Constant <value = float {0.1}> () z = Constant <value = uint8 {128}> () "
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
        "denied",
    ),
    "a cubic Resize": (
        "float[1,4,8,8] x",
        's = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () y = Resize <mode = "cubic"> (x, , s)',
        "denied",
    ),
    "a Resize of channels": (
        "float[1,4,8,8] x",
        's = Constant <value = float[4] {1.0, 2.0, 1.0, 1.0}> () y = Resize <mode = "nearest"> (x, , s)',
        "denied",
    ),
    "values that decide about a shape": ("float[8] x", "y = NonZero (x)", "unknown"),
    "a refused operator inside a branch": (
        "bool c, float[1,4,8,8] x",
        "y = If (c) <then_branch = t () => (float[1,4,8,8] a) { a = LRN <size = 3> (x) }, "
        "else_branch = e () => (float[1,4,8,8] b) { b = Abs (x) }>",
        "denied",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name):
    inputs, nodes, expected = CASES[name]
    assert verdict(inputs, nodes) == expected


SHAPES = {
    "If with a constant condition": (
        "float[2,3] x",
        "c = Constant <value = bool {1}> () y = If (c) <then_branch = t () => (float[] a) { a = Abs (x) }, "
        "else_branch = e () => (float[] b) { b = Flatten <axis = 0> (x) }>",
        [(2, 3)],
    ),
    "Loop with a constant trip count": (
        "float[2,3] x",
        "n = Constant <value = int64 {5}> () g = Constant <value = bool {1}> () y, z = Loop (n, g, x) "
        "<body = b (int64 i, bool c, float[] s) => (bool d, float[] t, float[] u) "
        "{ d = Identity (c) t = Neg (s) u = Abs (s) }>",
        [(2, 3), (5, 2, 3)],
    ),
    "Scan": (
        "float[2,3] x, float[4,2,3] w",
        "y, z = Scan (x, w) <num_scan_inputs = 1, body = b (float[] s, float[] e) => (float[] t, float[] u) "
        "{ t = Add (s, e) u = Neg (e) }>",
        [(2, 3), (4, 2, 3)],
    ),
    "a shape that takes several rounds of folding": (
        "float[2,3] x",
        "s = Shape (x) n = ReduceProd <keepdims = 1> (s) o = ConstantOfShape (n) "
        "m = Shape (o) f = Cast <to = 1> (m) h = Sqrt (f) k = Floor (h) i = Cast <to = 7> (k) "
        "a = Constant <value = int64[1] {-1}> () r = Concat <axis = 0> (i, a) y = Reshape (x, r)",
        [(2, 3)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_inferred_shape(name):
    inputs, nodes, expected = SHAPES[name]
    outputs = ", ".join(f"float[] {letter}" for letter in "yz"[: len(expected)])
    model = onnx.parser.parse_model(text(inputs, nodes, outputs))
    for output in model.graph.output:
        output.ClearField("type")
    last = list(load_graph(model).walk())
    named = {value.name: value.shape for node in last for value in node.outputs}
    assert [named[letter] for letter in "yz"[: len(expected)]] == expected
