from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from csa_deploy.data.prefetch import CORES
from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.runners.base import free_cores, run_padded
from csa_deploy.runners.engine_runner import EngineRunner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.spec import TensorSpec


class TwoInTwoOut(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor]]:
        return {"sum": a + b, "rest": (a * b,)}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = a + b and z = a * b over (2, 3), as in TwoInTwoOut."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "abyz"]
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Mul", ["a", "b"], ["z"])]
    body = helper.make_graph(nodes, "g", tensors[:2], tensors[2:])
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def torch_runner(**options: int | str) -> TorchRunner:
    specs = [TensorSpec("a", (2, 3), "float32"), TensorSpec("b", (2, 3), "float32")]
    return TorchRunner(TwoInTwoOut(), specs, ["y", "z"], **options)


def feeds(samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((samples, 3), dtype=np.float32) for name in "ab"}


def test_backends_agree_and_describe_themselves(graph: Path) -> None:
    with torch_runner() as reference, OnnxRuntimeRunner(graph, threads=1) as candidate:
        assert candidate.input_specs == reference.input_specs
        assert candidate.output_specs == reference.output_specs
        expected, got = reference.run(feeds(2)), candidate.run(feeds(2))
        for runner in (reference, candidate):
            assert runner.describe().keys() >= {"backend", "version", "provider", "threads", "executes"}
    assert list(expected) == list(got) == ["y", "z"]
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_any_number_of_samples_goes_through_a_static_batch(graph: Path, samples: int) -> None:
    data = feeds(samples)
    with OnnxRuntimeRunner(graph) as runner:
        outputs = run_padded(runner, data)
    np.testing.assert_allclose(outputs["y"], data["a"] + data["b"], rtol=1e-6)
    np.testing.assert_allclose(outputs["z"], data["a"] * data["b"], rtol=1e-6)


def test_run_padded_refuses_unequal_or_missing_samples(graph: Path) -> None:
    with OnnxRuntimeRunner(graph) as runner:
        with pytest.raises(UsageError, match=r"\[2, 3\] samples"):
            run_padded(runner, {"a": feeds(2)["a"], "b": feeds(3)["b"]})
        with pytest.raises(UsageError, match=r"\[0\] samples"):
            run_padded(runner, feeds(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": np.zeros((2, 3), np.float32)}, r"\['a'\] were given"),
        ({"a": np.zeros((2, 4), np.float32), "b": np.zeros((2, 3), np.float32)}, r"'a' is float32 \[2, 4\]"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3), np.float32)}, r"'a' is float64"),
        ({"a": np.zeros(3, np.float32), "b": np.zeros((2, 3), np.float32)}, r"'a' is float32 \[3\]"),
    ],
)
def test_wrong_feeds_are_named(graph: Path, wrong: dict[str, np.ndarray], message: str) -> None:
    for runner in (torch_runner(), OnnxRuntimeRunner(graph)):
        with runner, pytest.raises(UsageError, match=message):
            runner.run(wrong)


def test_torch_runner_restores_threads_and_takes_read_only_input() -> None:
    before = torch.get_num_threads()
    data = feeds(2)
    data["a"].setflags(write=False)
    with torch_runner(threads=1) as runner:
        assert torch.get_num_threads() == 1
        assert runner.describe()["threads"] == 1
        runner.run(data)
    assert torch.get_num_threads() == before


def test_torch_runner_protects_its_input_from_in_place_modules() -> None:
    data = {"x": -np.ones((1, 3), np.float32)}
    with TorchRunner(nn.ReLU(inplace=True), [TensorSpec("x", (1, 3), "float32")], ["y"]) as runner:
        assert runner.run(data)["y"].max() == 0
    assert data["x"].max() == -1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_torch_runner_refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(EnvironmentLacksError, match="finds no CUDA device"):
        torch_runner(device="cuda")


def test_torch_runner_counts_its_outputs() -> None:
    specs = [TensorSpec("a", (2, 3), "float32"), TensorSpec("b", (2, 3), "float32")]
    with TorchRunner(TwoInTwoOut(), specs, ["y"]) as runner, pytest.raises(UsageError, match="2 tensors, 1 output"):
        runner.run(feeds(2))


