"""A matrix over a real sshd on loopback, with a stand-in for trtexec of each version."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.config import make_config
from csa_deploy.matrix.plan import parse_places, parse_versions, spots_of
from csa_deploy.matrix.run import MATRIX, Matrix
from csa_deploy.pipeline import Silent
from csa_deploy.records.matrix import Cell, MatrixReport

sys.path.insert(0, str(Path(__file__).parents[1] / "trtexec"))  # for loopback, whatever pytest's import mode
from loopback import Sshd, running_sshd

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"
VERSIONS = {"old": "8.6.13", "now": "10.10.0", "new": "11.1.0"}
SAMPLES = 2

Run = Callable[..., MatrixReport]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    yield from running_sshd(tmp_path_factory.mktemp("sshd"))


@pytest.fixture()
def place(sshd: Sshd, tmp_path: Path, make_tiny: Callable[..., onnx.ModelProto]) -> Path:
    """A directory with a network, its data, and the files of three targets."""
    onnx.save(make_tiny(), tmp_path / "tiny.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).standard_normal((SAMPLES, 3, 16, 16)).astype("f4"))
    for name, version in VERSIONS.items():
        target(sshd, tmp_path, name, version)
    return tmp_path


def target(sshd: Sshd, folder: Path, name: str, version: str, more: str = "", stated: bool = True) -> Path:
    trtexec = folder / f"bin-{name}" / "trtexec"
    trtexec.parent.mkdir(exist_ok=True)
    trtexec.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} {version} "$@"\n')
    trtexec.chmod(0o755)
    file = folder / f"{name}.yaml"
    file.write_text(
        f"host: 127.0.0.1\nport: {sshd.port}\nssh_config: {sshd.folder}/ssh_config\nplatform: workstation\n"
        f"workdir: {folder}/there-{name}\ntrtexec: {trtexec}\n" + (f'tensorrt: "{version}"\n' if stated else "") + more
    )
    return file


def run(folder: Path, targets: str, observer: Any = None, begun: Any = None, **settings: Any) -> MatrixReport:
    asked = parse_versions(["8.6,10.10,11.1"])
    places = parse_places([",".join(str(folder / f"{name}.yaml") for name in targets.split())])
    given = {"network": str(folder / "tiny.onnx"), "data": str(folder / "x.npz"), "precision": "fp16", "threads": 1}
    given |= {"iterations": 40, "budget": ["fp16.snr_db=30"], **settings}
    told = begun or (lambda what: None)
    return Matrix(make_config(given), asked, spots_of(asked, places), folder / "m", observer, told).run()


def cells(report: MatrixReport) -> dict[tuple[str, str], Cell]:
    return {(cell.tensorrt, cell.target): cell for cell in report.cells}


def test_every_version_where_it_is_and_the_reason_where_it_is_not(place: Path) -> None:
    report = run(place, "old now new")
    found = cells(report)
    assert {k for k, c in found.items() if c.state == "measured"} == {("8.6", "old"), ("10.10", "now"), ("11.1", "new")}
    others = [cell for cell in report.cells if cell.state != "measured"]
    assert len(others) == 6 and all(cell.state == "not there" for cell in others)
    assert found["8.6", "now"].reason == f"{place}/now.yaml states TensorRT 10.10.0"
    measured = found["10.10", "now"]
    assert measured.version == "10.10.0" and measured.obtained is not None and measured.obtained.asked == "fp16"
    assert measured.accuracy is not None and measured.accuracy.samples == SAMPLES
    assert measured.latency is not None and len(measured.latency.samples_ms) == 40
    assert {c.machine for c in report.cells if c.latency} == {"127.0.0.1: Orin"}  # so that their latencies are compared
    hashes = {c.accuracy.tensors_sha256 for c in report.cells if c.accuracy}
    assert len(hashes) == 1  # the same samples everywhere
    graphs = {
        json.loads((Path(c.workspace) / "manifest.json").read_text())["stages"]["export"]["key"]
        for c in report.cells
        if c.accuracy
    }
    assert len(graphs) == 1  # and the same graph, which 8.6 can read
    assert {k.tensorrt for k in report.known} == {"8.6", "10.10", "11.1"}
    assert MatrixReport.from_json(json.loads((place / "m" / MATRIX).read_text())) == report


@pytest.mark.slow
def test_a_cell_that_fails_stops_no_other_and_decides(sshd: Sshd, place: Path) -> None:
    broken = 'environment: {STANDIN_SAY: "Error[2]: OutOfMemory (no further information)"}\n'
    target(sshd, place, "now", VERSIONS["now"], broken)
    report = run(place, "old now new")
    found = cells(report)
    assert found["10.10", "now"].state == "failed" and found["10.10", "now"].exit_code == 5
    assert "ran out of memory" in found["10.10", "now"].reason
    assert found["11.1", "new"].state == found["8.6", "old"].state == "measured"
    verdicts = {upgrade.tensorrt: upgrade for upgrade in report.upgrades}
    assert (verdicts["10.10"].verdict, verdicts["10.10"].exit_code) == ("no", 5)
    changes = {(c.before, c.after): c for c in report.changes if c.what == "build"}
    assert changes["8.6", "10.10"].worse and not changes["10.10", "11.1"].worse


@pytest.mark.slow
def test_what_is_not_reached_is_not_measured(sshd: Sshd, place: Path) -> None:
    gone = place / "gone.yaml"
    gone.write_text((place / "now.yaml").read_text().replace(f"port: {sshd.port}", "port: 1"))
    unstated = target(sshd, place, "unstated", "10.3.0", stated=False)
    other = target(sshd, place, "other", "10.3.0", stated=False)
    other.write_text(f'{other.read_text()}tensorrt: "11.1"\n')
    report = run(place, "old gone unstated other")
    found = cells(report)
    wrong = found["11.1", "other"]  # it answers, and is not what its file states
    assert (wrong.state, wrong.exit_code) == ("failed", 2) and "its file states 11.1" in wrong.reason
    assert found["10.10", "gone"].state == "not measured" and found["10.10", "gone"].reason
    assert found["11.1", "gone"].state == "not there"
    assert found["10.10", "unstated"].reason == f"{unstated.stem} has trtexec of TensorRT 10.3.0"
    assert {u.tensorrt: u.verdict for u in report.upgrades}["10.10"] == "unknown"


@pytest.mark.slow
def test_a_budget_that_is_broken_is_a_failure_of_the_cell(place: Path) -> None:
    report = run(place, "now", budget=["fp16.snr_db=200"])
    cell = cells(report)["10.10", "now"]
    assert (cell.state, cell.exit_code) == ("failed", 6) and cell.reason.startswith("accuracy: ")
    assert cell.latency is not None  # timed all the same


class Watch(Silent):
    """Which stages ran anew."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def finished(self, stage: Any, state: str, seconds: float, summary: str) -> None:
        self.ran += [stage.name] if state != "kept" else []


