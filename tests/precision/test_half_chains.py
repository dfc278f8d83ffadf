"""FP16 makes no NaN and no infinity where FP32 gives moderate values: networks that divide, mask and normalise.

Each typed graph is run with every rounding made to happen, and by onnx's reference evaluator, which sums in FP16 too.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.precision.fp16 import to_fp16

F = onnx.TensorProto.FLOAT
MODERATE = 1e4
SHAPE = (3, 4, 8)


@dataclass
class Net:
    """A network in the making: ``do`` adds a node and gives the name of what it makes."""

    nodes: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)

    def do(self, op: str, *inputs: "str | float | np.ndarray", **attributes) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        name = f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, names, [name], name=f"n{len(self.nodes)}_{op}", **attributes))
        return name

    def constant(self, value) -> str:
        name = f"c{len(self.weights)}"
        array = np.asarray(value)
        self.weights[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def model(self, output: str, *more: onnx.ValueInfoProto) -> onnx.ModelProto:
        graph = onnx.helper.make_graph(
            self.nodes,
            "g",
            [onnx.helper.make_tensor_value_info("x", F, SHAPE), *more],
            [onnx.helper.make_tensor_value_info(output, F, None)],
            [onnx.numpy_helper.from_array(a, n) for n, a in self.weights.items()],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


AXIS = np.asarray([-1])
EPSILONS = [1e-30, 1e-12, 1e-8, 1.2e-7, 1e-6, 1e-5, 1e-3]


POSITIVE: list[Callable[[Net, str], str]] = [
    lambda net, x: net.do("Relu", x),
    lambda net, x: net.do("Clip", x, 0.0),
    lambda net, x: net.do("Max", x, 0.0),
    lambda net, x: net.do("Where", net.do("Less", x, 0.0), 0.0, x),
    lambda net, x: net.do("Abs", net.do("Neg", x)),
    lambda net, x: net.do("Add", net.do("Abs", x), net.do("Mul", x, x)),
    lambda net, x: net.do("Sum", net.do("Abs", x), net.do("Abs", x)),
]


def sums(net: Net, x: str, draw) -> str:
    """Something that is never negative and may be zero."""
    kind = draw(st.sampled_from(["mean", "sum of squares", "norm", "largest", "sum of sizes", "two squares"]))
    if kind == "mean":
        return net.do("ReduceMean", draw(st.sampled_from(POSITIVE))(net, x), AXIS)
    if kind == "two squares":
        return net.do("Add", net.do("Mul", x, x), net.do("Pow", net.do("Sub", x, 1e-3), 2.0))
    if kind == "sum of squares":
        return net.do("ReduceSum", net.do("Mul", x, x), AXIS)
    if kind == "norm":
        return net.do("ReduceL2", x, AXIS)
    return net.do("ReduceMax" if kind == "largest" else "ReduceSum", net.do("Abs", x), AXIS)


def protected(net: Net, value: str, draw) -> str:
    epsilon = draw(st.sampled_from(EPSILONS))
    how = draw(st.sampled_from(["Add", "Max", "Clip"]))
    value = net.do(how, value, epsilon)
    for _ in range(draw(st.integers(0, 2))):
        value = net.do(
            *draw(st.sampled_from([("Sqrt", value), ("Abs", value), ("Reshape", value, np.asarray([0, 0, -1]))]))
        )
    return value


def divided(net: Net, x: str, draw) -> str:
    how = draw(st.sampled_from(["Div", "Reciprocal", "Pow", "one over", "product"]))
    bottom = protected(net, sums(net, x, draw), draw)
    if how == "product":
        bottom = net.do("Mul", bottom, protected(net, sums(net, x, draw), draw))
    if how == "Reciprocal":
        return net.do("Mul", x, net.do("Reciprocal", bottom))
    if how == "one over":
        return net.do("Mul", net.do("Div", 1.0, bottom), x)
    if how == "Pow":
        return net.do("Mul", net.do("Pow", bottom, draw(st.sampled_from([-0.5, -1.0]))), x)
    return net.do("Div", x, bottom)


def logarithm(net: Net, x: str, draw) -> str:
    return net.do("Log", protected(net, net.do("Relu", x), draw))


def variance(net: Net, x: str, draw) -> str:
    """The mean of squares less the square of the mean, of values far from zero."""
    x = net.do("Add", x, draw(st.sampled_from([0.0, 20.0, 100.0])))
    mean = net.do("ReduceMean", x, AXIS)
    squares = net.do("ReduceMean", net.do("Mul", x, x), AXIS)
    found = net.do("Sub", squares, net.do("Mul", mean, mean))
    if draw(st.booleans()):
        return net.do("Div", net.do("Sub", x, mean), net.do("Sqrt", net.do("Add", found, 1e-2)))
    return net.do("Sqrt", net.do("Add", found, 1e-2))


def masked(net: Net, x: str, draw) -> str:
    """A mask of large numbers in front of what brings them back, a row of it in full."""
    rows = np.zeros(SHAPE, np.float32)
    rows[0, 0], rows[1, :, 3:] = 1, 1
    large = draw(st.sampled_from([1e5, 1e9, 3e38]))
    how = draw(st.sampled_from(["constant", "product", "Where", "ConstantOfShape"]))
    if how == "constant":
        x = net.do("Add", x, -large * rows)
    elif how == "product":
        x = net.do("Add", net.do("Mul", net.do("Sub", rows, 0.0 * rows), -large), x)
    elif how == "Where":
        x = net.do("Where", rows > 0, -large, x)
    else:
        value = onnx.helper.make_tensor("value", F, [1], [-large])
        fill = net.do("ConstantOfShape", np.asarray(SHAPE), value=value)
        x = net.do("Where", rows > 0, net.do("Identity", fill), x)
    x = net.do("Identity", x) if draw(st.booleans()) else x
    back = draw(st.sampled_from(["Softmax", "Sigmoid", "Max", "Clip", "Tanh", "Relu"]))
    if back == "Clip":
        return net.do("Clip", x, -5.0, 5.0)
    return net.do("Max", x, -3.0) if back == "Max" else net.do(back, x)


def bounded(net: Net, x: str, draw) -> str:
    """Bounds and paddings beyond FP16's range that never show."""
    if draw(st.booleans()):
        return net.do("Clip", x, -1e6, 1e6)
    padded = net.do("Pad", x, np.asarray([0, 0, 0, 0, 0, 2]), 1e5)
    return net.do("Slice", net.do("Min", padded, 6.0), np.asarray([0]), np.asarray([8]), np.asarray([2]))


