"""Techniques are kept by evidence from samples that they were not fitted to, and sensitivities are estimated well."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.precision.calibration import calibrate
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.int8_stage import Calibrated
from csa_deploy.precision.measurement_cache import MeasurementCache
from csa_deploy.precision.propagation import propagated
from csa_deploy.precision.qdq_placement import QdqPlacement, place
from csa_deploy.precision.selection import _other_ranges, read_samples, split
from csa_deploy.precision.sensitivity import measure, rank_correlation
from csa_deploy.precision.techniques import BETTER, TECHNIQUES, EvaluationContext, Plan, try_techniques
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.source import load_source
from csa_deploy.spec import TensorSpec, sampling_of
from csa_deploy.workspace import Workspace

SHAPES = {"x": (1, 3, 12, 12)}
CONVOLUTIONS = {"w": (16, 8, 1, 1), "u": (6, 16, 1, 1)}
PADDED = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"


def residual(build, smallest: float, operands: str = "s{0}, o{0}") -> onnx.ModelProto:
    """Residual blocks of which some channels are smaller than others by up to a factor; ``operands`` of each sum."""
    draw = np.random.default_rng(4)
    spread = np.geomspace(smallest, 1, 16)[draw.permutation(16)].reshape(-1, 1, 1, 1)
    given = {
        "w0": draw.standard_normal((16, 3, 3, 3)) * spread,
        "wy": draw.standard_normal((10, 16, 1, 1)) / spread.reshape(1, 16, 1, 1),
    }
    body = f"s0 = Conv <{PADDED}> (x, w0)\n"
    for block in range(3):
        given[f"e{block}"] = draw.standard_normal((24, 16, 3, 3)) / spread.reshape(1, 16, 1, 1) / 12
        given[f"p{block}"] = draw.standard_normal((16, 24, 1, 1)) * spread / 5
        body += f"""
            h{block} = Conv <{PADDED}> (s{block}, e{block})
            g{block} = Sigmoid (h{block})
            m{block} = Mul (h{block}, g{block})
            o{block} = Conv (m{block}, p{block})
            s{block + 1} = Add ({operands.format(block)})
        """
    body += "a = AveragePool <kernel_shape = [12, 12]> (s3) z = Conv (a, wy) y = Reshape (z, shape)"
    return build(
        "(float[1,3,12,12] x) => (float[1,10] y)",
        body,
        shape=np.asarray([1, 10]),
        **{name: array.astype("f4") for name, array in given.items()},
    )


def images(count: int, seed: int = 7) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [{"x": draw.standard_normal(SHAPES["x"]).astype("f4") + 0.5} for _ in range(count)]


def plain(model: onnx.ModelProto) -> Plan:
    placement = place(model)
    statistics = recalibrate(model, placement.tensors)
    return Plan(model, placement, statistics.thresholds("mse"), statistics.largest)


@pytest.fixture(scope="module")
def plan(build) -> Plan:
    """Of a network that gives equalization something to do."""
    return plain(residual(build, 0.01))


def recalibrate(model, tensors):
    return calibrate(model, open_calibration("random", None, SHAPES), tensors, threads=1)


@pytest.mark.parametrize("operands", ["s{0}, o{0}", "o{0}, s{0}"])
def test_no_technique_fails_whichever_operand_of_a_sum_is_quantized(build, evaluation, operands) -> None:
    """A failure would only be a finding: nothing depends on a technique."""
    plan = plain(residual(build, 0.1, operands))
    assert {tuple(layer.activations) for layer in plan.placement.layers if layer.op == "Add"} == {
        (0,) if operands.startswith("s") else (1,)
    }
    _, findings = try_techniques(plan, TECHNIQUES, evaluation)
    assert not [finding.reason for finding in findings.values() if "failed" in finding.reason]


@pytest.fixture(scope="module")
def evaluation() -> EvaluationContext:
    return EvaluationContext(images(16), images(8, seed=8), recalibrate, "mse", half_scales=False, threads=1)


@pytest.fixture(scope="module")
def tried(plan, evaluation):
    return try_techniques(plan, tuple(TECHNIQUES), evaluation)


def test_each_is_kept_exactly_where_it_is_better(plan, tried, evaluation):
    better, findings = tried
    assert list(findings) == list(TECHNIQUES)
    for name, found in findings.items():
        if name in ("range_choice", "clip_equalization"):  # there is nothing to choose from, and no Clip
            continue
        assert found.snr_db_with is not None, name
        assert found.used == (found.gain_db > max(BETTER, 2 * found.gain_error_db))
        assert found.images == 8 and found.reason
    assert findings["equalization"].used
    assert findings["equalization"].snr_db_with > findings["equalization"].snr_db_without + 3
    assert (better.model is plan.model) == (not findings["equalization"].used)
    assert bool(better.adjustments.weights) == findings["weight_rounding"].used
    assert bool(better.adjustments.biases) == findings["bias_correction"].used


def test_ranges_of_equalized_tensors_are_taken_anew(plan, tried):
    better, _ = tried
    assert len(better.thresholds) == len(plan.thresholds)
    assert better.thresholds["x"] == plan.thresholds["x"]
    assert "s1" not in better.thresholds  # other values, so another name: nobody takes one for the other
    assert better.thresholds["s1_equalized"] != plan.thresholds["s1"]
    assert all(t in better.thresholds for layer in better.placement.layers for t in layer.activations.values())
    assert [layer.name for layer in better.placement.layers] == [layer.name for layer in plan.placement.layers]


def test_it_is_deterministic(plan, tried, evaluation):
    better, findings = tried
    again, same = try_techniques(plan, tuple(TECHNIQUES), evaluation)
    assert same == findings
    assert again.model.SerializeToString(deterministic=True) == better.model.SerializeToString(deterministic=True)
    for name, bias in better.adjustments.biases.items():
        np.testing.assert_array_equal(again.adjustments.biases[name], bias)


def test_only_what_is_wanted_is_tried(plan, evaluation):
    better, findings = try_techniques(plan, ("bias_correction",), evaluation)
    assert better.model is plan.model and not better.adjustments.weights
    assert "not asked for" in findings["equalization"].reason
    assert findings["equalization"].to_json() == {"used": False, "reason": findings["equalization"].reason, "images": 0}
    _, none = try_techniques(replace(plan, placement=QdqPlacement(())), tuple(TECHNIQUES), evaluation)
    assert none["weight_rounding"].reason == "no layer is INT8"


def test_the_estimate_from_one_run_ranks_layers_as_measuring_each_does(build):
    plan = plain(residual(build, 1.0))
    clipped = {name: share * plan.thresholds[name] for name, share in {"m0": 0.3, "m1": 0.2, "s2": 0.1}.items()}
    network = Switchable(plan.model, plan.placement, plan.thresholds | clipped, threads=1)
    measured = measure(network, images(4))
    estimated = propagated(plan.model, network.layers, plan.thresholds | clipped, images(4), threads=1)
    names = [layer.name for layer in network.layers]
    assert rank_correlation([measured[n] for n in names], [estimated[n] for n in names]) > 0.5
    worst, worst_estimated = ({n for n in names if found[n] > 1e-4} for found in (measured, estimated))
    assert worst_estimated == worst and len(worst) == 5
    last = names[-1]  # nothing comes after it: the estimate is the measurement
    assert estimated[last] == pytest.approx(measured[last], rel=0.05)


def test_a_gain_that_may_be_chance_is_none(plan, evaluation):
    """One image gains nothing certain, however much it gains."""
    _, findings = try_techniques(plan, ("equalization",), replace(evaluation, held=evaluation.held[:1]))
    found = findings["equalization"]
    assert found.gain_db > 10 * BETTER and found.gain_error_db is None
    assert not found.used


@pytest.mark.parametrize(("factor", "used"), [(0.1, True), (1.0, False)])
def test_the_ranges_of_another_method_are_taken_where_they_are_better(plan, evaluation, factor, used):
    """Here the usual ones clip nearly all, or are those of the other methods."""
    other = {name: plan.largest[name] for name in plan.thresholds}
    ranges = {"minmax": other, "entropy": {n: 0.01 * t for n, t in other.items()}}
    asked = replace(plan, thresholds={name: factor * size for name, size in other.items()}, ranges=ranges)
    better, findings = try_techniques(asked, ("range_choice",), evaluation)
    found = findings["range_choice"]
    assert found.used == used
    assert better.thresholds == (other if used else asked.thresholds)
    assert better.method == ("minmax" if used else None)
    if used:
        assert found.reason.startswith("minmax; ") and found.snr_db_with > found.snr_db_without + 3
        both, _ = try_techniques(asked, ("range_choice", "equalization"), evaluation)
        taken = recalibrate(both.model, ("s1_equalized",)).thresholds("minmax")  # those of equalized tensors too
        assert both.thresholds["s1_equalized"] == taken["s1_equalized"]
    else:
        assert found.snr_db_with is None and found.reason.startswith("mse; ")


@pytest.mark.parametrize(("spread", "method"), [("normal", "entropy"), ("heavy", "mse")])
def test_the_record_and_the_audit_state_the_method_that_the_scales_are_of(build, tmp_path, spread, method):
    """Whether another method took the place of the usual one or not, and where the graph is taken over as well."""
    draw = np.random.default_rng(0)
    weights = {name: draw.standard_normal(shape).astype("f4") for name, shape in CONVOLUTIONS.items()}
    model = build("(float[1,8,4,4] x) => (float[1,6,4,4] y)", "a = Conv (x, w) r = Relu (a) y = Conv (r, u)", **weights)
    draw, shape = np.random.default_rng(1), (64, 8, 4, 4)
    np.savez(tmp_path / "x.npz", x=draw.standard_normal(shape) if spread == "normal" else draw.standard_t(1.5, shape))
    onnx.save(model, tmp_path / "n.onnx")
    files = {"network": str(tmp_path / "n.onnx"), "calib": str(tmp_path / "x.npz")}
    for precision in ("int8", "fp32,int8"):  # the second time the INT8 graph is that of the first
        settings = {"precision": precision, "techniques": "range-choice", "search": False, "threads": 1}
        config = make_config({**files, **settings})
        context = Context(config, load_source(config.network), Workspace(tmp_path / "w"))
        with context.workspace.locked():
            run_stages(["precision"], context)
        record = context.workspace.read(PrecisionRecord)
        audit = json.loads(context.path(record.calibration.audit).read_text())
        assert record.calibration.method == audit["method"] == method
        scales = record.int8.scales
        assert record.int8.techniques["range_choice"].used == (method != "mse") and scales
        for name, scale in scales.items():
            by_method = {key: limit / 127 for key, limit in audit["tensors"][name]["thresholds"].items()}
            assert scale == pytest.approx(by_method[method], rel=2**-10), by_method


def test_only_the_usual_method_gives_way_to_another(plan):
    statistics = recalibrate(plan.model, plan.placement.tensors)
    for method, expected in {"mse": {"mse", "minmax", "percentile", "entropy"}, "entropy": set()}.items():
        asked = Calibrated(None, plan.placement, statistics, {}, method, None, ())  # type: ignore[arg-type]
        assert set(_other_ranges(asked)) == expected


@pytest.mark.parametrize(("count", "batch", "shapes"), [(17, 8, 2), (16, 8, 2), (3, 8, 1), (5, 1, 5)])
def test_no_sample_is_evidence_twice_where_there_are_others(tmp_path, count, batch, shapes):
    np.savez(tmp_path / "x.npz", x=np.arange(count, dtype="f4")[:, None], labels=np.arange(count))
    data = open_calibration(str(tmp_path / "x.npz"), None, {"x": (batch, 1)})
    spec = TensorSpec("x", (batch, 1), "float32")
    samples = read_samples(data, sampling_of([spec], [spec]), 96)
    assert [feeds["x"].shape for feeds in samples.feeds] == [(batch, 1)] * shapes
    found = np.concatenate([feeds["x"][:, 0] for feeds in samples.feeds])
    assert np.concatenate(samples.targets).tolist() == found.tolist()
    assert len(set(found)) == min(count, batch * shapes) and (shapes == 1 or len(found) == len(set(found)))


def test_judged_on_runs_of_a_third():
    assert split(12) == ([2, 3, 8, 9], [0, 1, 4, 5, 6, 7, 10, 11])
    assert split(3) == ([2], [0, 1])
    assert split(2) == ([0], [1])
    assert split(1) == ([0], [0])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", tuple(TECHNIQUES)),
        ("none", ()),
        (["weight-rounding,equalization"], ("weight_rounding", "equalization")),
    ],
)
def test_the_setting(given, expected):
    assert make_config({"techniques": given}).techniques == expected


def test_an_unknown_technique_is_refused():
    with pytest.raises(UsageError, match="techniques"):
        make_config({"techniques": ["magic"]})


def test_an_interrupted_search_goes_on(plan, tmp_path):
    network = plan.switchable(1)
    key = plan.fingerprint(images(2))
    assert key == plan.fingerprint(images(2))
    assert key not in (plan.fingerprint(images(3)), replace(plan, thresholds={}).fingerprint(images(2)))

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(network, images(2), stop, MeasurementCache(tmp_path / "search.json", key))
    runs = []
    run, network.run = network.run, lambda feeds, int8: runs.append(int8) or run(feeds, int8)
    resumed = measure(network, images(2), cache=MeasurementCache(tmp_path / "search.json", key))
    assert len([int8 for int8 in runs if int8]) == 2 * (len(network.layers) - 5)
    network.run = run
    assert resumed == measure(network, images(2))
