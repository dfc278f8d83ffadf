"""Faults that deployments really have, planted one at a time: the gate fails and the right module is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import AccuracyGateError, UsageError
from csa_deploy.export.metadata import read_preprocessing
from csa_deploy.pipeline import run_stages
from csa_deploy.source import load_source
from csa_deploy.stages import verify as verify
from csa_deploy.verify.localize.blame import localize
from csa_deploy.verify.localize.boundaries import boundaries, modules_of, view_of
from csa_deploy.verify.localize.case import Case
from csa_deploy.workspace import StageOutput, Workspace

Model = onnx.ModelProto
Compare = Callable[..., StageOutput]
SAMPLES = 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of ``csa_digits`` with the graphs of both precisions."""
    root = tmp_path_factory.mktemp("faults") / "ws"
    context = Context(make_config({"network": "csa_digits"}), load_source("csa_digits"), Workspace(root))
    with context.workspace.locked():
        run_stages(["precision"], context)
    return root


@pytest.fixture(scope="module")
def compare(finished: Path) -> Compare:
    """``compare(graph, **settings)``: verify the workspace and one more graph."""

    def run(graph: Model | None = None, **settings: Any) -> StageOutput:
        given = {"network": "csa_digits", "samples": SAMPLES, "threads": 1, **settings}
        if graph is not None:
            path = finished.parent / "bad.onnx"
            onnx.save(graph, path)
            given["candidate"] = [str(path)]
        context = Context(make_config(given), load_source("csa_digits"), Workspace(finished))
        with context.workspace.scratch("verify") as scratch:
            context.scratch = scratch
            return verify.run(context)

    return run


@pytest.fixture(scope="module")
def graph_of(finished: Path) -> Callable[[str], Model]:
    """A fresh copy of the FP32 or FP16 graph."""
    names = {"fp32": "csa_digits.optimized.onnx", "fp16": "csa_digits.fp16.onnx"}
    return lambda precision: onnx.load(finished / "onnx" / names[precision])


@pytest.fixture(scope="module")
def quantized(finished: Path) -> Callable[[], Model]:
    """A fresh copy of the INT8 graph, calibrated on a few digits."""
    root = finished.parent / "quantized"
    shutil.copytree(finished, root)
    given = {"network": "csa_digits", "precision": ["int8"], "calib": "digits:train", "calib_samples": 64}
    config = make_config({**given, "search": False, "techniques": ["none"], "threads": 1})
    context = Context(config, load_source("csa_digits"), Workspace(root))
    with context.workspace.locked():
        run_stages(["precision"], context)
    return lambda: onnx.load(root / "onnx" / "csa_digits.int8.onnx")


def nodes_in(model: Model, module: str, op: str) -> list[onnx.NodeProto]:
    modules = modules_of(model)
    return [n for n in model.graph.node if modules[n.name] == module and n.op_type == op]


def change_weight(model: Model, node: onnx.NodeProto, index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == node.input[index])
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(array.copy()).astype(array.dtype), tensor.name))


def insert_after(model: Model, tensor: str, nodes: Callable[[str], list[onnx.NodeProto]]) -> None:
    """Put nodes between a tensor and its readers; the last one's output is what they read."""
    added = nodes(tensor)
    for node in model.graph.node:
        node.input[:] = [added[-1].output[0] if name == tensor else name for name in node.input]
    position = next(i for i, n in enumerate(model.graph.node) if tensor in n.output) + 1
    for offset, node in enumerate(added):
        model.graph.node.insert(position + offset, node)


