"""Q/DQ for DLA: every tensor has a scale, and equal ones where DLA wants that, by a walk of another kind."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from dla_walk import Walk
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import csa_deploy as csa
from csa_deploy.errors import UsageError
from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.precision.bounds import complete
from csa_deploy.precision.dla_placement import SCOPE, place_for_dla, with_every_scale
from csa_deploy.precision.int8 import to_int8
from csa_deploy.precision.qdq import insert_qdq
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.techniques import BETTER, Plan, best_ranges
from csa_deploy.precision.thresholds import METHODS
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import DlaGraph, NotSearched
from csa_deploy.restricted.check import check
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from tests.small_models import model_of

network = partial(model_of, opset=18)


def run(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """ONNX Runtime's outputs in FP32, without fusions."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    found = session.run(None, {given.name: x.astype(np.float16) if given.type == "tensor(float16)" else x})
    return [np.asarray(array, np.float32) for array in found]


def measured(model: ModelProto, x: np.ndarray) -> dict[str, float]:
    """Largest value of every activation, by ONNX Runtime with all of them as outputs."""
    every = onnx.shape_inference.infer_shapes(model)
    known = {value.name for value in every.graph.output}
    every.graph.output.extend(v for v in every.graph.value_info if v.name not in known)
    names = [value.name for value in every.graph.output]
    return {"x": float(np.abs(x).max())} | {
        name: float(np.abs(array).max()) for name, array in zip(names, run(every, x), strict=True)
    }


def quantized(
    model: ModelProto, x: np.ndarray, *, half_io: bool = True
) -> tuple[ModelProto, DlaGraph, dict[str, float]]:
    """The network in INT8 for DLA, its scales by the largest values on ``x``."""
    placement, dla = place_for_dla(model, half_io)
    sizes = measured(model, x)
    thresholds = with_every_scale(placement, {n: s for n, s in sizes.items() if s}, complete(model, sizes))
    made = to_int8(model, placement, thresholds, io=dla.io)
    assert not made.kept and not made.kept_fp32
    return made.model, dla, made.scales


