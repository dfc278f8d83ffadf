"""Quantization-aware fine-tuning against ONNX Runtime and against post-training quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.precision.qdq_placement import place
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import Int8Graph, NotSearched, PrecisionRecord
from csa_deploy.train.graph_module import GraphModule
from csa_deploy.train.qat import QuantizationResult, quantized, write_graphs
from csa_deploy.workspace import StageOutput, Workspace

BATCH, IMAGES = 1, 32


def make_graph() -> onnx.ModelProto:
    """The operators of a CSA block in miniature, in opset 13: its INT8 form keeps FP32 around, so values compare."""
    random = np.random.RandomState(0)

    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    weights = [
        constant("w1", random.randn(8, 1, 3, 3).astype(np.float32) * 0.3),
        constant("b1", random.randn(8).astype(np.float32) * 0.1),
        constant("w2", random.randn(8, 1, 3, 3).astype(np.float32) * 0.3),
        constant("w3", random.randn(2, 8, 1, 1).astype(np.float32) * 0.3),
        constant("scales", np.array([1, 1, 2, 2], dtype=np.float32)),
        constant("rows", np.array([1, 8, 16, 4], dtype=np.int64)),
        constant("map", np.array([1, 8, 8, 8], dtype=np.int64)),
        constant("classes", np.array([-1, 2], dtype=np.int64)),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["a"], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["a"], ["r"], "relu"),
        node("Conv", ["r", "w2"], ["v"], "conv2", pads=[1, 1, 1, 1], group=8),
        node("Reshape", ["v", "rows"], ["k"], "reshape1"),
        node("Transpose", ["k"], ["kt"], "transpose", perm=[0, 1, 3, 2]),
        node("Reshape", ["kt", "map"], ["k8"], "reshape2"),
        node("Sigmoid", ["k8"], ["gate"], "gate"),
        node("Mul", ["gate", "v"], ["m"], "mul"),
        node("Add", ["m", "r"], ["s"], "add"),
        node("Resize", ["s", "", "scales"], ["u"], "resize", mode="linear"),
        node("AveragePool", ["u"], ["p"], "pool", kernel_shape=[16, 16]),
        node("Conv", ["p", "w3"], ["c"], "conv3"),
        node("Reshape", ["c", "classes"], ["logits"], "reshape3"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 1, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, 2])
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def executed(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


@pytest.fixture(scope="module")
def ptq() -> QuantizationResult:
    model = make_graph()
    layers = place(model).layers
    tensors = {t for layer in layers for t in layer.activations.values()}
    return QuantizationResult(model, layers, {}, (), dict.fromkeys(tensors, 3.0 / 127))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.RandomState(1).randn(IMAGES, 1, 16, 16).astype(np.float32)


def test_the_module_is_the_graph_for_any_batch(ptq: QuantizationResult, samples: np.ndarray) -> None:
    with torch.no_grad():
        output = GraphModule(ptq.model, (), {})(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(output, executed(ptq.model, samples), atol=1e-5)


@pytest.mark.shows("MEA-38")
def test_training_sees_the_rounding_of_the_int8_graph(ptq: QuantizationResult, samples: np.ndarray) -> None:
    with torch.no_grad():
        output = ptq.module()(torch.from_numpy(samples)).numpy()
    int8, fp32 = executed(ptq.int8(ptq.model), samples), executed(ptq.model, samples)
    # A sum on the edge between two INT8 values may fall to either side, so some outputs differ by one step.
    assert np.median(np.abs(output - int8)) < 1e-6
    assert np.median(np.abs(int8 - fp32)) > 1e-3


def test_fine_tuning_ends_in_the_same_graph_with_other_weights(
    ptq: QuantizationResult, samples: np.ndarray, tmp_path: Path
) -> None:
    module, images = ptq.module(), torch.from_numpy(samples)
    labels = (images.mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(module(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]

    save_file({n: v.detach() for n, v in module.state_dict().items()}, tmp_path / "model.safetensors")
    paths = write_graphs(ptq, tmp_path / "model.safetensors", tmp_path, "small")
    tuned, before = onnx.load(paths["int8"]), ptq.int8(ptq.model)
    assert [n.SerializeToString() for n in tuned.graph.node] == [n.SerializeToString() for n in before.graph.node]
    scales = {t.name: t for t in before.graph.initializer}
    changed = {t.name for t in tuned.graph.initializer if t != scales[t.name]}
    assert changed
    assert not any(name.startswith(tuple(ptq.scales)) for name in changed)
    predicted = executed(tuned, samples)
    assert F.cross_entropy(torch.from_numpy(predicted), labels).item() == pytest.approx(losses[-1], rel=0.1)


@pytest.mark.shows("MEA-38", "ERR-32")
def test_an_operator_without_counterpart_is_named() -> None:
    model = make_graph()
    model.graph.node[1].op_type = "Erf"
    with pytest.raises(UsageError, match="operator Erf"):
        GraphModule(model, (), {})


def test_a_workspace_without_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no INT8 graph here yet"):
        quantized(tmp_path)


@pytest.mark.parametrize("equalized", [None, "onnx/small.equalized.onnx"])
def test_training_starts_from_the_weights_that_the_ranges_belong_to(equalized: str | None, tmp_path: Path) -> None:
    model, workspace = make_graph(), Workspace(tmp_path)
    figures = graph_statistics(model)
    int8 = Int8Graph(
        graph="onnx/small.int8.onnx",
        statistics=figures,
        key="",
        cache="",
        equalized=equalized,
        int8=(),
        kept_floating={},
        kept=(),
        rest="fp32",
        scales={},
        notes=(),
        search=NotSearched("nothing to search"),
        techniques={},
        estimated_latency_ms={},
        cost_unknown=(),
    )
    optimized = OptimizeRecord(summary="", graph="onnx/small.optimized.onnx", before=figures, after=figures)
    for record in (optimized, PrecisionRecord(summary="", precisions={"int8": int8})):
        workspace.commit(record.stage, "key", StageOutput(record, measured={"seconds": 0.0, "started_at": ""}))
    (tmp_path / "onnx").mkdir()
    for name in ("optimized", "equalized"):
        model.graph.name = name
        save_model(model, tmp_path / "onnx" / f"small.{name}.onnx")
    assert quantized(tmp_path).model.graph.name == ("equalized" if equalized else "optimized")
