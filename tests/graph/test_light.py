"""A graph apart from its large weights."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from csa_deploy.graph.light import large_weights, without


def test_a_graph_whose_weights_are_given_beside_it_computes_the_same_and_the_original_stays(build):
    draw = np.random.default_rng(0)
    large, small = draw.standard_normal((64, 32)).astype("f4"), draw.standard_normal(64).astype("f4")
    model = build(
        "(float[2,32] x) => (float[2,64] y)", "t = Gemm <transB = 1> (x, l, s) y = Relu (t)", l=large, s=small
    )
    model.metadata_props.add(key="kept", value="1")
    before = model.SerializeToString(deterministic=True)
    weights = large_weights(model)
    light = without(model, {tensor.name for tensor in weights})
    assert [tensor.name for tensor in weights] == ["l"]
    assert model.SerializeToString(deterministic=True) == before
    assert len(light.SerializeToString()) < len(before) - large.nbytes + 200

    options = ort.SessionOptions()
    values = [ort.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor)) for tensor in weights]
    options.add_external_initializers(["l"], values)
    x = draw.standard_normal((2, 32)).astype("f4")
    answers = [
        ort.InferenceSession(given.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for given, options in ((light, options), (model, ort.SessionOptions()))
    ]
    assert np.array_equal(answers[0][0], answers[1][0])

    light.graph.initializer[[t.name for t in light.graph.initializer].index("l")].CopyFrom(weights[0])
    assert light.SerializeToString(deterministic=True) == before


def test_weights_of_other_types_and_few_values_stay_in_the_graph():
    graph = onnx.GraphProto(name="g")
    for name, array in {"half": np.ones(2048, "f2"), "few": np.ones(1023, "f4"), "many": np.ones(1024, "f4")}.items():
        graph.initializer.append(numpy_helper.from_array(array, name))
    assert [tensor.name for tensor in large_weights(onnx.ModelProto(graph=graph))] == ["many"]