def branches(rng: np.random.Generator) -> ModelProto:
    """Concat of a pooled and a gated branch, a sum, a clipped ReLU, a nearest Resize and a Transpose: all on DLA."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("AveragePool", ["b"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", ["b", "w2"], ["d"]),
        node("Sigmoid", ["d"], ["e"]),
        node("Mul", ["b", "e"], ["f"]),
        node("Concat", ["c", "f"], ["g"], axis=1),
        node("Conv", ["g", "w3"], ["h"]),
        node("Add", ["h", "b"], ["i"]),
        node("Clip", ["i", "low", "high"], ["j"]),
        node("Resize", ["j", "", "scales"], ["k"], mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
        node("MaxPool", ["k"], ["l"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["l"], ["y"], perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    constants = {
        "w1": rng.normal(size=(8, 3, 3, 3)).astype("f4"),
        "w2": rng.normal(size=(8, 8, 1, 1)).astype("f4"),
        "w3": rng.normal(size=(8, 16, 1, 1)).astype("f4"),
        "low": np.float32(0),
        "high": np.float32(6),
        "scales": np.array([1, 1, 2, 2], "f4"),
    }
    return network(nodes, {"x": [1, 3, 10, 10]}, "y", constants)


def decibels(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - found) ** 2).sum()))


@pytest.mark.shows("MEA-22")
def test_every_tensor_has_a_scale_and_equal_ones_where_dla_wants_that() -> None:
    rng = np.random.default_rng(0)
    model = branches(rng)
    int8, dla, scales = quantized(model, rng.normal(size=(1, 3, 10, 10)).astype("f4"))
    assert Walk(int8).all_problems() == []
    assert dla.nodes == len(model.graph.node) and not dla.off and dla.tensors == len(scales) == 14
    # By hand: ReLU, pooling, join and sum tie a, b, c, f, g and h; the end of the network ties i, j, k, l and y.
    assert sorted(map(sorted, dla.shared)) == [["a", "b", "c", "f", "g", "h"], ["i", "j", "k", "l", "y"]]
    assert check(int8, [SCOPE]).scopes[0].verdict == "allowed"


@pytest.mark.shows("MEA-22", "ERR-18")
def test_the_walk_sees_what_is_missing() -> None:
    """The same walk over the placement for the GPU, and over a graph of which one scale was changed."""
    rng = np.random.default_rng(0)
    model, x = branches(rng), rng.normal(size=(1, 3, 10, 10)).astype("f4")
    on_gpu = to_int8(model, place(model), measured(model, x), io="fp16").model
    assert sum("without scale" in problem for problem in Walk(on_gpu).all_problems()) > 5
    int8, _, _ = quantized(model, x)
    other = onnx.ModelProto()
    other.CopyFrom(int8)
    scale = next(t for t in other.graph.initializer if t.name == "c_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float16(2), "c_scale"))
    problems = Walk(other).all_problems()
    assert len(problems) == 2 and "AveragePool" in problems[0] and "Concat" in problems[1]
    assert check(other, [SCOPE]).scopes[0].verdict == "denied"


def test_the_graph_computes_nearly_the_same() -> None:
    rng = np.random.default_rng(1)
    model, x = branches(rng), rng.normal(size=(1, 3, 10, 10)).astype("f4")
    for half_io in (True, False):
        int8, dla, _ = quantized(model, x, half_io=half_io)
        assert dla.io == ("fp16" if half_io else "fp32")
        assert int8.graph.input[0].type.tensor_type.elem_type == (TensorProto.FLOAT16 if half_io else TensorProto.FLOAT)
        assert [value.name for value in int8.graph.output] == ["y"]
        assert decibels(run(model, x)[0], run(int8, x)[0]) > 25


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
    """Operators drawn at random over tensors that other nodes read too."""
    rng = np.random.default_rng(seed)
    shape, nodes, constants = (1, 4, 8, 8), [], {"w0": rng.normal(size=(4, 4, 3, 3)).astype("f4")}
    nodes.append(helper.make_node("Conv", ["x", "w0"], ["t0"], pads=[1] * 4))
    for number in range(1, 14):
        known = ["x", *(f"t{n}" for n in range(number))]
        one, two = (str(rng.choice(known)) for _ in range(2))
        op, output = (
            str(rng.choice(["Conv", "Relu", "Sigmoid", "Add", "Sub", "Mul", "Max", "Join", "Pool", "Move"])),
            f"t{number}",
        )
        if op == "Conv":
            constants[f"w{number}"] = rng.normal(size=(4, 4, 1, 1)).astype("f4")
            nodes.append(helper.make_node("Conv", [one, f"w{number}"], [output]))
        elif op == "Pool":
            kind = str(rng.choice(["AveragePool", "MaxPool"]))
            nodes.append(helper.make_node(kind, [one], [output], kernel_shape=[3, 3], pads=[1] * 4))
        elif op == "Move":
            nodes.append(helper.make_node("Transpose", [one], [output], perm=[0, 1, 3, 2]))
        elif op == "Join":
            constants[f"w{number}"] = rng.normal(size=(4, 8, 1, 1)).astype("f4")
            nodes.append(helper.make_node("Concat", [one, two], [f"{output}_joined"], axis=1))
            nodes.append(helper.make_node("Conv", [f"{output}_joined", f"w{number}"], [output]))
        else:
            nodes.append(helper.make_node(op, [one, two] if op in ("Add", "Sub", "Mul", "Max") else [one], [output]))
    read = {name for node in nodes for name in node.input}
    ends = [name for node in nodes for name in node.output if name not in read]
    model = network(
        nodes, {"x": shape}, dict.fromkeys([*ends, "t0"]), constants
    )  # t0 is an output that other nodes read
    int8, dla, _ = quantized(model, rng.normal(size=shape).astype("f4"))
    off = frozenset(item.node for item in dla.off)
    assert Walk(int8).all_problems(off) == [] and not off
    placement = check(int8, [SCOPE]).scopes[0].placement
    assert placement is not None and not placement.fallbacks, placement.fallbacks
    assert {value.name for value in int8.graph.output} == {*ends, "t0"}


def test_what_relu_cuts_off_needs_no_range() -> None:
    """A ReLU's input may reach far below: it takes the scale of the output, and nothing changes by that."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, 1, 4, 4)).astype("f4")
    x[0, 0, 0, 0] = -100.0
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    model = network(nodes, {"x": [1, 1, 4, 4]}, "y", {"w": np.ones((1, 1, 1, 1), "f4")})
    _, _, scales = quantized(model, x)
    assert scales["a"] == scales["b"] == pytest.approx(np.maximum(x, 0).max() / 127, rel=1e-3)
    nodes[2] = helper.make_node("Add", ["a", "b"], ["y"])  # now somebody else reads what ReLU cuts off
    model = network(nodes, {"x": [1, 1, 4, 4]}, "y", {"w": np.ones((1, 1, 1, 1), "f4")})
    _, _, scales = quantized(model, x)
    assert scales["a"] == scales["b"] == pytest.approx(100 / 127, rel=1e-3)


