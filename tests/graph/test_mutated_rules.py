"""Each rule with a fault planted in its own code: the proof does not let the result through."""

import numpy as np
import pytest
from onnxscript.rewriter.rules.common import _basic_rules, _fuse_pad_into_conv

from csa_deploy.graph.optimize import RULES, optimize
from csa_deploy.graph.repair import REPAIRS, repair
from csa_deploy.graph.repairs import (
    gather,
    gemm,
    global_pool,
    hard_activation,
    pad,
    pool_chain,
    pool_stride,
    reduce_axes,
    reshape,
    reshape_across,
    resize_convs,
    resize_down,
    resize_scales,
    scale,
    shuffle_rank,
    transpose_pads,
    where,
)
from csa_deploy.graph.rules import affine_after, affine_before, constants, duplicates, identities, resize

MAP = "float[1,2,16,16]"
OTHERS = {rule.name: rule for rule in RULES if rule.name not in REPAIRS}


def turned(self, perms, on=None):
    """Two permutations applied in the wrong order."""
    return [perms[1].index(perms[0].index(axis)) for axis in range(len(perms[0]))]


def swapped(pads, axes, rank):
    """What is padded in front and behind, taken for each other."""
    found = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        found[axis + rank], found[axis] = pads[place], pads[place + len(axes)]
    return found


folded, between, ordered = constants.fold_constants_ir, resize_convs.interpolation, shuffle_rank.steps


def inexact(model, **settings):
    """Folding that gets the last digits of what it computes wrong."""
    known = set(model.graph.initializers)
    folded(model, **settings)
    for name, value in model.graph.initializers.items():
        if name not in known and value.dtype.is_floating_point():
            value.const_value = type(value.const_value)(value.const_value.numpy() * np.float32(1.001), name=name)


def further(size, target):
    """A scale that gives the same size, and positions that are off by a ten-thousandth."""
    return np.float32(target / size * (1.0001 if size > 2 else 1))


