"""The stage as users meet it: limits, baselines, sweeps, and a result that says how it was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.profile.bench import OTHER_INPUTS
from csa_deploy.profile.gates import ANEW, STORED
from csa_deploy.profile.sweep import parse_points

QUICK = ("--iterations", 40, "--warmup", 1, "--threads", 1)
# Neighbours are alike on a busy machine: forty inferences may be worth fewer than the eight that an interval needs.
SURE = ("--iterations", 200, "--warmup", 1, "--threads", 1)


@pytest.fixture(scope="module")
def deployed(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished deployment, to profile anew in."""
    cwd = tmp_path_factory.mktemp("profiled")
    shutil.copytree(digits.cwd / "deploy", cwd / "deploy")
    return cwd


def measured(cwd: Path) -> dict[str, Any]:
    return json.loads((cwd / "deploy/csa_digits/measurements/profile.json").read_text())


def recorded(cwd: Path, root: str = "deploy/csa_digits") -> dict[str, Any]:
    return json.loads((cwd / root / "records/profile.json").read_text())


@pytest.mark.shows("MEA-33")
def test_states_its_contract_and_what_it_lacks(digits: Any) -> None:
    record = digits.record("profile")
    contract = record["contract"]
    for key in ("timed", "clock", "order", "warmup", "batch", "threads", "spin_wait", "cuda_graph", "inputs"):
        assert contract[key] is not None
    assert all(item["reason"] for item in record["not_measured"])
    assert all(m["evidence"] for m in record["measured"])


def test_keeps_every_sample_and_every_layer(digits: Any) -> None:
    found = measured(digits.cwd)
    for label, summary in found["latency"].items():
        assert len(summary["samples_ms"]) == 5
        assert summary["max_ms"] == max(summary["samples_ms"])
        assert summary["percentiles_ms"]["99"] is None, label
    cost = digits.record("profile")["cost"]["fp32"]["nodes"]
    assert set(found["layers"]["fp32"]["times_us"]) == {n["name"] for n in cost}
    assert sum(n["macs"] for n in cost) == digits.record("optimize")["after"]["macs"]


def test_a_broken_limit_exits_with_seven_and_is_in_the_report(deployed: Path, csa: Any) -> None:
    done = csa(deployed, "profile", "csa_digits", *SURE, "--limit", "fp32.p50_ms=0.001")
    assert done.returncode == 7, done.stderr
    assert "fp32: p50_ms is" in done.stderr and "the limit is 0.001" in done.stderr
    assert [g["verdict"] for g in measured(deployed)["gates"]] == ["fail"]
    report = csa(deployed, "report", "csa_digits")
    assert "FAIL" in report.stdout


def test_limits_that_hold_pass(deployed: Path, csa: Any) -> None:
    limits = ("--limit", "fp32.p50_ms=10000", "--limit", "fp32.weights_mib=50", "--limit", "fp32.max_ms=100000")
    done = csa(deployed, "profile", "csa_digits", *SURE, *limits)
    assert done.returncode == 0, done.stderr
    assert [g["verdict"] for g in measured(deployed)["gates"]] == ["pass"] * 3


def baseline(deployed: Path, root: Path, *, factor: float = 1.0, cpu: str | None = None, graphs: bool = True) -> Path:
    """A copy of the deployment whose stored latencies, machine or graphs are others."""
    shutil.copytree(deployed / "deploy/csa_digits", root)
    stored = root / "measurements/profile.json"
    data = json.loads(stored.read_text())
    for summary in data["latency"].values():
        summary["samples_ms"] = [v * factor for v in summary["samples_ms"]]
    data["host"]["cpu"] = cpu or data["host"]["cpu"]
    stored.write_text(json.dumps(data))
    if not graphs:
        for graph in root.rglob("*.onnx"):
            graph.unlink()
    return root


def against(cwd: Path) -> dict[str, tuple[str, str]]:
    return {
        g["label"]: (g["verdict"], g["reason"])
        for g in measured(cwd)["gates"]
        if g["quantity"].startswith(("p50", "b"))
    }


def test_stored_samples_count_where_the_graphs_are_gone(deployed: Path, csa: Any, tmp_path: Path) -> None:
    assert csa(deployed, "profile", "csa_digits", *SURE).returncode == 0
    for name, factor, code in (("fast", 0.02, 7), ("slow", 50.0, 0)):
        root = baseline(deployed, tmp_path / name, factor=factor, graphs=False)
        done = csa(deployed, "profile", "csa_digits", *SURE, "--baseline", root)
        assert done.returncode == code, done.stderr
        assert "slower than the baseline" in done.stderr or code == 0
        assert {reason for _, reason in against(deployed).values()} == {STORED}