@pytest.mark.parametrize("top", [np.inf, 1.0, 0.37, 6.0])
def test_rounding_before_a_clipped_relu_is_rounding_behind_it(top: float) -> None:
    """By brute force over values around every step, with NumPy."""
    scale = np.float32(0.0173)
    steps = np.arange(-140, 141, dtype=np.float32)
    values = np.concatenate([(steps + offset) * scale for offset in (-0.5, -0.4999, -0.1, 0, 0.3, 0.4999, 0.5)])

    def rounded(array: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(array / scale), -128, 127)

    cut = np.clip(values, 0, top)
    assert (rounded(np.clip(rounded(values) * scale, 0, top)) == rounded(cut)).all()


def test_nodes_that_fall_back_have_the_placement_of_the_gpu() -> None:
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Elu", ["a"], ["b"], name="off"),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Softplus", ["c"], ["y"], name="end"),
    ]
    constants = {"w": rng.normal(size=(4, 4, 1, 1)).astype("f4")}
    model = network(nodes, {"x": [1, 4, 6, 6]}, "y", constants)
    int8, dla, scales = quantized(model, rng.normal(size=(1, 4, 6, 6)).astype("f4"))
    assert {item.node: item.op for item in dla.off} == {"off": "Elu", "end": "Softplus"}
    assert all(item.reason for item in dla.off)
    assert Walk(int8).all_problems(frozenset({"off", "end"})) == []
    assert set(scales) == {
        "x",
        "a",
        "b",
        "c",
    }  # what DLA writes for the GPU has one, what the GPU writes for itself not


def test_a_network_of_which_nothing_runs_on_dla_is_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = network(nodes, {"x": [1, 4]}, "y", {"w": np.ones((4, 3), "f4")})
    with pytest.raises(UsageError, match="nothing of the network runs on DLA") as caught:
        place_for_dla(model)
    assert caught.value.fix and "--fix" in caught.value.fix


def test_an_opset_without_fp16_qdq_is_refused() -> None:
    weights = {"w": np.ones((1, 1, 1, 1), "f4")}
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": [1, 1, 4, 4]}, "y", weights, opset=17)
    with pytest.raises(UsageError, match="opset 17"):
        place_for_dla(model)


