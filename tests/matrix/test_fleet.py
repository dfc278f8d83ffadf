"""A fleet over real processes: three networks, two precisions and two boards behind a real sshd, one of which fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.matrix.fleet import FLEET, read_fleet
from csa_deploy.records.fleet import FleetReport
from csa_deploy.records.matrix import Cell, MatrixReport
from tests.cluster.conftest import until
from tests.conftest import COMMAND

sys.path.insert(0, str(Path(__file__).parents[1] / "trtexec"))  # for loopback, whatever pytest's import mode
from loopback import Sshd, running_sshd

from tests.matrix.test_matrix_targets import target

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
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).standard_normal((4, 3, 16, 16)).astype("f4"))
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
