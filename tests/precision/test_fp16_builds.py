"""The FP16 graph is one that TensorRT takes as a strongly typed network."""

import numpy as np
import pytest

from csa_deploy.precision.fp16 import to_fp16

trt = pytest.importorskip("tensorrt_rtx")


@pytest.mark.rtx
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
