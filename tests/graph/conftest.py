"""Small graphs and how they run: without the optimizations of ONNX Runtime."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from csa_deploy.graph.optimize import OptimizeResult

sys.path.insert(0, str(Path(__file__).parent))  # for the modules of these tests, whatever pytest's import mode


def _run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    """``run(model, **inputs)``: the outputs, by ONNX Runtime without its optimizations."""
    return _run


def _check_equal(before: onnx.ModelProto, result: OptimizeResult) -> None:
    """Same answers on an input that the driver did not use, same signature, valid by ONNX's own full check."""
    after = result.model
    onnx.checker.check_model(after, full_check=True)
    assert [v.SerializeToString() for v in after.graph.input] == [v.SerializeToString() for v in before.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    names = [node.name for node in after.graph.node]
    assert len(set(names)) == len(names) and all(names)
    feeds = {}
    for value in before.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        feeds[value.name] = np.random.default_rng(99).standard_normal(shape).astype("f4")
    for expected, got in zip(_run(before, **feeds), _run(after, **feeds), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(np.ptp(expected), 1.0))


@pytest.fixture(scope="session")
def check_equal() -> Callable[[onnx.ModelProto, OptimizeResult], None]:
    """See :func:`_check_equal`."""
    return _check_equal
