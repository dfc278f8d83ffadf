"""Stages run when something that decides their result changed, and only then."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import AccuracyGateError, CsaDeployError, UsageError
from csa_deploy.options import LOADGEN
from csa_deploy.pipeline import comparison_key, run_stages, stage_key
from csa_deploy.source import load_source
from csa_deploy.stages import STAGES, Activity, Functions, dependents, with_needs
from csa_deploy.workspace import Workspace

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
WITHOUT_BUILD = ("export", "optimize", "check", "precision", "verify", "profile", "report")


class Watch:
    """Remembers how each stage ended."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.steps: dict[str, list[tuple[int, int]]] = {}

    def started(self, stage: Activity) -> None:
        self.steps[stage.name] = []

    def progress(self, stage: Activity, done: int, total: int, *said: str) -> None:
        self.steps[stage.name].append((done, total))

    def finished(self, stage: Activity, state: str, seconds: float, summary: str) -> None:
        self.states[stage.name] = state

    @property
    def ran(self) -> set[str]:
        return {name for name, state in self.states.items() if state != "kept"}


Go = Callable[..., tuple[Watch, CsaDeployError | None]]


@pytest.fixture()
def go(lab: Path) -> Go:
    """``go(*stages, **settings)`` runs stages (all but build without names) on ``lab/tiny.onnx`` in ``lab/w``."""

    def run(*names: str, root: str = "w", **settings: Any) -> tuple[Watch, CsaDeployError | None]:
        given = {"data": str(lab / "x.npz"), "iterations": 3, "warmup": 0, "threads": 1, **settings}
        config = make_config({"network": str(lab / "tiny.onnx"), **given})
        workspace, watch = Workspace(lab / root), Watch()
        with workspace.locked():
            failure = run_stages(names or WITHOUT_BUILD, Context(config, load_source(config.network), workspace), watch)
        return watch, failure

    return run


def test_needs_come_first_and_once() -> None:
    assert [stage.name for stage in with_needs(["verify"])] == ["export", "optimize", "precision", "verify"]
    on_demand = [name for name, stage in STAGES.items() if stage.when]
    assert [stage.name for stage in with_needs(list(STAGES))] == [name for name in STAGES if name not in on_demand]
    asked = make_config({"fix": True, "split": "f"})
    assert [stage.name for stage in with_needs(list(STAGES), asked)] == list(STAGES)
    assert [stage.name for stage in with_needs(["precision"], asked)] == ["export", "optimize", "repair", "precision"]


def test_dependents_follow_through_others() -> None:
    assert dependents("precision") == {"split", "build", "verify", "profile", "report"}
    assert dependents("report") == set()
    assert dependents("export") == set(STAGES) - {"export"}
    assert dependents("repair") == {"check", "precision", "split", "build", "verify", "profile", "report"}
    assert dependents("split") == {"verify", "profile", "report"}


def test_settings_of_stages_are_fields_of_the_configuration() -> None:
    fields = set(make_config({}).to_json())
    for stage in STAGES.values():
        assert set(stage.settings) <= fields, stage.name


def test_the_table_holds_every_function_that_a_stage_defines() -> None:
    """One that the table forgets would be defined, tested alone and never called."""
    for stage in STAGES.values():
        held = {f.name: getattr(stage.functions(), f.name) for f in dataclasses.fields(Functions)}
        module = sys.modules[held["run"].__module__]
        assert module.__name__ == f"csa_deploy.stages.{stage.name}"
        assert {name: getattr(module, name) for name in held if hasattr(module, name)}.items() <= held.items()
        assert bool(held["comparison"]) == bool(held["compare_again"]), stage.name


def test_every_field_belongs_to_some_stage() -> None:
    """A setting that belongs to none would neither decide anything nor be kept for the next verb."""
    used = {name for stage in STAGES.values() for name in (*stage.settings, *stage.also)}
    for_one_run = {"candidate", "localize", "cluster"}  # given besides the workspace's own, or where the work is done
    assert used == set(make_config({}).to_json()) - for_one_run


def test_a_second_run_keeps_all(go: Go, lab: Path) -> None:
    first, failure = go()
    assert failure is None and first.ran == set(WITHOUT_BUILD)
    before = (lab / "w/manifest.json").read_bytes()
    second, _ = go()
    assert second.ran == set()
    assert (lab / "w/manifest.json").read_bytes() == before
    assert not (lab / "w/.scratch").exists()


def test_progress_ends_where_it_said(go: Go) -> None:
    watch, _ = go("verify", "profile")
    assert watch.steps["verify"][-1] == (6, 6)
    assert watch.steps["profile"][-1] == (9, 9)  # three graphs, three iterations each
    for steps in watch.steps.values():
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)


