"""Whether INT8 is worth making, against figures worked out by hand with the peaks of the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.precision.prospect import Prospect, prospect, prospect_of_file, with_times
from csa_deploy.records.report import ReportRecord
from csa_deploy.workspace import StageOutput, Workspace

Build = Callable[..., onnx.ModelProto]
SIGNATURE = "(float[1,64,32,32] x) => (float[1,64,32,32] y)"
ELEMENTS = 64 * 32 * 32
MACS = 64 * 64 * 9 * 32 * 32  # of a convolution with a 3x3 kernel
WEIGHTS = 64 * 64 * 9
CONV = "Conv<pads=[1,1,1,1]>"
# Seconds on Orin: 42.5e12 INT8 and 21.3e12 FP16 multiply-accumulates per second, 204.8e9 bytes per second.
BANDWIDTH = 204.8e9
CONV_FP16 = max(MACS / 21.3e12, 2 * (2 * ELEMENTS + WEIGHTS) / BANDWIDTH)
CONV_INT8 = max(MACS / 42.5e12, (2 * ELEMENTS + WEIGHTS) / BANDWIDTH)
PASS_FP16 = 2 * 2 * ELEMENTS / BANDWIDTH  # an operator that reads and writes the tensor
SQUARE, DEEP = (64, 64, 3, 3), (64, 1, 3, 3)


def kinds(found: Prospect) -> list[str]:
    return [item.kind for item in found.obstacles]


def test_convolutions_with_relu_are_worth_it(build: Build) -> None:
    """Nothing is lost, so the best and the worst case are one."""
    found = prospect(build(SIGNATURE, f"c = {CONV}(x, a) r = Relu(c) y = {CONV}(r, b)", a=SQUARE, b=SQUARE))
    ratio = (2 * CONV_FP16 + PASS_FP16) / (2 * CONV_INT8 + PASS_FP16)
    assert found.at_best == found.at_worst == pytest.approx(ratio)
    assert (found.macs, found.int8_macs, found.share) == (2 * MACS, 2 * MACS, 1.0)
    assert found.obstacles == () and found.reformat_bytes == 0
    assert found.verdict == "worth it" and "estimated 1.58x to 1.58x" in found.statement


def test_one_small_part_of_the_work_is_not_worth_it(build: Build) -> None:
    sines = " ".join(f"s{i + 1} = Sin(s{i})" for i in range(200))
    found = prospect(build(SIGNATURE, f"s0 = {CONV}(x, a) {sines} y = Sin(s200)", a=SQUARE))
    assert found.at_best == pytest.approx((CONV_FP16 + 201 * PASS_FP16) / (CONV_INT8 + 201 * PASS_FP16))
    assert found.at_best < 1.02 and found.verdict == "not worth it"


ENDS = {
    "LayerNorm": "f = LayerNormalization<axis=1>(c, one)",
    "LayerNorm written out": (
        "m = ReduceMean<keepdims=1>(c, last) d = Sub(c, m) p = Mul(d, d) v = ReduceMean<keepdims=1>(p, last)"
        " e = Add(v, small) s = Sqrt(e) n = Div(d, s) g = Mul(n, factor) f = Add(g, factor)"
    ),
    "GELU written out": "h = Mul(c, k) e = Erf(h) o = Add(e, k) m = Mul(c, o) f = Mul(m, k)",
    "GELU by tanh": "h = Mul(c, k) e = Tanh(h) o = Add(e, k) m = Mul(c, o) f = Mul(m, k)",
    "SiLU": "g = Sigmoid(c) f = Mul(c, g)",
    "": "f = Sin(c)",
}
CONSTANTS = {
    "one": np.ones((64, 32, 32), "f4"),
    "last": np.array([1, 2, 3]),
    "small": np.float32(1e-5),
    "factor": np.ones((64, 1, 1), "f4"),
    "k": np.float32(0.5),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_fusion_that_is_lost_is_named(build: Build, end: str) -> None:
    body = f"c = {CONV}(x, a) {ENDS[end]} y = {CONV}(f, b)"
    used = {name: array for name, array in CONSTANTS.items() if f" {name}" in ENDS[end]}
    found = prospect(build(SIGNATURE, body, a=SQUARE, b=SQUARE, **used))
    name = end.split()[0] if end else ""
    assert kinds(found) == (["reformat", "fusion lost"] if name else ["reformat"])
    assert found.reformat_bytes == 3 * ELEMENTS
    assert found.at_best is not None and found.at_worst is not None and found.at_worst < found.at_best
    if name:
        assert found.obstacles[1].what.startswith(name) and found.obstacles[1].bytes == 4 * ELEMENTS
        assert all("github.com/NVIDIA/TensorRT/issues/" in source for source in found.obstacles[1].sources)


def test_what_is_lost_decides_between_best_and_worst(build: Build) -> None:
    """Sin between two convolutions: one pass to quantize; the 7 bytes of a SiLU are more than INT8 saves."""
    body = f"c = {CONV}(x, a) {{}} y = {CONV}(f, b)"
    plain = prospect(build(SIGNATURE, body.format(ENDS[""]), a=SQUARE, b=SQUARE))
    reformat = 3 * ELEMENTS / BANDWIDTH
    int8 = 2 * CONV_INT8 + PASS_FP16
    assert plain.at_worst == pytest.approx((2 * CONV_FP16 + PASS_FP16) / (int8 + reformat))
    assert plain.verdict == "worth it"
    gated = prospect(build(SIGNATURE, body.format(ENDS["SiLU"]), a=SQUARE, b=SQUARE))
    passes = PASS_FP16 + 3 * 2 * ELEMENTS / BANDWIDTH  # Sigmoid, and the product that reads two tensors
    lost = 7 * ELEMENTS / BANDWIDTH
    assert gated.at_best == pytest.approx((2 * CONV_FP16 + passes) / (2 * CONV_INT8 + passes))
    assert gated.at_worst == pytest.approx((2 * CONV_FP16 + passes) / (2 * CONV_INT8 + passes + lost))
    assert gated.at_worst < 1.02 < gated.at_best and gated.verdict == "unknown"


@pytest.mark.parametrize(("version", "state", "share"), [("8.6.11", "affected", 0.0), ("11.0.0", "not ruled out", 1.0)])
def test_a_layer_without_int8_depends_on_the_version(build: Build, version: str, state: str, share: float) -> None:
    found = prospect(build(SIGNATURE, "y = Conv<group=64, pads=[1,1,1,1]>(x, a)", a=DEEP), version)
    told = [item for item in found.obstacles if item.what.startswith("convolution.depthwise-qdq-8.6")]
    assert [(item.kind, item.node) for item in told] == [("no INT8 implementation", "n0")]
    assert state in told[0].what and told[0].sources == ("https://github.com/NVIDIA/TensorRT/issues/4060",)
    assert found.share == share
    if not share:
        assert found.verdict == "not worth it" and "nothing that multiplies" in found.statement


def test_at_worst_a_grouped_convolution_gains_nothing(build: Build) -> None:
    found = prospect(build(SIGNATURE, "y = Conv<group=32, pads=[1,1,1,1]>(x, a)", a=(64, 2, 3, 3)))
    assert "slow in INT8" in kinds(found)
    assert found.at_worst == pytest.approx(1.0) and found.at_best is not None and found.at_best > 1.02


@pytest.mark.parametrize("body", ["y = Relu(x)", "w = Relu(x) y = MatMul(x, w)"])
def test_a_graph_without_such_layers_is_not_worth_it(build: Build, body: str) -> None:
    found = prospect(build(SIGNATURE, body))
    assert found.verdict == "not worth it" and found.int8_macs == 0
    assert ("its weight is not a constant of the graph" in found.refused.values()) == ("MatMul" in body)


def test_an_unknown_cost_is_unknown(build: Build) -> None:
    model = build(SIGNATURE, f"t = own.Thing(x) y = {CONV}(t, a)", 17, ', "own" : 1', a=SQUARE)
    found = prospect(model)
    assert found.verdict == "unknown" and found.at_best is None and found.reformat_bytes is None
    assert f"such as {found.unknown[0]}" in found.statement


def test_a_quantized_graph_is_refused(build: Build) -> None:
    body = f"q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = {CONV}(d, a)"
    with pytest.raises(UsageError, match="quantized already"):
        prospect(build(SIGNATURE, body, a=SQUARE, s=np.float32(1), z=np.int8(0)))


@pytest.mark.parametrize(("faster", "kept"), [(1.05, True), (1.02, True), (1.019, False), (1.0, False), (0.9, False)])
def test_int8_is_kept_only_where_it_is_faster(build: Build, faster: float, kept: bool) -> None:
    """Whatever was estimated."""
    found = prospect(build(SIGNATURE, f"y = {CONV}(x, a)", a=SQUARE))
    assert found.verdict == "worth it"
    timed = with_times(found, [1.02] * 200, [1.02 / faster] * 200)
    assert timed.measured is not None and timed.measured.kept == kept
    assert timed.verdict == ("worth it" if kept else "not worth it")
    short = with_times(found, [1.02] * 3, [1.0] * 3)
    assert short.measured is None and short.reason.startswith("too few samples were timed; `csa-deploy profile")


def test_the_command_says_what_was_measured_and_what_not(build: Build, tmp_path: Path, csa: Any) -> None:
    graph = tmp_path / "deploy" / "onnx" / "m.onnx"
    graph.parent.mkdir(parents=True)
    onnx.save(build(SIGNATURE, f"y = {CONV}(x, a)", a=SQUARE), graph)
    said = csa(tmp_path, "quantize", "--why", graph).stdout
    assert "not measured INT8 against FP16: " in said and "worth it: estimated" in said
    told = json.loads(csa(tmp_path, "quantize", "--why", graph, "--json").stdout)
    assert told["verdict"] == "worth it" and Prospect.from_json(told) == prospect_of_file(graph, "10")
    workspace = Workspace(tmp_path / "deploy")
    with workspace.locked():
        series = {f"engine {name}": {"samples_ms": [ms] * 200} for name, ms in (("fp16", 1.0), ("int8", 1.0))}
        workspace.commit("profile", "key", StageOutput(ReportRecord(summary=""), measured={"latency": series}))
    said = csa(tmp_path, "quantize", "--why", graph).stdout
    assert "not worth it: INT8 1.000 ms, FP16 1.000 ms, 1.00x" in " ".join(said.split()) and "not measured" not in said
