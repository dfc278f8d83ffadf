"""Runs MLPerf's load generator on the graphs and engines of a run, each in a process of its own, and reads its logs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from csa_deploy.config import Config
from csa_deploy.context import Progress
from csa_deploy.errors import EXIT_INTERNAL, EnvironmentLacksError, PerformanceGateError, UsageError, failure_with
from csa_deploy.installing import install_command, installed, versions
from csa_deploy.options import LOADGEN
from csa_deploy.processes import child_environment
from csa_deploy.profile.loadgen.results import read_run
from csa_deploy.profile.loadgen.samples import SentSamples
from csa_deploy.profile.loadgen.settings import LoadgenSettings, settings_for
from csa_deploy.records.loadgen import LOADGEN_LOGS, NO_SUBMISSION, LoadgenRun
from csa_deploy.results import NotMeasured
from csa_deploy.spec import TensorSpec

_POLL_S = 0.5


@dataclass(frozen=True)
class DrivenSubject:
    """A graph or engine to run it on; see :meth:`csa_deploy.profile.bench.Bench.open`."""

    label: str
    path: str
    backend: str
    graph: Path | None


def refuse(config: Config) -> None:
    """Refuse settings that cannot be measured with, before anything runs.

    Raises:
        UsageError: settings of the load generator without it, a target, or a file that cannot be read.
        EnvironmentLacksError: it is not installed.
    """
    if config.loadgen is None:
        for key in LOADGEN[1:]:
            if getattr(config, key):
                flag = key.replace("_", "-")
                raise UsageError(f"--{flag} is about MLPerf's load generator", fix=f"add --loadgen, or omit --{flag}")
    if not config.loadgen:
        return
    if config.target or config.backend == "trtexec":
        raise UsageError(
            "--loadgen measures on this machine; engines of trtexec are timed by trtexec, where they were built",
            fix="leave out --loadgen, or build with --backend tensorrt or tensorrt-rtx",
        )
    settings_of(config)
    if not installed("mlperf_loadgen"):
        raise EnvironmentLacksError("MLPerf's load generator is not installed", fix=install_command("mlperf"))


def refuse_samples(given: Collection[str], config: Config) -> None:
    """Refuse samples that a caller gives for the load generator where it is not asked for; raises UsageError."""
    for key in () if config.loadgen else ("data", "samples"):
        if key in given:
            raise UsageError(f"--{key} is about MLPerf's load generator", fix=f"add --loadgen, or omit --{key}")


def settings_of(config: Config) -> list[LoadgenSettings]:
    """Of every scenario that was asked for.

    Raises:
        UsageError: see :func:`csa_deploy.profile.loadgen.settings.settings_for`.
    """
    scenarios = config.scenario or ("single-stream",)
    return [settings_for(name, config.loadgen_settings, config.network, config.frame_rate) for name in scenarios]


def named(label: str, scenario: str) -> str:
    """A run, where it was not measured."""
    return f"{label} loadgen {scenario}"


def loadgen_contract(config: Config, samples: SentSamples) -> dict[str, str]:
    """How is measured, for the record."""
    return {
        "what": NO_SUBMISSION,
        "version": str(versions(["mlcommons-loadgen"])["mlcommons-loadgen"]),
        "settings": "; ".join(
            f"{settings.scenario} {settings.name}: {', '.join(f'{k} {v}' for k, v in settings.values.items())}"
            for settings in settings_of(config)
        ),
        "queries": "one inference each, one after another, in a process of its own",
        "samples": samples.words,
        "outputs": "all bytes of inferences that the load generator draws during the timed run, held against those of "
        "the accuracy mode on the same samples (MLPerf's TEST01)",
    }


@dataclass
class LoadgenFound:
    """What was measured.

    Attributes:
        runs: one per graph or engine and scenario.
        not_measured: what was not, and why.
        files: logs, by path inside the workspace.
    """

    runs: list[LoadgenRun] = field(default_factory=list)
    not_measured: list[NotMeasured] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def failure(self) -> PerformanceGateError | None:
        """The error of the first run that is shown to break its deadlines, or whose outputs differ."""
        failed = next((run for run in self.runs if run.state == "fail"), None)
        if failed is None:
            return None
        return PerformanceGateError(
            f"profile: {failed.label} in {failed.scenario}: {'; '.join(failed.reasons)}",
            fix="see the load generator's logs in the workspace, or choose a faster graph or another --frame-rate",
        )


def measure_with_loadgen(
    root: Path,
    scratch: Path,
    config: Config,
    subjects: Iterable[DrivenSubject],
    samples: SentSamples,
    progress: Progress,
) -> LoadgenFound:
    """Run every scenario on every subject.

    Args:
        root: the workspace.
        scratch: for files in the making.
        config: what to run.
        subjects: what to run it on.
        samples: that queries are about.
        progress: called with seconds that passed and that are asked for at least, and with what is run.

    Raises:
        CsaDeployError: a run failed.
    """
    found, pickled = LoadgenFound(), scratch / "samples.pickle"
    pickled.write_bytes(pickle.dumps(samples))
    for subject in subjects:
        for settings in settings_of(config):
            name = f"{subject.label.replace(' ', '-')}/{settings.scenario}"
            folder = scratch / "loadgen" / name
            request = {
                **{"root": root.resolve(), "folder": folder.resolve(), "subject": asdict(subject)},
                **{"threads": config.threads, "seed": config.seed, "warmup": config.warmup},
                **{"samples": pickled.resolve(), "settings": asdict(settings)},
            }
            least_s = (settings.number("min_duration") or 0.0) / 1e3
            outputs = _measure(request, partial(_shown, progress, least_s, name))
            found.runs.append(
                read_run(subject.label, settings, folder, outputs, samples.name, f"{LOADGEN_LOGS}/{name}")
            )
            files = (file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)
            found.files |= {f"{LOADGEN_LOGS}/{name}/{file.relative_to(folder)}": file for file in files}
    return found


def _shown(progress: Progress, least_s: float, name: str, passed_s: float) -> None:
    progress(min(passed_s, least_s), least_s, name)


def _measure(request: dict[str, Any], progress: Callable[[float], None]) -> Sequence[TensorSpec]:
    """Run the child process; returns the network's outputs.

    Raises:
        CsaDeployError: it failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "csa_deploy.profile.loadgen._child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        text=True,
        errors="replace",
        start_new_session=True,  # ctrl-C reaches this process only, which then ends the child
    )
    sent: str | None = json.dumps(request, default=str)
    passed = 0.0
    try:
        while True:
            try:
                said, _ = process.communicate(sent, timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                sent, passed = None, passed + _POLL_S
                progress(passed)
    finally:
        process.kill()
        process.wait()
    return _outputs(said, process.returncode, request["subject"]["label"])


def _outputs(said: str, status: int, label: str) -> list[TensorSpec]:
    """What the child said last: libraries may have said something before."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    try:
        answer = json.loads(last)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not {"error", "outputs"} & set(answer):
        answer = {"error": f"exit status {status}: {last}"}  # it was killed, or crashed
    if "error" in answer:
        raise failure_with(
            answer.get("exit_code", EXIT_INTERNAL),
            f"profile: {label}: the process of the load generator ended: {answer['error']}",
            fix=answer.get("fix") or "profile it without --loadgen: that shows whether the network itself runs",
        )
    return [TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in answer["outputs"]]
