"""Every command of a build on a host and of what follows, in order, for reading: nothing is run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from csa_deploy.errors import CsaDeployError
from csa_deploy.trtexec.command import ENGINE, MODEL, TIMES, TimingRequest, run_command
from csa_deploy.trtexec.job import Job
from csa_deploy.trtexec.machine import Machine
from csa_deploy.trtexec.safe.commands import reference_command, runner_command
from csa_deploy.trtexec.safe.host import Host
from csa_deploy.trtexec.safe.options import FIRST_PAIR, why_no_consistency, why_no_reference
from csa_deploy.trtexec.safe.runner import dumps_by_runner, why_no_values
from csa_deploy.trtexec.safe.secrets import masked_words
from csa_deploy.trtexec.settings import TrtexecOptions


@dataclass(frozen=True)
class SafeStep:
    """One command or remark.

    Attributes:
        where: ``"host"`` (this machine) or ``"target"``.
        what: what it is for, or what is not done and why.
        argv: the command; empty for a remark.
    """

    where: str
    what: str
    argv: tuple[str, ...] = ()

    def lines(self, login: Sequence[str]) -> Iterator[str]:
        """As a shell script: a comment, then the command; ``login`` is how ssh reaches the target."""
        yield f"# {self.where}: {self.what}"
        if self.argv:
            words = shlex.join(self.argv)
            yield shlex.join([*login, words]) if self.where == "target" else words


def build_steps(machine: Machine, job: Job, options: TrtexecOptions) -> tuple[SafeStep, ...]:
    """What a build on a host does, and how its engine is run afterwards.

    Args:
        machine: the target, with its host.
        job: the build's own command.
        options: the build's.
    """
    host = machine.host
    assert host is not None
    return (*_before(machine, host), *_build(host, job), *_run(machine, host, options, _inputs(job)))


def _inputs(job: Job) -> dict[str, str]:
    """The files of the graph's inputs, as a run names them."""
    graph = onnx.load(job.inputs[MODEL], load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    return {name: f"in.{place}" for place, name in enumerate(names)}


def _before(machine: Machine, host: Host) -> Iterator[SafeStep]:
    checked = " and libnvinfer_checker_shared.so" if host.checks_consistency else ""
    yield SafeStep("host", f"libnvinfer_safe.so{checked} must load; the target's TensorRT must be {host.version}")
    for folder in (host.remote.exec_path, host.remote.lib_path):
        yield SafeStep("target", "must be there", ("ls", "-d", folder))
    yield SafeStep("target", f"held by {machine.workdir}/lock until kernels are timed and checked")


def _build(host: Host, job: Job) -> Iterator[SafeStep]:
    settings = [f"{name}={value}" for name, value in sorted(host.environment.items())]
    prefix = ["env", *settings] if settings else []
    ends = f"ended after {host.limit_s / 3600:g} hours"
    yield SafeStep("host", f"builds, and times kernels on the target; {ends}", masked_words([*prefix, *job.argv]))
    if host.cpu_only and host.version.pair >= FIRST_PAIR:
        yield SafeStep("host", "what became of --cpuOnly after 11.3 is not public: trtexec's own help page decides")
    if why := why_no_consistency(host.version, host.listed):
        yield SafeStep("host", f"not consistency-checked: {why}")
    if why := why_no_reference(host.version, host.listed):
        yield SafeStep("host", f"not reference-checked: {why}")
    else:
        argv = [*prefix, host.trtexec, *reference_command(host, blob=True, pair=True)]
        yield SafeStep("host", "asks the reference checker, as documented for 11.3 and later", masked_words(argv))


def _run(machine: Machine, host: Host, options: TrtexecOptions, inputs: Mapping[str, str]) -> Iterator[SafeStep]:
    pair = ", and its companion library, whose name is not documented" if host.version.pair >= FIRST_PAIR else ""
    plugins = "".join(f", {plugin.run.name}" for plugin in host.plugins)
    yield SafeStep("host", f"copies {ENGINE}{plugins} and the inputs to the target{pair}")
    timing = TimingRequest(iterations=100, warmup_ms=200)
    if machine.trtexec_safe:
        try:
            words = runner_command(host.version, inputs, timing)
        except CsaDeployError as error:
            yield SafeStep("target", f"not timed: {error.message}")
        else:
            libraries = f"LD_LIBRARY_PATH={host.remote.lib_path}"
            argv = ("env", libraries, machine.trtexec_safe, *words)
            yield SafeStep("target", "profile; believed by its PASSED line alone", argv)
    elif machine.trtexec:
        words = run_command(ENGINE, machine.version, inputs, timing, options=options, listed=machine.listed)
        yield SafeStep("target", f"profile, through the proxy runtime, {TIMES}", (machine.trtexec, *words))
    else:
        yield SafeStep("target", "not timed: the file states neither trtexec_safe: nor trtexec:")
    if missing := why_no_values(machine, host.version):
        yield SafeStep("target", missing.message)
    elif dumps_by_runner(machine, host.version):
        assert machine.trtexec_safe
        words = runner_command(host.version, inputs, TimingRequest(), dump=True, above=True)
        yield SafeStep(
            "target", "verify, by the outputs that trtexec_safe of 11.0 writes", (machine.trtexec_safe, *words)
        )
    else:
        words = run_command(ENGINE, machine.version, inputs, None, options=options, outputs=True, listed=machine.listed)
        yield SafeStep("target", "verify, through the proxy runtime", (machine.trtexec, *words))