def test_an_interrupted_run_goes_on(place: Path) -> None:
    begun: list[str] = []

    def stop(what: str) -> None:
        begun.append(what)
        if what.startswith("fp16, TensorRT 10.10"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place, "old now", begun=stop)
    stored = MatrixReport.from_json(json.loads((place / "m" / MATRIX).read_text()))
    assert not stored.finished and cells(stored)["8.6", "old"].state == "measured"
    assert cells(stored)["10.10", "now"].reason == "interrupted before it began"
    assert cells(stored)["10.10", "now"].state == "not measured"
    watch = Watch()
    report = run(place, "old now", observer=watch)
    assert report.finished and cells(report)["10.10", "now"].state == "measured"
    assert watch.ran.count("build") == 1 and "export" not in watch.ran  # the one that was missing
    again = Watch()
    assert run(place, "old now", observer=again) == report and again.ran == []


@pytest.mark.slow
def test_a_target_that_is_gone_leaves_what_it_gave(sshd: Sshd, place: Path) -> None:
    before = cells(run(place, "old"))["8.6", "old"]
    file = place / "old.yaml"
    file.write_text(file.read_text().replace(f"port: {sshd.port}", "port: 1"))
    kept = cells(run(place, "old"))["8.6", "old"]
    assert kept.note.startswith("measured earlier; now: ") and kept.accuracy == before.accuracy
    other = cells(run(place, "old", budget=["fp16.snr_db=31"]))["8.6", "old"]
    assert other.state == "not measured"  # what was asked is another thing


@pytest.mark.slow
def test_the_command_prints_writes_and_ends_with_the_code(sshd: Sshd, place: Path, csa: Any) -> None:
    words = ("matrix", "tiny.onnx", "--data", "x.npz", "--fp16", "--iterations", 40, "--threads", 1, "-w", "m")
    words += ("--targets", "old.yaml,now.yaml", "--tensorrt", "8.6,10.10", "--budget", "fp16.snr_db=30")
    done = csa(place, *words, timeout=900)
    assert done.returncode == 0, done.stderr
    page = (place / "m/matrix.html").read_text()
    assert "TensorRT 10.10 (10.10.0)" in page and "may be used" in page and "http" not in page.split("</style>")[1]
    broken = csa(place, *words, "--budget", "fp16.snr_db=200", "--json", timeout=900)
    assert broken.returncode == 6
    answer = json.loads(broken.stdout)
    verdicts = [upgrade["verdict"] for upgrade in answer["upgrades"]]
    assert answer["error"]["exit_code"] == 6 and verdicts[1] == "no" != verdicts[0]  # 8.6 makes FP16 by itself
