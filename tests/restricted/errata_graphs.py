"""Smallest graphs on both sides of the pattern of each erratum, in ONNX's text form."""

from __future__ import annotations

import onnx
import onnx.parser


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model of one graph, such as ``(float[1,3] x) => (float[1,3] y) { y = Relu(x) }``; nodes get names."""
    parsed = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g {text}')
    for place, node in enumerate(parsed.graph.node):
        node.name = f"{node.op_type}_{place}"
    return parsed


def _list(count: int) -> str:
    return ", ".join(["0.5"] * count)


def segformer(batch: int | str = 2, stride: int = 2) -> onnx.ModelProto:
    """Efficient self-attention of SegFormer: 64 tokens of 8 channels in 2 heads, keys and values of an 8 x 8 map."""
    kept = (8 // stride) ** 2
    reduce = (
        f"Conv <kernel_shape = [{stride}, {stride}], strides = [{stride}, {stride}]> (image, wr)"
        if stride > 1
        else "Identity(image)"
    )
    return model(f"""(float[{batch}, 64, 8] x) => (float[{batch}, 2, 64, 4] y)
        <float[8] ln = {{{_list(8)}}}, float[8, 8] w = {{{_list(64)}}}, float two = {{2}},
         float[8, 8, {stride}, {stride}] wr = {{{_list(64 * stride * stride)}}}, int64[4] heads = {{0, 64, 2, 4}},
         int64[4] fewer_heads = {{0, {kept}, 2, 4}}, int64[4] to_image = {{0, 8, 8, 8}},
         int64[3] flat = {{0, 8, {kept}}}>
        {{
            tokens = LayerNormalization <axis = -1> (x, ln)
            q3 = MatMul(tokens, w)
            q4 = Reshape(q3, heads)
            q = Transpose <perm = [0, 2, 1, 3]> (q4)
            image_t = Transpose <perm = [0, 2, 1]> (tokens)
            image = Reshape(image_t, to_image)
            smaller = {reduce}
            fewer_t = Reshape(smaller, flat)
            fewer = Transpose <perm = [0, 2, 1]> (fewer_t)
            normal = LayerNormalization <axis = -1> (fewer, ln)
            k3 = MatMul(normal, w)
            k4 = Reshape(k3, fewer_heads)
            k = Transpose <perm = [0, 2, 3, 1]> (k4)
            v3 = MatMul(normal, w)
            v4 = Reshape(v3, fewer_heads)
            v = Transpose <perm = [0, 2, 1, 3]> (v4)
            scores = MatMul(q, k)
            scaled = Div(scores, two)
            weights = Softmax <axis = -1> (scaled)
            y = MatMul(weights, v)
        }}""")


def attention(
    batch: int | str = 1, before: str = "", normal: bool = False, weights: str = "weights", value: str = "x"
) -> onnx.ModelProto:
    """Attention of 4 tokens of 8 channels over itself; ``before`` are nodes that make its ``weights`` or ``value``."""
    return model(f"""(float[{batch}, 4, 8] x) => (float[{batch}, 4, 8] y) <float[8] ln = {{{_list(8)}}}, {_SCALES}> {{
            k = Transpose <perm = [0, 2, 1]> (x)
            q = {"LayerNormalization <axis = -1> (x, ln)" if normal else "Identity(x)"}
            scores = MatMul(q, k)
            weights = Softmax <axis = -1> (scores)
            {before}
            y = MatMul({weights}, {value})
        }}""")


def split_scale(both: bool = True) -> onnx.ModelProto:
    """Attention whose query, and key where asked for, is scaled before the product."""
    return model(f"""(float[1, 4, 8] x) => (float[1, 4, 8] y) <float root = {{0.5}}> {{
            q = Mul(x, root)
            kt = Transpose <perm = [0, 2, 1]> (x)
            k = {"Mul(kt, root)" if both else "Identity(kt)"}
            scores = MatMul(q, k)
            weights = Softmax <axis = -1> (scores)
            y = MatMul(weights, x)
        }}""")


def deformable(weighted: bool = True) -> onnx.ModelProto:
    """Deformable attention: samples of a map, weighed by a softmax and summed up; or summed up alone."""
    return model(
        f"""(float[2, 4, 8, 8] v, float[2, 5, 3, 2] grid, float[2, 1, 5, 3] logits) => (float[2, 4, 5] y)
        <int64[1] axis = {{3}}> {{
            taken = GridSample(v, grid)
            weights = Softmax <axis = -1> (logits)
            {"weighed = Mul(taken, weights)" if weighted else "weighed = Abs(taken)"}
            y = ReduceSum <keepdims = 0> (weighed, axis)
        }}"""
    )


_SCALES = "float s = {0.1}, int8 z = {0}"
_QDQ = "{0}q = QuantizeLinear({0}, s, z) {0}d = DequantizeLinear({0}q, s, z)"


def quantized(layer: str, inputs: str, outputs: str, weights: str, after: str = "", axis: str = "") -> onnx.ModelProto:
    """A layer ``y = ... (xd, wd)`` whose data and weights are dequantized; ``after`` are nodes behind it."""
    scale, place = (f"float[{axis}] sw = {{{_list(int(axis))}}}", "<axis = 1>") if axis else ("float sw = {0.1}", "")
    zero = f"int8[{axis}] zw = {{{', '.join(['0'] * int(axis))}}}" if axis else "int8 zw = {0}"
    return model(f"""({inputs}) => ({outputs}) <{weights}, {scale}, {zero}, {_SCALES}> {{
            {_QDQ.format("x")}
            wd = DequantizeLinear {place} (w, sw, zw)
            {layer}
            {after}
        }}""")


def int8_weights(*shape: int) -> str:
    """Declaration of weights of a shape."""
    count = 1
    for extent in shape:
        count *= extent
    return f"int8[{', '.join(map(str, shape))}] w = {{{', '.join(['1'] * count)}}}"


def conv(out: int, each: int, group: int = 1, after: str = "", output: str = "y") -> onnx.ModelProto:
    """A quantized 3 x 3 convolution of ``group * each`` channels into ``out``."""
    kernel = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
    return quantized(
        f"y = Conv <{kernel}, group = {group}> (xd, wd)",
        f"float[1, {group * each}, 8, 8] x",
        f"float[1, {out}, 8, 8] {output}",
        int8_weights(out, each, 3, 3),
        after,
    )


def product(terms: int, columns: int, rows: int = 4) -> onnx.ModelProto:
    """A quantized product of a matrix of ``rows`` with weights."""
    return quantized(
        "y = MatMul(xd, wd)",
        f"float[{rows}, {terms}] x",
        f"float[{rows}, {columns}] y",
        int8_weights(terms, columns),
    )


def decomposed_norm(centred: bool = True, root: bool = True) -> onnx.ModelProto:
    """LayerNormalization, or without ``centred`` RMS normalization, as exporters below opset 17 write it."""
    return model(f"""(float[2, 8] x) => (float[2, 8] y) <float two = {{2}}, float eps = {{1e-5}}> {{
            mean = ReduceMean <axes = [-1]> (x)
            d = {"Sub(x, mean)" if centred else "Abs(x)"}
            square = Pow(d, two)
            variance = ReduceMean <axes = [-1]> (square)
            safe = Add(variance, eps)
            deviation = {"Sqrt" if root else "Exp"}(safe)
            y = Div(d, deviation)
        }}""")


def group_norm(groups: int, opset: int) -> onnx.ModelProto:
    """GroupNormalization of 4 channels, with a scale per group below opset 21 and per channel from there on."""
    count = 4 if opset >= 21 else groups
    return model(
        f"""(float[1, 4, 2, 2] x) => (float[1, 4, 2, 2] y) <float[{count}] s = {{{_list(count)}}}> {{
            y = GroupNormalization <num_groups = {groups}> (x, s, s)
        }}""",
        opset,
    )


def grid_sample(mode: str, opset: int, rank: int = 4) -> onnx.ModelProto:
    """One GridSample."""
    x, grid, y = (
        ("[1, 2, 4, 4]", "[1, 3, 3, 2]", "[1, 2, 3, 3]")
        if rank == 4
        else ("[1, 2, 4, 4, 4]", "[1, 3, 3, 3, 3]", "[1, 2, 3, 3, 3]")
    )
    text = f'(float{x} x, float{grid} g) => (float{y} y) {{ y = GridSample <mode = "{mode}"> (x, g) }}'
    return model(text, opset)


def if_transpose_resize(height: int | str, mode: str = "cubic", turned: bool = True) -> onnx.ModelProto:
    """A choice of two maps, turned and resized."""
    return model(f"""(bool c, float[1, 1, {height}, 8] x) => (float[1, 1, h, w] y)
        <float one = {{1}}, float[4] scales = {{1, 1, 2, 2}}> {{
            chosen = If (c) <
                then_branch = t () => (float[1, 1, {height}, 8] a) {{ a = Add(x, one) }},
                else_branch = e () => (float[1, 1, {height}, 8] b) {{ b = Sub(x, one) }}
            >
            turned = {"Transpose <perm = [0, 1, 3, 2]>" if turned else "Identity"} (chosen)
            y = Resize <mode = "{mode}"> (turned, , scales)
        }}""")


def resize(antialias: int) -> onnx.ModelProto:
    """A linear Resize to half."""
    return model(
        f"""(float[1, 1, 8, 8] x) => (float[1, 1, 4, 4] y) <float[4] scales = {{1, 1, 0.5, 0.5}}> {{
            y = Resize <mode = "linear", antialias = {antialias}> (x, , scales)
        }}""",
        18,
    )


def conv_transpose(attributes: str, size: int = 8) -> onnx.ModelProto:
    """A transposed convolution of one channel and a 3 x 3 kernel."""
    return model(f"""(float[1, 1, 4, 4] x) => (float[1, 1, {size}, {size}] y) <float[1, 1, 3, 3] w = {{{_list(9)}}}> {{
            y = ConvTranspose <strides = [2, 2], {attributes}> (x, w)
        }}""")


def conv_at_run_time(attributes: str = "") -> onnx.ModelProto:
    """A convolution whose kernel is an input."""
    return model(
        f"(float[1, 1, 8, 8] x, float[1, 1, 3, 3] w) => (float[1, 1, 6, 6] y) {{ y = Conv {attributes} (x, w) }}"
    )


def cumsum(first: str, second: str, constants: str = "int64 rows = {0}, int64 columns = {1}") -> onnx.ModelProto:
    """Two sums along an axis."""
    return model(f"""(float[3, 4] x) => (float[3, 4] a, float[3, 4] b) <{constants}> {{
            a = CumSum {first}
            b = CumSum {second}
        }}""")


def simple(node: str, inputs: str, outputs: str, constants: str = "", opset: int = 17) -> onnx.ModelProto:
    """One node, or a few."""
    return model(f"({inputs}) => ({outputs}) {f'<{constants}>' if constants else ''} {{ {node} }}", opset)


def quantized_attention() -> onnx.ModelProto:
    """Attention whose second product is quantized on both sides."""
    before = (
        "wq = QuantizeLinear(weights, s, z) wd = DequantizeLinear(wq, s, z) "
        "vq = QuantizeLinear(x, s, z) vd = DequantizeLinear(vq, s, z)"
    )
    return attention(before=before, weights="wd", value="vd")


def quantized_transpose(axis: str) -> onnx.ModelProto:
    """A quantized transposed convolution, whose weights have a scale per output channel or one."""
    return quantized(
        "y = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (xd, wd)",
        "float[1, 3, 4, 4] x",
        "float[1, 2, 8, 8] y",
        int8_weights(3, 2, 2, 2),
        axis=axis,
    )


def two_convolutions(closed: bool) -> onnx.ModelProto:
    """A quantized convolution before another one, with its output quantized or not."""
    between = "rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)" if closed else "rd = LeakyRelu(r)"
    after = f"r = Relu(y) {between} out = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (rd, wd)"
    return conv(16, 16, 1, after, "out")
