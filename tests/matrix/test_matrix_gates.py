"""A cell and the run inside it agree: what ``run`` ends with an error for is no cell that was measured and is good."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.config import make_config
from csa_deploy.errors import UsageError
from csa_deploy.matrix.plan import parse_places, parse_versions, spots_of
from csa_deploy.matrix.run import Matrix, _inaccurate
from csa_deploy.records.matrix import MatrixReport
from csa_deploy.records.verify import OwnAccuracy, VerifyRecord
from csa_deploy.workspace import Workspace

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"
Run = Callable[..., MatrixReport]


@pytest.fixture()
def run(tmp_path: Path, make_tiny: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A matrix of one version on this machine, whose trtexec is a stand-in."""
    (tmp_path / "trtexec").write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} 8.6.13 "$@"\n')
    (tmp_path / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for seed, name in enumerate(("tiny", "other")):
        onnx.save(make_tiny(seed), tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).standard_normal((6, 3, 16, 16)).astype("f4"))

    def run(**settings: Any) -> MatrixReport:
        asked = parse_versions(["8.6"])
        given = {"network": str(tmp_path / "tiny.onnx"), "data": str(tmp_path / "x.npz"), "precision": "fp16"}
        given |= {"threads": 1, "iterations": 40, "warmup": 1, "budget": ["fp16.snr_db=30"], **settings}
        return Matrix(make_config(given), asked, spots_of(asked, parse_places([])), tmp_path / "m").run()

    return run


def test_another_candidate_or_the_reference_that_fails(run: Run, tmp_path: Path) -> None:
    (cell,) = run(candidate=[str(tmp_path / "other.onnx")]).cells
    assert cell.accuracy is not None and cell.accuracy.verdict != "fail"  # the engine is right
    assert (cell.state, cell.exit_code) == ("failed", 6) and cell.reason.startswith("accuracy: other.onnx: ")
    record = replace(Workspace(Path(cell.workspace)).read(VerifyRecord), accuracy=None)
    assert _inaccurate(record, "fp16").startswith("other.onnx")
    record = replace(record, candidates=tuple(c for c in record.candidates if c.label != "other.onnx"))
    assert _inaccurate(record, "fp16") == ""
    for right, said in ((0.1, "the reference itself gets 10.0 %"), (0.9, "")):
        own = OwnAccuracy(right, (right - 0.05, right + 0.05), 0.1, trained=True)
        found = _inaccurate(replace(record, accuracy=own), "fp16")
        assert found.startswith(said) and bool(found) == bool(said)


def test_a_limit_counts_where_the_graph_that_was_not_built_breaks_its_budget(run: Run) -> None:
    """TensorRT 8 makes FP16 of the FP32 graph: verify ends with the error of the FP16 graph, and profile with its own.

    The cell was a good one.
    """
    settings = {"budget": ["fp16.snr_db=80"]}
    (good,) = run(**settings).cells
    assert good.state == "measured"
    slow = run(**settings, limit=["engine-fp16.engine_mib=0.000001"])
    (cell,) = slow.cells
    assert (cell.state, cell.exit_code) == ("failed", 7) and "engine_mib" in cell.reason
    assert slow.upgrades[0].verdict == "no"


def test_a_limit_that_too_few_inferences_decide_is_open(run: Run) -> None:
    report = run(limit=["engine-fp16.p999_ms=1000", "engine-fp32.p50_ms=1"])
    assert report.upgrades[0].verdict == "unknown"
    (said,) = (reason for reason in report.upgrades[0].reasons if "limit of" in reason)
    assert "limit of engine fp16 p999_ms not measured: needs 1000 timed inferences" in said


def test_what_is_asked_for_wrongly_is_a_failure_and_what_is_lacking_is_not(run: Run, tmp_path: Path) -> None:
    """On both sides, and at both ends of a cell: the place, and what is built there."""
    (cell,) = run(builder_option=["strip_weights=true"]).cells
    assert (cell.state, cell.exit_code, cell.reason) == (
        "failed",
        2,
        "trtexec of TensorRT 8.6.13 has no --stripWeights",
    )
    (tmp_path / "trtexec").unlink()
    lacking = run()
    assert lacking.cells[0].state in ("not measured", "not there")  # which, TensorRT's Python package decides
    assert lacking.cells[0].exit_code == 0 and lacking.cells[0].reason
    assert lacking.upgrades[0].verdict == "unknown"


@pytest.mark.parametrize(("settings", "said"), [({"data": None}, "verify needs data"), ({"data": "gone"}, "gone")])
def test_what_no_cell_can_be_measured_with_is_refused(run: Run, settings: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(**settings)
