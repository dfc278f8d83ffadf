"""A fleet over real processes: three networks, two precisions and two boards behind a real sshd, one of which fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.errors import UsageError, failure_with
from csa_deploy.matrix.fleet import FLEET, read_fleet
from csa_deploy.records.fleet import FleetReport
from csa_deploy.records.matrix import Cell, MatrixReport, Upgrade
from tests.cluster.conftest import until
from tests.conftest import COMMAND

sys.path.insert(0, str(Path(__file__).parents[1] / "trtexec"))  # for loopback, whatever pytest's import mode
from loopback import Sshd, running_sshd

from tests.matrix.test_matrix_targets import STANDIN, target

FLEET_FILE = """
networks: [one.onnx, two.onnx, {network: three.onnx, budget: [fp16.snr_db=200]}]
targets: [old.yaml, now.yaml]
precision: [fp32, fp16]
data: x.npz
threads: 1
iterations: 5
budget: [fp16.snr_db=30, fp32.snr_db=60]
cluster: local:2
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    yield from running_sshd(tmp_path_factory.mktemp("sshd"))


@pytest.fixture()
def place(sshd: Sshd, tmp_path: Path, make_tiny: Callable[..., onnx.ModelProto]) -> Path:
    for seed, name in enumerate(("one", "two", "three")):
        onnx.save(make_tiny(seed), tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype("f4"))
    target(sshd, tmp_path, "now", "10.10.0")
    broken = 'environment: {STANDIN_SAY: "Error[2]: OutOfMemory (no further information)"}\n'
    target(sshd, tmp_path, "old", "10.3.0", broken)
    (tmp_path / "fleet.yaml").write_text(FLEET_FILE)
    return tmp_path


def stored(place: Path) -> FleetReport:
    return FleetReport.from_json(json.loads((place / "deploy/fleet" / FLEET).read_text()))


@pytest.mark.slow
def test_three_networks_two_precisions_and_two_boards_of_which_one_fails(place: Path, csa: Any) -> None:
    done = csa(place, "fleet", "fleet.yaml", "--json", timeout=900)
    report = stored(place)
    found = {(n.network, c.target, c.precision): c for n, c in report.cells}
    assert len(found) == 12 and report.finished
    states = {key: cell.state for key, cell in found.items()}
    expected = {k: "failed" if k[1] == "old" or k == ("three.onnx", "now", "fp16") else "measured" for k in states}
    assert states == expected
    assert {c.exit_code for k, c in found.items() if k[1] == "old"} == {5}
    assert found["three.onnx", "now", "fp16"].exit_code == 6  # the budget is this network's own
    assert done.returncode == 5, done.stderr  # of the worst: no engine
    assert json.loads(done.stdout)["error"]["exit_code"] == 5
    page = (place / "deploy/fleet/fleet.html").read_text()
    links = re.findall(r'href="([^"]+html)"', page)
    assert len({link for link in links if link.endswith("report.html")}) == 12
    assert all((place / "deploy/fleet" / link).is_file() for link in links)
    assert "http" not in page.split("</style>")[1]

    mended = (place / "old.yaml").read_text().splitlines()
    (place / "old.yaml").write_text("\n".join(line for line in mended if "STANDIN_SAY" not in line))
    kept = {p: p.stat().st_mtime_ns for p in (place / "deploy/fleet").rglob("10.10*/**/engines/*.engine")}
    again = csa(place, "fleet", "fleet.yaml", timeout=900)
    assert again.returncode == 6 and len(kept) == 6, again.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), "what was built stays"


