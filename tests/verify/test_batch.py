"""A sample that gives something else in another batch fails, whatever mixes it; rounding of sums does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import stats

import csa_deploy
from csa_deploy.errors import UsageError
from csa_deploy.graph.rebatch import of_one_sample
from csa_deploy.graph.summation import with_other_sums
from csa_deploy.runners.exact_runner import ExactRunner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.verify.batch import DRAWS, STUDENT, _reordered
from csa_deploy.verify.reporters import as_junit

Build = Callable[..., onnx.ModelProto]
SAMPLES = np.random.default_rng(3).standard_normal((8, 3, 6, 6)).astype("f4")
WEIGHTS = {
    "w": np.random.default_rng(4).standard_normal((4, 3, 3, 3)).astype("f4"),
    "one": np.full(3, 1.5, "f4"),
    "zero": np.zeros(3, "f4"),
    "mean": np.full(3, 0.25, "f4"),
    "var": np.ones(3, "f4"),
    "first": np.array([0]),
    "places": np.arange(4, dtype="f4").reshape(4, 1, 1, 1),
    "mixed": np.array([3, 4, 36]),
    "back": np.array([4, 3, 6, 6]),
    "column": np.array([4, 1, 108]),
    "flat": np.array([4, 108]),
}
SIGNATURE = "(float[4,3,6,6] x) => (float[4,4,4,4] y)"
SOUND = "y = Conv<pads=[0,0,0,0]>({}, w)"
FAULTS = {
    "a norm in training mode": "n, m, v = BatchNormalization<training_mode=1>(x, one, zero, mean, var)",
    "a mean of the samples": "m = ReduceMean(x, first) n = Sub(x, m)",
    "a softmax over the samples": "n = Softmax<axis=0>(x)",
    "a Reshape that mixes samples": "r = Reshape(x, mixed) t = Transpose<perm=[1,0,2]>(r) n = Reshape(t, back)",
    "a squeezed axis": (
        "c = Reshape(x, column) f = Reshape(x, flat) d = Sub(c, f) s = Squeeze(d, none) m = ReduceMean(s, second)"
        " q = Squeeze(m, second) n = Reshape(q, back)"
    ),
    "an offset by place": "n = Add(x, places)",
}
REFUSED = {
    "a norm in training mode": "over the samples",
    "a mean of the samples": "over the samples",
    "a softmax over the samples": "over the samples",
    "a Reshape that mixes samples": "does not keep the samples apart",
    "a squeezed axis": "different axes",
    "an offset by place": "differs from sample to sample",
}


def graph(build: Build, fault: str) -> onnx.ModelProto:
    extra = {"none": np.zeros(0, np.int64), "second": np.array([1])}
    used = {name: array for name, array in {**WEIGHTS, **extra}.items() if name in f"{fault} {SOUND}"}
    return build(SIGNATURE, f"{fault} {SOUND.format('n' if fault else 'x')}", **used)


def compared(model: onnx.ModelProto, **given: Any) -> csa_deploy.Comparison:
    return csa_deploy.compare(model, {"same": model}, data=SAMPLES, **given)


def test_a_sound_graph_is_the_same_in_every_batch(build: Build) -> None:
    found = compared(graph(build, "")).report.candidates[0].batch
    assert found is not None and found.verdict == "pass"
    assert (found.batch, found.samples, found.alone) == (4, 4, "a copy of the graph for batch 1")
    assert {d.against for d in found.differences} == {"another order", "batch 1"}


def test_extents_that_the_graph_computes_are_followed(build: Build) -> None:
    """As PyTorch's exporter leaves them, before they are folded."""
    body = (
        "s = Shape(x) b = Gather(s, at) r = Concat<axis=0>(b, rest) f = Reshape(x, r) t = Transpose<perm=[0,2,1]>(f)"
        " u = Transpose<perm=[0,2,1]>(t) q = Reshape(u, s) y = Conv(q, w)"
    )
    model = build(SIGNATURE, body, at=np.array([0]), rest=np.array([3, 36]), w=WEIGHTS["w"])
    found = compared(model).report.candidates[0].batch
    assert found is not None and found.verdict == "pass"
    assert found.alone == "a copy of the graph for batch 1 with 2 extents restated"