def constant(model: Model, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def scale_of_a_convolution(model: Model) -> str:
    change_weight(model, nodes_in(model, "stages.1.0.qk", "Conv")[0], 1, lambda w: 2 * w)
    return "stages.1.0.qk"


def forgotten_bias(model: Model) -> str:
    change_weight(model, nodes_in(model, "downsample_layers.0.0", "Conv")[0], 2, np.zeros_like)
    return "downsample_layers.0.0"


def transposed_head(model: Model) -> str:
    change_weight(model, nodes_in(model, "head", "Conv")[0], 1, lambda w: w[::-1])
    return "head"


def swapped_channels(model: Model) -> str:
    change_weight(model, nodes_in(model, "downsample_layers.1.0", "Conv")[0], 1, lambda w: w[:, ::-1])
    return "downsample_layers.1.0"


def other_coordinates(model: Model) -> str:
    node = next(n for n in model.graph.node if n.op_type == "Resize")
    for attribute in node.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"asymmetric"
    return modules_of(model)[node.name]


def shifted_padding(model: Model) -> str:
    node = nodes_in(model, "stages.1.1.v", "Conv")[0]
    pads = next(a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [0, 0, pads.ints[0] + pads.ints[2], pads.ints[1] + pads.ints[3]]
    return "stages.1.1.v"


def lost_shortcut(model: Model) -> str:
    node = nodes_in(model, "stages.0.0", "Add")[-1]
    node.op_type, node.input[:] = "Add", [node.input[1], node.input[1]]
    return "stages.0.0"


def not_a_number(model: Model) -> str:
    def spoil(weight: np.ndarray) -> np.ndarray:
        weight.flat[0] = np.nan
        return weight

    change_weight(model, nodes_in(model, "stages.2.0.mlp", "Conv")[0], 1, spoil)
    return "stages.2.0.mlp"


def overflow(model: Model) -> str:
    """Scaled up and down again: right in FP32, infinite in FP16."""
    node = nodes_in(model, "stages.1.0.q", "Conv")[0]
    up, down = constant(model, "up", np.float16(2**15)), constant(model, "down", np.float16(2**-15))
    insert_after(
        model,
        node.output[0],
        lambda t: [
            helper.make_node("Mul", [t, up], ["up_1"], name="up_1"),
            helper.make_node("Mul", ["up_1", up], ["up_2"], name="up_2"),
            helper.make_node("Mul", ["up_2", down], ["down_1"], name="down_1"),
            helper.make_node("Mul", ["down_1", down], ["down_2"], name="down_2"),
        ],
    )
    return "stages.1.0"  # the module that reads the overflowing values


def narrow_range(model: Model) -> str:
    """INT8 with a scale that is a factor of 16 too small: most values are clipped."""
    node = nodes_in(model, "stages.2.1.mlp", "Conv")[0]
    scale, zero = constant(model, "scale", np.float32(1 / 2048)), constant(model, "zero", np.int8(0))
    insert_after(
        model,
        node.input[0],
        lambda t: [
            helper.make_node("QuantizeLinear", [t, scale, zero], ["quantized"], name="quantize"),
            helper.make_node("DequantizeLinear", ["quantized", scale, zero], ["dequantized"], name="dequantize"),
        ],
    )
    return "stages.2.1.mlp"


GRAPH_FAULTS = [
    ("fp16", scale_of_a_convolution),
    ("fp32", scale_of_a_convolution),
    ("fp32", forgotten_bias),
    ("fp32", transposed_head),
    ("fp16", swapped_channels),
    ("fp32", other_coordinates),
    ("fp32", shifted_padding),
    ("fp32", lost_shortcut),
    ("fp16", not_a_number),
    ("fp16", overflow),
    ("fp32", narrow_range),
]


@pytest.mark.parametrize(("precision", "fault"), GRAPH_FAULTS, ids=[f"{f.__name__}-{p}" for p, f in GRAPH_FAULTS])
@pytest.mark.shows("MEA-31", "ERR-22", "ERR-06")
def test_a_fault_in_the_graph(
    compare: Compare, graph_of: Callable[[str], Model], precision: str, fault: Callable[[Model], str]
) -> None:
    model = graph_of(precision)
    module = fault(model)
    output = compare(model)
    assert isinstance(output.failure, AccuracyGateError) and "bad.onnx" in output.failure.message
    (found,) = output.stated["localization"]
    assert found["candidate"] == "bad.onnx" and list(found["culprits"]) == [module], found["statement"]
    (row,) = [row for row in found["rows"] if row["module"] == module]
    assert row["restored_snr_db"] > found["snr_db"] and row["error_added"] > 1e-3
    if fault is narrow_range:
        assert max(r["clipped"] or 0.0 for r in found["rows"]) > 0.2


@pytest.mark.shows("MEA-31", "ERR-15")
def test_a_scale_off_by_two_in_the_int8_graph(compare: Compare, quantized: Callable[[], Model]) -> None:
    output = compare(quantized())
    clean = output.stated["candidates"][-1]
    assert output.failure is None and clean["precision"] == "int8" and output.stated["localization"] == []
    model, module = quantized(), "downsample_layers.1.0"
    scale = next(t for t in model.graph.initializer if t.name == f"{module}.weight_scale")
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
    output = compare(model)
    assert isinstance(output.failure, AccuracyGateError) and "bad.onnx" in output.failure.message
    (found,) = output.stated["localization"]
    assert list(found["culprits"]) == [module], found["statement"]
    (row,) = [row for row in found["rows"] if row["module"] == module]
    assert row["error_added"] > 0.5 and row["clipped"] is not None and row["limit"] > 0
    assert row["restored_snr_db"] > 20 > found["snr_db"]


@pytest.mark.parametrize("module", ["stages.1.0.qk", "head"])
@pytest.mark.shows("MEA-31", "ERR-06")
def test_a_fault_of_the_export_is_found_against_the_modules_of_pytorch(
    finished: Path, compare: Compare, module: str
) -> None:
    path = finished / "onnx" / "csa_digits.onnx"
    right = path.read_bytes()
    model = onnx.load(path)
    node = next(n for n in model.graph.node if modules_of(model)[n.name] == module and n.op_type in ("Conv", "Gemm"))
    change_weight(model, node, 1, lambda w: 1.02 * w)
    onnx.save(model, path)
    try:
        output = compare()
    finally:
        path.write_bytes(right)
    assert isinstance(output.failure, AccuracyGateError) and "exported" in output.failure.message
    (found,) = output.stated["localization"]
    assert found["candidate"] == "exported" and found["compared_with"] == "PyTorch"
    assert list(found["culprits"]) == [module], found["statement"]
    assert found["rows"][0]["error_added"] > 0.005 > 10 * found["rows"][1]["error_added"]


@pytest.mark.parametrize("share", [0.2, 0.05])
def test_under_a_memory_cap_the_guilty_module_is_named_all_the_same(
    finished: Path, graph_of: Callable[[str], Model], share: float
) -> None:
    reference, bad = graph_of("fp32"), graph_of("fp32")
    module = scale_of_a_convolution(bad)
    digits = open_dataset("digits", read_preprocessing(reference), limit=2)
    name = reference.graph.input[0].name
    feeds = [{name: batch.inputs["image"]} for batch in digits.batches(1)]
    whole = sum(b.bytes for b in boundaries(view_of(reference), modules_of(reference), view_of(bad)))
    budget = make_config({}).bounds("fp32")
    case = Case("bad", bad, reference, "fp32", feeds, ("a", "b"), budget, 1, cap=int(3 * share * whole), tried=1)
    found = localize(case)
    assert found.culprits == (module,), found.statement
    (said,) = [reason for reason in found.not_done if "memory cap" in reason]
    assert "where the error is, was taken apart" in said


@pytest.mark.parametrize("change", [{"mean": [0.0], "std": [1.0]}, {"interpolation": "nearest"}, {"crop": 0.5}])
@pytest.mark.shows("MEA-31", "ERR-07")
def test_another_preprocessing(compare: Compare, graph_of: Callable[[str], Model], change: dict[str, Any]) -> None:
    model = graph_of("fp32")
    entry = next(p for p in model.metadata_props if p.key == "csa_deploy.preprocessing")
    entry.value = json.dumps({**json.loads(entry.value), **change})
    output = compare(model)
    assert isinstance(output.failure, AccuracyGateError)
    assert f"its preprocessing is not the network's: {next(iter(change))}" in output.failure.message
    bad = output.stated["candidates"][-1]
    assert set(bad["preprocessing_differs"]) == set(change)
    assert bad["tensors_sha256"] != output.stated["data"]["tensors_sha256"]
    assert {c["tensors_sha256"] for c in output.stated["candidates"][:-1]} == {output.stated["data"]["tensors_sha256"]}
    assert output.stated["localization"] == []  # the layers are not to blame


def test_a_squeezed_batch(compare: Compare, graph_of: Callable[[str], Model]) -> None:
    model = graph_of("fp32")
    output = model.graph.output[0]
    axes = constant(model, "batch_axis", np.array([0], np.int64))
    last = next(n for n in model.graph.node if output.name in n.output)
    last.output[0] = "with_batch"
    model.graph.node.append(helper.make_node("Squeeze", ["with_batch", axes], [output.name], name="squeeze"))
    del output.type.tensor_type.shape.dim[0]
    with pytest.raises(UsageError, match=r"bad.onnx has output \[10\]; the reference has output \[1, 10\]"):
        compare(model)


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.shows("MEA-29", "ERR-24")
def test_labels_off_by_one(compare: Compare, finished: Path, shift: int) -> None:
    preprocessing = Context(make_config({"network": "csa_digits"}), load_source("csa_digits"), Workspace(finished))
    digits = open_dataset("digits", preprocessing.preprocessing, limit=SAMPLES)
    batch = next(digits.batches(SAMPLES))
    assert batch.labels is not None
    path = finished.parent / "shifted.npz"
    np.savez(path, input=batch.inputs["image"], labels=(batch.labels + shift) % 10)
    output = compare(data=str(path))
    assert isinstance(output.failure, AccuracyGateError)
    assert f"the labels are off by {shift}" in output.failure.message


@pytest.mark.parametrize("seed", range(20))
def test_a_clean_run(compare: Compare, graph_of: Callable[[str], Model], seed: int) -> None:
    """Other samples each time, and the FP16 graph once more under a name of its own."""
    output = compare(graph_of("fp16"), seed=seed)
    assert output.failure is None and output.stated["localization"] == []
    assert {c["verdict"] for c in output.stated["candidates"]} == {"undecided"}  # 20 samples are too few
    assert all(c["state"] != "fail" for found in output.stated["candidates"] for c in found["checks"])


def test_explanations_can_be_switched_off(compare: Compare) -> None:
    output = compare(localize=False, budget=["fp16.snr_db=200"])
    assert isinstance(output.failure, AccuracyGateError) and output.stated["localization"] == []


@pytest.mark.shows("MEA-31")
def test_a_clean_graph_has_no_culprit(compare: Compare) -> None:
    output = compare(localize=True)
    found = {e["candidate"]: e for e in output.stated["localization"]}
    assert set(found) == {"exported", "fp32", "fp16"}
    assert [e["compared_with"] for e in found.values()] == ["PyTorch", "exported", "fp32"]
    assert all(not e["culprits"] for e in found.values())
    assert all(row["error_added"] < 1e-5 for row in found["exported"]["rows"] + found["fp32"]["rows"])
