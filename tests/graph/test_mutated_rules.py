"""Each rule with a fault planted in its own code: the proof does not let the result through."""

import numpy as np
import pytest

from csa_deploy.graph.repair import repair
from csa_deploy.graph.repairs import gemm, hard_activation, pool_chain, pool_stride, resize_down
from csa_deploy.graph.rules import affine_after, affine_before, identities

MAP = "float[1,2,16,16]"

# rule: (module, function, its faulty form, signature, body, weights, opset)
MUTANTS = {
    "pool_to_chain": (
        pool_chain, "plain_window", lambda node: tuple(node.attributes.get_ints("kernel_shape")),
        f"({MAP} x) => (float[1,2,1,1] y)", "y = MaxPool<kernel_shape=[16,16], pads=[1,1,1,1], strides=[16,16]>(x)",
        {}, 18,
    ),
    "pool_stride_to_one": (
        pool_stride, "_room", lambda node, shape, axis: 0,
        f"({MAP} x) => (float[1,2,1,1] y)", "y = AveragePool<kernel_shape=[15,16], strides=[16,16]>(x)", {}, 18,
    ),
    "resize_down_to_conv": (
        resize_down, "_half_pixel_linear", lambda resize, after: True,
        f"({MAP} x) => (float[1,2,8,8] y)", 'y = Resize<mode="linear">(x, s)',
        {"s": np.array([1, 1, 0.5, 0.5], "f4")}, 10,
    ),
    "gemm_to_conv": (
        gemm, "weights_of", lambda node: (2 * np.ones((3, 5)), np.zeros(5)),
        "(float[4,3] x) => (float[4,5] y)", "y = Gemm(x, w)", {"w": (3, 5)}, 18,
    ),
    "hard_activation_to_relu": (
        hard_activation, "_bound", lambda node, name, index, none: 0.0 if name == "min" else 6.01,
        f"({MAP} x) => ({MAP} y)", "y = Clip(x, l, h)", {"l": np.float32(0), "h": np.float32(6)}, 18,
    ),
    "fold_affine_before": (
        affine_before, "pads", lambda layer: False,
        f"({MAP} x) => ({MAP} y)", "a = Add(x, b) y = Conv<pads=[1,1,1,1]>(a, w)",
        {"b": (1, 2, 1, 1), "w": (2, 2, 3, 3)}, 18,
    ),
    "fold_affine_after": (
        affine_after, "_scaled_outputs", lambda layer, weight, scale: weight,
        f"({MAP} x) => ({MAP} y)", "a = Conv(x, w) y = Mul(a, b)", {"b": (1, 2, 1, 1), "w": (2, 2, 1, 1)}, 18,
    ),
    "drop_identities": (
        identities, "_keeps_layout", lambda node: True,
        "(float[1,4,4,4] x) => (float[1,4,4,4] y)", "a = Transpose<perm=[0,2,1,3]>(x) y = Relu(a)", {}, 18,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", MUTANTS)
def test_a_fault_in_a_rule_is_caught(build, monkeypatch, rule):
    module, function, faulty, signature, body, weights, opset = MUTANTS[rule]
    model = build(signature, body, opset=opset, **weights)
    monkeypatch.setattr(module, function, faulty)
    steps = [step for step in repair(model, [rule]).steps if step.rule == rule]
    assert steps and not any(step.kept for step in steps), steps
