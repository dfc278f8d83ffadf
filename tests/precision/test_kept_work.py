"""What an expensive step has found is kept: when something after it fails, and when it decides nothing that changed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.precision import calibration, int8_graph, int8_stage, techniques
from csa_deploy.precision.observer import RangeObserver
from csa_deploy.precision.phases import PHASE_STEPS
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.source import load_source
from csa_deploy.workspace import Workspace

PARTS = ["calibrating", "equalization", "weight rounding", "bias correction", "measuring layers", "searching"]


class Watch:
    """An observer that keeps what it is told of the precision stage."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str]] = []

    def started(self, stage) -> None: ...

    def progress(self, stage, done: int, total: int, part: str = "") -> None:
        if stage.name == "precision":
            self.steps.append((done, total, part))

    def finished(self, stage, state, seconds, summary) -> None: ...


@pytest.fixture()
def quantize(tmp_path: Path, make_tiny) -> Callable[..., Context]:
    """Run the stages up to precision in one workspace, with other settings each time."""
    onnx.save(make_tiny(), tmp_path / "tiny.onnx")

    def run(**given) -> Context:
        settings = {"network": str(tmp_path / "tiny.onnx"), "calib": "random", "calib_samples": 12, "threads": 1}
        settings |= {"precision": ["fp32", "int8"], "budget": ["int8.snr_db=60"], **given}
        context = Context(make_config(settings), load_source(settings["network"]), Workspace(tmp_path / "ws"))
        with context.workspace.locked():
            run_stages(["precision"], context, watch)
        return context

    watch = Watch()
    run.watch = watch
    return run


def int8_of(context: Context) -> dict:
    return context.workspace.record("precision")["precisions"]["int8"]


def broken(*_, **__):
    raise ValueError("attempt to get argmin of an empty sequence")


def test_a_failing_audit_costs_the_audit_alone(quantize, monkeypatch):
    monkeypatch.setattr(calibration.Statistics, "audit", broken)
    context = quantize()
    record = context.workspace.record("precision")
    assert context.path(record["precisions"]["int8"]["graph"]).is_file()
    assert record["calibration"]["audit"] is None and not context.path(int8_stage.AUDIT).exists()
    (left,) = record["not_measured"]
    assert left["what"] == "audit of the calibration" and "argmin of an empty sequence" in left["reason"]


def test_a_failing_technique_is_off_with_the_reason(quantize, monkeypatch):
    monkeypatch.setitem(techniques.TECHNIQUES, "bias_correction", broken)
    found = int8_of(quantize())["techniques"]
    assert found["bias_correction"]["used"] is False
    assert "it failed: ValueError: attempt to get argmin" in found["bias_correction"]["reason"]
    assert found["weight_rounding"]["gain_db"] is not None


def test_calibration_and_search_survive_what_fails_after_them(quantize, monkeypatch, tmp_path):
    calm = quantize()
    expected = (calm.path(int8_of(calm)["graph"]).read_bytes(), int8_of(calm)["search"])
    assert expected[1]["sensitivities"]
    calm.workspace.root.rename(tmp_path / "calm")
    with monkeypatch.context() as patch:
        patch.setattr(int8_graph, "save_model", broken)
        with pytest.raises(ValueError, match="argmin"):
            quantize()
    unfinished = {path.name for path in (tmp_path / "ws" / "calibration").iterdir()}
    assert {"unfinished.npz", "unfinished-search.json"} <= unfinished
    passes, runs = [], []
    plain = RangeObserver.run, Switchable.run
    monkeypatch.setattr(RangeObserver, "run", lambda self, batches: passes.append(batches) or plain[0](self, batches))
    monkeypatch.setattr(Switchable, "run", lambda self, f, int8: runs.append(len(int8)) or plain[1](self, f, int8))
    resumed = quantize()
    assert (resumed.path(int8_of(resumed)["graph"]).read_bytes(), int8_of(resumed)["search"]) == expected
    assert not passes  # neither over the network nor over the equalized one
    assert runs.count(1) == 0  # no layer is measured alone again
    assert not any("unfinished" in path.name for path in (tmp_path / "ws" / "calibration").iterdir())


