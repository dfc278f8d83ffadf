"""A deployment in experiment trackers: real ones, on this disk, and a function of one's own."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import csa_deploy
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.report.tracking import TRACKERS, Tracked, track, tracked

PAGE = Path(csa_deploy.__file__).parents[1] / "docs" / "how-to" / "track.md"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, make_tiny: Any) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    onnx.save(make_tiny(), folder / "tiny.onnx")
    images = np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype("f4")
    root = folder / "deploy" / "nets-make"
    np.savez(folder / "x.npz", x=images)
    for words in (("verify", "tiny.onnx", "--fp32", "--data", "x.npz"), ("report", "tiny.onnx")):
        command = [sys.executable, "-m", "csa_deploy", *words, "--workspace", str(root)]
        subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
    return root


def test_it_holds_what_the_report_holds(deployed: Path) -> None:
    found, data = tracked(deployed), json.loads((deployed / "report.json").read_text())
    (row,) = (row for row in data["rows"] if row["label"] == "fp32")
    assert found.metrics["fp32/cosine"] == row["metrics"]["cosine"]
    assert all(np.isfinite(value) for value in found.metrics.values())
    assert found.tags["csa_deploy.verdict"] == data["verdict"]["state"]
    assert {"report.html", "report.json", Path(row["path"]).name} <= {path.name for path in found.files}


def test_a_tracker_of_ones_own_is_a_function(
    deployed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The code of the page, as it stands."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "page.py").write_text(code)
    monkeypatch.chdir(deployed.parents[1])
    runpy.run_path(str(tmp_path / "page.py"))
    assert "fp32/cosine" in capsys.readouterr().out


def test_what_is_not_there_is_said(deployed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no tracker 'x'"):
        track(deployed, "x")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EnvironmentLacksError, match="mlflow is not installed"):
        track(deployed, "mlflow")


@pytest.mark.slow
def test_a_tracker_that_does_not_take_it_is_one_line(deployed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(found: Tracked) -> None:
        raise ConnectionError(f"no server\nfor {found.name}")

    monkeypatch.setitem(TRACKERS, "mlflow", refused)
    with pytest.raises(EnvironmentLacksError, match=r"mlflow did not take it: no server for tiny\.onnx") as error:
        track(deployed, "mlflow")
    assert error.value.fix
    with pytest.raises(ConnectionError):  # one's own raises what it raises
        track(deployed, refused)


def test_mlflow_gives_back_what_it_got(deployed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of files, read by MLflow's own client."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    found = track(deployed, "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.data.metrics == pytest.approx(found.metrics)
    assert run.data.params == found.settings
    assert run.info.run_name == found.name and run.data.tags["csa_deploy.verdict"] == found.tags["csa_deploy.verdict"]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {path.name for path in found.files}


def logged(content: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format, in which W&B writes: blocks of 32 KiB, parts with checksum, length and kind."""
    at, whole = 7, b""  # behind W&B's own header
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole, at = whole + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_writes_a_run_without_network(deployed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    found = track(deployed, "wandb")
    (written,) = tmp_path.rglob("*.wandb")
    records, numbers, files = importlib.import_module("wandb.proto.wandb_internal_pb2"), {}, set()
    for stored in logged(written.read_bytes()):
        record = records.Record.FromString(stored)
        numbers |= {item.key or "/".join(item.nested_key): item.value_json for item in record.summary.update}
        files |= {entry.path for entry in record.artifact.manifest.contents}
    assert {name: json.loads(numbers[name]) for name in found.metrics} == pytest.approx(found.metrics)
    assert files == {path.name for path in found.files}
