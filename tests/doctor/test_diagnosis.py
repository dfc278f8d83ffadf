from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.data.named import NAMED
from csa_deploy.doctor import Probe, diagnose
from csa_deploy.doctor import diagnosis as doctor
from csa_deploy.installing import command_for, install_command
from csa_deploy.options import OPTIONS
from csa_deploy.restricted.explain import list_packs


@pytest.fixture(scope="module")
def probes() -> dict[str, Probe]:
    return {probe.name: probe for probe in diagnose()}


def package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def by_name() -> dict[str, Probe]:
    return {probe.name: probe for probe in diagnose()}


def test_everything_is_told_with_what_it_is_for(probes: dict[str, Probe]) -> None:
    assert {"Python", "torch", "onnx", "onnxruntime", "TensorRT", "TensorRT-RTX", "trtexec", "ssh"} <= probes.keys()
    assert {"safety-scope validator", "CUDA device", "CUDA bindings", "nvidia-smi", "data: digits"} <= probes.keys()
    for probe in probes.values():
        assert probe.enables
        assert probe.detail
        assert probe.state == "ok" or probe.fix or "cannot build" in probe.detail
    assert json.loads(json.dumps([probe.to_json() for probe in probes.values()]))


def test_versions_come_from_the_loaded_modules(probes: dict[str, Probe]) -> None:
    import onnxruntime
    import torch

    assert probes["torch"].version == torch.__version__
    assert probes["onnxruntime"].version == onnxruntime.__version__
    assert "CPUExecutionProvider" in probes["onnxruntime"].detail


def test_rtx_says_what_its_restricted_flag_is_worth(probes: dict[str, Probe]) -> None:
    if probes["TensorRT-RTX"].state == "missing":
        assert probes["TensorRT-RTX"].fix == install_command("rtx")
    else:
        assert "safety-scope flag" in probes["TensorRT-RTX"].detail


def test_doctor_itself_loads_nothing_heavy() -> None:
    code = (
        "import sys; from csa_deploy.doctor import diagnose; diagnose(); "
        "print([m for m in ('numpy', 'onnx', 'torch', 'onnxruntime', 'tensorrt_rtx', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_broken_packages_are_limited_and_the_rest_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "tensorrt", "import os; os.abort()")
    package(tmp_path, "tensorrt_rtx", "raise ImportError('libtensorrt_rtx.so.1: cannot open shared object file')")
    package(tmp_path, "onnxruntime", "print('hello'); __version__ = '1.0'; get_available_providers = lambda: ['X']")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = by_name()
    assert found["TensorRT"].detail == "installed and does not load: importing it ends with SIGABRT"
    assert found["TensorRT-RTX"].state == "limited"
    assert "cannot open shared object file" in found["TensorRT-RTX"].detail
    assert (found["onnxruntime"].version, found["onnxruntime"].detail) == ("1.0", "X")
    assert found["torch"].state == "ok"


def test_a_package_that_needs_a_missing_one_is_broken_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "tensorrt", "import tensorrt_bindings_that_are_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert by_name()["TensorRT"].state == "limited"


def test_an_import_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "tensorrt", "import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "_LOAD_SECONDS", 0.2)
    found = by_name()["TensorRT"]
    assert "more than 0.2 s" in found.detail
    # Slow is not broken: on a loaded machine nothing is to be installed.
    assert "does not load" not in found.detail and "pip install" not in found.fix and "idle" in found.fix


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'csa-deploy[cuda]'"),
        ({"url": "file:///home/me/csa%20deploy", "dir_info": {}}, "pip install '/home/me/csa deploy[cuda]'"),
        ({"url": "file:///src/csa", "dir_info": {"editable": True}}, "pip install -e '/src/csa[cuda]'"),
        ({"url": "file:///w/csa_deploy-1.whl", "archive_info": {}}, "pip install '/w/csa_deploy-1.whl[cuda]'"),
        (
            {"url": "https://host/csa.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'csa-deploy[cuda] @ git+https://host/csa.git'",
        ),
    ],
)
def test_a_cure_is_for_this_installation(origin: dict[str, object] | None, command: str) -> None:
    """The package is on no public index: from a clone or a wheel only its path can be installed."""
    assert command_for(json.dumps(origin) if origin else None, "cuda") == command
    assert install_command("rtx").startswith("pip install ")


def test_every_data_set_and_scope_is_listed(probes: dict[str, Probe]) -> None:
    sets = {name.partition(":")[0] for name in NAMED}
    assert {name.removeprefix("data: ") for name in probes if name.startswith("data: ")} == sets
    for option in ("data", "calib"):
        assert "a named set (csa-deploy models)" in OPTIONS[option].help, option
    assert all(pack.scope in OPTIONS["scope"].help for pack in list_packs())


@pytest.mark.parametrize(("banner", "version"), [("v8611", "8.6.11"), ("v100300", "10.3.0"), ("v110401", "11.4.1")])
def test_trtexec_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, banner: str, version: str) -> None:
    lines = f"'&&&& RUNNING TensorRT.trtexec [TensorRT {banner}] # trtexec --help' '  --onnx=<file>    ONNX model'"
    program(tmp_path, "trtexec", f"printf '%s\\n' {lines}")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    probe = doctor._trtexec()
    assert (probe.state, probe.version) == ("ok", version)


def test_a_trtexec_that_would_be_refused_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "trtexec", "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v9200] # trtexec --help'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    probe = doctor._trtexec()
    assert (probe.state, probe.version) == ("limited", "9.2.0")
    assert "its options are not known" in probe.detail


def test_tools_that_fail_or_hang_do_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "trtexec", "exit 127")
    assert doctor._trtexec().state == "limited"
    program(tmp_path, "trtexec", "exec /bin/sleep 600")
    monkeypatch.setattr(doctor, "_TOOL_SECONDS", 0.2)
    found = by_name()
    assert found["trtexec"].state == "limited"
    assert "TimeoutExpired" in found["trtexec"].detail
    assert (found["ssh"].state, found["ssh"].fix) == ("missing", "install an OpenSSH client")


def test_type_stubs_alone_are_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert by_name()["TensorRT"].state == "missing"