class Unalike(duplicates.DeduplicateHashedInitializersPass):
    """Shares initializers of one shape, whatever is in them."""

    def __call__(self, model):
        first, second = list(model.graph.initializers.values())[:2]
        second.replace_all_uses_with(first)
        del model.graph.initializers[second.name]


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
    "transpose_pads": (
        transpose_pads, "_halves", lambda total, upper: [pad // 2 if not upper else pad - pad // 2 for pad in total],
        "(float[1,2,4,4] x) => (float[1,3,8,8] y)",
        "y = ConvTranspose<strides=[2,2], output_shape=[8,8]>(x, w)", {"w": (2, 3, 3, 3)}, 17,
    ),
    "resize_down_to_conv": (
        resize_down, "half_pixel_linear", lambda resize, after: True,
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
    "conv_across_resize": (
        resize, "_pointwise", lambda conv: True,
        "(float[1,2,8,8] x) => (float[1,3,16,16] y)",
        'r = Resize<mode="linear">(x, , s) y = Conv<pads=[1,1,1,1]>(r, w)',
        {"s": np.array([1, 1, 2, 2], "f4"), "w": (3, 2, 3, 3)}, 18,
    ),
    "merge_reshapes": (
        _basic_rules.TransposeTranspose, "_apply_transposes", turned,
        "(float[1,4,4,4] x) => (float[1,4,4,4] y)", "a = Transpose<perm=[0,2,1,3]>(x) y = Transpose<perm=[0,1,3,2]>(a)",
        {}, 18,
    ),
    "fold_pad": (
        _fuse_pad_into_conv, "fill_pads_with_axes", swapped,
        f"({MAP} x) => (float[1,2,16,16] y)", "a = Pad(x, p) y = Conv(a, w)",
        {"p": np.array([0, 0, 2, 0, 0, 0, 0, 2]), "w": (2, 2, 3, 3)}, 18,
    ),
    "fold_constants": (
        constants, "fold_constants_ir", inexact,
        f"({MAP} x) => ({MAP} y)", "k = Exp(c) y = Mul(x, k)", {"c": (1, 2, 1, 1)}, 18,
    ),
    "share_equal_weights": (
        duplicates, "DeduplicateHashedInitializersPass", Unalike,
        f"({MAP} x) => ({MAP} y)", "a = Mul(x, b) y = Add(a, c)",
        {"b": np.full((1, 2, 1, 1), 1, "f4"), "c": np.full((1, 2, 1, 1), 1.001, "f4")}, 18,
    ),
    "constant_to_scale": (
        scale, "channel_affine", lambda node, x: (np.array([1.0, 1.001]), np.zeros(2)),
        f"({MAP} x) => ({MAP} y)", "y = Mul(x, b)", {"b": np.ones((1, 2, 1, 1), "f4") * 1.5}, 18,
    ),
    "resize_sizes_to_scales": (
        resize_scales, "agreed_scale", further,
        f"({MAP} x) => (float[1,2,28,28] y)", 'y = Resize<mode="linear">(x, , , s)', {"s": np.array([1, 2, 28, 28])},
        18,
    ),
    "resize_nudge_scales": (
        resize_scales, "agreed_scale", further,
        "(float[1,2,6,6] x) => (float[1,2,7,7] y)", 'y = Resize<mode="linear">(x, , s)',
        {"s": np.array([1, 1, 7 / 6, 7 / 6], "f4")}, 18,
    ),
    "global_pool_to_pool": (
        global_pool, "_over_map", lambda node: True,
        "(float[1,4,4,4] x) => (float[1,4,1,1] y)", "a = ReduceMean<keepdims=0>(x, k) y = Reshape(a, s)",
        {"k": np.array([1, 2]), "s": np.array([1, 4, 1, 1])}, 18,
    ),
    "reduce_to_layers": (
        reduce_axes, "_together", lambda op_type, axes: [[2]],
        "(float[1,4,4,4] x) => (float[1,4,1,1] y)", "a = ReduceMean(x, k) y = Reshape(a, s)",
        {"k": np.array([1, 3]), "s": np.array([1, 4, 1, 1])}, 18,
    ),
    "resize_to_convs": (
        resize_convs, "interpolation", lambda size, target, scale: between(size, target, scale * 1.0001),
        "(float[1,2,60,60] x) => (float[1,2,14,14] y)", 'y = Resize<mode="linear">(x, , , s)',
        {"s": np.array([1, 2, 14, 14])}, 18,
    ),
    "shuffle_to_four_dimensions": (
        shuffle_rank, "steps", lambda sizes, order: ordered(sizes, order)[::-1],
        "(float[1,8,2,2] x) => (float[1,2,4,4] y)", "y = DepthToSpace<blocksize=2>(x)", {}, 18,
    ),
    "gather_to_conv": (
        gather, "picking", lambda indices, length: np.eye(length)[indices] + np.float32(1e-4),
        "(float[1,4,4,4] x) => (float[1,2,4,4] y)", "y = Gather<axis=1>(x, i)", {"i": np.array([1, 3])}, 18,
    ),
    "where_to_scale": (
        where, "_per_channel", lambda array, shape, what: np.resize(array.reshape(-1), shape[1]),
        "(float[1,4,4,4] x) => (float[1,4,4,4] y)", "y = Where(c, x, v)",
        {"c": np.array([[1, 0, 0, 1]], bool), "v": np.float32(2)}, 18,
    ),
    "pad_to_conv": (
        pad, "_pads", lambda node, rank: {2: (1, 2)},
        "(float[1,4,4,4] x) => (float[1,4,7,4] y)", 'y = Pad<mode="reflect">(x, p)',
        {"p": np.array([0, 0, 2, 0, 0, 0, 1, 0])}, 18,
    ),
    "pad_to_slices": (
        pad, "_bounds", lambda start, count: [("starts", 0), ("ends", count), ("axes", 1), ("steps", 1)],
        "(float[1,4,4,4] x) => (float[1,4,6,4] y)", 'y = Pad<mode="reflect">(x, p)',
        {"p": np.array([0, 0, 1, 0, 0, 0, 1, 0])}, 18,
    ),
    "squeeze_to_reshape": (
        reshape, "static_shape", lambda value: (1, 4, 2),
        "(float[1,2,4,1] x) => (float[1,2,4] y)", "y = Squeeze(x, a)", {"a": np.array([3])}, 18,
    ),
    "reshape_across_elementwise": (
        reshape_across, "_is_elementwise", lambda node: node.op_type == "Softmax",
        "(float[1,8,2,2] x) => (float[1,8,2,2] y)", "a = Reshape(x, s) b = Softmax<axis=1>(a) y = Reshape(b, t)",
        {"s": np.array([1, 4, 8]), "t": np.array([1, 8, 2, 2])}, 18,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", MUTANTS)
@pytest.mark.shows("MEA-12", "ERR-10")
def test_a_fault_in_a_rule_is_caught(build, monkeypatch, rule):
    module, function, faulty, signature, body, weights, opset = MUTANTS[rule]
    model = build(signature, body, opset=opset, **weights)
    monkeypatch.setattr(module, function, faulty)
    result = optimize(model, rules=[OTHERS[rule]]) if rule in OTHERS else repair(model, [rule])
    steps = [step for step in result.steps if step.rule == rule]
    assert steps and not any(step.kept for step in steps), steps


@pytest.mark.shows("MEA-12")
def test_every_rule_has_a_fault_that_is_caught():
    assert {*MUTANTS} == {*REPAIRS, *(rule.name for rule in RULES)}
