"""What a rewrite costs in FP16, against NumPy's own half precision."""

import numpy as np
import pytest

from csa_deploy.graph.fp16_rounding import keep_rounding
from csa_deploy.graph.precision_cost import precision_cost
from csa_deploy.precision.fp16 import to_fp16


def half(model):
    return keep_rounding(to_fp16(model).model)


def decibels(want: np.ndarray, got: np.ndarray) -> float:
    want, got = want.astype("f8"), got.astype("f8")
    return 10 * np.log10((want**2).sum() / ((want - got) ** 2).sum())


@pytest.mark.shows("MEA-15")
def test_both_forms_of_a_bounded_relu_cost_what_numpy_says(build):
    """``b - relu(b - relu(t))`` rounds to the grid of ``b``; Clip itself does not."""
    shape = "float[1,4,8,8]"
    clip = build(f"({shape} x) => ({shape} y)", "y = Clip(x, l, h)", l=np.float32(0), h=np.float32(6))
    form = "a = Relu(x) b = Sub(h, a) c = Relu(b) y = Sub(h, c)"
    grid = build(f"({shape} x) => ({shape} y)", form, h=np.float32(6))
    x = np.random.default_rng(3).standard_normal((1, 4, 8, 8)).astype("f4")
    cost = precision_cost(clip, grid, half, [{"x": x}])
    want, t, six = np.clip(x, 0, 6), x.astype("f2"), np.float16(6)
    assert cost.before_db == pytest.approx(decibels(want, np.clip(t, 0, 6)), abs=0.01)
    assert cost.after_db == pytest.approx(decibels(want, six - np.maximum(six - np.maximum(t, 0), 0)), abs=0.01)
    assert cost.lost_db > 10 and cost.worst.name == "y"


@pytest.mark.shows("MEA-15", "ERR-12")
def test_an_output_that_overflows_is_lost(build):
    shape = "float[1,4]"
    model = build(f"({shape} x) => ({shape} y, {shape} z)", "y = Relu(x) z = Mul(x, w)", w=np.float32(60000))
    x = np.full((1, 4), 2.0, "f4")
    cost = precision_cost(model, model, half, [{"x": x}])
    by_name = {output.name: output for output in cost.outputs}
    assert by_name["z"].before_db == by_name["z"].after_db == -np.inf and by_name["y"].before_db == np.inf
    assert cost.lost_db == 0.0
