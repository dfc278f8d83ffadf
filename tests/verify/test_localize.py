"""Cutting graphs at module borders, restoring modules, and the memory cap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from csa_deploy.config import make_config
from csa_deploy.metrics.table import METRICS, register
from csa_deploy.metrics.task import task_of
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.localize.blame import localize
from csa_deploy.verify.localize.boundaries import boundaries, modules_of, needed, passes, view_of, within
from csa_deploy.verify.localize.case import Case
from csa_deploy.verify.localize.measure import BoundaryError, in_onnxruntime
from csa_deploy.verify.localize.quantized import Clipping, ranges
from csa_deploy.verify.localize.surgery import CLEAN, expose, restore, set_apart

X = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("f4")}
Make = Callable[..., onnx.ModelProto]


def case(
    candidate: onnx.ModelProto, reference: onnx.ModelProto, budget: dict[str, float] | None = None, **settings: object
) -> Case:
    budget = budget or make_config({}).bounds("fp16")
    return Case("fp16", candidate, reference, "fp32", [X], ("0",), budget, 1, **settings)  # type: ignore[arg-type]


def doubled(model: onnx.ModelProto, weight: str) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), weight))
    return model


def test_a_graph_without_module_names_is_cut_at_its_nodes(make_tiny: Make) -> None:
    model = make_tiny()
    found = boundaries(view_of(model), modules_of(model), view_of(model))
    assert [(b.tensor, b.module, b.before) for b in found] == [
        ("c", "conv", ()),
        ("r", "relu", ("c",)),
        ("p", "pool", ("r",)),
        ("l", "head", ("p",)),
        ("y", "flatten", ("l",)),
    ]
    assert found[0].bytes == 4 * 8 * 16 * 16
    assert within(found, 3 * sum(b.bytes for b in found)) and not within(found, 3 * sum(b.bytes for b in found) - 1)


def test_parts_set_apart_compute_what_the_whole_computes(make_tiny: Make) -> None:
    model, tensors = make_tiny(), ["c", "p"]
    whole = in_onnxruntime(expose(model, tensors), 1).run(X)
    apart = in_onnxruntime(set_apart(model, tensors), 1)
    assert {s.name for s in apart.input_specs} == {"x", f"c{CLEAN}", f"p{CLEAN}"}
    again = apart.run({**X, **{f"{t}{CLEAN}": whole[t] for t in tensors}})
    assert all(np.array_equal(whole[name], again[name]) for name in ("c", "p", "y"))
    other = apart.run({**X, f"c{CLEAN}": 0 * whole["c"], f"p{CLEAN}": whole["p"]})
    assert np.array_equal(other["y"], whole["y"]) and not other["p"].any()


@pytest.mark.parametrize("modules", [["conv"], ["head"], ["conv", "pool"], ["flatten"]])
def test_restoring_everything_gives_the_reference_and_a_part_comes_closer(make_tiny: Make, modules: list[str]) -> None:
    reference = make_tiny()
    half = to_fp16(reference).model
    names = modules_of(reference)
    right = in_onnxruntime(reference, 1).run(X)["y"]
    whole = restore(half, reference, names, set(names.values()))
    onnx.checker.check_model(whole)
    assert np.array_equal(in_onnxruntime(whole, 1).run(X)["y"], right)
    part = restore(half, reference, names, modules)
    onnx.checker.check_model(part)
    assert [o.name for o in part.graph.output] == ["y"]
    error = np.abs(in_onnxruntime(part, 1).run(X)["y"] - right).max()
    assert 0 < error <= 1.5 * np.abs(in_onnxruntime(half, 1).run(X)["y"] - right).max()


@pytest.mark.parametrize(("weight", "module"), [("first", "conv"), ("last", "head")])
def test_the_guilty_module_is_named_alone(make_tiny: Make, weight: str, module: str) -> None:
    reference = make_tiny()
    found = localize(case(doubled(to_fp16(reference).model, weight), reference))
    assert found.culprits == (module,) and module in found.statement
    assert found.rows[0].module == module and found.rows[0].error_added == pytest.approx(1.0, rel=1e-2)
    assert found.rows[0].restored_snr_db is not None and found.rows[0].restored_snr_db > 50


class Sum:
    """Far from the target by what the outputs sum up to, which no bound of a tensor speaks of."""

    better = "lower"

    def update(self, outputs: dict[str, np.ndarray], target: float) -> float:
        return abs(float(outputs["y"].sum()) - target)

    def reduce(self, rows: np.ndarray) -> float:
        return float(rows.max())


def test_a_module_is_blamed_for_what_the_task_loses(make_tiny: Make) -> None:
    reference = make_tiny()
    target = float(in_onnxruntime(reference, 1).run(X)["y"].sum())
    task = task_of(Sum())
    register(*task.entries())
    try:
        settings = {"tasks": [task], "targets": [[target]], "budget": {"Sum_rise": 1e-3}}
        found = localize(case(doubled(reference, "last"), reference, **settings))  # type: ignore[arg-type]
        same = localize(case(reference, reference, **settings))  # type: ignore[arg-type]
    finally:
        for entry in task.entries():
            del METRICS[entry.name]
    assert found.culprits == ("head",) and same.culprits == ()


def test_two_guilty_modules_are_both_named(make_tiny: Make) -> None:
    reference = make_tiny()
    found = localize(case(doubled(doubled(to_fp16(reference).model, "first"), "last"), reference))
    assert set(found.culprits) == {"conv", "head"}


def test_when_the_time_is_spent_the_table_stays_and_what_was_cut_is_said(make_tiny: Make) -> None:
    reference = make_tiny()
    bad = doubled(to_fp16(reference).model, "first")
    cut, whole = localize(case(bad, reference, until=0.0)), localize(case(bad, reference))
    assert [(r.module, r.error_added) for r in cut.rows] == [(r.module, r.error_added) for r in whole.rows]
    assert cut.culprits == () and "conv adds the largest error" in cut.statement and "in time" in cut.statement
    assert any("cut short" in said and "--localize" in said for said in cut.not_done)
    assert all(row.restored_snr_db is None for row in cut.rows)


def test_an_error_in_both_is_not_blamed_on_a_module(make_tiny: Make) -> None:
    reference = make_tiny()
    found = localize(case(reference, reference))
    assert found.culprits == () and "agrees with fp32" in found.statement


def test_a_statement_names_its_samples_and_does_not_contradict_the_verdict(make_tiny: Make) -> None:
    reference = make_tiny()
    guilty = localize(case(doubled(to_fp16(reference).model, "first"), reference)).statement
    assert "fp16 is within its budget on its worst sample; it was tried on no other" in guilty
    found = localize(case(to_fp16(reference).model, reference, broken=("top1_drop",)))
    assert "breaks its budget over all samples (top1_drop), but not on its worst sample alone" in found.statement
    assert "agrees" not in found.statement


def test_other_shapes_and_values_that_are_not_finite_are_broken() -> None:
    difference = BoundaryError()
    difference.add(np.ones((1, 2)), np.ones(2))
    assert difference.relative == np.inf and difference.broken == "shape [2] instead of [1, 2]"
    difference = BoundaryError()
    difference.add(np.ones(2), np.array([1.0, np.nan]))
    assert difference.broken == "not finite"


def test_a_cap_makes_the_samples_run_again_and_changes_no_figure(make_tiny: Make) -> None:
    """Nodes without modules cannot be taken together."""
    reference = make_tiny()
    bad = doubled(to_fp16(reference).model, "last")
    capped, whole = localize(case(bad, reference, cap=1)), localize(case(bad, reference))
    assert capped.rows == whole.rows and capped.culprits == whole.culprits == ("head",) and capped.not_done == ()


def test_passes_hold_what_a_part_is_computed_from(make_tiny: Make) -> None:
    model = make_tiny()
    found = boundaries(view_of(model), modules_of(model), view_of(model))
    cap = 3 * sum(b.bytes for b in found[1:])
    groups = passes(found, cap)
    assert [[b.tensor for b in group] for group in groups] == [["c"], ["r"], ["p", "l", "y"]]
    assert [b.tensor for b in needed(groups[2], found)] == ["r", "p", "l", "y"]
    assert all(within(needed(group, found), cap) for group in groups[2:])
    assert passes(found, 10**9) == [found]


def test_an_engine_is_compared_where_its_fusions_end(make_tiny: Make) -> None:
    """Here ONNX Runtime stands for the engine: what counts is where it is cut, and what is restored together."""
    reference = make_tiny()
    opened = []

    def engine(model: onnx.ModelProto) -> OnnxRuntimeRunner:
        opened.append({o.name for o in model.graph.output})
        return in_onnxruntime(model, 1)

    given = case(doubled(to_fp16(reference).model, "first"), reference, survivors={"p"}, open=engine, tried=1)
    found = localize(given)
    assert found.boundaries == ("p", "y")  # a fusion hides c and r; outputs are always there
    assert [row.module for row in found.rows] == ["conv .. pool", "head .. flatten"]
    assert found.culprits == ("conv .. pool",) and found.rows[0].error_added == pytest.approx(1.0, rel=1e-2)
    assert found.rows[0].restored_snr_db is not None and found.rows[0].restored_snr_db > 50
    assert found.rows[1].restored_snr_db is None and found.rows[1].error_added < 1e-2
    assert set().union(*opened) == {"p", "y"}  # no other tensor is made an output, so no fusion is broken up


def test_clipped_values_are_counted(make_tiny: Make) -> None:
    model = make_tiny()
    for name, value in (("s", np.float32(0.01)), ("z", np.int8(0))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]))
    given = ranges(model, ["c"])["c"]
    clipping = Clipping()
    clipping.add(np.array([-1.29, -1.28, 0.0, 1.27, 1.28]), given)
    assert clipping.clipped == 2 and clipping.share == 0.4
    assert clipping.limit == pytest.approx(1.285) and clipping.largest == pytest.approx(1.29)