FLOAT: dict[str, tuple[Any, set[str], set[str]]] = {
    # key: (another value, stages that write something else then, stages that only compare again)
    "checkpoint": ("x.npz", {"export"}, set()),
    "checkpoint_key": ("ema", {"export", "verify"}, set()),
    "size": (32, {"export"}, set()),
    "batch": (2, {"export"}, set()),
    "tensorrt": ("8.6", {"export", "check"}, set()),  # through the opset; and the known problems of that version
    "errata": (False, {"check"}, set()),
    "fail_on": ("high", {"check"}, set()),
    "opset": (16, {"export"}, set()),
    "exporter": ("torchscript", {"export"}, set()),
    "input_shape": (["x=1x3x32x32"], {"export"}, set()),
    "sample": ("whole", {"export"}, set()),
    "state": (["y:x"], {"export", "verify"}, set()),  # the data are sequences then
    "state_init": ("x.npz", {"verify"}, {"export"}),
    "mean": ("0.4,0.4,0.4", {"export"}, set()),
    "std": ("0.4,0.4,0.4", {"export"}, set()),
    "scale": (0.5, {"export"}, set()),
    "channels": ("bgr", {"export"}, set()),
    "layout": ("nhwc", {"export"}, set()),
    "crop": (0.5, {"export"}, set()),
    "interpolation": ("nearest", {"export"}, set()),
    "fit": ("letterbox", {"export"}, set()),
    "fill": (["114"], {"export"}, set()),
    "anchor": ("corner", {"export"}, set()),
    "export_tolerance": (0.5, set(), {"export"}),
    "restricted": (True, {"check", "build"}, set()),
    "scope": (["trt-11"], {"check", "build"}, set()),
    "strict": (True, {"check", "build", "verify"}, set()),
    "max_fallback": (["nodes=1"], {"check", "build"}, set()),
    "fix": (True, set(), set()),  # the stage that it asks for has not run
    "precision": (["fp32"], {"check", "precision", "build", "verify", "profile"}, set()),
    "fp16_io": (True, {"precision"}, set()),
    "keep_fp32": (["conv"], {"precision"}, set()),
    "split": (["r"], set(), set()),  # the stage that it asks for has not run
    "calib_method": ("minmax", set(), set()),
    "calib_samples": (7, set(), set()),
    "search": (False, set(), set()),
    "target_dla": (True, set(), set()),
    "techniques": (["none"], set(), set()),
    "backend": ("tensorrt-rtx", {"build"}, set()),
    "builds": (2, {"build"}, set()),
    "reproducible": (True, {"build"}, set()),
    "min_share": (["fp16=0.9"], {"build"}, set()),
    "compute_capability": (["8.6"], {"build"}, set()),
    "timing_cache": ("cache", {"build"}, set()),
    "data": ("y.npz", {"verify"}, {"export"}),
    "task": ("classification", {"verify"}, set()),
    "decode": ("heads.py:decode", {"verify"}, set()),
    "score_threshold": (0.3, {"verify"}, set()),
    "nms_iou": (0.4, {"verify"}, set()),
    "metric": (["mine.py:Worst"], {"verify"}, set()),
    "samples": (3, {"verify"}, set()),
    "candidate": (["tiny.onnx"], {"verify"}, set()),
    "localize": (True, {"verify"}, set()),
    "provider": ("cuda", {"verify"}, set()),
    "int8_arithmetic": ("gpu", {"verify"}, set()),
    "seed": (1, {"verify", "profile"}, {"export"}),
    "budget": (["int8.snr_db=15"], {"verify"}, set()),
    "iterations": (4, {"profile"}, set()),
    "seconds": (1.0, {"profile"}, set()),
    "warmup": (1, {"profile"}, set()),
    "limit": (["fp32.p50_ms=9"], {"profile"}, set()),
    "max_slowdown": (0.5, {"profile"}, set()),
    "threads": (2, {"verify", "profile"}, set()),
}
INT8: dict[str, tuple[Any, set[str], set[str]]] = {
    "calib": ("y.npz", {"precision"}, set()),
    "calib_method": ("minmax", {"precision"}, set()),
    "calib_samples": (2, {"precision"}, set()),
    "search": (False, {"precision"}, set()),
    "target_dla": (True, {"precision"}, set()),
    "techniques": (["none"], {"precision"}, set()),
    "budget": (["int8.snr_db=15"], {"precision", "verify"}, set()),
    "data": ("y.npz", {"verify"}, {"export", "precision"}),
    "samples": (3, {"verify"}, {"precision"}),
    "seed": (1, {"precision", "verify", "profile"}, {"export", "precision"}),
}
# Which file of a target or a baseline, and which option of trtexec, is tested where there are such.
ELSEWHERE = {"network", "target", "baseline", "builder_option", "calib", "part", "cluster", *LOADGEN}


