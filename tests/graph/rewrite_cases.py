"""Generated graphs: made valid, optimized and repaired, and held against ONNX Runtime and ONNX's own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.repair import repair

FAST = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SLOW = settings(FAST, max_examples=60, derandomize=True)


def model(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: dict[str, Any], opset: int
) -> onnx.ModelProto | None:
    """A valid graph from ``x`` to ``y``, or None where ONNX calls it invalid."""
    graph = helper.make_graph(
        nodes,
        "generated",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        inferred = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
    except Exception:  # what ONNX refuses is no graph to rewrite
        return None
    return inferred


def inputs(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Normal, positive with its largest numbers at each border in turn, large, tiny, constant."""
    draw = np.random.default_rng(11)
    found = [draw.standard_normal(shape), 50 * draw.standard_normal(shape), 1e-3 * draw.standard_normal(shape)]
    for axis in range(2, len(shape)):
        for end in (0, -1):
            bordered = np.abs(draw.standard_normal(shape))
            bordered[(slice(None),) * axis + (end,)] += 5
            found.append(bordered)
    return [array.astype("f4") for array in (*found, np.ones(shape))]


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, run: Any, shape: tuple[int, ...]) -> None:
    """Both graphs agree per channel, by ONNX Runtime; and by ONNX's reference in FP64 where that runs."""
    for x in inputs(shape):
        try:
            (want,) = run(before, x=x)
        except Exception:  # a graph that ONNX Runtime does not run is never rewritten
            assert before.graph.node == after.graph.node
            return
        declared = tuple(dim.dim_value for dim in before.graph.output[0].type.tensor_type.shape.dim)
        if want.shape != declared or not want.size:
            return  # a scale that inference and ONNX Runtime round differently: the graph contradicts itself
        (got,) = run(after, x=x)
        assert got.shape == want.shape
        rows = [a.reshape(1, -1) if a.ndim < 3 else np.moveaxis(a, 1, 0).reshape(a.shape[1], -1) for a in (want, got)]
        bound = 3e-5 * np.abs(rows[0]).max(axis=1) + 1e-30
        assert (np.abs(rows[0] - rows[1]).max(axis=1) <= bound).all()
    operators = {node.op_type for graph in (before.graph, after.graph) for node in graph.node}
    if after.opset_import[0].version < 14 and "BatchNormalization" in operators:
        return  # ONNX's reference takes every BatchNormalization before opset 14 for one in training
    try:
        expected = np.asarray(ReferenceEvaluator(before).run(None, {"x": x})[0])
        again = np.asarray(ReferenceEvaluator(after).run(None, {"x": x})[0])
    except Exception:  # ONNX's reference does not have every form of every operator
        return
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=3e-5 * (np.abs(expected).max() + 1e-30))


def hold(made: onnx.ModelProto | None, run: Any, shape: tuple[int, ...]) -> set[str]:
    """Optimize and repair a generated graph, and compare; what was kept."""
    results = [] if made is None else [optimize(made), repair(made)]
    for result in results:
        assert_same(made, result.model, run, shape)
    return {step.rule for result in results for step in result.steps if step.kept}


OPSETS = st.sampled_from([7, 9, 10, 11, 12, 13, 17, 18, 19, 20, 21, 22, 23])
