"""The FP16 graph is one that TensorRT takes as a strongly typed network."""

import numpy as np
import onnx
import pytest

from csa_deploy.precision.fp16 import to_fp16

trt = pytest.importorskip("tensorrt_rtx")


@pytest.mark.rtx
def test_chains_that_stay_in_fp32_build_too(build):
    """TensorRT wants the data and the grid of GridSample in one type, and casts where a chain begins and ends."""
    model = build(
        "(float[1,8,16,16] x) => (float[1,8,16,16] y)",
        "f = Conv(x, w) t = Transpose<perm = [0, 2, 3, 1]>(f) h = Tanh(t) g = Add(base, h)"
        " s = GridSample<align_corners = 1>(x, g) q = Mul(s, s) m = ReduceMean<keepdims = 1>(q, axes)"
        " v = Add(m, epsilon) r = Sqrt(v) d = Div(s, r) y = Conv(d, u)",
        w=(2, 8, 1, 1),
        base=np.zeros((1, 16, 16, 2), "f4"),
        axes=np.array([1]),
        epsilon=np.float32(1e-8),
        u=(8, 8, 1, 1),
    )
    result = to_fp16(onnx.shape_inference.infer_shapes(model))
    kept = {node.op for node in result.kept}
    assert kept == {"Transpose", "Tanh", "Add", "GridSample", "Mul", "ReduceMean", "Sqrt", "Div"}
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(result.model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


@pytest.mark.rtx
@pytest.mark.shows("MEA-23", needs="TensorRT-RTX")
def test_strongly_typed_build_keeps_the_types_of_the_graph(build):
    model = build(
        "(float[1,4,8,8] x) => (float[1,10] y)",
        'a = Conv(x, w, b) s = Sigmoid(a) m = Mul(a, s) r = Resize<mode="linear">(m, , k) c = Add(r, big)'
        " p = AveragePool<kernel_shape=[16,16]>(c) h = Conv(p, v) y = Reshape(h, t)",
        w=(4, 4, 1, 1),
        b=(4,),
        k=np.array([1, 1, 2, 2], "f4"),
        big=np.full((1, 4, 1, 1), 1e6, "f4"),
        v=(10, 4, 1, 1),
        t=np.array([1, 10]),
    )
    result = to_fp16(model)
    assert [node.op for node in result.kept] == ["Add"]
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(result.model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = {layer.name: (layer.type, layer.get_output(0).dtype) for layer in layers}
    assert kinds["n0"] == (trt.LayerType.CONVOLUTION, trt.float16)
    assert kinds["n3"] == (trt.LayerType.RESIZE, trt.float16)
    assert kinds["n4"] == (trt.LayerType.ELEMENTWISE, trt.float32)
    assert network.get_input(0).dtype == network.get_output(0).dtype == trt.float32
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None