@pytest.mark.shows("MEA-33", "ERR-27")
def test_a_baseline_of_another_machine_is_timed_anew_here(deployed: Path, csa: Any, tmp_path: Path) -> None:
    """Its stored samples, fifty times as fast, fail nothing; without its graphs it is not compared at all."""
    assert csa(deployed, "profile", "csa_digits", *QUICK).returncode == 0
    root = baseline(deployed, tmp_path / "other", factor=0.02, cpu="another")
    done = csa(deployed, "profile", "csa_digits", *SURE, "--max-slowdown", 3, "--baseline", root)
    assert done.returncode == 0, done.stderr
    assert against(deployed) == dict.fromkeys(measured(deployed)["latency"], ("pass", ANEW))
    bare = baseline(deployed, tmp_path / "bare", factor=0.02, cpu="another", graphs=False)
    assert csa(deployed, "profile", "csa_digits", *QUICK, "--baseline", bare).returncode == 0
    for verdict, reason in against(deployed).values():
        assert verdict == "not measured" and "another machine" in reason


def test_a_graph_that_became_slower_fails_and_one_of_another_size_is_not_compared(
    deployed: Path, csa: Any, tmp_path: Path, make_tiny: Any
) -> None:
    # In a copy, as a workspace keeps its baseline, and the others are not to be held against this one.
    here = shutil.copytree(deployed, tmp_path / "here")
    assert csa(here, "profile", "csa_digits", *SURE).returncode == 0
    root = baseline(here, tmp_path / "before")
    paths = {entry["label"]: root / entry["path"] for entry in recorded(root.parent, root.name)["measured"]}
    (spec,) = onnx.load(paths["fp32"]).graph.input
    shape = tuple(d.dim_value for d in spec.type.tensor_type.shape.dim)
    onnx.save(make_tiny(inputs=shape, name=spec.name), paths["fp32"])  # much less work than this run's graph
    onnx.save(make_tiny(inputs=(1, 3, 8, 8)), paths["fp16"])
    done = csa(here, "profile", "csa_digits", *SURE, "--baseline", root)
    assert done.returncode == 7, done.stderr
    assert "fp32" in done.stderr and "slower than the baseline" in done.stderr
    found = against(here)
    assert found["fp32"] == ("fail", ANEW)
    assert found["fp16"] == ("not measured", OTHER_INPUTS)


def test_a_missing_baseline_is_refused_before_anything_runs(deployed: Path, csa: Any) -> None:
    done = csa(deployed, "profile", "csa_digits", "--baseline", "nowhere")
    assert done.returncode == 2 and "nowhere: no stored profile" in done.stderr


def test_seconds_instead_of_iterations(deployed: Path, csa: Any) -> None:
    done = csa(deployed, "profile", "csa_digits", "--seconds", 0.2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert recorded(deployed)["contract"]["seconds"] == 0.2
    assert all(sum(s["samples_ms"]) >= 190 for s in measured(deployed)["latency"].values())


def test_sweeps_grow_and_keep_the_reason_of_a_refusal(lab: Path, csa: Any) -> None:
    done = csa(lab, "profile", "nets.py:tiny", *QUICK, "--sweep-batch", "1,4", "--sweep-size", "8,16", "-w", "w")
    assert done.returncode == 0, done.stderr
    rows = json.loads((lab / "w/profile_sweep.json").read_text())["rows"]
    assert [(r["kind"], r["batch"]) for r in rows] == [("batch", 1), ("batch", 4), ("side", 1), ("side", 1)]
    assert rows[1]["macs"] == 4 * rows[0]["macs"] > 0
    assert rows[2]["median_ms"] is None and rows[2]["reason"]  # its pool needs 16 pixels
    low, high = rows[3]["interval_ms"] or (0.0, float("inf"))  # none where a busy machine makes neighbours alike
    assert low <= rows[3]["median_ms"] <= high
    assert {**rows[3], "kind": "batch"} == rows[0]  # where the two sweeps meet, one measurement


def test_a_start_above_the_stop_is_said() -> None:
    with pytest.raises(UsageError) as error:
        parse_points("--sweep-size", "96:32:32")
    assert "start 96 lies above stop 32" in error.value.message


@pytest.mark.parametrize(
    ("text", "points"), [("1,2,8", [1, 2, 8]), ("16:48:16", [16, 32, 48]), ("4", [4]), ("8:8:1", [8])]
)
def test_points(text: str, points: list[int]) -> None:
    assert parse_points("--sweep-batch", text) == points


@pytest.mark.parametrize("text", ["", "0,1", "1:2", "1:9:0", "9:1:1", "a"])
def test_bad_points_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sweep-batch"):
        parse_points("--sweep-batch", text)
