"""Layers of an engine held against the graph that it was built of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from csa_deploy.profile.cost import fused_costs, graph_cost
from csa_deploy.profile.engine_layers import map_layers
from csa_deploy.profile.roofline import with_floors
from csa_deploy.records.device import Ceilings, EngineProfile

SCOPES = "pkg.torch.onnx.name_scopes"


@pytest.fixture(scope="module")
def graph(make_tiny: Callable[..., onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conv, relu, pool, head, flatten: the first two of the module ``stem``, the head of ``head``."""
    model = make_tiny()
    for node in model.graph.node:
        module = {"conv": "stem", "relu": "stem", "head": "head"}.get(node.name, "")
        node.metadata_props.add(key=SCOPES, value=str(["", module, node.name]))
    path = tmp_path_factory.mktemp("layers") / "tiny.onnx"
    onnx.save(model, path)
    return path


def test_what_tells_the_nodes_of_a_layer(graph: Path) -> None:
    times = {
        "__myl_ConvRelu_myl0_1": 0.5,
        "pool": 0.125,
        "{ForeignNode[conv...pool]}": 0.125,
        "PWN(relu) + head || flatten": 0.25,
        "Reformatting CopyNode for Input Tensor 0 to conv": 0.0,
        "__mye42": 0.0,
    }
    inspection = {
        "Layers": [
            {"Name": "__myl_ConvRelu_myl0_1", "Metadata": "[ONNX Layer: relu]\x1e[ONNX Layer: conv | gone]"},
            {"Name": "pool", "Metadata": ""},
            "a layer that is only a name",
        ]
    }
    layers = map_layers(times, inspection, graph)
    assert [(layer.nodes, layer.mapped_by) for layer in layers] == [
        (("conv", "relu"), "metadata"),
        (("pool",), "name"),
        (("conv", "relu", "pool"), "range"),
        (("relu", "head", "flatten"), "name"),
        ((), "nothing"),
        ((), "nothing"),
    ]
    assert [layer.modules for layer in layers[:4]] == [("stem",), (), ("stem",), ("stem", "head")]
    assert (layers[0].time_us, layers[0].share) == (500.0, 0.5)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert (layers[-1].operations, layers[-1].bytes) == (None, None)


def test_an_engine_that_tells_nothing_still_has_its_names(graph: Path) -> None:
    (layer,) = map_layers({"conv + relu": 1.0}, {}, graph)
    assert layer.nodes == ("conv", "relu")


def test_a_fused_layer_reads_and_writes_only_what_crosses_it(graph: Path) -> None:
    fused, alone, nothing = fused_costs(graph, [["conv", "relu"], ["relu"], []])
    nodes = {node.name: node for node in graph_cost(graph).nodes}
    middle = 8 * 16 * 16 * 4
    assert fused.operations == nodes["conv"].operations + nodes["relu"].operations
    assert fused.bytes == nodes["conv"].bytes + nodes["relu"].bytes - 2 * middle
    assert alone.bytes == nodes["relu"].bytes == 2 * middle
    assert (nothing.operations, nothing.bytes) == (None, None)


def quantized(path: Path) -> Path:
    """x, quantized and back, times w, from INT8, then quantized: the multiplication reads and writes INT8."""
    stored = {"s": np.float32(0.1), "z": np.int8(0), "w8": np.ones((4, 8), np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x8"], name="q"),
        helper.make_node("DequantizeLinear", ["x8", "s", "z"], ["xf"], name="dq"),
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["wf"], name="dqw"),
        helper.make_node("MatMul", ["xf", "wf"], ["y"], name="mul"),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["y8"], name="qy"),
    ]
    ends = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y8", TensorProto.INT8, [1, 8])],
    ]
    body = helper.make_graph(nodes, "q", *ends, [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()])
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_int8_counts_as_it_is_stored(tmp_path: Path) -> None:
    path = quantized(tmp_path / "q.onnx")
    (cost,) = fused_costs(path, [["mul"]])
    assert (cost.bytes, cost.precision) == (4 + 32 + 8, "int8")
    assert {node.name: node.precision for node in graph_cost(path).nodes}["mul"] == "int8"


def test_a_layers_floor_and_the_reason_for_none(graph: Path) -> None:
    layers = tuple(map_layers({"conv + relu": 1.0, "unknown": 1.0}, {}, graph))
    inspected = {
        "engine fp32": EngineProfile(layers=layers, layers_method=""),
        "engine fp16": EngineProfile(layers_method=""),
    }
    ceilings = Ceilings("made up", {"fp32": 1e9}, 1e30)
    found = with_floors(inspected, ceilings)
    assert found["engine fp32"].layers[0].floor_us == pytest.approx(layers[0].operations / 1e3, rel=1e-6)
    assert found["engine fp32"].layers[1].floor_us is None
    assert found["engine fp16"].layers is None
    assert with_floors(inspected, "no device")["engine fp32"].layers[0].floor_us is None
