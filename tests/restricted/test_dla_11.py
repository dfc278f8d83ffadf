"""DLA of TensorRT 11.4.1: typed graphs, Q/DQ with their scales, and the levels of evidence of the scopes of 11."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper
from restricted_networks import constant, model, node, resize, single, value, weights

from csa_deploy.levels import LEVELS, why_not
from csa_deploy.records.check import ScopeReport
from csa_deploy.restricted.check import check
from csa_deploy.restricted.explain import explain
from csa_deploy.restricted.inspection import ScopeVerdict
from csa_deploy.restricted.schema import load_pack

SCOPE = "dla-orin-11"
HALF = TensorProto.FLOAT16
MAP = [1, 8, 14, 14]


def report(network: ModelProto) -> ScopeReport:
    return check(network, [SCOPE]).scopes[0]


def rules(found: ScopeReport, verdict: str) -> set[str]:
    return {finding.rule for finding in found.findings if finding.verdict == verdict}


class Quantized:
    """A graph in FP16 whose tensors carry Q/DQ, written by hand: what placement writes is not asked."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants = [constant("zero", 0, np.int8)]

    def pair(self, tensor: str, scale: float, output: str = "") -> str:
        """Q/DQ behind a tensor; the name of what comes out."""
        made = constant(f"{tensor}_scale", scale, np.float16)
        self.constants.append(made)
        self.nodes.append(node("QuantizeLinear", [tensor, made.name, "zero"], [f"{tensor}_q"]))
        self.nodes.append(node("DequantizeLinear", [f"{tensor}_q", made.name, "zero"], [output or f"{tensor}_dq"]))
        return output or f"{tensor}_dq"

    def weight(self, *shape: int, by_channel: bool = True) -> str:
        """A stored INT8 weight behind its DequantizeLinear."""
        scales = np.full(shape[0] if by_channel else 1, 0.01, np.float16)
        self.constants += [
            constant("w", np.ones(shape), np.int8),
            constant("w_scale", scales if by_channel else scales[0], np.float16),
        ]
        axis = {"axis": 0} if by_channel else {}
        self.nodes.append(node("DequantizeLinear", ["w", "w_scale"], ["w_dq"], **axis))
        return "w_dq"

    def model(self, inputs: Sequence[str], output: str, shape: Sequence[int], kind: int = HALF) -> ModelProto:
        made = helper.make_graph(
            self.nodes,
            "quantized",
            [value(name, MAP, kind) for name in inputs],
            [value(output, list(shape), kind)],
            self.constants,
        )
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)])


def binary(op: str, *scales: float, **attributes: int) -> ModelProto:
    """An operator of two tensors that are quantized by these scales; the third is the output's."""
    graph = Quantized()
    read = [graph.pair("x", scales[0]), graph.pair("z", scales[1])]
    graph.nodes.append(node(op, read, ["t"], **attributes))
    graph.pair("t", scales[2], "y")
    return graph.model(["x", "z"], "y", [1, 16, 14, 14] if op == "Concat" else MAP)


def unary(op: str, before: float, after: float, shape: Sequence[int] = MAP, **attributes: object) -> ModelProto:
    graph = Quantized()
    graph.nodes.append(node(op, [graph.pair("x", before)], ["t"], **attributes))
    graph.pair("t", after, "y")
    return graph.model(["x"], "y", shape)


def convolution(by_channel: bool = True, channels: int = 8) -> ModelProto:
    graph = Quantized()
    read = graph.pair("x", 0.5)
    graph.nodes.append(
        node("Conv", [read, graph.weight(8, channels, 3, 3, by_channel=by_channel)], ["t"], pads=[1] * 4)
    )
    graph.pair("t", 0.25, "y")
    return graph.model(["x"], "y", MAP)


POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
HALVED = [1, 8, 7, 7]
Make = Callable[..., ModelProto]


def pooled(op: str) -> Make:
    return lambda before, after: unary(op, before, after, shape=HALVED, **POOL)


def joined(*scales: float) -> ModelProto:
    return binary("Concat", *scales, axis=1)


def two(op: str) -> Make:
    return lambda *scales: binary(op, *scales)


