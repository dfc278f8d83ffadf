"""The search holds every bound of the accuracy gate on every output, with the gate's own metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_deploy.errors import UsageError
from csa_deploy.metrics.table import METRICS, register, worst_values
from csa_deploy.metrics.task import task_of
from csa_deploy.precision.calibration import calibrate
from csa_deploy.precision.calibration_data import open_calibration
from csa_deploy.precision.cost import node_costs
from csa_deploy.precision.judging import broken, compare, unjudged
from csa_deploy.precision.propagation import propagated
from csa_deploy.precision.qdq_placement import place
from csa_deploy.precision.search import search
from csa_deploy.precision.sensitivity import measure
from csa_deploy.precision.techniques import TECHNIQUES, EvaluationContext, Plan, try_techniques
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import Sensitivity

SHAPES = {"x": (1, 3, 8, 8)}


def detector(build):
    """A heat map that INT8 does no harm, boxes whose values lie in the tail of their branch, and a class map."""
    draw = np.random.default_rng(3)
    given = {
        "w": 0.3 * draw.standard_normal((16, 3, 3, 3)),
        "wh": draw.standard_normal((4, 16, 1, 1)),
        "wb": np.concatenate([100 * draw.standard_normal((1, 16, 1, 1)), draw.standard_normal((7, 16, 1, 1))]),
        # Reads all channels but the one that makes the range of its input a hundred times too large.
        "wo": np.concatenate([np.zeros((4, 1, 1, 1)), draw.standard_normal((4, 7, 1, 1))], axis=1),
    }
    return build(
        "(float[1,3,8,8] x) => (float[1,4,8,8] heat, float[1,4,8,8] box, int64[1,1,8,8] best)",
        """
        c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
        r = Relu (c)
        heat = Conv (r, wh)
        b = Conv (r, wb)
        box = Conv (b, wo)
        best = ArgMax <axis = 1> (heat)
        """,
        **{name: array.astype("f4") for name, array in given.items()},
    )


def images(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(9)
    return [{"x": draw.standard_normal(SHAPES["x"]).astype("f4")} for _ in range(count)]


@pytest.fixture(scope="module")
def model(build):
    return detector(build)


@pytest.fixture(scope="module")
def plan(model) -> Plan:
    placement = place(model)
    statistics = calibrate(model, open_calibration("random", None, SHAPES), placement.tensors, threads=1)
    return Plan(model, placement, statistics.thresholds("minmax"), statistics.largest)


@pytest.fixture(scope="module")
def network(plan) -> Switchable:
    return plan.switchable(1)


def find(plan: Plan, network: Switchable, budget: dict[str, float], asked: tuple[str, ...] = (), **more):
    def order() -> list[Sensitivity]:
        measured = measure(network, images(2))
        return [Sensitivity(layer.name, layer.op, measured[layer.name], None, 1e-6) for layer in network.layers]

    targets = more.pop("targets", None)
    return search(network, images(6), targets, budget, node_costs(plan.model), order, asked=asked, **more)


@pytest.mark.shows("MEA-21", "ERR-17")
def test_an_output_that_is_not_the_first_decides(plan, network):
    first = compare([network.run(images(1)[0], ())], [network.run(images(1)[0], [x.name for x in network.layers])])
    assert first["heat"]["snr_db"] > 30 and first["box"]["snr_db"] < 15
    found = find(plan, network, {"snr_db": 25.0})
    assert not found.pareto[0].holds and "snr_db of 'box'" in found.pareto[0].broken[0]
    assert found.returned and found.pareto[len(found.returned)].holds
    assert found.pareto[0].metrics["snr_db"] == pytest.approx(first["box"]["snr_db"], abs=3)
    assert found.outputs == 3 and found.estimate_agrees is None
    assert "n4" in found.returned  # the layer that reads the wide tensor


@pytest.mark.parametrize(
    ("metric", "bound"),
    [("mean_iou_agreement", 0.995), ("pixel_agreement", 0.998), ("max_abs_error", 0.5), ("cosine", 0.9999)],
)
@pytest.mark.shows("MEA-21", "ERR-17")
def test_every_metric_of_the_gate_is_held(plan, network, metric, bound):
    found = find(plan, network, {metric: bound})
    assert not found.pareto[0].holds and metric in found.pareto[0].broken[0]
    assert found.pareto[len(found.returned)].holds
    chosen = {p.returned: p for p in found.pareto}[len(found.returned)].metrics[metric]
    assert chosen >= bound if METRICS[metric].side == "min" else chosen <= bound
    assert found.budget == {metric: bound}


class BoxesInPlace:
    """Share of the boxes that lie within 2 of where they are in truth: no metric of a tensor."""

    def update(self, outputs, target):
        return np.array([(np.abs(outputs["box"] - target).max(axis=0) < 2.0).sum(), target[0].size])

    def reduce(self, rows):
        return float(rows[:, 0].sum() / rows[:, 1].sum())


def test_layers_go_back_until_the_task_holds(plan, network):
    """Targets are arrays; the head that is sensitive is found by what the task loses."""
    task = task_of(BoxesInPlace())
    register(*task.entries())
    try:
        targets = [[network.run(feeds, ())["box"][0].astype("f8")] for feeds in images(6)]
        found = find(plan, network, {"BoxesInPlace_drop": 0.05}, tasks=[task], targets=targets)
    finally:
        for entry in task.entries():
            del METRICS[entry.name]
    first, last = found.pareto[0], found.pareto[len(found.returned)]
    assert first.metrics["BoxesInPlace_drop"] > 0.05 and "BoxesInPlace_drop of 'all outputs'" in first.broken[0]
    assert "n4" in found.returned and last.holds and last.metrics["BoxesInPlace_drop"] <= 0.05
    assert found.budget == {"BoxesInPlace_drop": 0.05}


def test_a_bound_of_one_output_returns_layers_for_it_alone(plan, network):
    assert not find(plan, network, {"heat.snr_db": 25.0}).returned  # the boxes are far below that
    found = find(plan, network, {"snr_db": 5.0, "box.snr_db": 25.0})
    assert found.returned and "snr_db of 'box'" in found.pareto[0].broken[0]
    assert found.budget == {"snr_db": 5.0, "box.snr_db": 25.0}
    with pytest.raises(UsageError, match="no output 'boxes', did you mean 'box'"):
        find(plan, network, {"boxes.snr_db": 25.0})


@pytest.mark.shows("MEA-21")
def test_what_cannot_be_judged_is_named(plan, network):
    budget = {"snr_db": 5.0, "top1_agreement": 0.95, "kl_divergence": 0.1, "top1_drop": 0.02}
    found = find(plan, network, budget, asked=("kl_divergence", "top1_drop"))
    assert set(found.not_judged) == {"kl_divergence", "top1_drop"}  # the default that does not apply is left out
    assert found.to_json()["not_judged"]["kl_divergence"] == "no classification output"
    assert found.budget == {"snr_db": 5.0}


def test_labels_that_the_images_lack_are_named_for_a_default_bound():
    logits = [{"y": np.eye(7)[:4]}]
    metrics = compare(logits, logits)
    assert unjudged(metrics, {"top1_drop": 0.01, "top1_agreement": 0.95}, 4) == {"top1_drop": "the data have no labels"}
    labelled = compare(logits, logits, [np.arange(4)])
    assert unjudged(labelled, {"top1_drop": 0.01}, 4) == {} and labelled["y"]["top1_drop"] == 0.0


def test_sensitivity_is_that_of_the_output_that_suffers_most(plan, network):
    measured = measure(network, images(2))
    estimated = propagated(plan.model, network.layers, plan.thresholds, images(2), threads=1)
    assert max(measured, key=measured.get) == max(estimated, key=estimated.get) == "n4"
    assert measured["n4"] > 0.03 > measured["n2"]
    assert estimated["n4"] == pytest.approx(measured["n4"], rel=0.1)  # nothing comes after it


def test_techniques_look_at_all_outputs(plan):
    def recalibrate(changed, tensors):
        return calibrate(changed, open_calibration("random", None, SHAPES), tensors, threads=1)

    evaluation = EvaluationContext(images(6), images(6), recalibrate, "minmax", half_scales=False, threads=1)
    _, findings = try_techniques(plan, tuple(TECHNIQUES), evaluation)
    assert findings["equalization"].used
    assert findings["equalization"].snr_db_without < 15 < findings["equalization"].snr_db_with


def literal_metrics(want: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """The gate's metrics of logits, in plain NumPy."""
    error = got - want
    softmax = [np.exp(a) / np.exp(a).sum(axis=1, keepdims=True) for a in (want, got)]
    return {
        "snr_db": 10 * np.log10((want**2).sum() / (error**2).sum()),
        "cosine": min(float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in zip(want, got, strict=True)),
        "max_abs_error": float(np.abs(error).max()),
        "max_rel_error": float(np.abs(error).max() / (want.max() - want.min())),
        "mean_abs_error": float(np.abs(error).mean()),
        "mean_rel_error": float(np.abs(error).mean() / np.abs(want).mean()),
        "top1_agreement": float((want.argmax(axis=1) == got.argmax(axis=1)).mean()),
        "kl_divergence": float((softmax[0] * np.log(softmax[0] / softmax[1])).sum(axis=1).mean()),
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([0.01, 0.3, 2.0]), st.sampled_from([1, 2]))
def test_metrics_are_those_written_out_and_bounds_break_on_their_side(seed, batches, noise, size):
    draw = np.random.default_rng(seed)
    want = draw.standard_normal((batches * size, 8))
    got = want + noise * draw.standard_normal(want.shape)
    parts = [[{"y": a} for a in np.split(array, batches)] for array in (want, got)]
    metrics = compare(*parts)
    images = len(want)
    for name, value in literal_metrics(want, got).items():
        assert metrics["y"][name] == pytest.approx(value, rel=1e-9, abs=1e-12)
        better = 1 if METRICS[name].side == "min" else -1
        step = 1.5 / images if name == "top1_agreement" else 1e-6 * max(1.0, abs(value))
        assert broken(metrics, {name: value - better * step}, images) == ()
        assert bool(broken(metrics, {name: value + better * step}, images)) == (
            name != "top1_agreement" or step > 1 / images
        )