def test_the_table_below_names_every_setting() -> None:
    assert {*FLOAT} | ELSEWHERE == set(make_config({}).to_json())


@pytest.mark.parametrize(
    ("precision", "key"), [*(("fp32,fp16", key) for key in FLOAT), *(("fp32,int8", key) for key in INT8)]
)
@pytest.mark.shows("MEA-41")
def test_a_setting_changes_the_keys_of_the_stages_that_it_decides(
    lab: Path, monkeypatch: pytest.MonkeyPatch, precision: str, key: str
) -> None:
    """A key holds what decides what the stage writes, and no more; what is only compared with has a key of its own."""
    monkeypatch.chdir(lab)
    np.savez(lab / "y.npz", x=np.ones((5, 3, 16, 16), "f4"), labels=np.arange(5))
    (lab / "heads.py").write_text("def decode(outputs):\n    raise NotImplementedError\n")
    (lab / "mine.py").write_text(
        "class Worst:\n"
        "    def update(self, outputs, target):\n        return [0.0]\n"
        "    def reduce(self, rows):\n        return 0.0\n"
    )
    base = {"network": "tiny.onnx", "data": "x.npz", "precision": precision}
    base |= {"calib": "x.npz"} if "int8" in precision else {}
    value, writes, compares = (INT8 if "int8" in precision else FLOAT)[key]
    stages = [stage for stage in STAGES.values() if not stage.when and stage.name != "report"]
    workspace = _exported(lab)

    def keys(**settings: Any) -> list[tuple[str, str]]:
        config = make_config({**base, **settings})
        context = Context(config, load_source("tiny.onnx"), workspace)
        return [(stage_key(stage, context), comparison_key(stage, context)) for stage in stages]

    changed = list(zip(stages, keys(), keys(**{key: value}), strict=True))
    if importlib.util.find_spec("tensorrt_rtx") is None:
        writes = writes - {"build"}
    assert {stage.name for stage, before, after in changed if before[0] != after[0]} == writes
    assert {stage.name for stage, before, after in changed if before[1] != after[1]} == compares