SCALES: dict[str, tuple[Make, tuple[float, ...], tuple[float, ...], str]] = {
    "max pooling": (pooled("MaxPool"), (0.5, 0.5), (0.5, 0.25), "dla.pooling.scale"),
    "average": (pooled("AveragePool"), (0.5, 0.5), (0.25, 0.5), "dla.pooling.scale"),
    "join": (joined, (0.5, 0.5, 0.5), (0.5, 0.25, 0.5), "dla.concatenation.scale"),
    "join's output": (joined, (0.5, 0.5, 0.5), (0.5, 0.5, 0.25), "dla.concatenation.scale"),
    "sum": (two("Add"), (0.5, 0.5, 0.25), (0.5, 0.25, 0.25), "dla.elementwise.scale"),
    "difference": (two("Sub"), (0.5, 0.5, 0.25), (0.5, 0.25, 0.25), "dla.elementwise.scale"),
    "maximum": (two("Max"), (0.5, 0.5, 0.25), (0.5, 0.25, 0.25), "dla.elementwise.scale"),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_that_dla_wants_equal(name: str) -> None:
    make, equal, other, rule = SCALES[name]
    fine, wrong = report(make(*equal)), report(make(*other))
    assert fine.verdict == "allowed" and fine.placement is not None and not fine.placement.fallbacks, fine.findings
    assert wrong.verdict == "denied" and rules(wrong, "denied") == {rule}
    assert wrong.placement is not None and [f.rule for f in wrong.placement.fallbacks] == [rule]


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_product_may_have_two_scales_and_that_two_sources_differ_is_said(op: str) -> None:
    found = report(binary(op, 0.5, 0.0078, 0.25))
    assert found.verdict == "allowed" and "dla.elementwise.scale.product" in rules(found, "note")
    assert "dla.elementwise.scale.product" not in rules(report(binary(op, 0.5, 0.5, 0.25)), "note")


def test_convolutions_with_weights_behind_a_dequantize_layer() -> None:
    for by_channel in (True, False):
        found = report(convolution(by_channel))
        assert found.verdict == "allowed", found.findings
        assert found.placement is not None and found.placement.subgraphs == 1 and not found.placement.fallbacks


def test_output_channels_of_a_quantized_weight_are_no_batch() -> None:
    graph = Quantized()
    graph.nodes.append(node("Conv", [graph.pair("x", 0.5), graph.weight(4097, 8, 1, 1)], ["t"]))
    graph.pair("t", 0.25, "y")
    found = report(graph.model(["x"], "y", [1, 4097, 14, 14]))
    assert found.verdict == "allowed", found.findings


def test_a_convolution_whose_weight_is_computed_from_an_input_stays_off_dla() -> None:
    graph = Quantized()
    graph.nodes.append(node("Conv", [graph.pair("x", 0.5), graph.pair("z", 0.5)], ["t"], pads=[7, 7, 6, 6]))
    graph.pair("t", 0.5, "y")
    found = report(graph.model(["x", "z"], "y", [1, 1, 14, 14]))
    assert found.verdict != "allowed"


def test_a_tensor_without_scale_in_a_quantized_graph() -> None:
    graph = Quantized()
    graph.nodes.append(node("Relu", [graph.pair("x", 0.5)], ["t"]))
    graph.nodes.append(node("Sigmoid", ["t"], ["u"]))
    graph.pair("u", 0.0078, "y")
    found = report(graph.model(["x"], "y", MAP))
    assert found.verdict == "unknown" and rules(found, "unknown") == {"dla.scale.missing"}
    assert found.placement is not None and len(found.placement.fallbacks) == 2  # the one that writes it, and its reader
    assert "'t'" in str([f.message for f in found.findings]) or "[t]" in str([f.message for f in found.findings])


def test_a_tensor_that_one_reader_takes_unquantized_has_no_scale() -> None:
    graph = Quantized()
    graph.nodes.append(node("Relu", [graph.pair("x", 0.5)], ["t"]))
    both = graph.pair("t", 0.5)
    graph.nodes.append(node("Mul", [both, "t"], ["u"]))
    graph.pair("u", 0.5, "y")
    assert rules(report(graph.model(["x"], "y", MAP)), "unknown") == {"dla.scale.missing"}


def test_two_pairs_of_other_scales_on_one_tensor_are_no_scale() -> None:
    graph = Quantized()
    graph.nodes.append(node("Relu", [graph.pair("x", 0.5)], ["t"]))
    graph.constants.append(constant("other", 0.25, np.float16))
    first = graph.pair("t", 0.5)
    graph.nodes += [
        node("QuantizeLinear", ["t", "other", "zero"], ["t_q2"]),
        node("DequantizeLinear", ["t_q2", "other", "zero"], ["t_dq2"]),
        node("Mul", [first, "t_dq2"], ["u"]),
    ]
    graph.pair("u", 0.5, "y")
    found = report(graph.model(["x"], "y", MAP))
    assert rules(found, "unknown") == {"dla.scale.missing"} and len(found.placement.fallbacks) == 1  # type: ignore[union-attr]


def half(network: ModelProto) -> ModelProto:
    """A model of these helpers in FP16 throughout."""
    from csa_deploy.precision.fp16 import to_fp16

    return to_fp16(network, io="fp16").model


def test_types_are_those_of_the_graph() -> None:
    untyped, typed = report(single("Relu")), report(half(single("Relu")))
    assert untyped.verdict == "unknown" and rules(untyped, "unknown") == {"dla.types.untyped"}
    assert untyped.placement is not None and len(untyped.placement.dla) == 1  # as if it were FP16
    assert typed.verdict == "allowed" and "dla.types.untyped" not in rules(typed, "unknown")


def test_fp32_within_a_typed_graph_falls_back() -> None:
    from csa_deploy.precision.fp16 import to_fp16

    found = report(to_fp16(single("Relu"), io="fp32").model)
    assert found.verdict == "denied" and rules(found, "denied") == {"dla.cast"}
    mixed = model([node("Relu", ["x"], ["t"], "kept"), node("Tanh", ["t"], ["y"])], [value("x", MAP)])
    found = report(to_fp16(mixed, io="fp16", keep_fp32=["kept"]).model)
    assert {f.rule for f in found.placement.fallbacks if f.op == "Relu"} == {"dla.types"}  # type: ignore[union-attr]


def test_quantizers_at_fp32_tensors_are_no_part_of_dla() -> None:
    graph = Quantized()
    graph.constants.append(constant("s", 0.5, np.float32))
    graph.nodes += [
        node("QuantizeLinear", ["x", "s", "zero"], ["x_q"]),
        node("DequantizeLinear", ["x_q", "s", "zero"], ["y"]),
    ]
    found = report(graph.model(["x"], "y", MAP, TensorProto.FLOAT))
    assert rules(found, "denied") == {"dla.types.quantizer"}


@pytest.mark.parametrize(
    ("zero", "by_channel", "rule"),
    [(0, False, ""), (3, False, "graph.not-imported"), (0, True, "dla.quantize.activation")],
)
def test_the_form_of_quantization(zero: int, by_channel: bool, rule: str) -> None:
    count = 8 if by_channel else 1
    shape = (count,) if by_channel else ()
    constants = [constant("s", np.full(shape, 0.5), np.float16), constant("o", np.full(shape, zero), np.int8)]
    axis = {"axis": 1} if by_channel else {}
    nodes = [
        node("QuantizeLinear", ["x", "s", "o"], ["q"], **axis),
        node("DequantizeLinear", ["q", "s", "o"], ["y"], **axis),
    ]
    made = helper.make_graph(nodes, "q", [value("x", MAP, HALF)], [value("y", MAP, HALF)], constants)
    found = report(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)]))
    assert {f.rule for f in found.findings if f.verdict != "note"} == ({rule} if rule else set())