@pytest.mark.slow
def test_an_interrupted_fleet_goes_on(place: Path) -> None:
    process = subprocess.Popen([COMMAND, "fleet", "fleet.yaml"], cwd=place, stderr=subprocess.PIPE, text=True)
    measured = lambda: list((place / "deploy/fleet").glob("*/10.10.0-now/*/records/profile.json"))  # noqa: E731
    until(measured)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    report = stored(place)
    assert not report.finished and len(report.cells) == 12
    assert (place / "deploy/fleet/fleet.html").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets: []", "names no networks"),
        ("networks: one.onnx", "names no networks"),
        ("networks: [one.onnx]\ncolour: red", "unknown key 'colour'"),
        ("networks: [{data: x.npz}]\ntensorrt: '10.10'", "names no network"),
        ("networks: [one.onnx, ./one.onnx]\ntensorrt: '10.10'", "two networks are called one"),
        ("networks: [one.onnx]", "this machine is the only target"),
        ("networks: [one.onnx]\ntargets: [gone.yaml]", "gone.yaml"),
        ("networks: [gone.onnx]\ntensorrt: '10.10'", "gone.onnx"),
        ("networks: [{network: null}]\ntensorrt: '10.10'", "names no network"),
        ("networks: [null]\ntensorrt: '10.10'", "names no network"),
        ("networks: [one.onnx]\ntargets: orin.yaml", "targets: orin.yaml is no list"),
        ("networks: [one.onnx]\ntargets: 5", "targets: 5 is no list"),
        ("networks: [one.onnx]\ntensorrt: []", "tensorrt: names no version"),
        ("networks: [one.onnx]\ntensorrt: '10.10'\ntarget: orin.yaml", "target: orin.yaml: a fleet has"),
        ("networks: [one.onnx]\ntensorrt: '10.10'\nnetwork: two.onnx", "network: two.onnx: a fleet has"),
        *(
            (f"networks: [{{network: one.onnx, {own}}}]\ntensorrt: '10.10'", f"{own}: a setting of the fleet")
            for own in ("strict: True", "target: orin.yaml", "tensorrt: 8.6", "cluster: local", "workspace: w")
        ),
        ("networks: [one.onnx]\ntensorrt: 10.10", "YAML reads 10.10 as 10.1"),
    ],
)
def test_what_a_file_must_not_say(
    tmp_path: Path, make_tiny: Any, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(make_tiny(), "one.onnx")
    Path("fleet.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_fleet(Path("fleet.yaml"), {}, tmp_path / "deploy")


def test_every_exit_code_of_a_cell_becomes_the_commands_unless_there_is_a_worse_one() -> None:
    codes = [1, 5, 4, 6, 7, 8, 2, 3]  # as docs/cluster.md has them
    cells = [Cell("8.6", "orin", "fp16", "failed", f"because {code}", code) for code in codes]
    fine = Cell("8.6", "orin", "fp32", "measured")

    def report(*found: Cell) -> FleetReport:
        return FleetReport(("a",), (MatrixReport("a.onnx", {}, (), (), (), found, (), ()),))

    assert (report(fine).exit_code, report(fine).worst) == (0, "")
    for number, code in enumerate(codes):
        found = report(fine, *reversed(cells[number:]))
        assert (found.exit_code, failure_with(code, "").exit_code) == (code, code)
        assert found.worst == f"a.onnx, fp16, TensorRT 8.6 on orin: because {code}"
    refused = MatrixReport("b.onnx", {}, (), (), (), (fine,), (), (Upgrade("8.6", "no", ("denied",), 4),))
    both = replace(report(*cells[3:]), networks=(*report(*cells[3:]).networks, refused))
    assert (both.exit_code, both.worst) == (4, "b.onnx, TensorRT 8.6: denied")


def test_what_is_asked_for_wrongly_fails_the_cell_and_the_fleet(
    tmp_path: Path, make_tiny: Any, csa: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that the version lacks, and a network that cannot be made: exit 2, and what is good stays measured."""
    (tmp_path / "trtexec").write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} 8.6.13 "$@"\n')
    (tmp_path / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    onnx.save(make_tiny(), tmp_path / "one.onnx")
    onnx.save(make_tiny(), tmp_path / "two.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 16, 16), "f4"))
    (tmp_path / "nets.py").write_text("def gone():\n    raise OSError('no weights')\n")
    (tmp_path / "fleet.yaml").write_text(
        "networks: [one.onnx, {network: two.onnx, builder_option: [strip_weights=true]}, 'nets.py:gone']\n"
        "tensorrt: '8.6'\nprecision: fp32\ndata: x.npz\nthreads: 1\niterations: 3\ncluster: local:1\n"
    )
    done = csa(tmp_path, "fleet", "fleet.yaml", "--json", timeout=600)
    found = {n.network: (c.state, c.exit_code, c.reason) for n, c in stored(tmp_path).cells}
    assert found["one.onnx"] == ("measured", 0, "")
    assert found["two.onnx"] == ("failed", 2, "trtexec of TensorRT 8.6.13 has no --stripWeights")
    assert found["nets.py:gone"] == ("failed", 2, "nets.py:gone fails: OSError: no weights")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == error["exit_code"] == 2, done.stderr
    assert "two.onnx, fp32, TensorRT 8.6 on this machine: trtexec" in error["message"]


def test_a_target_without_a_cell_that_was_measured_is_named() -> None:
    """Of the version's answer it is no doubt, another target has it: but nothing was deployed to this one."""

    def cells(**states: Any) -> list[str]:
        found = tuple(
            Cell("10.3" if n else "8.6", t, "fp16", s, "it has 10.4")
            for t, ss in states.items()
            for n, s in enumerate(ss)
        )
        return FleetReport(("a",), (MatrixReport("a.onnx", {}, (), (), (), found, (), ()),)).unmeasured

    assert cells(orin=["measured"], thor=["not there"]) == ["a.onnx, fp16, TensorRT 8.6 on thor: it has 10.4"]
    assert cells(orin=["measured", "not there"], thor=["not there", "failed"]) == []
    assert len(cells(orin=["not measured", "not there"], thor=["not there", "not there"])) == 2
