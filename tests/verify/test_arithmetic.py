"""``verify --int8-arithmetic``: what is judged, and how far the three arithmetics are apart, by NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import csa_deploy as csa
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import UsageError
from csa_deploy.graph.int8_arithmetic import to_integer
from csa_deploy.pipeline import run_stages
from csa_deploy.records.arithmetic import ArithmeticDistance, Int8Arithmetic
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.source import load_source
from csa_deploy.stages import verify
from csa_deploy.verify.arithmetic import distances
from csa_deploy.verify.localize.measure import in_onnxruntime
from csa_deploy.workspace import Workspace

SAMPLES = 6


@pytest.fixture(scope="module")
def graphs(make_tiny: Callable[..., onnx.ModelProto]) -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    """FP32, INT8, and data that INT8 was not calibrated on."""
    rng = np.random.default_rng(1)
    model = make_tiny()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    calib, data = (rng.standard_normal((count, *shape[1:])).astype("f4") for count in (24, SAMPLES))
    return model, csa.quantize(model, calib=calib, search=False, techniques="none").model, data


def relative(want: np.ndarray, got: np.ndarray) -> float:
    return float(np.sqrt(((got - want) ** 2).sum() / (want**2).sum()))


def test_the_distances_are_those_of_the_tensors(graphs: Any) -> None:
    """By NumPy from three runs."""
    _, int8, data = graphs
    forms = {"float": int8, "gpu": to_integer(int8, "gpu").model, "dla": to_integer(int8, "dla").model}
    feeds = [{"x": row[None]} for row in data]
    got = {
        key: np.concatenate([in_onnxruntime(form, 1).run(feed)["y"].astype(np.float64) for feed in feeds])
        for key, form in forms.items()
    }
    modules, outputs = distances(int8, feeds, threads=1)
    found = {row.name: row for row in (*modules, *outputs)}
    row = found["y"]
    assert row.gpu_float == pytest.approx(relative(got["float"], got["gpu"]), rel=1e-9)
    assert row.dla_float == pytest.approx(relative(got["float"], got["dla"]), rel=1e-9)
    assert row.dla_gpu == pytest.approx(relative(got["gpu"], got["dla"]), rel=1e-9)
    largest = [max(row.gpu_float, row.dla_float, row.dla_gpu) for row in modules]
    assert largest == sorted(largest, reverse=True) and largest[0] > 0
    again, _ = distances(int8, feeds, threads=1, cap=1)  # tensor after tensor
    assert {r.name: r for r in again} == {r.name: r for r in modules}


@pytest.mark.parametrize("arithmetic", ["gpu", "dla"])
def test_what_was_asked_for_is_judged(graphs: Any, arithmetic: Any) -> None:
    model, int8, data = graphs
    judged = csa.compare(model, {"int8": int8}, data=data, threads=1, int8_arithmetic=arithmetic)
    plain = csa.compare(model, {"int8": int8}, data=data, threads=1)
    assert plain.report.arithmetic == () and "arithmetic" not in plain.report.to_json()
    (found,) = judged.report.arithmetic
    assert (found.candidate, found.judged, len(found.samples)) == ("int8", arithmetic, 4)
    assert 0 < found.fused <= found.layers
    with in_onnxruntime(to_integer(int8, arithmetic).model, 1) as runner:
        got = np.concatenate([runner.run({"x": row[None]})["y"] for row in data]).astype(np.float64)
    with in_onnxruntime(model, 1) as runner:
        want = np.concatenate([runner.run({"x": row[None]})["y"] for row in data]).astype(np.float64)
    (candidate,) = judged.report.candidates
    assert candidate.metrics["snr_db"] == pytest.approx(-20 * np.log10(relative(want, got)), abs=1e-3)
    assert candidate.metrics != plain.report.candidates[0].metrics
    executes = candidate.runner["name"]
    assert "INT32 sums" in executes and ("away from zero" in executes) == (arithmetic == "dla")
    assert any(note.startswith("int8: not modelled: ") for note in judged.report.notes)
    assert found.statement in judged.report.notes
    assert VerifyRecord.from_json(json.loads(json.dumps(judged.report.to_json()))).arithmetic == (found,)


def test_identical_arithmetics_are_said_to_be_identical() -> None:
    row = ArithmeticDistance("y", 0.0, 0.01, 0.0)
    found = Int8Arithmetic("int8", "gpu", ("0",), 3, 2, (row,), (row,), ())
    assert "gpu identical and dla 40.0 dB from floating point, identical from each other" in found.statement


def test_localisation_explains_the_arithmetic_that_was_asked_for(graphs: Any) -> None:
    model, int8, data = graphs
    rows = {}
    for arithmetic in ("float", "dla"):
        found = csa.compare(model, {"int8": int8}, data=data, threads=1, int8_arithmetic=arithmetic, localize=True)
        (explained,) = found.report.localization
        rows[arithmetic] = {row.module: row.error_added for row in explained.rows}
    assert rows["float"].keys() == rows["dla"].keys() and rows["float"] != rows["dla"]


def test_a_provider_of_a_gpu_has_no_integer_arithmetic(lab: Path) -> None:
    given = {
        "network": str(lab / "tiny.onnx"),
        "data": str(lab / "x.npz"),
        "int8_arithmetic": "gpu",
        "provider": "cuda",
    }
    context = Context(make_config(given), load_source(given["network"]), Workspace(lab / "w"))
    with pytest.raises(UsageError, match="--int8-arithmetic gpu is computed by integer kernels of the CPU"):
        verify.preflight(context)


def test_the_arithmetic_decides_the_result_and_floating_point_leaves_the_key(lab: Path) -> None:
    keys = []
    for given in ({}, {"int8_arithmetic": "float"}, {"int8_arithmetic": "gpu"}, {"int8_arithmetic": "dla"}):
        config = make_config({"network": str(lab / "tiny.onnx"), "data": str(lab / "x.npz"), **given})
        context = Context(config, load_source(config.network), Workspace(lab / "w"))
        with context.workspace.locked():
            run_stages(["export"], context)
        keys.append(verify.key_parts(context))
    assert keys[0] == keys[1] and len({json.dumps(k, sort_keys=True, default=str) for k in keys}) == 3


def test_the_command_and_the_report_say_what_is_not_modelled(lab: Path, csa: Any) -> None:
    np.savez(lab / "calib.npz", x=np.random.default_rng(9).standard_normal((8, 3, 16, 16)).astype("f4"))
    where = ("--int8", "--calib", "calib.npz", "--data", "x.npz", "--threads", "1", "-w", "w", "--no-search")
    done = csa(lab, "verify", "tiny.onnx", *where, "--int8-arithmetic", "dla")
    assert done.returncode in (0, 6), done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "int8 in dla arithmetic:" in said and "int8: not modelled:" in said
    assert csa(lab, "report", "tiny.onnx", "-w", "w").returncode in (0, 6)
    page = (lab / "w/report.html").read_text()
    assert 'aria-label="arithmetics of int8 by module"' in page and "not modelled: DLA" in page


@pytest.mark.parametrize("arithmetic", ["float", "dla"])
def test_arithmetic_that_nothing_was_computed_in_is_named(graphs: Any, arithmetic: str) -> None:
    """Asked for where no INT8 graph is among the candidates."""
    model, _, data = graphs
    report = csa.compare(model, {"same": model}, data=data, threads=1, int8_arithmetic=arithmetic).report
    assert report.candidates[0].precision == "fp32" and not report.arithmetic
    assert ("INT8 arithmetic 'dla'" in [item.what for item in report.not_measured]) == (arithmetic == "dla")
