"""The table of operator traits, held against ONNX's reference implementation on random inputs."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from csa_deploy.graph.operators import TRAITS, Trait, having

OPSET = 20
SHAPE = (2, 3, 4, 4)


@dataclass(frozen=True)
class Case:
    """How an operator is called.

    Attributes:
        data: number of its inputs that are data, each with a shape; the others are constants of the call.
        fixed: the inputs behind the data, None for one that is left out.
        attributes: of the node.
        outputs: how many it has.
    """

    data: tuple[tuple[int, ...], ...] = (SHAPE,)
    fixed: tuple[np.ndarray | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    dtype: type = np.float32


def _ints(*values):
    return np.asarray(values, np.int64)


_NONE = np.zeros(0, np.float32)
_DOUBLE = np.asarray([1, 1, 2, 2], np.float32)
_ONE, _ZERO = np.float32(1), np.int8(0)
_INT8 = {"dtype": np.int8}
CASES: dict[str, list[Case]] = {
    "Conv": [Case((SHAPE, (4, 3, 3, 3)), attributes={"pads": [1, 1, 1, 1], "strides": [2, 2]})],
    "ConvTranspose": [Case((SHAPE, (3, 2, 2, 2)), attributes={"strides": [2, 2]})],
    "Gemm": [Case(((2, 3), (4, 3)), attributes={"transB": 1}), Case(((2, 3), (3, 4), (4,)), attributes={"beta": 0.5})],
    "MatMul": [Case(((2, 3, 4), (4, 5)))],
    "ConvInteger": [Case((SHAPE, (2, 3, 2, 2)), **_INT8)],
    "DeformConv": [Case((SHAPE, (2, 3, 1, 1)), (np.full((2, 2, 4, 4), 0.25, np.float32),))],
    "Einsum": [Case(((2, 3), (3, 4)), attributes={"equation": "ij,jk->ik"})],
    "MatMulInteger": [Case(((2, 3), (3, 4)), **_INT8)],
    "QLinearConv": [Case((SHAPE, (2, 3, 1, 1)), (_ONE, _ZERO, _ONE, _ZERO, _ONE, _ZERO), **_INT8)],
    "QLinearMatMul": [Case(((2, 3), (3, 4)), (_ONE, _ZERO, _ONE, _ZERO, _ONE, _ZERO), **_INT8)],
    "AveragePool": [Case(attributes={"kernel_shape": [k, k], "pads": [k // 3] * 4}) for k in (2, 3)],
    "MaxPool": [Case(attributes={"kernel_shape": [2, 2], "strides": [2, 2]})],
    "PRelu": [Case(fixed=(np.full((3, 1, 1), 0.2, np.float32),))],
    "Add": [Case((SHAPE, SHAPE))],
    "Mul": [Case((SHAPE, SHAPE))],
    "BatchNormalization": [Case(fixed=tuple(np.float32([[1, 2, 3], [3, 1, 2], [0, 1, 2], [1, 2, 1]])))],
    "ReduceMean": [Case(fixed=(_ints(2, 3),))],
    "Resize": [Case(fixed=(_NONE, _DOUBLE), attributes={"mode": mode}) for mode in ("nearest", "linear", "cubic")],
    "Squeeze": [Case(((2, 1, 3),), (_ints(1),))],
    "Unsqueeze": [Case(fixed=(_ints(1),))],
    "Reshape": [Case(fixed=(_ints(4, 24),))],
    "Flatten": [Case()],
    "Transpose": [Case(attributes={"perm": [0, 3, 1, 2]})],
    "Concat": [Case((SHAPE, SHAPE), attributes={"axis": 1})],
    "Expand": [Case(((3, 1),), (_ints(2, 3, 4),))],
    "Gather": [Case(fixed=(_ints(0, 2, 2),), attributes={"axis": 1})],
    "GatherElements": [Case(((2, 2),), (np.asarray([[0, 0], [1, 0]]),), {"axis": 1})],
    "GatherND": [Case(((2, 2),), (np.asarray([[0, 0], [1, 1]]),))],
    "Slice": [Case(fixed=(_ints(1), _ints(3), _ints(2)))],
    "Split": [Case(fixed=(_ints(1, 2),), attributes={"axis": 1}, outputs=2)],
    "Tile": [Case(((2, 3),), (_ints(2, 1),))],
}
DOMAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(("Acos", "Asin", "Atanh"), np.tanh),
    "Acosh": lambda x: 1 + np.abs(x),
    **dict.fromkeys(("Log", "Sqrt"), np.abs),
}
"""What makes normal numbers such that an operator is defined on."""


@cache
def _evaluator(op: str, number: int) -> tuple[Case, ReferenceEvaluator]:
    case = CASES.get(op, [Case()])[number]
    names = [f"x{i}" for i in range(len(case.data))]
    fixed = [f"c{i}" if value is not None else "" for i, value in enumerate(case.fixed)]
    order = [names[0], *fixed[:2], names[1], *fixed[2:]] if op.startswith("QLinear") else [*names, *fixed]
    if op == "Resize":
        order = [names[0], *fixed]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(op, order, outputs, **case.attributes)
    values = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in zip(fixed, case.fixed, strict=True) if n]
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
    inputs = [helper.make_tensor_value_info(name, element, None) for name in names]
    made = [helper.make_tensor_value_info(name, 0, None) for name in outputs]
    graph = helper.make_graph([node], "one", inputs, made, values)
    return case, ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def _call(op: str, number: int, *data: np.ndarray) -> np.ndarray:
    """All outputs of a call, in one row."""
    _, evaluator = _evaluator(op, number)
    feeds = {f"x{i}": value for i, value in enumerate(data)}
    return np.concatenate([np.asarray(out).ravel() for out in evaluator.run(None, feeds)])


def _data(op: str, number: int, seed: int = 0) -> list[np.ndarray]:
    case, _ = _evaluator(op, number)
    draw = np.random.default_rng(seed)
    if case.dtype is np.int8:
        return [draw.integers(0, 3, shape).astype(np.int8) for shape in case.data]
    fit = DOMAINS.get(op, np.asarray)
    return [fit(draw.standard_normal(shape)).astype(case.dtype) for shape in case.data]


def _close(a, b):
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)


def _moves(op, number):
    data = _data(op, number)
    return np.isin(_call(op, number, *data), np.concatenate([d.ravel() for d in data])).all()


def _permutes(op, number):
    data = _data(op, number)
    got = _call(op, number, *data)
    return len(data) == 1 and got.size == data[0].size and np.array_equal(np.sort(got), np.sort(data[0].ravel()))


def _views(op, number):
    data = _data(op, number)
    return np.array_equal(_call(op, number, *data), data[0].ravel())


def _selects(op, number):
    data = _data(op, number)
    return np.isin(_call(op, number, *data), [0, *np.concatenate([d.ravel() for d in data])]).all()


def _averages(op, number):
    data = _data(op, number)
    inside = np.abs(_call(op, number, *data)).max() <= max(np.abs(d).max() for d in data)
    same = [np.full_like(d, 0.5) for d in data]
    return inside and np.allclose(_call(op, number, *same), 0.5) and _linear(op, number)


def _gate(op, number):
    got = [_call(op, number, *(scale * d for d in _data(op, number))) for scale in np.float32([1e-3, 1, 10, 80])]
    return np.abs(np.concatenate(got)).max() <= 1


def _linear(op, number):
    data, other = _data(op, number), _data(op, number, 1)
    for i in range(len(data)):

        def f(value, i=i):
            return _call(op, number, *data[:i], value, *data[i + 1 :]).astype(np.float64)

        zero = f(np.zeros_like(data[i]))
        if not _close(f(data[i] * 3) - zero, 3 * (f(data[i]) - zero)):
            return False
        if not _close(f(data[i] - other[i]) - zero, f(data[i]) - f(other[i])):
            return False
    return True


def _homogeneous(op, number):
    data = _data(op, number)
    factors = np.asarray([0.25, 2.0, 8.0], np.float32).reshape(1, 3, 1, 1)
    if len(data) > 1 or data[0].shape != SHAPE:
        return False
    plain = _call(op, number, *data)
    if plain.size % (2 * 3):
        return False
    return _close(_call(op, number, data[0] * factors), (plain.reshape(2, 3, -1) * factors[..., 0]).ravel())


def _elementwise(op, number):
    data = _data(op, number)
    if len(data) > 1 or CASES.get(op, [Case()])[number] != Case():
        return False
    order = np.random.default_rng(2).permutation(data[0].size)
    got = _call(op, number, data[0].ravel()[order].reshape(8, 3, 2, 2))
    return got.size == order.size and _close(got, _call(op, number, *data)[order])


def _multiplies(op, number):
    data = _data(op, number)[:2]
    if len(data) < 2 or len(_data(op, number)) > 2:
        return False
    twice = _call(op, number, *(2 * d for d in data)).astype(np.float64)
    return twice.size and _close(twice, 4 * _call(op, number, *data).astype(np.float64))


HOLDS = {
    Trait.MOVES: _moves,
    Trait.PERMUTES: _permutes,
    Trait.VIEWS: _views,
    Trait.SELECTS: _selects,
    Trait.AVERAGES: _averages,
    Trait.GATE: _gate,
    Trait.LINEAR: _linear,
    Trait.HOMOGENEOUS: _homogeneous,
    Trait.ELEMENTWISE: _elementwise,
    Trait.MULTIPLIES: _multiplies,
}


def _holds(trait: Trait, op: str) -> bool:
    """Whether a trait is seen in an operator's cases: in all, or for products in one, as a bias hides it."""
    seen = (bool(HOLDS[trait](op, number)) for number in range(len(CASES.get(op, [Case()]))))
    with np.errstate(all="ignore"):
        return any(seen) if trait == Trait.MULTIPLIES else all(seen)


