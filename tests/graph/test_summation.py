"""Roundings of sums drawn anew: along the terms of each sum they are a walk, whatever operator makes the sum."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from csa_deploy.graph.summation import UNIT_ROUNDOFF, with_other_sums

UNIT = 2.0**-10  # a FP32 factor of 1 holds whole multiples of it
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def model_of(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    model = parser.parse_model(f"{HEADER} {text}")
    kind = np.float16 if "float16[" in text else np.float32
    made = [numpy_helper.from_array(random.standard_normal(s).astype(kind), name) for name, s in weights.items()]
    model.graph.initializer.extend(made)
    return model


def factors(model: onnx.ModelProto) -> np.ndarray:
    """The one tensor of factors that a changed graph multiplies by."""
    (found,) = (t for t in model.graph.initializer if t.name.endswith("_roundings"))
    return numpy_helper.to_array(found)


# Text of a graph, shape of its weight, how many products or values one sum has, and the axes along which they lie: by
# the definition of each operator.
SUMS = {
    "Conv": ("g (float[2,6,9,9] x) => (float[2,8,7,7] y) { y = Conv (x, w) }", (8, 6, 3, 3), 54, (1, 2, 3)),
    "groups": ("g (float[2,6,9,9] x) => (float[2,8,7,7] y) { y = Conv <group=2> (x, w) }", (8, 3, 3, 3), 27, (1, 2, 3)),
    "ConvTranspose": (
        "g (float[2,32,5,5] x) => (float[2,8,7,7] y) { y = ConvTranspose (x, w) }",
        *((32, 8, 3, 3), 32, (0,)),
    ),
    "Gemm": ("g (float[2,40] x) => (float[2,7] y) { y = Gemm (x, w) }", (40, 7), 40, (0,)),
    "transposed": ("g (float[2,40] x) => (float[2,7] y) { y = Gemm <transB=1> (x, w) }", (7, 40), 40, (1,)),
    "MatMul": ("g (float[2,3,40] x) => (float[2,3,7] y) { y = MatMul (x, w) }", (40, 7), 40, (0,)),
    "vector": ("g (float[3,40] x) => (float[3] y) { y = MatMul (x, w) }", (40,), 40, (0,)),
    "Einsum": ('g (float[2,40] x) => (float[2] y) { y = Einsum <equation="ni,i->n"> (x, w) }', (40,), 40, (0,)),
}


@pytest.mark.parametrize("case", SUMS)
def test_a_factor_is_a_walk_along_the_terms_and_another_one_for_each_sum(case: str) -> None:
    text, shape, terms, axes = SUMS[case]
    model = model_of(text, w=shape)
    before = model.SerializeToString()
    steps = (factors(with_other_sums(model, 0, UNIT)).astype(np.float64) - 1) / UNIT
    assert steps.shape == shape and np.array_equal(steps, np.round(steps))
    walks = np.moveaxis(steps, axes, range(len(axes))).reshape(terms, -1)
    # After t steps of one up or down a walk is at an even place where t is even: for every sum alike.
    parity = walks.astype(int) % 2
    assert np.array_equal(parity, np.repeat(parity[:, :1], parity.shape[1], axis=1))
    assert parity[:, 0].sum() == (terms + 1) // 2
    # It leaves no place out, and ends no further than it has steps.
    for walk in walks.T:
        assert set(walk) >= set(range(int(walk.min()), int(walk.max()) + 1)) and np.abs(walk).max() <= terms
    assert walks.shape[1] == 1 or len({tuple(walk) for walk in walks.T}) == walks.shape[1]
    assert model.SerializeToString() == before


def test_how_far_a_walk_goes_on_average() -> None:
    """The variance after t steps is t, so the mean over a walk of n steps is (n + 1) / 2."""
    model = model_of("g (float[1,200] x) => (float[1,2000] y) { y = MatMul (x, w) }", w=(200, 2000))
    steps = (factors(with_other_sums(model, 1, UNIT)).astype(np.float64) - 1) / UNIT
    assert np.mean(steps**2) == pytest.approx(201 / 2, rel=0.1)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "Softmax", "GlobalAveragePool"])
def test_sums_without_products_take_one_walk_for_all_samples(op: str) -> None:
    out = "float[3,4,1,1]" if op == "GlobalAveragePool" else "float[3,4,5,6]" if op == "Softmax" else "float[1,1,1,1]"
    model = model_of(f"g (float[3,4,5,6] x) => ({out} y) {{ y = {op} (x) }}")
    steps = (factors(with_other_sums(model, 0, UNIT)).astype(np.float64) - 1) / UNIT
    assert steps.shape == (1, 4, 5, 6) and sorted(np.abs(steps.astype(int)).ravel() % 2) == [0] * 60 + [1] * 60


def test_what_makes_no_sum_stays() -> None:
    model = model_of("g (float[2,3] x) => (float[2,3] y) { a = Relu (x) y = Mul (a, a) }")
    assert with_other_sums(model, 0) == with_other_sums(model, 1)
    assert not any(t.name.endswith("_roundings") for t in with_other_sums(model, 0).graph.initializer)


@pytest.mark.parametrize("case", SUMS)
def test_the_output_moves_as_far_as_roundings_may_move_it(case: str) -> None:
    """N. J. Higham's bound of a sum of n products: n u / (1 - n u) times the sum of their magnitudes."""
    text, shape, terms, _ = SUMS[case]
    model = model_of(text, w=shape)
    size = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(2).standard_normal(size).astype("f4")
    magnitudes = onnx.ModelProto.FromString(model.SerializeToString())
    weight = magnitudes.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(weight)), weight.name))
    (y,), (total,) = (ReferenceEvaluator(m).run(None, {"x": v}) for m, v in ((model, x), (magnitudes, np.abs(x))))
    most = terms * (9 if case == "ConvTranspose" else 1) * UNIT
    moved = [ReferenceEvaluator(with_other_sums(model, seed, UNIT)).run(None, {"x": x})[0] - y for seed in (0, 0, 1)]
    assert np.array_equal(moved[0], moved[1]) and not np.array_equal(moved[0], moved[2])
    assert np.all(np.abs(moved[0]) <= most / (1 - most) * total + 1e-5 * total)
    typical = np.sqrt(np.mean(moved[0] ** 2)) / np.sqrt(np.mean(y**2))
    assert 0.2 < typical / (UNIT * math.sqrt((terms + 1) / 2)) < 5


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_sums_of_fp16_values_are_made_in_fp32_and_rounded_once(op: str) -> None:
    model = model_of(f"g (float16[4,300] x) => (float16[4,7] y) {{ y = {op} (x, w) }}", w=(300, 7))
    changed = with_other_sums(model, 0, 0.0)  # no rounding is drawn: what is left are the types
    onnx.checker.check_model(changed, full_check=True)
    assert [o.name for o in changed.graph.output] == ["y"] and changed.graph.output == model.graph.output
    x = np.random.default_rng(3).standard_normal((4, 300)).astype(np.float16)
    (y,) = ReferenceEvaluator(changed).run(None, {"x": x})
    weight = numpy_helper.to_array(model.graph.initializer[0])
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    assert y.dtype == np.float16 and np.array_equal(y, exact.astype(np.float32).astype(np.float16))
    # A sum of FP16 values that is rounded after every product is further away: the test can fail.
    each = np.zeros((4, 7), np.float16)
    for k in range(300):
        each += x[:, k, None] * weight[k]
    assert not np.array_equal(each, y)
    drawn = with_other_sums(model, 0, UNIT_ROUNDOFF["float16"])
    assert not np.array_equal(ReferenceEvaluator(drawn).run(None, {"x": x})[0], y)