def test_switched_on_throughout_it_is_the_same_network() -> None:
    """What techniques are judged on computes what is written."""
    rng = np.random.default_rng(4)
    model, x = branches(rng), rng.normal(size=(1, 3, 10, 10)).astype("f4")
    placement, _ = place_for_dla(model)
    sizes = measured(model, x)
    thresholds = with_every_scale(placement, sizes, complete(model, sizes))
    switchable = Switchable(model, placement, thresholds, threads=1)
    every = [layer.name for layer in switchable.layers]
    assert set(every) == {node.name for node in model.graph.node}
    (written,) = run(insert_qdq(model, placement, thresholds).model, x)
    steps = np.abs(switchable.run({"x": x}, every)["y"] - written) / (thresholds["h"] / 127)
    assert steps.max() < 1.1 and (steps > 0.1).mean() < 0.01  # sums in another order end in the next step
    np.testing.assert_allclose(switchable.run({"x": x}, ())["y"], run(model, x)[0], rtol=1e-5, atol=1e-5)


def test_the_runner_computes_the_bias_that_the_graph_states() -> None:
    """ONNX Runtime's optimizer makes INT32 of a bias between Q/DQ, with a scale that underflows in FP16."""
    rng = np.random.default_rng(7)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"]), helper.make_node("Conv", ["a", "v"], ["y"])]
    constants = {
        "w": (1e-4 * rng.normal(size=(4, 4, 1, 1))).astype("f4"),
        "b": np.array([3, -2, 1, 0.5], "f4"),
        "v": np.eye(4, dtype="f4")[:, :, None, None],
    }
    model = network(nodes, {"x": [1, 4, 6, 6]}, "y", constants)
    x = (0.01 * rng.normal(size=(1, 4, 6, 6))).astype("f4")
    int8, _, _ = quantized(model, x)
    with OnnxRuntimeRunner(int8.SerializeToString()) as runner:
        found = runner.run({"x": x.astype(np.float16)})["y"].astype("f4")
    assert decibels(run(model, x)[0], found) > 35
    np.testing.assert_allclose(found, run(int8, x)[0], atol=3 / 127 + 1e-3)  # a step, where a sum ends in the next


class HalfAway:
    """The Q/DQ graph by brute force in NumPy, with either way to round halves."""

    def __init__(self, model: ModelProto, away: bool) -> None:
        self.model, self.away = model, away
        self.ties = 0

    def quantize(self, array: np.ndarray, scale: np.ndarray) -> np.ndarray:
        steps = array / scale
        self.ties += int((np.abs(steps - np.trunc(steps)) == 0.5).sum())
        rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5) if self.away else np.rint(steps)
        return np.clip(rounded, -128, 127)

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        found = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in self.model.graph.initializer}
        found["x"] = x
        for node in self.model.graph.node:
            read = [found[name] for name in node.input]
            found[node.output[0]] = self._computed(node, read)
        return found

    def _computed(self, node: NodeProto, read: list[np.ndarray]) -> np.ndarray:
        if node.op_type == "QuantizeLinear":
            return self.quantize(read[0], read[1])
        if node.op_type == "DequantizeLinear":
            scale = read[1].reshape(-1, 1, 1, 1) if read[1].ndim else read[1]
            return read[0] * scale
        if node.op_type == "Conv":  # of 1 x 1
            return np.einsum("oi,nihw->nohw", read[1][:, :, 0, 0], read[0])
        if node.op_type == "AveragePool":  # of 2 x 2, stride 2
            n, c, h, w = read[0].shape
            return read[0].reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))
        return {"Relu": lambda: np.maximum(read[0], 0), "Add": lambda: read[0] + read[1]}[node.op_type]()