def test_other_samples_under_the_same_name_are_compared_again(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration images are held against what accuracy is measured on now, not against what was there once."""
    monkeypatch.chdir(lab)
    workspace = _exported(lab)
    given = {"network": "tiny.onnx", "data": "y.npz", "calib": "x.npz", "precision": "int8,fp16", "fix": True}
    given |= {"scope": ["drive-os-6"]}

    def keys(name: str, **settings: Any) -> tuple[str, str]:
        context = Context(make_config({**given, **settings}), load_source("tiny.onnx"), workspace)
        return stage_key(STAGES[name], context), comparison_key(STAGES[name], context)

    np.savez(lab / "y.npz", x=np.ones((5, 3, 16, 16), "f4"), labels=np.arange(5))
    before = {name: keys(name) for name in ("precision", "repair")}
    assert before == {name: keys(name) for name in before}
    np.savez(lab / "y.npz", x=np.zeros((5, 3, 16, 16), "f4"), labels=np.arange(5))
    for name, (key, compared) in before.items():
        assert keys(name)[0] == key
        assert keys(name)[1] != compared
    assert keys("repair", strict=True)[0] != before["repair"][0], "the record states verdicts, which --strict decides"


def _exported(lab: Path) -> Workspace:
    """A workspace with what the keys read."""
    workspace = Workspace(lab / "keys")
    context = Context(make_config({"network": str(lab / "tiny.onnx")}), load_source(str(lab / "tiny.onnx")), workspace)
    with workspace.locked():
        run_stages(["export"], context)
    return workspace


@pytest.mark.parametrize(
    ("settings", "ran"),
    [
        ({"iterations": 4}, {"profile", "report"}),
        ({"samples": 3}, {"verify", "report"}),
        ({"budget": ["fp16.snr_db=20"]}, {"verify", "report"}),
        ({"precision": "fp32"}, {"check", "precision", "verify", "profile", "report"}),
        ({"keep_fp32": "conv"}, {"precision", "verify", "profile", "report"}),
        ({"scope": ["drive-os-6"]}, {"check", "report"}),
    ],
)
def test_a_setting_reruns_what_it_decides(go: Go, settings: dict[str, Any], ran: set[str]) -> None:
    go()
    assert go(**settings)[0].ran == ran


def test_another_network_reruns_all(go: Go, lab: Path, make_tiny: Any) -> None:
    go()
    onnx.save(make_tiny(seed=1), lab / "tiny.onnx")
    assert go()[0].ran == set(WITHOUT_BUILD)


def test_other_data_rerun_what_reads_them(go: Go, lab: Path) -> None:
    go()
    np.savez(lab / "x.npz", x=np.ones((6, 3, 16, 16), "f4"), labels=np.arange(6))
    assert go()[0].ran == {"verify", "report"}


@pytest.mark.parametrize(
    ("path", "ran"),
    [
        # Made again with the same bytes: of what comes after, only the report has new times to show.
        ("onnx/tiny.onnx", {"export", "report"}),
        ("onnx/tiny.fp16.onnx", {"precision", "report"}),
        ("records/verify.json", {"verify", "report"}),
        ("report.html", {"report"}),
    ],
)
@pytest.mark.shows("MEA-41", "ERR-35")
def test_a_damaged_artifact_is_made_again(go: Go, lab: Path, path: str, ran: set[str]) -> None:
    go()
    before = (lab / "w/manifest.json").read_bytes()
    (lab / "w" / path).unlink()
    assert go()[0].ran == ran
    if path != "report.html":
        (lab / "w" / path).write_bytes(b"{}")
        assert go()[0].ran == ran
    assert (lab / "w/manifest.json").read_bytes() == before


def test_a_change_upstream_takes_the_rest_out_of_the_manifest(go: Go, lab: Path) -> None:
    go()
    go("precision", keep_fp32="conv")
    stages = json.loads((lab / "w/manifest.json").read_text())["stages"]
    assert set(stages) == {"export", "check", "optimize", "precision"}


def test_place_and_history_do_not_show(go: Go, lab: Path) -> None:
    go("export", root="a/w", samples=2)
    go("precision", root="a/w", precision="fp32")
    go(root="a/w", samples=4)
    go(root="b/w", samples=4)
    kept = [json.loads((lab / d / "w/manifest.json").read_text()) for d in "ab"]
    for manifest in kept:
        del manifest["stages"]["report"]  # it names its own place
    assert kept[0] == kept[1]


def test_a_failed_comparison_is_reported_and_tried_again(go: Go, lab: Path) -> None:
    watch, failure = go(budget=["fp16.snr_db=200"])
    assert isinstance(failure, AccuracyGateError) and "snr_db of 'y'" in failure.message
    assert watch.states["verify"] == "failed" and watch.states["report"] == "done"
    report = json.loads((lab / "w/report.json").read_text())
    said = {check["name"]: check["state"] for check in report["verdict"]["checks"]}
    assert report["verdict"]["state"] == "fail" and said["accuracy"] == "fail"
    again, failure = go(budget=["fp16.snr_db=200"])
    assert isinstance(failure, AccuracyGateError) and "verify" in again.ran
    better, failure = go(budget=["fp16.snr_db=20"])
    assert failure is None and better.states["verify"] == "done"


def test_a_failed_stage_leaves_what_was_there(go: Go, lab: Path) -> None:
    go()
    before = (lab / "w/manifest.json").read_bytes()
    with pytest.raises(UsageError, match="no such data set"):
        go(data="nowhere")
    assert (lab / "w/manifest.json").read_bytes() == before
    assert go()[0].ran == set()


def test_settings_with_which_nothing_worked_are_not_kept(go: Go, lab: Path) -> None:
    go("check", scope=["drive-os-6"])
    with pytest.raises(UsageError, match="no rule pack"):
        go("check", scope=["no-such-scope"])
    config = json.loads((lab / "w/manifest.json").read_text())["config"]
    assert config["scope"] == ["drive-os-6"]


class Killed(BaseException):
    """Stands for the end of the process; nothing catches it."""


@pytest.mark.shows("MEA-41", "ERR-35")
def test_ended_at_any_rename_the_next_run_ends_the_same(go: Go, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, settings = ("precision",), {"precision": "fp16,fp32"}
    go(*names, root="calm", **settings)
    real, left = Path.replace, [0]

    def replace(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(self, target)

    go(*names, root="killed", precision="fp32")  # the interrupted runs replace what an earlier one made
    monkeypatch.setattr(Path, "replace", replace)
    ended = 0
    for count in range(1, 60):
        left[0] = count
        try:
            go(*names, root="killed", **settings)
            break
        except Killed:
            ended += 1
            assert not (lab / "killed/.scratch").exists()
    else:
        pytest.fail("it never came to an end")
    assert ended > 2
    assert (lab / "killed/manifest.json").read_bytes() == (lab / "calm/manifest.json").read_bytes()


@needs_rtx
def test_naming_data_keeps_engines(go: Go, lab: Path) -> None:
    """Engines cost an hour on a target: what they are compared with does not make them anew."""
    build = {"precision": "fp16", "compute_capability": "8.6"}
    go("check", "build", **build)
    engine = lab / "w/engines/tiny.fp16.engine"
    made = engine.stat().st_mtime_ns
    np.savez(lab / "y.npz", x=np.ones((5, 3, 16, 16), "f4"), labels=np.arange(5))
    for data in ("y.npz", "x.npz"):
        watch, _ = go("verify", **build, data=str(lab / data))
        assert watch.ran == {"export", "verify"}
        assert json.loads((lab / "w/records/verify.json").read_text())["data"]["name"] == str(lab / data)
        assert go("profile", **build, data=str(lab / data))[0].ran <= {"profile"}
    assert engine.stat().st_mtime_ns == made
    assert "build" in json.loads((lab / "w/manifest.json").read_text())["stages"]


def test_other_data_are_compared_with_pytorch_again_and_nothing_is_exported(
    go: Go, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)
    network = {"network": "nets.py:tiny", "exporter": "torchscript"}
    (lab / "data").mkdir()  # beside the code, a file of numbers counts as weights
    go("optimize", **network)
    graph = lab / "w/onnx/nets-tiny.onnx"
    made, record = graph.stat().st_mtime_ns, json.loads((lab / "w/records/export.json").read_text())
    images = np.random.default_rng(3).standard_normal((4, 3, 16, 16)).astype("f4")
    np.savez(lab / "data/y.npz", x=images, labels=np.arange(4))
    assert go("optimize", **network, data="data/y.npz")[0].ran == {"export"}
    assert graph.stat().st_mtime_ns == made
    again = json.loads((lab / "w/records/export.json").read_text())
    assert [d["inputs"] for d in again["differences"]] == ["random", "data/y.npz"]
    assert {k for k in again if again[k] != record.get(k)} <= {"differences", "summary", "notes"}
    monkeypatch.setattr(sys.modules["csa_deploy.export.exporter"], "export_module", None)
    images[1] = np.nan
    np.savez(lab / "data/z.npz", x=images, labels=np.arange(4))
    assert go("optimize", **network, data="data/z.npz")[0].ran == {"export"}
    assert "not finite" in " ".join(json.loads((lab / "w/records/export.json").read_text())["notes"])
    with pytest.raises(AccuracyGateError, match="differs from PyTorch"):
        go("optimize", **network, data="data/y.npz", export_tolerance=1e-12)
    assert graph.stat().st_mtime_ns == made
    assert json.loads((lab / "w/manifest.json").read_text())["stages"]["export"]["passed"] is False


def test_calibration_images_are_held_against_other_data_without_another_search(go: Go, lab: Path) -> None:
    images = np.random.default_rng(4).standard_normal((6, 3, 16, 16)).astype("f4")
    np.savez(lab / "calib.npz", x=images)
    np.savez(lab / "other.npz", x=images + 1, labels=np.arange(6))
    int8 = {"precision": "int8", "calib": str(lab / "calib.npz")}
    go("precision", **int8)
    made = (lab / "w/onnx/tiny.int8.onnx").stat().st_mtime_ns
    assert go("precision", **int8, data=str(lab / "other.npz"))[0].ran == {"export", "precision"}
    assert (lab / "w/onnx/tiny.int8.onnx").stat().st_mtime_ns == made
    with pytest.raises(UsageError, match="in the evaluation set"):
        go("precision", **int8, data=str(lab / "calib.npz"))


def test_data_unlike_those_of_the_calibration_are_named(go: Go, lab: Path) -> None:
    """INT8 clips what calibration has not seen: the reader must learn that the images of the calibration are why."""
    images = 0.1 * np.random.default_rng(4).standard_normal((24, 3, 16, 16))
    for name, size in (("dark", 1), ("bright", 50), ("alike", 0.9)):
        np.savez(lab / f"{name}.npz", x=(size * images).astype("f4"))
    notes = {}
    for name in ("bright", "alike"):
        go("verify", precision="int8", calib=str(lab / "dark.npz"), data=str(lab / f"{name}.npz"), root=name)
        notes[name] = [note for note in Workspace(lab / name).record("verify")["notes"] if "calibrate on" in note]
    assert len(notes["bright"]) == 1 and "on images of the calibration" in notes["bright"][0]
    assert notes["alike"] == []
