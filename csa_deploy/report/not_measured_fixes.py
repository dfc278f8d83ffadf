"""What was not measured has a command that measures it: one table, from what is missing to what to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.source import slug_of

ANY_NETWORK = "NETWORK"  # where none is known
_ON_TARGET = "on the target itself, installed there"
_SHOWS = "on a machine that shows its sensors: bare metal, no container"


@dataclass(frozen=True)
class Measuring:
    """How to measure something.

    Attributes:
        pattern: found in ``what: reason``.
        verb: and its flags; the network follows it; empty: that of the stage.
        where: what has to be so first; empty: nothing.
    """

    pattern: re.Pattern[str]
    verb: str
    where: str = ""


def _fix(pattern: str, verb: str, where: str = "") -> Measuring:
    return Measuring(re.compile(pattern), verb, where)


# The first that fits; what none fits, or has no verb here, is measured by its stage, typed again: that keeps the
# settings of the workspace, `run` does not.
FIXES = (
    _fix("no calibration data", "quantize --calib FOLDER", "with images of your own in FOLDER"),
    _fix("the data have no (labels|targets)", "verify --data FOLDER", "with a folder per class, or annotations"),
    _fix("^engines: not built", "build"),
    _fix(r": no tensorrt(-rtx)? here|PyTorch, which is not installed", "", "after `csa-deploy doctor --fix`"),
    _fix("nvidia-ml-py|NVML.* not installed", "profile", "after `csa-deploy doctor --fix`"),
    _fix(r"no CUDA|finds no CUDA|has no CUDA|no GPU|CUDA finds no device|^GPU .*NVML", "", "with an NVIDIA GPU"),
    _fix("cpufreq|thermal zone|energy counter|counter wrapped", "profile", _SHOWS),
    _fix("^(the network as parsed|memory of the build)", "build --backend tensorrt", _ON_TARGET),
    _fix("trtexec|target's|safe runtime", "profile", _ON_TARGET),
    _fix("^layers of .*weakly typed", "build --precision fp16", "with a TensorRT from 10.17 on, or TensorRT-RTX"),
    _fix("^layers of .*are spent", "verify --localize"),
    _fix("no INT8 graph was compared", "verify --precision fp32,fp16,int8 --calib FOLDER"),
    _fix("baseline takes inputs of another size", "profile --baseline WORKSPACE", "with a baseline of the same inputs"),
    _fix("^timing cache", "build --backend tensorrt", "with an NVIDIA GPU"),
    _fix("^not built for compute capability", "build"),
)


def fix_for(what: str, reason: str, stage: str, network: str = ANY_NETWORK, workspace: str = "") -> str:
    """The command that measures it, behind what has to be so first: ``with an NVIDIA GPU: `csa-deploy profile net` ``.

    Args:
        what: was not measured.
        workspace: of the run; named where it is not the network's default one.
    """
    said = f"{what}: {reason}"
    found = next((fix for fix in FIXES if fix.pattern.search(said)), _fix("", ""))
    # A name that ends the quotation could not be typed as it is shown.
    typed = ANY_NETWORK if "`" in network else network
    verb, *flags = (found.verb or _VERB.get(stage, stage)).split()
    elsewhere = [] if workspace in ("", str(Path("deploy") / slug_of(network))) else ["--workspace", workspace]
    command = f"`{shlex.join(['csa-deploy', verb, typed, *flags, *elsewhere])}`"
    return f"{found.where}: {command}" if found.where else command


_VERB = {"precision": "quantize", "repair": "check --fix", "split": "run", "": "run"}
