"""Each erratum finds the smallest graph of its pattern, and none that lies a step away from it."""

from __future__ import annotations

import errata_graphs as g
import onnx
import pytest

from csa_deploy.records.errata import KnownProblem
from csa_deploy.restricted.errata.finding import Question, known_problems
from csa_deploy.restricted.errata.schema import Erratum, all_errata
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.schema import load_pack, pack_files

_DYNAMIC = g.simple("y = Relu(x)", "float[1, 3, h, w] x", "float[1, 3, h, w] y")
_STATIC = g.simple("y = Relu(x)", "float[1, 3, 4, 4] x", "float[1, 3, 4, 4] y")
_QUANTIZED = g.conv(16, 16)
_CLOSED = "zq = QuantizeLinear(y, s, z) zd = DequantizeLinear(zq, s, z) out = Relu(zd)"
_VALUE_QDQ = "vq = QuantizeLinear(x, s, z) vd = DequantizeLinear(vq, s, z)"
_PERM = "y = Transpose <perm = {}> (x)"
_SIX = ("float[1, 2, 3, 4, 5, 6] x", "float[a, b, c, d, e, f] y")
_OUTPUT = "output_shape = [8, 8]"


def _scatter(reduction: str, op: str = "ScatterND", constant: bool = False, opset: int = 18) -> onnx.ModelProto:
    shape = "[2, 1]" if op == "ScatterND" else "[2]"
    indices = f"int64{shape} i"
    named = f'<reduction = "{reduction}">' if reduction else ""
    inputs = f"float[4] x, float[2] u{'' if constant else f', {indices}'}"
    return g.simple(
        f"y = {op} {named} (x, i, u)", inputs, "float[4] y", f"{indices} = {{0, 1}}" if constant else "", opset
    )


def _topk(k: int, rest: str = "") -> onnx.ModelProto:
    return g.simple(
        f"v, i = TopK {rest} (x, k)", "float[1, 5000] x", f"float[1, {k}] v, int64[1, {k}] i", f"int64[1] k = {{{k}}}"
    )


def _integers(value: int, op: str = "Add") -> onnx.ModelProto:
    return g.simple(f"y = {op}(x, c)", "int64[3] x", "int64[3] y", f"int64 c = {{{value}}}")


def _pow(base: str, exponent: str) -> onnx.ModelProto:
    return g.simple("y = Pow(x, e)", f"{base}[3] x, {exponent}[3] e", f"{base}[3] y")


