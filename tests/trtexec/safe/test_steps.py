"""Every command of the safety flow, for every version, against a file that people read: ``commands.txt``.

``CSA_DEPLOY_GOLDEN=1 pytest`` writes it anew; what changed is then seen in the diff.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import CsaDeployError
from csa_deploy.trtexec.builder import planned_job
from csa_deploy.trtexec.config import TargetConfig
from csa_deploy.trtexec.machine import stated_machine
from csa_deploy.trtexec.safe.steps import build_steps
from csa_deploy.trtexec.settings import TrtexecOptions

sys.path.insert(0, str(Path(__file__).parents[1]))
from standin_parser import FailedError, parse
from trtexec_safe_standin import parse as parse_runner

GOLDEN = Path(__file__).with_name("commands.txt")
VERSIONS = (
    "8.6.1",
    *("10.0.1", "10.1.0", "10.2.0", "10.3.0", "10.4.0", "10.5.0", "10.6.0", "10.7.0", "10.8.0", "10.9.0", "10.10.0"),
    *(
        "10.11.0",
        "10.12.0",
        "10.13.3",
        "10.14.1",
        "10.15.1",
        "10.16.1",
        "11.0.0",
        "11.1.0",
        "11.3.1",
        "11.4.1",
        "11.5.0",
    ),
)
LANES = {
    "target": {},
    "host": {"build": "host", "cpu_only": True, "trtexec_safe": "/opt/safe/trtexec_safe"},
    "host with a GPU, proxy": {"build": "host", "cpu_only": False, "trtexec": "/opt/proxy/trtexec"},
}
PLAN = BuildPlan(backend="trtexec", precision="fp32", restricted=True, workspace_mib=512)
SAFE = TrtexecOptions(safe=True)


def lines_of(version: str, lane: str, graph: Path) -> list[str]:
    keys = {
        "remote_exec_path": "/opt/tensorrt/bin",
        "remote_lib_path": "/opt/tensorrt/lib",
        "host_environment": {"LD_LIBRARY_PATH": "/opt/host/lib"},
        "safety_plugins": ({"build": "/p/libp.so[::MaxPoolPlugin]", "run": "/p/libp_safe.so[::MaxPoolPlugin]"},),
    }
    settings = {**LANES[lane], **(keys if "build" in LANES[lane] else {})}
    config = TargetConfig(host="thor.local", user="nvidia", port=2222, tensorrt=version, **settings)
    try:
        machine = stated_machine(config)
        assert machine is not None
        job = planned_job(machine, graph, PLAN, SAFE)
    except CsaDeployError as error:
        return [f"refused: {error.message}"]
    if machine.host is None:
        return [shlex.join(job.argv)]
    return [line for step in build_steps(machine, job, SAFE) for line in step.lines(machine.transport.login())]


@pytest.fixture(scope="module")
def said(graph: Path) -> dict[tuple[str, str], list[str]]:
    return {(version, lane): lines_of(version, lane, graph) for version in VERSIONS for lane in LANES}


def test_commands_of_all_versions(said: dict[tuple[str, str], list[str]]) -> None:
    text = "".join(f"== {version}, {lane}\n" + "\n".join(lines) + "\n" for (version, lane), lines in said.items())
    if os.environ.get("CSA_DEPLOY_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_each_parser_takes_the_commands_of_its_version(said: dict[tuple[str, str], list[str]]) -> None:
    """trtexec's rules and trtexec_safe's, version by version."""
    seen = 0
    for (version, _), lines in said.items():
        numbers = tuple(map(int, version.split(".")))
        for line in lines:
            if line.startswith(("#", "refused:")):
                continue
            words = shlex.split(line)
            words = shlex.split(words[-1]) if words[0] == "ssh" else words
            program = next((word for word in words if word.rpartition("/")[2] in ("trtexec", "trtexec_safe")), None)
            if program is None:
                continue
            arguments = words[words.index(program) + 1 :]
            if program.endswith("trtexec_safe"):
                parse_runner(arguments, numbers)
            else:
                if numbers[:2] == (10, 15):  # listed in its help page, and not parsed by its public sources
                    arguments = [word for word in arguments if not word.startswith("--safetyPlugins")]
                parse(arguments, numbers)
            seen += 1
    assert seen > 55


@pytest.mark.parametrize(
    ("arguments", "version", "message"),
    [
        (["--onnx=m", "--remoteAutoTuningConfig=ssh://u@h?a=b"], (11, 1, 0), "Use --safe flag"),
        (["--onnx=m", "--cpuOnly", "--safe"], (11, 1, 0), "requires --remoteAutoTuningConfig"),
        (["--onnx=m", "--cpuOnly"], (10, 16, 0), "requires --safe"),
        (["--onnx=m", "--cpuOnly", "--safe"], (10, 13, 3), "Unknown option: --cpuOnly"),
        (["--onnx=m", "--safe", "--remoteAutoTuningConfig=x"], (10, 10, 0), "Unknown option: --remoteAutoTuningConfig"),
        (["--onnx=m", "--safe", "--fp16"], (11, 1, 0), "Unknown option: --fp16"),
        (["--onnx=m", "--dumpKernelText"], (10, 13, 0), "requires --safe"),
        (["--onnx=m", "--safe", "--consistency"], (10, 4, 0), "Unknown option: --consistency"),
        (["--loadEngine=e", "--safe", "--useRuntime=safe"], (11, 1, 0), "Unknown useRuntime: safe"),
        (["--onnx=m", "--safe", "--safetyPlugins=lib.so"], (11, 1, 0), "Invalid Safety plugin library option"),
        (["--loadEngine=e", "--safe", "--reference"], (11, 3, 1), "--reference requires"),
        (["--loadEngine=e", "--loadCheckerBlob=b"], (11, 5, 0), "requires --reference"),
        (["--onnx=m", "--safe", "--remoteConfig=a", "--remoteAutoTuningConfig=b"], (11, 4, 1), "different values"),
        (["--onnx=m", "--safe", "--reference"], (11, 1, 0), "Unknown option: --reference"),
        (["--onnx=m", "--sparsity=maybe"], (10, 3, 0), "Unknown sparsity mode: maybe"),
        (["--onnx=m", "--builderOptimizationLevel=x"], (10, 3, 0), "Invalid value"),
    ],
)
def test_what_trtexec_refuses_its_stand_in_refuses(arguments: list[str], version: tuple, message: str) -> None:
    with pytest.raises(FailedError, match=message):
        parse(arguments, version)