def test_another_precision_beside_it_repeats_no_search(quantize, monkeypatch):
    first = quantize(precision=["fp32", "fp16", "int8"])
    files = {name: first.path(int8_of(first)[name]).read_bytes() for name in ("graph", "cache")}
    entry = int8_of(first)
    monkeypatch.setattr(int8_graph, "choose_layers", broken)
    second = quantize(precision=["int8"])
    assert list(second.workspace.record("precision")["precisions"]) == ["int8"]
    assert int8_of(second) == entry
    assert {name: second.path(entry[name]).read_bytes() for name in files} == files
    assert second.workspace.record("precision")["notes"] == first.workspace.record("precision")["notes"]


@pytest.mark.parametrize(
    "changed",
    [
        {"budget": ["int8.snr_db=61"]},
        {"calib_method": "minmax"},
        {"calib_samples": 11},
        {"seed": 1},
        {"techniques": ["none"]},
        {"search": False},
        {"keep_fp32": ["head"]},
    ],
)
def test_what_decides_the_graph_makes_it_anew(quantize, monkeypatch, changed):
    quantize()
    monkeypatch.setattr(int8_graph, "choose_layers", broken)
    with pytest.raises(ValueError, match="argmin"):
        quantize(**changed)


def test_a_damaged_file_is_not_taken_over(quantize, monkeypatch):
    context = quantize()
    context.path(int8_of(context)["cache"]).write_text("damaged")
    monkeypatch.setattr(int8_graph, "choose_layers", broken)
    with pytest.raises(ValueError, match="argmin"):
        quantize(precision=["int8"])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"calib": None}, "INT8 needs calibration images"), ({"calib": "nowhere/at/all"}, "no such data set, folder")],
)
def test_missing_calibration_data_are_known_before_the_first_stage(quantize, tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        quantize(**given)
    assert not (tmp_path / "ws" / "records").exists()


def test_progress_says_what_is_done_and_never_goes_back(quantize):
    quantize()
    steps = quantize.watch.steps
    done = [step for step, _, _ in steps]
    assert done == sorted(done) and done[0] > 0 and done[-1] <= PHASE_STEPS
    assert {total for _, total, _ in steps} == {PHASE_STEPS}
    assert list(dict.fromkeys(part for _, _, part in steps)) == [p for p in PARTS if p in {s[2] for s in steps}]
    assert {"calibrating", "weight rounding", "measuring layers", "searching"} <= {part for _, _, part in steps}


def test_an_input_that_never_varies_is_named(tmp_path, caplog):
    weight = onnx.numpy_helper.from_array(np.ones((2, 3, 1, 1), "f4"), "w")
    inputs = [onnx.helper.make_tensor_value_info(n, 1, (1, c, 4, 4)) for n, c in (("x", 3), ("state", 2), ("flat", 2))]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        onnx.helper.make_node("Add", ["c", "state"], ["a"], name="add"),
        onnx.helper.make_node("Add", ["a", "flat"], ["y"], name="last"),
    ]
    output = onnx.helper.make_tensor_value_info("y", 1, (1, 2, 4, 4))
    graph = onnx.helper.make_graph(nodes, "g", inputs, [output], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "state.onnx")
    draw = np.random.default_rng(0)
    arrays = {"x": draw.standard_normal((8, 3, 4, 4)), "state": np.zeros((8, 2, 4, 4))}
    arrays["flat"] = 5 + 1e-4 * draw.standard_normal((8, 2, 4, 4))
    np.savez(tmp_path / "c.npz", **{name: array.astype("f4") for name, array in arrays.items()})
    given = {"network": str(tmp_path / "state.onnx"), "calib": str(tmp_path / "c.npz"), "precision": ["int8"]}
    context = Context(make_config(given), load_source(given["network"]), Workspace(tmp_path / "ws"))
    with context.workspace.locked():
        run_stages(["precision"], context)
    record = context.workspace.record("precision")
    assert record["calibration"]["constant_inputs"] == ["state", "flat"]
    for told in (" ".join(record["notes"]), caplog.text):
        assert "input 'state' is the same in all 8 calibration samples" in told and "input 'x' is" not in told
