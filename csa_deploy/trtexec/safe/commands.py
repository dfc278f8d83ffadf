"""The command lines of the safety flow. Pure: the same plan and version give the same words, and nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.records.build import Part
from csa_deploy.trtexec.command import ENGINE, TimingRequest, build_command, named_files
from csa_deploy.trtexec.safe.host import Host
from csa_deploy.trtexec.safe.options import FIRST_RUNNER, remote_option, safe_option
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import Version

BLOB = f"{ENGINE}.txt"
"""Text of the generated kernels, which is the reference checker's blob: trtexec writes it beside the engine."""
COMPANION = f"{ENGINE}.so"
"""Companion library where trtexec takes its name (11.5); before, the builder names it, and how is not documented."""
DUMPED = "dumped"
_WARMUP = 20  # inferences, not milliseconds as in trtexec


def host_build_command(plan: BuildPlan, options: TrtexecOptions, host: Host, model: str) -> list[str]:
    """The arguments of a build on a host, without the program.

    Raises:
        UsageError: no safety build, or something that safety builds on a host do not have.
        EnvironmentLacksError: an unknown version.
    """
    if not options.safe or options.dla_core is not None:
        raise UsageError(
            "a host builds safety engines of the GPU only (build: host in the target's file)",
            fix="add --safe and leave out dla_core, or leave out build: host",
        )
    if host.cpu_only:  # trtexec neither reads nor writes a timing cache then
        plan = replace(plan, timing_cache=None)
    words = build_command(plan, options, host.version, model, listed=host.listed)
    words.append(f"{remote_option(host.version, host.listed)}={host.remote.text}")
    if host.cpu_only:
        words.append("--cpuOnly")
    if host.checks_consistency:
        words.append("--consistency")
    if blob := safe_option("--dumpKernelText", host.version, host.listed):
        words.append(blob)
    if named := safe_option("--saveEngineSo", host.version, host.listed):
        words.append(f"{named}={COMPANION}")
    return [*words, *_build_plugins(host)]


def reference_command(host: Host, *, blob: bool, pair: bool) -> list[str]:
    """The arguments of asking the reference checker about a built engine, without the program.

    Args:
        host: what built it.
        blob: whether the build gave a checker blob; an engine of library kernels alone has none.
        pair: whether it gave a companion library under the name that it was told.
    """
    words = ["--safe", "--reference", f"--loadEngine={ENGINE}"]
    if blob:
        words.append(f"--loadCheckerBlob={BLOB}")
    if pair and (named := safe_option("--loadEngineSo", host.version, host.listed)):
        words.append(f"{named}={COMPANION}")
    words.append(f"{remote_option(host.version, host.listed)}={host.remote.text}")
    if host.cpu_only:
        words.append("--cpuOnly")
    return [*words, *_build_plugins(host)]


def _build_plugins(host: Host) -> list[str]:
    if host.plugins and safe_option("--safetyPlugins", host.version, host.listed) is None:
        raise UsageError(f"trtexec of TensorRT {host.version} takes no safety plugins", fix="leave out safety_plugins:")
    return [f"--safetyPlugins={plugin.of_build()}" for plugin in host.plugins]


def odd(iterations: int) -> int:
    """So many timed inferences, or one more: trtexec_safe's median of an even number is one place too high."""
    return iterations | 1


def runner_command(
    version: Version,
    inputs: Mapping[str, str],
    timing: TimingRequest,
    parts: Sequence[Part] = (),
    *,
    dump: bool = False,
    above: bool = False,
) -> list[str]:
    """The arguments of trtexec_safe, without the program.

    One inference a line, so that percentiles are computed here from all of them; no delay kernel before an inference,
    which host latency would include; no time limit, with which the number of inferences is not known.

    Args:
        inputs: raw files in the engine's physical layout by input name; without one an input is zeros.
        parts: of the engine, whose plugin libraries lie beside it.
        dump: write the outputs; 11.0 alone can.
        above: the engine lies in the folder above.

    Raises:
        EnvironmentLacksError: a version whose options were never public.
        UsageError: a name or path that it cannot be given.
    """
    if version.pair < FIRST_RUNNER:
        raise EnvironmentLacksError(
            f"trtexec_safe of TensorRT {version}: its options are not known (10.15 and later were read)",
            fix="give trtexec: in the target's file, which runs safety engines through the proxy runtime",
        )
    folder = ".." if above else "."
    words = [
        f"--loadEngine={folder}/{ENGINE}" if above else f"--loadEngine={ENGINE}",
        f"--iterations={odd(timing.iterations)}",
        "--avgRuns=1",
        "--duration=0",
        f"--warmUp={_WARMUP if timing.warmup_ms else 0}",
        "--sleepTime=0",
    ]
    words += ["--spin"] if timing.spin_wait else []
    by_default = version.major >= 11  # CUDA graph: on in 11, off before
    if timing.cuda_graph != by_default:
        words.append("--useCudaGraph" if timing.cuda_graph else "--noCudaGraph")
    if inputs:
        words.append(f"--loadInputs={named_files(inputs)}")
    words += [f"--safetyPlugins={folder}/{p.file}[{p.names}]" for p in parts if p.role == "plugin-run"]
    if dump:
        assert dumps_outputs(version)
        words.append(f"--dumpOutputDir={DUMPED}")
    return words


def dumps_outputs(version: Version) -> bool:
    """Whether trtexec_safe gives outputs: in 11.0 alone."""
    return version.pair == (11, 0)