CLAIMS = [(trait, op) for trait, op in itertools.product(HOLDS, TRAITS) if TRAITS[op] & trait]


@pytest.mark.parametrize(("trait", "op"), CLAIMS, ids=[f"{op} {trait.name}" for trait, op in CLAIMS])
def test_what_the_table_says_holds(trait, op):
    assert _holds(trait, op)


NOT_CLAIMED = {
    Trait.MOVES: {"MaxPool", "GlobalMaxPool"},  # they compute: stand under SELECTS
    Trait.PERMUTES: {"Split"},  # but into several outputs
    Trait.VIEWS: set(),
    Trait.SELECTS: {"ThresholdedRelu"},  # of no use to those who ask
    Trait.AVERAGES: {"ReduceMean"},  # TensorRT has no INT8 form of it, and neither have we
    Trait.GATE: {"Cos", "Erf", "Sign", "Sin", "Softsign"},  # within [-1, 1], but nothing is gated with them
    Trait.LINEAR: {"Add", "DeformConv", "Einsum", "Neg", *having(Trait.MULTIPLIES) - having(Trait.WEIGHTED)},
    # by this layout
    Trait.HOMOGENEOUS: {"Abs", "Flatten", "Neg", "ReduceMean", "Reshape", "Resize", "Slice", "Unsqueeze"},
    Trait.ELEMENTWISE: {"Flatten", "Identity"},
    Trait.MULTIPLIES: {"Mul"},  # sums nothing up
}
"""What holds beyond the table; for movers also everything that copies do."""


@pytest.mark.parametrize("trait", HOLDS, ids=lambda trait: trait.name)
def test_what_the_table_does_not_say_does_not_hold(trait):
    implied = having(Trait.MOVES) if trait & (Trait.SELECTS | Trait.AVERAGES | Trait.LINEAR) else frozenset()
    others = [op for op, own in TRAITS.items() if not own & trait and op not in implied]
    assert {op for op in others if _holds(trait, op)} == NOT_CLAIMED[trait]


def test_traits_that_contain_others():
    assert having(Trait.VIEWS) < having(Trait.PERMUTES) < having(Trait.MOVES)
    for op in having(Trait.WEIGHTED):
        names = [port.name for port in onnx.defs.get_schema(op, OPSET).inputs]
        assert len(names) > 1 and names[1] in ("W", "B")
    assert all(onnx.defs.has(op) for op in TRAITS)