@pytest.mark.parametrize("batch", [2, 3, 4, 6, 7, 8])
def test_every_sample_gets_another_place(build: Build, batch: int) -> None:
    """And one of even number an odd one, which kernels that take two at a time tell apart."""
    taken = _reordered(2 * batch, batch)
    assert len(set(taken)) == batch
    assert all(sample % batch != place for place, sample in enumerate(taken))
    assert batch % 2 or all((sample - place) % 2 for place, sample in enumerate(taken))


@pytest.mark.parametrize("fault", FAULTS)
def test_samples_that_are_mixed_fail(build: Build, fault: str) -> None:
    model = graph(build, FAULTS[fault])
    result = compared(model)
    found = result.report.candidates[0]
    assert result.verdict == found.verdict == "fail" and found.batch is not None
    broken = found.batch.broken
    assert broken is not None and broken.output == "y" and broken.against == "another order"
    assert f"'y' of sample {broken.sample} differs by" in result.failure
    assert found.metrics["max_abs_error"] == 0.0  # in the same batches graph and reference agree


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("beside", ["z = Relu(d)", "e = Relu(d) z = ArgMax<axis=1>(e)"])
def test_an_output_of_zeros_hides_no_fault_of_another(build: Build, beside: str, first: bool) -> None:
    """A detector's map without an object is zero in every batch."""
    outputs = [
        "float[4,4,4,4] y",
        f"{'int64' if 'ArgMax' in beside else 'float'}[4,{4 if 'z = R' in beside else 1},4,4] z",
    ]
    nodes = f"{FAULTS['a mean of the samples']} {SOUND.format('n')} d = Add(y, far) {beside}"
    used = {name: WEIGHTS[name] for name in ("w", "first")} | {"far": np.full(1, -1e6, "f4")}
    signature = f"(float[4,3,6,6] x) => ({', '.join(outputs[::-1] if first else outputs)})"
    found = compared(build(signature, nodes, **used)).report.candidates[0].batch
    assert found.verdict == "fail" and found.broken.output == "y", found.statement


def test_an_output_that_is_rounding_alone_hides_no_fault_of_another(build: Build) -> None:
    """What cancels is named; the rest is judged."""
    cancels = "a = MatMul(f, u) b = MatMul(f, v) z = Sub(a, b)"
    draw = np.random.default_rng(5).standard_normal((108, 4)).astype("f4")
    used = {name: WEIGHTS[name] for name in ("w", "first", "flat")} | {"u": draw, "v": draw * np.float32(1 + 2**-23)}
    nodes = f"{FAULTS['a mean of the samples']} {SOUND.format('n')} f = Reshape(n, flat) {cancels}"
    found = compared(build("(float[4,3,6,6] x) => (float[4,4] z, float[4,4,4,4] y)", nodes, **used))
    batch = found.report.candidates[0].batch
    assert batch.verdict == "fail" and batch.broken.output == "y", batch.statement
    assert any("'z' by as much as it is large" in item.reason for item in batch.not_measured)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_copy_of_one_sample_where_samples_are_mixed(build: Build, fault: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[fault]):
        of_one_sample(graph(build, FAULTS[fault]))


def test_a_graph_of_one_sample_says_why_there_is_nothing_to_measure(build: Build) -> None:
    model = build("(float[1,3,6,6] x) => (float[1,4,4,4] y)", SOUND.format("x"), w=WEIGHTS["w"])
    found = compared(model).report.candidates[0].batch
    assert found is not None and found.verdict == "not measured"
    assert found.statement == "not measured: an inference takes one sample, no other lies beside it"


