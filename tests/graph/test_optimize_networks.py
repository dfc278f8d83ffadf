"""The CSA networks, from their export to the optimized and the repaired graph."""

import numpy as np
import onnx
import pytest
import torch
from csa_models import registry

from csa_deploy.graph.optimize import optimize
from csa_deploy.graph.repair import repair
from csa_deploy.precision.fp16 import to_fp16


def export(name: str) -> onnx.ModelProto:
    """The network by its name in the registry, without the exporter's own optimizer."""
    entry = getattr(registry, name)
    module = entry.factory()
    image = torch.zeros(1, len(entry.preprocessing.mean), *entry.preprocessing.size)
    program = torch.onnx.export(
        module, (image,), dynamo=True, optimize=False, input_names=["input"], output_names=["logits"], verbose=False
    )
    return program.model_proto


@pytest.fixture(scope="module")
def digits() -> onnx.ModelProto:
    return export("csa_digits")


def scopes(model: onnx.ModelProto, op: str) -> list[str]:
    nodes = [node for node in model.graph.node if node.op_type == op]
    return [p.value for node in nodes for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]


def test_digits_lose_every_batch_norm_and_no_module_path(digits):
    result = optimize(digits)
    assert "BatchNormalization" in result.before.ops and not {"BatchNormalization", "Identity"} & set(result.after.ops)
    assert result.after.macs < result.before.macs
    assert result.error < 1e-6 and not result.reverted
    assert len(scopes(result.model, "Conv")) == result.after.ops["Conv"]
    assert any("'stages.0.0.qk'" in scope for scope in scopes(result.model, "Conv"))
    onnx.checker.check_model(result.model, full_check=True)
    assert optimize(result.model).steps == ()


def test_digits_in_half_precision_and_repaired(digits):
    optimized = optimize(digits).model
    half = to_fp16(optimized)
    assert (half.casts, half.kept, half.overflowing) == (2, (), 0)
    repaired = repair(optimized)
    assert {step.rule for step in repaired.steps} == {"resize_down_to_conv"} and repaired.error < 1e-6
    sizes = [node.attribute for node in repaired.model.graph.node if node.op_type == "Resize"]
    assert len(sizes) == 1  # what enlarges stays


@pytest.mark.slow
def test_convselfattn_meets_its_budget():
    result = optimize(export("convselfattn"))
    assert result.before.macs == 4_069_200_384
    assert result.after.macs <= 3_750_000_000
    assert "BatchNormalization" not in result.after.ops
    assert result.error < 1e-5 and np.isfinite(result.error)
    assert result.after.parameters < 27_638_836
