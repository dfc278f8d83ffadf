"""The verbs as users type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from csa_deploy.bundle.make import Made
from csa_deploy.workspace import Workspace

STANDIN = Path(__file__).parents[1] / "trtexec" / "trtexec_standin.py"
PROGRAM = Path(sys.executable).with_name("csa-deploy")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="csa-deploy is not installed beside this Python")


def typed(*words: object, folder: Path, trtexec: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{trtexec}:{os.environ['PATH']}" if trtexec else os.environ["PATH"]
    return subprocess.run(
        [str(PROGRAM), *map(str, words)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_bundle_and_proof(workspace: Workspace, tmp_path: Path) -> None:
    graph = workspace.root.parent / "net.onnx"
    done = typed("bundle", graph, "-w", workspace.root, "--precision", "fp32", "-o", "net.tar", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    proof = typed("verify-bundle", "net.tar", "--unpack", "out", folder=tmp_path)
    assert (proof.returncode, proof.stderr) == (0, "")
    assert proof.stdout.startswith("net.tar: intact; engine of ")
    assert (tmp_path / "out" / "verify.sh").stat().st_mode & 0o100
    again = typed("verify-bundle", "net.tar", "--unpack", "out", folder=tmp_path)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)


def test_a_changed_bundle_is_one_line_and_exit_2(bundle: Made, tmp_path: Path) -> None:
    content = bundle.path.read_bytes()
    place = content.index(b"Apache") if b"Apache" in content else len(content) // 2
    (tmp_path / "net.tar").write_bytes(content[:place] + b"a" + content[place + 1 :])
    done = typed("verify-bundle", "net.tar", "--json", folder=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["verdict"] == "damaged"
    assert done.stderr.count("\n") == 1
    assert "changed" in done.stderr


def test_dry_run_prints_a_command_per_precision(workspace: Workspace, trtexec_folder: Path, tmp_path: Path) -> None:
    graph = workspace.root.parent / "net.onnx"
    words = ("build", graph, "-w", tmp_path / "ws", "--backend", "trtexec", "--dry-run", "-q")
    done = typed(*words, folder=tmp_path, trtexec=trtexec_folder)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(commands) == 2
    assert all("--stronglyTyped" in line and "--noTF32" in line for line in commands)
    assert not (tmp_path / "ws" / "engines").exists()
    copied = [line.split()[3] for line in done.stdout.splitlines() if line.startswith("# copied there: ")]
    assert [Path(path).name for path in copied] == ["net.optimized.onnx", "net.fp16.onnx"]
    assert all((tmp_path / path).is_file() for path in copied)
    assert done.stdout.count("# brought back, as far as written: engine.plan") == 2


def test_dry_run_meets_the_scopes_that_the_build_would_meet(workspace: Workspace, tmp_path: Path) -> None:
    graph, target = workspace.root.parent / "net.onnx", tmp_path / "t.yaml"
    target.write_text("host: nowhere.invalid\ntensorrt: '10.3'\n")
    words = ("build", graph, "-w", tmp_path / "ws", "--fp16", "--target", target, "--restricted", "--dry-run", "-q")
    done = typed(*words, "--scope", "drive-os-7", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# drive-os-7: ") and "net.fp16.onnx" in done.stdout.splitlines()[0]
    denied = typed(*words, "--scope", "drive-os-6", folder=tmp_path)
    assert denied.returncode == 2 and "says nothing about" in denied.stderr
    assert not denied.stdout


def test_an_engine_that_cannot_be_one_is_a_failed_build(workspace: Workspace, tmp_path: Path) -> None:
    """A trtexec that says PASSED and writes a few bytes."""
    graph, broken = workspace.root.parent / "net.onnx", tmp_path / "bin"
    broken.mkdir()
    overwritten = 'for word; do case $word in --saveEngine=*) printf "only a word" > "${word#*=}";; esac; done'
    script = f'#!/bin/sh\n{sys.executable} {STANDIN} 10.3.0 "$@" || exit\n{overwritten}\n'
    (broken / "trtexec").write_text(script)
    (broken / "trtexec").chmod(0o755)
    words = ("build", graph, "-w", tmp_path / "ws", "--backend", "trtexec", "--fp32", "-q")
    done = typed(*words, folder=tmp_path, trtexec=broken)
    assert done.returncode == 5
    assert "says that it passed, and its engine is a file of 11 bytes" in done.stderr
    assert not list((tmp_path / "ws").rglob("*.engine"))


def test_dry_run_reaches_no_target_whose_version_is_stated(workspace: Workspace, tmp_path: Path) -> None:
    graph, target = workspace.root.parent / "net.onnx", tmp_path / "t.yaml"
    target.write_text("host: nowhere.invalid\ntensorrt: '10.3'\n")
    words = ("build", graph, "-w", tmp_path / "ws", "--fp16", "--target", target, "--dry-run", "-q")
    done = typed(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    command = next(line for line in done.stdout.splitlines() if not line.startswith("#"))
    assert command.startswith("trtexec --onnx=") and "--stronglyTyped" in command
    assert "to nowhere.invalid:" in done.stdout
    target.write_text("host: nowhere.invalid\ntensorrt: '11.9'\n")
    assert typed(*words, folder=tmp_path).returncode == 3  # a version whose options are not known


def test_several_builds_and_their_spread(workspace: Workspace, trtexec_folder: Path, tmp_path: Path) -> None:
    graph = workspace.root.parent / "net.onnx"
    words = ("build", graph, "-w", tmp_path / "ws", "--backend", "trtexec", "--fp32", "--reproducible", "-q")
    done = typed(*words, "--timing-cache", "t.cache", folder=tmp_path, trtexec=trtexec_folder)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "ws" / "measurements" / "build.json").read_text())
    spread = measured["engines"]["fp32"]["spread"]
    assert (spread["builds"], spread["identical"], spread["output_difference"]) == (2, True, 0.0)
    assert len(spread["median_ms"]) == 2
    assert (tmp_path / "t.cache.json").is_file()