def test_one_sample_alone_has_no_neighbour(build: Build) -> None:
    found = csa_deploy.compare(graph(build, ""), graph(build, ""), data=SAMPLES[:1]).report.candidates[0].batch
    assert found is not None and found.statement == "not measured: there is one sample"


@pytest.mark.parametrize("count", range(2, 8))
def test_incomplete_batches_are_compared_as_well(build: Build, count: int) -> None:
    sound, mixed = graph(build, ""), graph(build, FAULTS["a mean of the samples"])
    assert csa_deploy.compare(sound, sound, data=SAMPLES[:count]).report.candidates[0].batch.verdict == "pass"
    found = csa_deploy.compare(mixed, mixed, data=SAMPLES[:count]).report.candidates[0].batch
    assert found.verdict == "fail"


def test_a_stored_comparison_fails_again(build: Build) -> None:
    result = compared(graph(build, FAULTS["an offset by place"]))
    again = csa_deploy.Comparison.from_json(json.loads(json.dumps(result.to_json())))
    assert again.report.candidates[0].batch == result.report.candidates[0].batch


def test_junit_has_a_case_for_the_batch(build: Build) -> None:
    for fault, failures in (("", 0), (FAULTS["a mean of the samples"], 1)):
        text = as_junit(compared(graph(build, fault)).report, strict=False)
        assert text.count("the same in every batch of 4") == 1
        assert text.count("<failure") == failures


def test_rounding_of_sums_is_no_difference(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that sum otherwise at another batch: what the CPU has here for one row and for many."""
    draw = np.random.default_rng(8)
    weights = {"a": draw.standard_normal((700, 300)).astype("f4"), "b": draw.standard_normal((300, 9)).astype("f4")}
    model = build("(float[8,700] x) => (float[8,9] y)", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)", **weights)
    data = draw.standard_normal((16, 700)).astype("f4")
    found = csa_deploy.compare(model, model, data=data).report.candidates[0].batch
    assert found.verdict == "pass", found.statement
    alone = next(d for d in found.differences if d.against == "batch 1")
    if alone.difference:  # one row is summed in another order here
        assert alone.difference < alone.rounding < 1e-4 * 700 * 300


def test_the_rounding_of_other_sums_is_that_of_fp32(build: Build, tmp_path: Path) -> None:
    """Held against FP64: rounding drawn anew is at least as large as that of the kernels, and not 20 times as large."""
    draw = np.random.default_rng(1)
    weights = {f"w{i}": (draw.standard_normal((64, 64, 3, 3)) / 24).astype("f4") for i in range(4)}
    chain = " ".join(f"c{i} = Conv<pads=[1,1,1,1]>(r{i}, w{i}) r{i + 1} = Relu(c{i})" for i in range(4))
    model = build("(float[2,64,8,8] r0) => (float[2,64,8,8] r4)", chain, **weights)
    onnx.save(model, tmp_path / "m.onnx")
    x = draw.standard_normal((2, 64, 8, 8)).astype("f4")
    exact = ExactRunner(tmp_path / "m.onnx").run({"r0": x.astype("f8")})["r4"]

    def run(graph: onnx.ModelProto) -> np.ndarray:
        with OnnxRuntimeRunner(graph.SerializeToString()) as runner:
            return runner.run({"r0": x})["r4"]

    ours = run(model)
    error = np.abs(ours - exact).max()
    drawn = [np.abs(run(with_other_sums(model, seed)) - ours).max() for seed in range(DRAWS)]
    assert error <= max(drawn) <= 20 * error


def test_the_bound_is_students() -> None:
    assert stats.t.ppf(0.9999, DRAWS) == pytest.approx(STUDENT, rel=1e-4)


def test_a_graph_whose_runs_change_it_tells_nothing(build: Build) -> None:
    """ONNX Runtime writes the running variance of this norm over its scale, which is the same weight."""
    fault = "n, m, v = BatchNormalization<training_mode=1>(x, one, zero, mean, one)"
    found = compared(graph(build, fault)).report.candidates[0].batch
    assert found.verdict != "pass", found.statement