def test_rounding_halves_away_from_zero_by_brute_force() -> None:
    """How far DLA's rounding is from ONNX Runtime's on one graph: weights and inputs on steps, so that halves occur.

    The mean of four values in steps falls on a half in a quarter of all cases, and then differs by a step where the
    step below is even.
    """
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "v"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    scale, eye = 2.0**-6, np.eye(4, dtype="f4")[:, :, None, None]
    model = network(nodes, {"x": [1, 4, 32, 32]}, "y", {"w": eye, "v": eye / 2})
    x = (rng.integers(-60, 61, size=(1, 4, 32, 32)) * scale).astype("f4")
    placement, _ = place_for_dla(model)
    graph = insert_qdq(model, placement, placement.shared(dict.fromkeys(placement.tensors, 127 * scale))).model
    even, away = HalfAway(graph, away=False), HalfAway(graph, away=True)
    exact, other = even.run(x), away.run(x)
    np.testing.assert_allclose(exact["y"], run(graph, x)[0], rtol=0, atol=1e-6)  # ONNX Runtime rounds halves to even
    pooled = np.abs(exact["c_int8"] - other["c_int8"])
    assert even.ties > 200 and set(np.unique(pooled)) == {0, 1}
    assert 0.08 < pooled.mean() < 0.17, pooled.mean()  # 1/4 halves, half of them to the other side
    assert (np.abs(other["c_int8"]) >= np.abs(exact["c_int8"])).all()  # away from zero
    for rounding, wanted in (("gpu", exact), ("dla", other)):  # `verify --int8-arithmetic`, by integer kernels
        np.testing.assert_array_equal(run(to_integer(graph, rounding).model, x)[0], wanted["y"])
    steps = np.abs(exact["y"] - other["y"]) / scale
    assert steps.max() == 2 and 29 < decibels(exact["y"], other["y"]) < 31


@pytest.mark.parametrize(("usual", "chosen"), [("mse", "minmax"), ("percentile", "percentile"), ("minmax", "minmax")])
def test_the_method_of_the_ranges_is_the_best_on_the_samples(usual: str, chosen: str) -> None:
    """Each method's figure worked out here from the written graph; one that is as good as the best stays."""
    rng = np.random.default_rng(6)
    model, x = branches(rng), rng.normal(size=(1, 3, 10, 10)).astype("f4")
    placement, _ = place_for_dla(model)
    sizes = measured(model, x)
    full = with_every_scale(placement, sizes, complete(model, sizes))
    factors = {"mse": 0.5, "minmax": 1.0, "percentile": 1.0, "entropy": 0.25}
    ranges = {name: {tensor: size * factor for tensor, size in full.items()} for name, factor in factors.items()}
    method, found = best_ranges(Plan(model, placement, {}, {}), ranges, usual, [{"x": x}], threads=1)  # type: ignore[arg-type]
    assert method == chosen
    for name, thresholds in ranges.items():
        (written,) = run(insert_qdq(model, placement, thresholds).model, x)
        assert found[name] == pytest.approx(decibels(run(model, x)[0], written), abs=1.0)


NETWORKS = {
    "csa_digits": ("digits", 88, 25),
    "csa_segmentation": ("scenes", None, 3),
    "csa_detection": ("scenes", None, 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_the_box(name: str, tmp_path: Path) -> None:
    """Repaired for the scope, quantized on their training sets: nothing falls back, every tensor has a scale."""
    data, nodes, least = NETWORKS[name]
    graph = csa.repair(csa.optimize(csa.export(name)), [SCOPE])
    made = csa.quantize(graph, calib=f"{data}:train", samples=16, target_dla=True, fp16_io=True, techniques="none")
    assert Walk(made.model).all_problems() == []
    dla = made.report.int8.dla
    assert dla is not None and not dla.off and dla.io == "fp16" and dla.rounding == "half away from zero"
    assert nodes in (None, dla.nodes)
    assert made.report.int8.search == NotSearched("DLA wants a scale at every tensor of a part (--target-dla)")
    assert any("half away from zero" in note for note in made.notes)
    method = made.report.calibration.method
    assert set(dla.ranges) == set(METHODS) and dla.ranges[method] > max(least, max(dla.ranges.values()) - BETTER - 1e-9)
    scope = check(made.model, [SCOPE]).scopes[0]
    assert scope.verdict == "allowed" and scope.placement is not None
    assert scope.placement.subgraphs == 1 and not scope.placement.fallbacks
    rng = np.random.default_rng(0)
    shape = [dim.dim_value for dim in graph.model.graph.input[0].type.tensor_type.shape.dim]
    x = rng.normal(size=shape).astype("f4")
    assert all(np.isfinite(array).all() for array in run(made.model, x))