def test_a_share_may_miss_by_one_image_and_not_by_two():
    want = np.eye(10)[np.arange(10)]
    for wrong, holds in ((0, True), (1, True), (2, False)):
        got = want.copy()
        got[:wrong] = np.roll(want[:wrong], 1, axis=1)
        metrics = compare([{"y": want}], [{"y": got}])
        assert (broken(metrics, {"top1_agreement": 1.0}, 10) == ()) == holds


def test_what_is_not_finite_breaks_every_budget():
    metrics = compare(
        [{"y": np.ones((1, 4)), "z": np.ones((1, 4))}], [{"y": np.ones((1, 4)), "z": np.full((1, 4), np.nan)}]
    )
    assert broken(metrics, {}, 1) == ("'z' is not finite",)


def test_an_output_without_an_axis_of_samples_makes_the_inference_one_sample(build):
    """A recogniser with the time first: its 4 steps are no samples."""
    model = build(
        "(float[1,3,4,4] x) => (float[4,1,5] y, float[1,2,4,4] m)",
        "m = Conv (x, w) p = ReduceMean <keepdims = 0> (x, axes) q = Transpose <perm = [2, 0, 1]> (p)"
        " y = MatMul (q, v)",
        w=(2, 3, 1, 1),
        axes=np.asarray([2]),
        v=(3, 5),
    )
    placement = place(model)
    network = Switchable(model, placement, dict.fromkeys(placement.tensors, 3.0), threads=1)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype("f4")}
    exact, got = network.run(feeds, ()), network.run(feeds, [layer.name for layer in network.layers])
    assert exact["y"].shape == (1, 4, 5) and exact["m"].shape == (1, 2, 4, 4)
    metrics = compare([exact], [got])
    noise = ((got["y"] - exact["y"]).astype("f8") ** 2).sum()
    assert metrics["y"]["snr_db"] == pytest.approx(10 * np.log10((exact["y"].astype("f8") ** 2).sum() / noise))
    assert worst_values(list(metrics.values()))["snr_db"] == min(found["snr_db"] for found in metrics.values())
    assert "top1_agreement" not in metrics["y"]  # as at the gate