def test_graphs_that_do_not_load_are_usage_errors(tmp_path: Path, graph: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    with pytest.raises(UsageError, match=r"text\.onnx does not load"):
        OnnxRuntimeRunner(text)
    with pytest.raises(UsageError, match="no such file"):
        OnnxRuntimeRunner(tmp_path / "missing.onnx")
    with pytest.raises(UsageError, match="does not load"):
        OnnxRuntimeRunner(graph.read_bytes()[:-20])


def test_missing_provider_is_named_with_those_present(graph: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"no NoSuchExecutionProvider; it has .*CPUExecutionProvider"):
        OnnxRuntimeRunner(graph, provider="NoSuchExecutionProvider")


def test_a_node_that_fails_at_run_time_is_one_line() -> None:
    """Gather with an index beyond the axis passes loading and fails in execution."""
    body = helper.make_graph(
        [helper.make_node("Gather", ["x", "i"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("i", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with OnnxRuntimeRunner(model.SerializeToString(), optimize=False) as runner:
        assert [spec.dtype for spec in runner.input_specs] == ["float32", "int64"]
        with pytest.raises(UsageError, match="stopped at a node") as caught:
            runner.run({"x": np.zeros(3, np.float32), "i": np.array([7])})
    assert "\n" not in str(caught.value)


def test_a_closed_runner_says_so(graph: Path) -> None:
    with OnnxRuntimeRunner(graph) as runner:
        pass
    with pytest.raises(UsageError, match="is closed"):
        runner.run(feeds(2))


def layer_normalisation(scaled_in: int) -> onnx.ModelProto:
    """A layer normalisation in FP32 between tensors of a type."""
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[2, 8] x) => (TYPE[2, 8] y)
    <int64[1] axis = {-1}, float two = {2}, float epsilon = {1e-6}> {
        mean = ReduceMean (x, axis)
        difference = Sub (x, mean)
        square = Pow (difference, two)
        variance = ReduceMean (square, axis)
        safe = Add (variance, epsilon)
        deviation = Sqrt (safe)
        normal = Div (difference, deviation)
        cast = Cast <to = TO> (normal)
        scaled = Mul (cast, scale)
        y = Add (scaled, bias)
    }"""
    name = "float16" if scaled_in == TensorProto.FLOAT16 else "float"
    model = onnx.parser.parse_model(text.replace("TYPE", name).replace("TO", str(scaled_in)))
    values = {"scale": np.linspace(1, 2, 8), "bias": np.linspace(-1, 1, 8)}
    dtype = helper.tensor_dtype_to_np_dtype(scaled_in)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(dtype), n) for n, v in values.items())
    return model


@pytest.mark.parametrize("scaled_in", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_a_layer_normalisation_of_two_types_loads_optimised(scaled_in: int) -> None:
    """ONNX Runtime's fusion makes one node of two types there."""
    model = layer_normalisation(scaled_in)
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        np.testing.assert_allclose(runner.run({"x": x})["y"], wanted, atol=4e-3)


def test_optimisation_is_stated(graph: Path) -> None:
    assert "node by node" in OnnxRuntimeRunner(graph, optimize=False).describe()["executes"]
    assert "optimised" in OnnxRuntimeRunner(graph).describe()["executes"]


def test_engine_runner_refuses_what_cannot_run(tmp_path: Path) -> None:
    engine = tmp_path / "net.engine"
    with pytest.raises(UsageError, match="unknown engine backend"):
        EngineRunner(engine, backend="other")
    with pytest.raises(UsageError, match="no such engine"):
        EngineRunner(engine, backend="tensorrt-rtx")
    engine.write_bytes(b"plan")
    if not cuda_state().devices:
        with pytest.raises(EnvironmentLacksError, match="no CUDA device"):
            EngineRunner(engine, backend="tensorrt-rtx")


def test_cores_that_no_runner_computes_on_are_free(graph: Path) -> None:
    with torch_runner(threads=1) as one, OnnxRuntimeRunner(graph) as all_cores:
        assert free_cores([one]) == CORES - 1
        assert free_cores([one, all_cores]) == 0
    assert free_cores([]) == CORES, "engines and graphs on a GPU leave them all"


def test_outputs_that_are_known_need_no_run() -> None:
    class Counts(nn.Module):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return 2 * x

    module, spec = Counts(), TensorSpec("x", (1, 2), "float32")
    known = TorchRunner(module, [spec], ["y"], outputs=[TensorSpec("y", (1, 2), "float32")])
    assert run_padded(known, {"x": np.ones((3, 2), "f4")})["y"].tolist() == [[2, 2]] * 3
    assert module.runs == 3
    assert TorchRunner(module, [spec], ["y"]).output_specs[0].shape == (1, 2) and module.runs == 4