def counted(net: Net, x: str, draw) -> str:
    """Integers beyond FP16's range, scaled down."""
    numbers = net.do("Cast", net.constant(np.arange(8) * 20_000), to=F)
    return net.do("Add", x, net.do("Div", numbers, 1e5))


def plain(net: Net, x: str, draw) -> str:
    return net.do(draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Neg", "Abs"])), x)


BLOCKS: list[Callable] = [divided, logarithm, variance, masked, bounded, counted, plain]


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    net, value = Net(), "x"
    for _ in range(draw(st.integers(1, 3))):
        value = draw(st.sampled_from(BLOCKS))(net, value, draw)
        value = net.do("Mul", value, 1.0)
        value = net.do("Expand", value, np.asarray(SHAPE))
    seed = draw(st.integers(0, 2**32 - 1))
    x = np.random.default_rng(seed).standard_normal(SHAPE) * draw(st.sampled_from([1e-5, 1e-2, 1.0, 30.0]))
    x[:, 1] = 0  # what an epsilon is for
    x[:, 2] = -np.abs(x[:, 2])
    return net.model(value), x.astype(np.float16).astype(np.float32)


def values_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every FP32 value of a graph, and the output last."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    floats = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type == F}
    observed.graph.output.extend(onnx.helper.make_tensor_value_info(name, F, None) for name in sorted(floats))
    names = [value.name for value in observed.graph.output]
    return dict(zip(names, session(observed).run(names, feeds), strict=True)) | feeds


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check(model: onnx.ModelProto, feeds: dict[str, np.ndarray], *, reference: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what is looked for here
        exact = values_of(model, feeds)
        output = model.graph.output[0].name
        if not (np.isfinite(exact[output]).all() and np.abs(exact[output]).max() <= MODERATE):
            return
        largest = {name: float(np.abs(array).max()) for name, array in exact.items()}
        result = to_fp16(model, largest=largest)
        onnx.checker.check_model(result.model, full_check=True)
        got = [session(keep_rounding(result.model)).run([output], feeds)[0]]
        if reference:
            got += ReferenceEvaluator(result.model).run([output], feeds)
        kept = [f"{node.name}: {node.reason}" for node in result.kept]
        assert all(np.isfinite(array).all() for array in got), kept


@settings(max_examples=150, deadline=None)
@given(networks())
@pytest.mark.shows("MEA-17", "ERR-14")
def test_what_is_finite_in_fp32_is_finite_in_fp16(case):
    model, x = case
    check(model, {"x": x})


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(networks())
def test_what_is_finite_in_fp32_is_finite_in_fp16_many_times(case):
    model, x = case
    check(model, {"x": x})


@pytest.mark.parametrize("positive", POSITIVE, ids=["Relu", "Clip", "Max", "Where", "Neg", "Add", "Sum"])
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.shows("MEA-17", "ERR-14")
def test_a_difference_that_rounding_takes_away_is_not_divided_by_its_epsilon(seed, positive):
    """Values around 20 less their mean: FP16 keeps a part of the row, perhaps none that is above zero."""
    net = Net()
    value = net.do("Add", "x", 20.0)
    value = net.do("Sub", value, net.do("ReduceMean", value, AXIS))
    quotient = net.do("Div", value, net.do("Add", net.do("ReduceMean", positive(net, value), AXIS), 1e-30))
    model = net.model(net.do("Mul", quotient, 1.0))
    x = np.random.default_rng(seed).standard_normal(SHAPE) * 1e-2
    check(model, {"x": x.astype(np.float16).astype(np.float32)})


@pytest.mark.parametrize("add", ["Add", "Sum"])
@pytest.mark.shows("MEA-17", "ERR-14")
def test_a_length_by_its_coordinates_is_that_of_fp32(add):
    """Squares of 1e-4 are below FP16's smallest number, as is the epsilon."""
    net = Net()
    squares = net.do(add, net.do("Mul", "x", "x"), net.do("Pow", net.do("Sub", "x", 1e-4), 2.0))
    model = net.model(net.do("Div", "x", net.do("Sqrt", net.do("Add", squares, 1e-12))))
    x = (np.random.default_rng(0).standard_normal(SHAPE) * 1e-4).astype(np.float16).astype(np.float32)
    (got,) = ReferenceEvaluator(to_fp16(model).model).run(None, {"x": x})
    wide = x.astype(np.float64)
    np.testing.assert_allclose(got, wide / np.sqrt(wide**2 + (wide - 1e-4) ** 2 + 1e-12), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("residual", ["Add", "Sum"])
def test_a_residual_below_a_layer_normalisation_stays_fp16(residual):
    """A sum of what layers make is no sum of squares: else all of a transformer's stream would be FP32."""
    net = Net()
    stream = net.do(residual, net.do("MatMul", "x", np.eye(8, dtype=np.float32)), net.do("Mul", "x", 2.0))
    centred = net.do("Sub", stream, net.do("ReduceMean", stream, AXIS))
    variance = net.do("Add", net.do("ReduceMean", net.do("Mul", centred, centred), AXIS), 1e-12)
    model = net.model(net.do("Div", centred, net.do("Sqrt", variance)))
    kept = {node.name for node in to_fp16(model).kept}
    assert f"n2_{residual}" not in kept and "n4_Sub" in kept


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.shows("MEA-17", "ERR-14")
def test_positions_of_grid_sample_stay_fp32_with_what_computes_them(build, flow):
    """A grid over 1,024 columns, shifted by a small flow: FP16 has no such positions between 0.5 and 1."""
    columns = np.linspace(-1, 1, 1024, dtype=np.float32)
    grid = np.stack(np.meshgrid(columns, np.linspace(-1, 1, 4, dtype=np.float32)), -1)[None]
    moved = "g = Add(grid, t) " if flow else "g = Identity(t) "
    model = build(
        "(float[1,1,4,1024] x, float[1,4,1024,2] f) => (float[1,1,4,1024] y)",
        f"t = Relu(f) {moved} y = GridSample<align_corners = 1>(x, g)",
        **({"grid": grid} if flow else {}),
    )
    image = np.tile(np.arange(1024, dtype=np.float32) % 2 * 2 - 1, (1, 1, 4, 1))
    given_grid = np.zeros_like(grid) if flow else np.abs(grid)
    result = to_fp16(onnx.shape_inference.infer_shapes(model))
    assert {node.op for node in result.kept} >= {"GridSample", "Add" if flow else "Identity", "Relu"}
    feeds = {"x": image, "f": given_grid}
    exact, got = (session(m).run(None, feeds)[0].astype("f8") for m in (model, keep_rounding(result.model)))
    assert 10 * np.log10((exact**2).sum() / max(((got - exact) ** 2).sum(), 1e-30)) > 90


def test_positions_that_a_layer_computes_are_fp32_from_the_layer_on(build):
    """Boxes of RoiAlign: exponential and product in FP32, the convolution before them in FP16."""
    model = build(
        "(float[1,4,16,16] x, int64[1] b) => (float[1,4,2,2] y)",
        "c = Conv(x, w) p = GlobalAveragePool(c) r = Reshape(p, shape) e = Exp(r) m = Mul(e, size)"
        " y = RoiAlign<output_height = 2, output_width = 2>(x, m, b)",
        w=(4, 4, 1, 1),
        shape=np.asarray([1, 4]),
        size=np.float32(900),
    )
    kept = {node.op: node.reason for node in to_fp16(onnx.shape_inference.infer_shapes(model)).kept}
    assert set(kept) == {"RoiAlign", "Exp", "Mul", "Reshape"}
    assert kept["Mul"] == "what it makes becomes positions of 'n5'"


def test_an_index_is_computed_in_fp32(build):
    """Column 4,097 of a table is none that FP16 can name."""
    model = build(
        "(float[1] x) => (float[1] y)",
        "t = Relu(x) s = Mul(t, k) i = Cast<to = 7>(s) y = Gather(table, i)",
        k=np.float32(4097),
        table=np.arange(5000, dtype=np.float32) / 5000,
    )
    result = to_fp16(onnx.shape_inference.infer_shapes(model))
    feeds = {"x": np.ones(1, np.float32)}
    found = [session(m).run(None, feeds)[0] for m in (model, keep_rounding(result.model))]
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert {node.op for node in result.kept} >= {"Mul", "Relu"}


@pytest.mark.parametrize("size", [6e4, 1e5, -1e5, np.inf])
def test_a_constant_of_a_shape_stays_in_fp32_where_fp16_cannot_hold_it(build, size):
    """What reads it does so in FP32; an infinity is one in FP16 as well."""
    model = build(
        "(float[2,3] x) => (float[2,3] y)", "c = ConstantOfShape(s) m = Min(c, x) y = Relu(m)", s=np.asarray([2, 3])
    )
    value = onnx.helper.make_tensor("value", F, [1], [size])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", value))
    result = to_fp16(onnx.shape_inference.infer_shapes(model))
    kept = {node.op for node in result.kept}
    assert kept >= ({"ConstantOfShape", "Min"} if np.isfinite(size) and abs(size) > 65504 else set())
    assert bool(kept) == (np.isfinite(size) and abs(size) > 65504)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(*(session(m).run(None, {"x": x})[0] for m in (model, keep_rounding(result.model))))


def test_an_ordinary_network_keeps_nothing(build):
    """The chains cost nothing where nothing has to be protected."""
    model = build(
        "(float[1,4,6,6] x) => (float[1,4,6,6] y)",
        "a = Conv(x, w) s = Sigmoid(a) m = Mul(a, s) r = ReduceMean<keepdims = 1>(m, axes) v = Add(r, one)"
        " d = Div(m, v) t = Softmax<axis = 1>(d) y = Sub(t, d)",
        w=(4, 4, 1, 1),
        axes=np.asarray([1]),
        one=np.float32(1),
    )
    assert to_fp16(onnx.shape_inference.infer_shapes(model)).kept == ()