def test_scales_that_are_known_at_run_time_only() -> None:
    nodes = [node("QuantizeLinear", ["x", "s", "zero"], ["q"]), node("DequantizeLinear", ["q", "s", "zero"], ["y"])]
    inputs = [value("x", MAP, HALF), value("s", [], HALF)]
    made = helper.make_graph(nodes, "q", inputs, [value("y", MAP, HALF)], [constant("zero", 0, np.int8)])
    found = report(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)]))
    assert "dla.quantize.form" in rules(found, "denied")


@pytest.mark.parametrize(("kernel", "denied"), [(32, False), (33, True)])
def test_limits_of_convolutions_hold_as_before(kernel: int, denied: bool) -> None:
    network = single("Conv", [weights(8, 8, kernel, 1)], shape=[1, 8, 40, 40])
    assert ("dla.convolution.kernel" in rules(report(half(network)), "denied")) == denied


def test_the_convolution_buffer_counts_bytes_of_the_precision() -> None:
    """2,048 channels of a 40-wide map by 3x3, by the formula of the guide."""

    def banks(size: int) -> int:
        weights = math.ceil(math.ceil(channels * 9 * size / 128) * 128 / 32768)
        return weights + math.ceil(math.ceil(math.ceil(channels * size / 32) * side / 4) * 3 / 256)

    graph, channels, side = Quantized(), 2048, 40
    half_banks, int8_banks = banks(2), banks(1)
    assert half_banks > 16 >= int8_banks
    graph.nodes.append(node("Conv", [graph.pair("x", 0.5), graph.weight(8, channels, 3, 3)], ["t"], pads=[1] * 4))
    graph.pair("t", 0.25, "y")
    shape = [1, channels, side, side]
    made = helper.make_graph(
        graph.nodes, "c", [value("x", shape, HALF)], [value("y", [1, 8, side, side], HALF)], graph.constants
    )
    quantized = helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)])
    assert report(quantized).verdict == "allowed", report(quantized).findings
    floating = single("Conv", [weights(8, channels, 3, 3)], shape=shape, pads=[1] * 4)
    assert rules(report(half(floating)), "denied") == {"dla.convolution.buffer"}


