"""Nothing ends in a dead end: what was not measured says the command that would measure it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.engine.device import CudaState
from csa_deploy.policy import accuracy, judging
from csa_deploy.precision.prospect import NO_GPU
from csa_deploy.profile.bench import OTHER_INPUTS
from csa_deploy.profile.device import nothing_of
from csa_deploy.profile.gates import limit_gates
from csa_deploy.profile.on_target import NOT_OF_SAFE, NOT_THERE
from csa_deploy.profile.telemetry import Telemetry
from csa_deploy.report.data import collect
from csa_deploy.report.markdown import summary
from csa_deploy.report.not_measured import Reason
from csa_deploy.report.not_measured_fixes import FIXES, fix_for
from csa_deploy.report.page import render
from csa_deploy.stages import STAGES
from csa_deploy.stages.precision import NOT_MEASURED
from csa_deploy.stages.profile import NO_ENGINES
from csa_deploy.verify.localize.blame import UNLIMITED
from csa_deploy.verify.localize.engines import NO_LAYERS
from csa_deploy.verify.localize.explain import _WEAK
from csa_deploy.workspace import Workspace
from tests.cli.test_commands_in_text import problem

NO_CUDA = "no CUDA device: the driver library libcuda.so.1 is not on this machine"
GPU = "with an NVIDIA GPU: `csa-deploy "
PROFILED = f"{GPU}profile net.onnx`"
SENSORS = "on a machine that shows its sensors: bare metal, no container: `csa-deploy profile net.onnx`"
TARGET = "on the target itself, installed there: `csa-deploy profile net.onnx`"
INSTALL = "after `csa-deploy doctor --fix`: `csa-deploy "
LAYERS = "layers of engine fp16"
SAID = [
    (NOT_MEASURED, "no calibration data", "precision", "`csa-deploy quantize net.onnx --calib FOLDER`"),
    ("metric top1", "the data have no labels", "verify", "`csa-deploy verify net.onnx --data FOLDER`"),
    (NO_ENGINES, "not built", "profile", "`csa-deploy build net.onnx`"),
    ("engine fp16", NO_CUDA, "verify", f"{GPU}verify net.onnx`"),
    ("roofline ceilings and floor time", "this PyTorch has no CUDA", "profile", PROFILED),
    (
        "GPU clocks, power mode, throttle reasons",
        "NVML does not start: Driver Not Loaded",
        "profile",
        f"{GPU}profile net.onnx`",
    ),
    ("GPU clocks", "nvidia-ml-py is not installed (pip install x)", "profile", f"{INSTALL}profile net.onnx`"),
    ("engine fp16", "no tensorrt-rtx here", "verify", f"{INSTALL}verify net.onnx`"),
    ("roofline", "measured with PyTorch, which is not installed", "profile", f"{INSTALL}profile net.onnx`"),
    ("CPU clock", "no cpufreq in sysfs", "profile", SENSORS),
    ("energy per inference of fp32, cpu", "the counter wrapped, stood still or vanished", "profile", SENSORS),
    *(("engine fp16 x", reason, "profile", TARGET) for reason in (NOT_OF_SAFE, *NOT_THERE.values())),
    ("memory of the build (engine fp16)", "not measured there", "build", "--backend tensorrt`"),
    (LAYERS, f"the 60 s for what was not asked for are spent; {UNLIMITED}", "verify", "net.onnx --localize`"),
    (LAYERS, _WEAK, "verify", "`csa-deploy build net.onnx --precision fp16`"),
    ("INT8 arithmetic 'x'", "no INT8 graph was compared in ONNX Runtime", "verify", "--calib FOLDER`"),
    ("engine fp16 baseline", OTHER_INPUTS, "profile", "--baseline WORKSPACE`"),
    ("timing cache (engine fp16)", "not used: it times no tactics", "build", "--backend tensorrt`"),
    ("not built for compute capability 7.5", "too old", "build", "`csa-deploy build net.onnx`"),
    (LAYERS, f"{NO_CUDA}; {NO_LAYERS}", "verify", f"{GPU}verify net.onnx`"),
    ("audit of the calibration", "it failed: OSError: x", "precision", "`csa-deploy quantize net.onnx`"),
]


def commands(text: str) -> list[str]:
    return re.findall(r"`csa-deploy ([^`]+)`", text)


@pytest.mark.parametrize(("what", "reason", "stage", "wanted"), SAID)
def test_each_reason_has_its_command(what: str, reason: str, stage: str, wanted: str) -> None:
    assert fix_for(what, reason, stage, "net.onnx", "deploy/net").endswith(wanted)


def test_every_command_can_be_typed_and_no_row_is_dead() -> None:
    met = set()
    for what, reason, *_ in SAID:
        met.add(next((fix.pattern for fix in FIXES if fix.pattern.search(f"{what}: {reason}")), None))
    assert met >= {fix.pattern for fix in FIXES}
    said = [fix_for(what, reason, stage) for what, reason, stage, _ in SAID]
    said += [fix_for("anything", "an unknown cause", stage.name) for stage in STAGES.values()]
    for text in said:
        assert commands(text)
        assert not [wrong for words in commands(text) if (wrong := problem(words, mention=False))], text


def test_what_sensors_and_engines_lack_is_never_left_to_the_stage_alone() -> None:
    """Of a machine that shows nothing, as its own code words it."""
    bare = Telemetry(Path("/nowhere"))
    items = [*bare.not_measured(), *nothing_of("engine fp16", f"x.engine cannot run: {NO_CUDA}")]
    assert len(items) > 8
    assert CudaState(reason=NO_CUDA).reason == NO_CUDA
    for item in items:
        assert any(fix.pattern.search(f"{item.what}: {item.reason}") for fix in FIXES), item


def test_a_workspace_elsewhere_is_named() -> None:
    for place, wanted in (("deploy/my-net", "a b"), ("/tmp/my net", "a b --workspace '/tmp/my net'")):
        network = "nets/my net.onnx"
        said = fix_for(NO_ENGINES, "not built", "profile", network, place)
        (words,) = commands(said)
        assert words == wanted.replace("a b", f"build '{network}'") and not problem(words, mention=False)


def test_gates_and_policies_say_it_too() -> None:
    (gate,) = limit_gates({"engine fp16": {"p99_ms": 1.0}}, {}, {})
    texts = [gate.reason, NO_GPU, accuracy._NOT_COMPARED, accuracy._NOT_TIMED]
    assert judging  # its own sentences are read by tests/test_commands_in_text.py
    for text in texts:
        assert commands(text) and not [w for words in commands(text) if (w := problem(words, mention=True))]


@pytest.mark.slow
def test_a_first_run_without_data_and_gpu_says_what_to_type(tmp_path: Path) -> None:
    root = tmp_path / "w"
    words = ("run", "csa_digits", "--workspace", root, "--samples", "8", "--seconds", "0.1")
    subprocess.run([sys.executable, "-m", "csa_deploy", *map(str, words)], check=True, capture_output=True, timeout=300)
    data = collect(Workspace(root))
    assert data.not_measured
    page, markdown = render(data, {}), summary(data)
    for item in data.not_measured:
        (words, *_) = commands(item.fix)[-1:]
        assert not problem(words, mention=False) and "csa_digits" in words and str(root) in words
        assert item.fix in markdown
    assert "<code>csa-deploy" in page
    assert Reason("no GPU", "`x`").said == "no GPU; `x`" and Reason("no GPU").said == "no GPU"


@pytest.mark.slow
def test_what_is_printed_can_be_typed_where_it_is_printed(lab: Path, csa: Any) -> None:
    """The settings are those of the run: `run` itself, typed without them, ended in an error."""
    words = ("tiny.onnx", "--fp16", "--data", "x.npz", "--iterations", 2, "--threads", 1, "--budget", "fp16.snr_db=30")
    assert csa(lab, "run", *words).returncode == 0
    before = json.loads((lab / "deploy/tiny/manifest.json").read_text())["config"]
    fixes = {item.fix for item in collect(Workspace(lab / "deploy/tiny")).not_measured}
    typed = {words for fix in fixes for words in commands(fix)[-1:] if "FOLDER" not in words}
    assert {words.split()[0] for words in typed} >= {"verify", "profile"}
    for words in typed:
        done = csa(lab, *shlex.split(words))
        assert done.returncode == 0, (words, done.stderr)
    assert json.loads((lab / "deploy/tiny/manifest.json").read_text())["config"] == before
