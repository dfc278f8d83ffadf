"""TensorRT's calibration cache: its form, read back, and a scale for every tensor."""

import numpy as np
import onnx
import onnxruntime
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.precision.bounds import complete
from csa_deploy.precision.calibration import calibrate
from csa_deploy.precision.calibration_data import RANDOM, open_calibration
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.trt_cache import cache_text, read_cache

GATED = """
    c = Conv<pads=[1,1,1,1]>(x, w) g = Sigmoid (c) s = Mul (c, g)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)
    d = Conv(p, v) r = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(d, , scales)
    h = Sigmoid (r) m = Mul (h, s) a = Add (m, s) j = Concat<axis=1>(a, m)
    e = Relu (j) f = GlobalAveragePool (e) y = Flatten (f)
"""
SCALES = np.asarray([1, 1, 2, 2], "f4")


def test_trt_cache_has_nvidia_s_form_and_reads_back(tmp_path):
    text = cache_text({"input": 2.5 / 127, "conv: 1": 1.0}, version="8611")
    assert text.splitlines() == ["TRT-8611-EntropyCalibration2", "input: 3ca14285", "conv: 1: 3f800000"]
    path = tmp_path / "c.cache"
    path.write_text(text)
    version, scales = read_cache(path)
    assert version == "8611"
    assert scales == {"input": float(np.float32(2.5 / 127)), "conv: 1": 1.0}


@pytest.mark.parametrize("text", ["", "hello", "TRT-8611-EntropyCalibration2\ninput 3c", "TRT-8611-X\ninput: zz"])
@pytest.mark.shows("MEA-22", "ERR-18")
def test_a_damaged_trt_cache_is_refused(text, tmp_path):
    path = tmp_path / "c.cache"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"cache|line 2"):
        read_cache(path)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_no_scale_without_meaning_is_written(scale):
    with pytest.raises(UsageError, match="no finite number above zero"):
        cache_text({"x": scale})


@pytest.fixture(scope="module")
def gated(build) -> onnx.ModelProto:
    """A gated block with everything whose size follows from something else."""
    signature = "(float[1,3,8,8] x) => (float[1,8] y)"
    weights = {name: np.random.default_rng(1).standard_normal(s).astype("f4") for name, s in WEIGHTS.items()}
    return build(signature, GATED, 17, scales=SCALES, **weights)


WEIGHTS = {"w": (4, 3, 3, 3), "v": (4, 4, 1, 1)}


def sizes(model: onnx.ModelProto) -> dict[str, float]:
    """The size of every tensor, by one calibration on random numbers."""
    data = open_calibration(RANDOM, None, {"x": (1, 3, 8, 8)}, samples=8)
    return complete(model, calibrate(model, data, place(model).tensors).largest)


def everything(model: onnx.ModelProto) -> dict[str, float]:
    """Largest absolute value of every tensor on the same numbers, each given out by ONNX Runtime."""
    names = [name for node in model.graph.node for name in node.output]
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    del extended.graph.output[:]
    extended.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(extended.SerializeToString())
    largest = dict.fromkeys(["x", *names], 0.0)
    for batch in open_calibration(RANDOM, None, {"x": (1, 3, 8, 8)}, samples=8).batches(1):
        found = {"x": batch.inputs["x"], **dict(zip(names, session.run(names, batch.inputs), strict=True))}
        largest = {name: max(value, float(np.abs(found[name]).max())) for name, value in largest.items()}
    return largest


def test_every_tensor_has_a_size_that_it_does_not_exceed(gated):
    found, true = sizes(gated), everything(gated)
    assert found.keys() == true.keys()
    for name, largest in true.items():
        assert largest <= found[name] * (1 + 1e-5), name
    assert found["g"] == found["h"] == 1.0
    assert found["s"] < 1.5 * true["s"]  # of a product with a gate: the size of what it controls


def test_what_is_multiplied_by_weights_is_measured(build):
    body = "c = Conv(x, w) g = Sigmoid (c) z = Mul (g, k) y = Concat<axis=1>(z, b)"
    constants = {"k": np.float32(6), "b": np.full((1, 1, 8, 8), 9, "f4")}
    model = build("(float[1,3,8,8] x) => (float[1,5,8,8] y)", body, 17, w=(4, 3, 1, 1), **constants)
    found = sizes(model)
    assert 1.0 < found["z"] <= 6.0
    assert found["y"] == 9.0


def test_what_was_zero_throughout_has_a_scale_all_the_same(build):
    model = build("(float[1,3,8,8] x) => (float[1,4,6,6] y)", "n = Sub (x, x) y = Conv (n, w)", 17, w=(4, 3, 3, 3))
    assert all(size > 0 for size in sizes(model).values())


@pytest.mark.shows("MEA-22", needs="TensorRT-RTX")
def test_the_cache_has_every_tensor_that_tensorrt_s_parser_makes(gated):
    trt = pytest.importorskip("tensorrt_rtx")
    network = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_network(0)
    assert trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR)).parse(gated.SerializeToString())
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    outputs = [layer.get_output(i) for layer in layers for i in range(layer.num_outputs)]
    names = {t.name for t in (*outputs, network.get_input(0)) if t.dtype == trt.float32}
    assert len(names) == 14
    assert names <= sizes(gated).keys()
