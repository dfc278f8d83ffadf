"""What is inside graphs and engines, and how two differ; on graphs of the real exporter and the real INT8 stage."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from csa_deploy.errors import UsageError
from csa_deploy.export.scopes import SCOPES
from csa_deploy.inspection.describe import StatedTensor, describe
from csa_deploy.inspection.difference import compare
from csa_deploy.inspection.parts import read_parts


def two_modules(path: Path) -> Path:
    """x -> block.a: Conv -> block.b: Conv, Relu -> y."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h"], name="conv0", pads=[1] * 4),
        helper.make_node("Conv", ["h", "w1"], ["g"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["g"], ["y"], name="relu1"),
    ]
    for node, module in zip(nodes, ("block.a", "block.b", "block.b"), strict=True):
        node.metadata_props.add(key=SCOPES, value=str(["", "block", module, node.name]))
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 4, 3, 3)).astype(np.float32), name) for name in ("w0", "w1")
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", info[:1], info[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def quantized(source: Path, path: Path) -> Path:
    """The same with Q/DQ around the first convolution's inputs, as a quantizer puts them: without scopes."""
    model = onnx.load(source)
    scale = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")]
    model.graph.initializer.extend(scale)
    conv = model.graph.node[0]
    for index, name in enumerate(list(conv.input)):
        for op, value, out in (("QuantizeLinear", name, f"{name}_q"), ("DequantizeLinear", f"{name}_q", f"{name}_d")):
            model.graph.node.insert(0 if op == "QuantizeLinear" else 1, helper.make_node(op, [value, "s", "z"], [out]))
        conv.input[index] = f"{name}_d"
    onnx.save(model, path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return two_modules(tmp_path / "net.onnx")


def test_fp32_against_int8_per_module(plain: Path, tmp_path: Path) -> None:
    found = compare(plain, quantized(plain, tmp_path / "int8.onnx"))
    assert [module.module for module in found.modules] == ["block.a"]
    changed = found.modules[0]
    assert changed.ops == {"DequantizeLinear": (0, 2), "QuantizeLinear": (0, 2)}
    assert changed.types["int8"][1] >= 1
    assert changed.macs[0] == changed.macs[1]
    assert found.unchanged_modules == 1
    assert found.parts == (3, 7)


def test_a_graph_against_itself(plain: Path) -> None:
    found = compare(plain, plain)
    assert found.same_bytes
    assert (found.modules, found.unchanged_modules) == ((), 2)


def test_a_graph(plain: Path) -> None:
    found = describe(plain)
    assert found.inputs == (StatedTensor("x", "FLOAT", (1, 4, 8, 8)),)
    assert found.statistics.ops == {"Conv": 2, "Relu": 1}
    assert (found.modules, found.opsets) == (2, {"ai.onnx": 18})


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
def test_engines_of_a_workspace(plain: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "csa_deploy.cli.main"]
    program = Path(sys.executable).with_name("csa-deploy")
    words = [str(program)] if program.exists() else words
    subprocess.run(
        [*words, "build", str(plain), "-w", "ws", "--fp32", "--fp16", "--backend", "tensorrt-rtx", "-q"],
        cwd=tmp_path,
        check=True,
    )
    engines = tmp_path / "ws" / "engines"
    found = compare(engines / "net.fp32.engine", engines / "net.fp16.engine")
    by_module = {module.module: module for module in found.modules}
    assert {"block.a", "block.b"} <= set(by_module)
    assert by_module["block.b"].types["fp16"][0] == 0
    shown = describe(engines / "net.fp16.engine")
    assert shown.built_by.startswith("TensorRT-RTX 1.")
    assert shown.passport.precision.asked == "fp16"
    text = subprocess.run(
        [*words, "inspect", str(engines / "net.fp16.engine"), "--json"], capture_output=True, check=True
    ).stdout
    assert json.loads(text)["sha256"] == shown.sha256


def test_layers_after_fusion(tmp_path: Path) -> None:
    """As TensorRT's inspector words them: 8.6 names format and type in a sentence, 10 the type alone."""
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"ftrt" + bytes(20) + bytes([8, 6, 1, 6]))
    stated = [
        "Row major linear FP16 format",
        "Thirty-two wide channel vectorized row major Int8 format",
        "Float",
        "Odd",
    ]
    layers = [
        {
            "Name": f"fused{index}",
            "LayerType": "CaskConvolution",
            "Metadata": f"[ONNX Layer: /a/conv{index}]\x1e[ONNX Layer: /a/relu]",
            "Outputs": [{"Name": "o", "Format/Datatype": words}],
        }
        for index, words in enumerate(stated)
    ]
    (tmp_path / "x.engine.layers.json").write_text(json.dumps({"Layers": [*layers, "a name only"], "Bindings": []}))
    parts = read_parts(engine)
    assert [part.type for part in parts] == ["fp16", "int8", "fp32", "Odd"]
    assert [part.name for part in parts[:2]] == ["/a/conv0", "/a/conv1"]
    assert describe(engine).types == {"fp16": 1, "int8": 1, "fp32": 1, "Odd": 1}


def test_files_that_tell_nothing(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]))
    shown = describe(engine)
    assert shown.built_by == "TensorRT 10.3.0.26"
    assert any("no passport" in note for note in shown.notes)
    with pytest.raises(UsageError, match="nothing beside it tells its layers"):
        read_parts(engine)
    with pytest.raises(UsageError, match="no such file"):
        describe(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(UsageError):
        describe(tmp_path / "bad.onnx")
    (tmp_path / "bad.engine").write_bytes(b"\xff" * 64)
    with pytest.raises(UsageError, match="nothing tells that it is an engine"):
        describe(tmp_path / "bad.engine")
