"""ONNX's own operator examples: none makes a rewrite or the FP16 typing fail or write an invalid graph."""

import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import require_static
from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.repair import repair
from csa_deploy.precision.fp16 import to_fp16

EVERY = 9


def examples() -> list[onnx.ModelProto]:
    """A spread of the examples that are valid and of static shape."""
    found = []
    for case in collect_testcases(None)[::EVERY]:
        try:
            require_static(case.model)
            onnx.checker.check_model(case.model, full_check=True)
        except (UsageError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            continue
        found.append(case.model)
    return found


@pytest.mark.slow
def test_operator_examples():
    models = examples()
    assert len(models) > 100
    for model in models:
        before = model.SerializeToString()
        for result in (optimize(model), repair(model), to_fp16(model)):
            onnx.checker.check_model(result.model, full_check=True)
            assert [v.name for v in result.model.graph.output] == [v.name for v in model.graph.output]
        assert model.SerializeToString() == before
