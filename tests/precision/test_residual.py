"""Which inputs of an addition are quantized, and what TensorRT's builder makes of it."""

import re

import numpy as np
import onnx
import pytest

from csa_deploy.precision.int8 import to_int8
from csa_deploy.precision.qdq_placement import QdqPlacement, place
from csa_deploy.records.precision import Layer

SIGNATURE = "(float[1,16,8,8] x) => (float[1,16,8,8] y)"
PADDED = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
W = (16, 16, 3, 3)
BODIES = {
    "a layer's output and the skip branch": (f"c = Conv <{PADDED}> (x, w) y = Add (c, x)", {1: "x"}),
    "the other way round": (f"c = Conv <{PADDED}> (x, w) y = Add (x, c)", {0: "x"}),
    "two layers: the later takes it in": (
        f"s = Conv <{PADDED}> (x, w) r = Relu (x) c = Conv <{PADDED}> (r, w) y = Add (c, s)",
        {1: "s"},
    ),
    "two layers, the earlier read elsewhere too": (
        f"c = Conv <{PADDED}> (x, w) d = Conv <{PADDED}> (c, w) y = Add (c, d)",
        {0: "c"},
    ),
    "no layer before it": ("a = Relu (x) b = Sigmoid (x) z = Add (a, b) y = Conv (z, w1)", {0: "a", 1: "b"}),
    "a layer whose output is read elsewhere too": (
        f"c = Conv <{PADDED}> (x, w) s = Sigmoid (c) z = Add (c, x) y = Mul (z, s)",
        {0: "c", 1: "x"},
    ),
    "one tensor twice": (f"c = Conv <{PADDED}> (x, w) y = Add (c, c)", {0: "c", 1: "c"}),
}


@pytest.mark.parametrize("case", BODIES)
def test_the_skip_branch_alone_where_a_layer_takes_the_addition_in(build, case):
    body, expected = BODIES[case]
    given = {name: shape for name, shape in {"w": W, "w1": (16, 16, 1, 1)}.items() if f"{name})" in body}
    (found,) = [layer for layer in place(build(SIGNATURE, body, **given)).layers if layer.op == "Add"]
    assert found.activations == expected


def kernels(model: onnx.ModelProto) -> list[str]:
    """Names of the kernels that TensorRT-RTX's builder chooses, without their hashes."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity, message) -> None:
            self.lines.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    named = re.findall(r"LayerType: (\w+),.*?TacticName: (\w+)", "\n".join(log.lines))
    return [re.sub(r"_0x[0-9a-f]+$", "", name) for _, name in named]


@pytest.mark.rtx
def test_tensorrt_makes_the_same_kernels_without_the_second_pair(build):
    body = f"""
        c1 = Conv <{PADDED}> (x, w1, b)
        r1 = Relu (c1)
        c2 = Conv <{PADDED}> (r1, w2, b)
        a = Add (c2, x)
        r2 = Relu (a)
        y = Conv <{PADDED}> (r2, w3, b)
    """
    draw = np.random.default_rng(0)
    shape = "[1,64,56,56]"
    given = {name: 0.05 * draw.standard_normal((64, 64, 3, 3)) for name in ("w1", "w2", "w3")} | {"b": np.zeros(64)}
    weights = {name: array.astype("f4") for name, array in given.items()}
    model = build(f"(float{shape} x) => (float{shape} y)", body, **weights)
    skip = place(model)
    both = QdqPlacement(tuple(Layer(x.name, "Add", {0: "c2", 1: "x"}) if x.op == "Add" else x for x in skip.layers))
    found = [kernels(to_int8(model, p, dict.fromkeys([*p.tensors], 4.0)).model) for p in (skip, both)]
    assert len(found[0]) == len(found[1]) > 3
    differing = [(a, b) for a, b in zip(*found, strict=True) if a != b]
    assert len(differing) == 1  # the one that adds: it rounds once less
    ours, theirs = differing[0]
    assert theirs.count("Roun") == ours.count("Roun") + 1