def _depthwise(swish: bool | None = True, group: int = 8) -> onnx.ModelProto:
    after = "t = Sigmoid(y) out = Mul(y, t)" if swish else "out = Relu(y)" if swish is None else "out = Sigmoid(y)"
    return g.conv(8, 8 // group, group, after, "out")


PAIRS: dict[str, tuple[list[onnx.ModelProto], list[onnx.ModelProto]]] = {
    "attention.segformer-batch": (
        [g.segformer(2), g.segformer(8)],
        [g.segformer(1), g.segformer(2, stride=1), g.attention(2), _STATIC],
    ),
    "attention.split-scale": ([g.split_scale()], [g.split_scale(both=False), g.attention()]),
    "attention.deformable": ([g.deformable()], [g.deformable(weighted=False), g.grid_sample("bilinear", 17)]),
    "attention.fused-blackwell-half": ([g.attention()], [g.deformable(), _STATIC]),
    "attention.identical-samples": ([g.attention(2)], [g.attention(1), _STATIC]),
    "attention.vit-half-10.3": ([g.attention(normal=True)], [g.attention(), _STATIC]),
    "attention.dynamic-10.3": ([g.attention("N")], [g.attention(1), _DYNAMIC]),
    "attention.unfused-orin": ([g.attention()], [_STATIC]),
    "attention.swin-8.6": (
        [g.simple(_PERM.format("[0, 1, 3, 2, 4, 5]"), *_SIX)],
        [g.simple(_PERM.format("[0, 1, 2, 3, 5, 4]"), *_SIX)],
    ),
    "attention.int8-partial": (
        [g.attention(before=_VALUE_QDQ, value="vd")],
        [g.attention(), g.quantized_attention()],
    ),
    "attention.int8-vit-not-faster": ([g.quantized_attention()], [g.attention(), _QUANTIZED]),
    "normalization.decomposed-layernorm": (
        [g.decomposed_norm()],
        [g.decomposed_norm(centred=False), g.decomposed_norm(root=False), g.attention(normal=True)],
    ),
    "normalization.rms-half": (
        [g.decomposed_norm(centred=False)],
        [g.decomposed_norm(), g.decomposed_norm(centred=False, root=False)],
    ),
    "normalization.layernorm-half-10.10": ([g.attention(normal=True)], [g.decomposed_norm()]),
    "normalization.group-of-all": ([g.group_norm(1, 18), g.group_norm(1, 21)], [g.group_norm(2, 18)]),
    "normalization.group-opset-21": ([g.group_norm(2, 21)], [g.group_norm(2, 20), g.group_norm(2, 18)]),
    "sampling.grid-opset-20": (
        [g.grid_sample("linear", 20), g.grid_sample("cubic", 21)],
        [g.grid_sample("nearest", 20), g.grid_sample("bilinear", 19), g.grid_sample("bilinear", 16)],
    ),
    "sampling.grid-3d": ([g.grid_sample("linear", 20, 5)], [g.grid_sample("linear", 20, 4)]),
    "sampling.if-transpose-resize": (
        [g.if_transpose_resize("h")],
        [g.if_transpose_resize(8), g.if_transpose_resize("h", "linear"), g.if_transpose_resize("h", turned=False)],
    ),
    "sampling.resize-antialias": ([g.resize(1)], [g.resize(0)]),
    "convolution.transpose-output-shape": (
        [g.conv_transpose(_OUTPUT)],
        [g.conv_transpose("pads = [0, 0, 1, 1]")],
    ),
    "convolution.depthwise-qdq-8.6": ([g.conv(8, 1, 8)], [g.conv(8, 8), g.conv(8, 2, 4), g.attention()]),
    "convolution.depthwise-swish-qdq-8.5": (
        [_depthwise()],
        [_depthwise(swish=False), _depthwise(swish=None), _depthwise(group=1)],
    ),
    "convolution.grouped-int8-slow": ([g.conv(8, 2, 4)], [g.conv(8, 1, 8), g.conv(8, 8)]),
    "convolution.run-time-kernel": (
        [g.conv_at_run_time()],
        [g.conv_at_run_time("<kernel_shape = [3, 3]>"), g.conv(8, 8), g.conv_transpose("pads = [0, 0, 1, 1]")],
    ),
    "convolution.slice-fill-blackwell": ([g.conv_transpose("pads = [0, 0, 1, 1]")], [g.conv_at_run_time()]),
    "convolution.transpose-quantized-axis": (
        [g.quantized_transpose("2")],
        [g.quantized_transpose(""), g.conv_transpose("pads = [0, 0, 1, 1]")],
    ),
    "operators.cumsum-several": (
        [
            g.cumsum("(x, rows)", "(x, columns)"),
            g.cumsum("(x, rows)", "<reverse = 1> (x, rows)"),
            g.cumsum("<exclusive = 1> (x, rows)", "(x, rows)"),
        ],
        [g.cumsum("(x, rows)", "(x, rows)"), g.simple("y = CumSum(x, a)", "float[3] x", "float[3] y", "int64 a = {0}")],
    ),
    "operators.cumsum-axis": (
        [g.simple("y = CumSum(x, a)", "float[3] x, int64 a", "float[3] y")],
        [g.cumsum("(x, rows)", "(x, rows)")],
    ),
    "operators.cumsum-slow": ([g.cumsum("(x, rows)", "(x, rows)")], [_STATIC]),
    "operators.topk-3840": ([_topk(3841), _topk(5000)], [_topk(3840), _topk(1)]),
    "operators.topk-unsorted": ([_topk(3, "<sorted = 0>")], [_topk(3), _topk(3, "<sorted = 1>")]),
    "operators.scatter-order": (
        [_scatter("", "ScatterElements"), _scatter("none", "ScatterElements")],
        [_scatter("add", "ScatterElements"), _scatter("", "ScatterElements", constant=True)],
    ),
    "operators.scatternd-opset-18": ([_scatter("")], [_scatter("", opset=16), _scatter("", "ScatterElements")]),
    "operators.scatternd-reduction": ([_scatter("add"), _scatter("mul")], [_scatter(""), _scatter("none")]),
    "operators.random-seed": (
        [g.simple("y = RandomNormalLike <seed = 3.0> (x)", "float[3] x", "float[3] y")],
        [g.simple("y = RandomNormalLike(x)", "float[3] x", "float[3] y")],
    ),
    "operators.double": ([g.simple("y = Relu(x)", "double[3] x", "double[3] y")], [_STATIC]),
    "operators.int64-clamped": (
        [_integers(2**31), _integers(-(2**31) - 1, "Mul")],
        [_integers(2**31 - 1), _integers(-(2**31)), _STATIC],
    ),
    "operators.int64-bindings": ([_integers(1)], [_STATIC]),
    "operators.pow-integer-exponent": ([_pow("float", "int64"), _pow("float", "int32")], [_pow("float", "float")]),
    "operators.pow-integer-base": ([_pow("int64", "float"), _pow("int32", "float")], [_pow("float", "int64")]),
    "operators.cast-not-finite": (
        [g.simple("y = Cast <to = 6> (x)", "float[3] x", "int32[3] y")],
        [
            g.simple("y = Cast <to = 7> (x)", "float[3] x", "int64[3] y"),
            g.simple("y = Cast <to = 6> (x)", "int64[3] x", "int32[3] y"),
        ],
    ),
    "precision.flag-ignored-11": (
        [_STATIC],
        [g.simple("y = Relu(x)", "float16[3] x", "float16[3] y"), _integers(1), _QUANTIZED],
    ),
    "precision.calibration-ignored": ([_QUANTIZED], [_STATIC]),
    "precision.convolution-not-closed": (
        [g.two_convolutions(closed=False)],
        [g.two_convolutions(closed=True), _QUANTIZED, _STATIC],
    ),
    "precision.int8-small-product": ([g.product(15, 32), g.product(32, 15)], [g.product(16, 16), g.product(32, 32)]),
    "precision.int8-vector-product": (
        [g.product(32, 1), g.product(32, 32, rows=1)],
        [g.product(32, 2), g.product(32, 32, rows=2)],
    ),
    "precision.int8-thin-convolution": (
        [g.conv(4, 3), g.conv(12, 20)],
        [g.conv(8, 3), g.conv(16, 16), g.conv(20, 20), g.conv(4, 1, 4)],
    ),
    "precision.int8-ties": (
        [g.conv(16, 16, 1, _CLOSED, "out")],
        [g.conv(16, 16, 1, "t = Relu(y) out = Softmax(t)", "out"), _QUANTIZED],
    ),
    "engine.several-profiles": ([_DYNAMIC], [_STATIC]),
    "engine.dynamic-not-repeatable": ([_DYNAMIC], [_STATIC]),
    "engine.builds-differ-thor": ([_STATIC], []),
    "dla.not-supported": ([_STATIC], []),
    "dla.not-on-drive": ([_STATIC], []),
    "dla.rounding-ties": ([_QUANTIZED], []),
    "dla.no-qdq": ([_QUANTIZED], [_STATIC]),
    "dla.dynamic-shapes": ([_DYNAMIC], [_STATIC]),
    "dla.int8-accuracy": ([_STATIC], []),
}
"""Graphs that have the pattern, and graphs that have it not; none where no graph decides."""

ERRATA = {erratum.id: erratum for _, erratum in all_errata()}


def asked(erratum: Erratum, version: str = "") -> Question:
    """The question that the erratum answers: its version, platform and precision."""
    return Question(
        version or (sorted(erratum.seen)[0] if erratum.seen else "10.0"),
        erratum.platforms[0] if erratum.platforms else "",
        erratum.dla,
        erratum.precision or ("fp32",),
    )


def valid(model: onnx.ModelProto) -> None:
    """A graph that nobody could have would show nothing; onnx calls the first GroupNormalization deprecated."""
    if all(node.op_type != "GroupNormalization" for node in model.graph.node):
        onnx.checker.check_model(model)


def found(model: onnx.ModelProto, name: str, question: Question) -> KnownProblem | None:
    report = known_problems(load_graph(model), question)
    return next((problem for problem in report.problems if problem.id == name), None)


@pytest.mark.shows("MEA-34")
def test_every_erratum_has_graphs_on_both_sides() -> None:
    assert PAIRS.keys() == ERRATA.keys()
    assert len(ERRATA) >= 40
    assert all(having for having, _ in PAIRS.values())
    alone = {name for name, (_, without) in PAIRS.items() if not without}
    assert alone == {name for name, e in ERRATA.items() if not e.pattern and e.network in ({}, {"opset": {"ge": 1}})}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.shows("MEA-34", "ERR-28")
def test_pattern_is_found(name: str) -> None:
    for model in PAIRS[name][0]:
        valid(model)
        problem = found(model, name, asked(ERRATA[name]))
        assert problem is not None and problem.state == "affected", problem
        assert bool(problem.nodes) == bool(ERRATA[name].pattern)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.shows("MEA-34")
def test_pattern_is_not_found_a_step_away(name: str) -> None:
    for model in PAIRS[name][1]:
        valid(model)
        assert found(model, name, asked(ERRATA[name])) is None


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.shows("MEA-34")
def test_other_versions_platforms_and_precisions(name: str) -> None:
    erratum, model = ERRATA[name], PAIRS[name][0][0]
    question = asked(erratum)
    if erratum.fixed:
        assert found(model, name, asked(erratum, erratum.fixed)) is None
    if erratum.right:
        assert found(model, name, asked(erratum, erratum.right)) is None
    if erratum.since:
        assert found(model, name, asked(erratum, "8.6.1")) is None
    if erratum.dla:
        assert found(model, name, Question(question.tensorrt, question.platform, False, question.precisions)) is None
    if erratum.platforms:
        other = Question(question.tensorrt, "jetson-xavier", question.dla, question.precisions)
        assert found(model, name, other) is None
        unsure = found(model, name, Question(question.tensorrt, "", question.dla, question.precisions))
        if erratum.pattern:
            assert unsure is not None and unsure.state == "not ruled out" and "platform" in unsure.why
        else:  # it is about every network there
            assert unsure is None
    if erratum.precision and "int8" not in erratum.precision:
        assert found(model, name, Question(question.tensorrt, question.platform, question.dla, ("fp32",))) is None


def test_no_erratum_has_the_name_of_a_rule() -> None:
    rules = {rule.id for scope in pack_files() for rule in load_pack(scope).rules}
    assert rules and not rules & {erratum.id for _, erratum in all_errata()}