TWO = [value("x", MAP), value("z", MAP)]
OPERATORS = {
    "power": (model([node("Pow", ["x", "z"], ["y"])], TWO), "allowed"),
    "division": (model([node("Div", ["x", "z"], ["y"])], TWO), "allowed"),
    "parametric relu": (single("PRelu", [constant("s", np.full((1, 8, 1, 1), 0.1))]), "allowed"),
    "parametric relu of an input": (model([node("PRelu", ["x", "z"], ["y"])], TWO), "unknown"),
    "global maximum": (single("GlobalMaxPool"), "allowed"),
    "mean": (single("GlobalAveragePool"), "denied"),
    "pad": (single("Pad", [constant("p", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)]), "denied"),
    "downsizing": (resize([1, 1, 0.5, 0.5]), "denied"),
    "matrix product": (single("MatMul", [constant("w", np.zeros((14, 3)))]), "denied"),
    "error function": (single("Erf"), "denied"),
    "elu": (single("Elu"), "unknown"),  # the list of 11.4.1 was not read to its end
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_in_fp16(name: str) -> None:
    network, verdict = OPERATORS[name]
    assert report(half(network)).verdict == verdict, report(half(network)).findings


def test_what_is_always_said() -> None:
    found = report(convolution())
    assert "dla.rounding" in rules(found, "note")
    assert "away from zero" in next(f.message for f in found.findings if f.rule == "dla.rounding")
    assert "dla.io.formats" in rules(found, "note") and "dla.io.types" not in rules(found, "note")
    assert "dla.rounding" not in rules(report(half(single("Relu"))), "note")


@pytest.mark.parametrize(
    "rule", [rule.id for rule in load_pack(SCOPE).rules if rule.since == "11.4.1" or "scale" in rule.id]
)
def test_every_rule_is_explained(rule: str) -> None:
    assert "source:" in explain(f"{SCOPE}/{rule}") and SCOPE in explain(f"{SCOPE}/{rule}")


NOT_OF_11 = {"validator", "restricted-build"}


def static(scope: str) -> ScopeVerdict:
    return ScopeVerdict(check(single("Relu"), [scope]).scopes[0])


def test_levels_that_11_can_reach() -> None:
    said = static("trt-11").why_not_next
    assert said.startswith("safety-build: ")
    assert all(f"not {name}: " in said for name in NOT_OF_11)
    pack = load_pack("trt-11")
    assert set(pack.out_of_reach) == NOT_OF_11
    assert set(pack.reached_by) == set(LEVELS) - NOT_OF_11 - {"static"}
    assert "11.3" in pack.reached_by["reference-checked"]


def test_no_level_above_static_is_for_dla_of_11() -> None:
    verdict = static(SCOPE)
    assert verdict.level == "static" and set(load_pack(SCOPE).out_of_reach) == set(LEVELS) - {"static"}
    assert verdict.why_not_next.startswith("not validator, restricted-build, safety-build, ")


@pytest.mark.parametrize("scope", ["drive-os-6.0.10", "drive-os-6.12.1"])
def test_the_next_level_of_8_6_is_the_build(scope: str) -> None:
    assert static(scope).why_not_next.startswith("restricted-build: ")


@pytest.mark.parametrize(
    ("level", "out", "expected"),
    [
        ("static", {}, "validator: why"),
        ("static", {"validator": "gone"}, "restricted-build: why; not validator: gone"),
        ("static", {"safety-build": "far"}, "validator: why"),
        ("restricted-build", {}, "safety-build: why"),
        ("consistency-checked", {"reference-checked": "old"}, "not reference-checked: old"),
        ("reference-checked", {}, ""),
    ],
)
def test_why_not_the_next_level(level: str, out: dict[str, str], expected: str) -> None:
    assert why_not(level, "why", out) == expected


def test_what_8_6_13_and_8_6_15_say() -> None:
    """The published network's layers pass as in 8.6.12; of 8.6.15 no source says so; what is refused stays refused."""
    relu, mean = single("Relu"), single("GlobalAveragePool")
    verdicts = {scope: check(relu, [scope]).scopes[0].verdict for scope in ("drive-os-6.0.10", "drive-os-6.12.1")}
    assert verdicts == {"drive-os-6.0.10": "allowed", "drive-os-6.12.1": "unknown"}
    for scope in verdicts:
        assert check(mean, [scope]).scopes[0].verdict == "denied"
        elu = check(single("Elu"), [scope]).scopes[0]
        assert elu.verdict == "unknown" and "8.6.13" in next(f.message for f in elu.findings if f.layer == "ACTIVATION")
    unknown = check(relu, ["drive-os-6.12.1"]).scopes[0].findings
    assert {f.rule for f in unknown if f.verdict == "unknown"} == {"scope.not-public"}
