"""Verdicts in viewers of graphs: node data for Model Explorer, metadata for Netron."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from csa_deploy.records.check import Finding, Inspected, ScopeRecord
from csa_deploy.restricted.reporters.annotated import VERDICT_KEY, annotate
from csa_deploy.restricted.reporters.formats import render
from tests.restricted.test_check_reporters import judged

SCOPES = ["drive-os-6", "dla-orin"]


def network(*, named: bool = True, ir_version: int = 10) -> onnx.ModelProto:
    """A denied node, an unknown one and one that nothing is said about."""

    def node(op: str, read: str, written: str) -> onnx.NodeProto:
        return helper.make_node(op, [read], [written], name=f"my_{op}" if named else "")

    shape = [1, 3, 8, 8]
    nodes = [node("Relu", "x", "a"), node("GlobalAveragePool", "a", "b"), node("Softmax", "b", "y")]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])
    graph = helper.make_graph(nodes, "main", [given], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)


def data(model: onnx.ModelProto, scopes: list[str]) -> Inspected:
    said: Inspected = judged(model, scopes, name="net.onnx")
    return said


def scope(name: str, node: str, verdict: Any) -> ScopeRecord:
    """A scope that says one thing about one node."""
    finding = Finding("r", verdict, node, "Erf", "", "", "m", "", "", "", "", "")
    return ScopeRecord(name, name, "10", "", 1, 1, (finding,))


def test_node_data_has_the_worst_verdict_of_each_node() -> None:
    both = json.loads(render(data(network(), SCOPES), "model-explorer"))
    assert both["name"].startswith("csa-deploy check: drive-os-6 denied (static)")
    assert {node: found["value"] for node, found in both["results"].items()} == {
        "my_GlobalAveragePool": "denied",
        "my_Softmax": "unknown",
    }
    scopes = tuple(scope(f"s{n}", "a", kind) for n, kind in enumerate(("unknown", "denied", "note")))

    def results(some: tuple[ScopeRecord, ...]) -> Any:
        return json.loads(render(Inspected(model="n", scopes=some), "model-explorer"))["results"]

    of = {len(some): results(some) for some in (scopes, scopes[:1])}
    assert of[3]["a"]["value"] == "denied" and of[1]["a"]["value"] == "unknown"
    assert of[3]["a"]["bgColor"] != of[1]["a"]["bgColor"]
    assert results(scopes[2:]) == {}


def test_node_data_is_what_model_explorer_itself_writes(tmp_path: Path) -> None:
    """The package's own classes take every key, and give the same text back."""
    builder = pytest.importorskip("model_explorer.node_data_builder", reason="pip install ai-edge-model-explorer")
    written = json.loads(render(data(network(), SCOPES), "model-explorer"))
    results = {node: builder.NodeDataResult(**found) for node, found in written["results"].items()}
    theirs = builder.GraphNodeData(**{**written, "results": results})
    assert {key: value for key, value in json.loads(theirs.to_json_string()).items() if key in written} == written


@pytest.mark.parametrize("named", [True, False])
def test_every_key_is_a_node_that_model_explorer_draws(named: bool, tmp_path: Path) -> None:
    adapter = pytest.importorskip("model_explorer_onnx.main", reason="pip install model-explorer-onnx")
    onnx.save(network(named=named), tmp_path / "net.onnx")
    (graph,) = adapter.ONNXAdapter().convert(str(tmp_path / "net.onnx"), {})["graphs"]
    ids = {node.id for node in graph.nodes}
    tensors = {
        attribute.value
        for node in graph.nodes
        for output in node.outputsMetadata
        for attribute in output.attrs
        if attribute.key == "__tensor_tag"
    }
    keys = set(json.loads(render(data(network(named=named), SCOPES), "model-explorer"))["results"])
    assert len(keys) == 2 and keys <= (ids if named else tensors)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("ir_version", [8, 10])
def test_an_annotated_graph_says_why_and_computes_the_same(named: bool, ir_version: int) -> None:
    model, plain = (network(named=named, ir_version=ir_version) for _ in range(2))
    said = data(model, SCOPES)
    assert annotate(said, model) == 2
    assert annotate(said, model) == 2  # anew, not twice
    onnx.checker.check_model(model, full_check=True)
    of = {entry.key: entry.value for entry in model.metadata_props}
    assert of == {f"{VERDICT_KEY}{scope}": "denied (evidence: static)" for scope in SCOPES}
    relu, pool, softmax = ({e.key: e.value for e in node.metadata_props} for node in model.graph.node)
    assert relu == {} and set(pool) == {f"{VERDICT_KEY}{scope}" for scope in SCOPES}
    assert pool[f"{VERDICT_KEY}drive-os-6"].startswith("denied ") and "instead: " in pool[f"{VERDICT_KEY}drive-os-6"]
    assert softmax[f"{VERDICT_KEY}drive-os-6"].startswith("unknown ")
    assert data(model, SCOPES).scopes == said.scopes
    feed = {"x": np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)}
    one, other = (onnxruntime.InferenceSession(m.SerializeToString()).run(None, feed)[0] for m in (model, plain))
    np.testing.assert_array_equal(one, other)


def test_a_node_in_a_branch_is_marked_where_it_is() -> None:
    """Findings name it with the nodes around it."""
    scalar = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")

    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 3, 8, 8])
        return helper.make_graph([helper.make_node("Erf", ["x"], [f"{name}_y"], name="inner")], name, [], [out])

    choose = helper.make_node("If", ["c"], ["y"], "outer", then_branch=branch("t"), else_branch=branch("e"))
    graph = helper.make_graph([choose], "main", [scalar, x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    said = Inspected(model="n", scopes=(scope("s", "outer/inner", "denied"),))
    assert annotate(said, model) == 2  # in both branches
    bodies = [attribute.g for attribute in model.graph.node[0].attribute]
    assert [body.node[0].metadata_props[0].value for body in bodies] == ["denied r: m"] * 2
