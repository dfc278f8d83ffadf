"""Makes trtexec's command lines. Pure: the same plan and version give the same words, and nothing is run.

What trtexec does by default and that differs between versions (data transfers, CUDA graph, waiting; flipped in 11.0)
is stated in the command where an option for it exists, and always in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csa_deploy.engine.plan import BuildPlan
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.results import Stored
from csa_deploy.trtexec.safe.options import STATED, why_no_consistency
from csa_deploy.trtexec.settings import TrtexecOptions
from csa_deploy.trtexec.versions import Version, has, require_known

# Names of the files of one run, in its directory.
MODEL, ENGINE, LAYERS_FILE, CACHE = "model.onnx", "engine.plan", "layers.json", "timing.cache"
TIMES, PROFILE = "times.json", "profile.json"
WARMUP_MS = 200  # trtexec's own default


@dataclass(frozen=True)
class TimingRequest(Stored):
    """The conditions of a measurement, the same in every version.

    Attributes:
        iterations: timed inferences, at least.
        warmup_ms: milliseconds of untimed inferences before.
        transfers: time the copies to and from the device as well.
        cuda_graph: launch through a CUDA graph.
        spin_wait: wait busily for the device.
    """

    iterations: int = 1
    warmup_ms: int = 0
    transfers: bool = True
    cuda_graph: bool = False
    spin_wait: bool = True


class _Command:
    """Words of a command; an option that the version lacks cannot be added."""

    def __init__(self, version: Version, listed: frozenset[str] | None) -> None:
        require_known(version, listed)
        self.version, self.listed, self.words = version, listed, list[str]()

    def add(self, option: str, value: object = None) -> None:
        if not has(option, self.version, self.listed):
            raise UsageError(
                f"trtexec of TensorRT {self.version} has no {option}",
                fix="leave out what needs it, or use a version that has it",
            )
        self.words.append(option if value is None else f"{option}={value}")

    def has(self, option: str) -> bool:
        return has(option, self.version, self.listed)


def build_command(
    plan: BuildPlan,
    options: TrtexecOptions,
    version: Version,
    model: str,
    calibration: str | None = None,
    *,
    listed: frozenset[str] | None = None,
) -> list[str]:
    """The arguments of a build, without the program.

    Args:
        options: what only trtexec can be asked for.
        model: path of the ONNX graph as trtexec sees it.
        calibration: path of the calibration cache as trtexec sees it.
        listed: options of its own help page, where known.

    Raises:
        UsageError: the version cannot do what was asked, with the option that it lacks.
        EnvironmentLacksError: an unknown version.
    """
    command = _Command(version, listed)
    command.add("--onnx", model)
    command.add("--saveEngine", ENGINE)
    command.add("--skipInference")
    command.add("--noTF32")  # on by default in every version; an FP32 engine computes in FP32
    if options.inspectable:
        command.add("--profilingVerbosity", "detailed")
        command.add("--exportLayerInfo", LAYERS_FILE)
    _precision(command, plan, options, calibration)
    if plan.restricted and command.has("--restricted"):
        command.add("--restricted")
    pools = ({"workspace": plan.workspace_mib} if plan.workspace_mib else {}) | dict(options.memory_pools)
    if pools:
        command.add("--memPoolSize", ",".join(f"{name}:{size}" for name, size in sorted(pools.items())))
    if plan.optimization_level is not None:
        command.add("--builderOptimizationLevel", plan.optimization_level)
    if plan.timing_cache is not None:
        command.add("--timingCacheFile", CACHE)
    _require_dla(version, plan, options, calibration)
    _asked(command, options)
    return command.words


def _precision(command: _Command, plan: BuildPlan, options: TrtexecOptions, calibration: str | None) -> None:
    version = command.version
    if calibration is not None:
        if not version.weakly_typed:
            raise UsageError(
                f"TensorRT {version} takes no calibration cache", fix="quantize the graph: Q/DQ is its only INT8"
            )
        if plan.precision != "int8":
            raise UsageError("a calibration cache is for INT8", fix="build --int8, or leave the cache out")
        if options.safe and version.safe_is_typed:
            raise UsageError(
                f"TensorRT {version} types a safe build by the graph and takes no calibration cache for it",
                fix="quantize the graph, or leave safe out",
            )
    if calibration is None and not options.weakly_typed(version):
        if command.has("--stronglyTyped"):
            command.add("--stronglyTyped")
        return
    if plan.precision in ("fp16", "int8"):
        command.add("--fp16")
    if plan.precision == "int8":
        command.add("--int8")
    if calibration is not None:
        command.add("--calib", calibration)


def _require_dla(version: Version, plan: BuildPlan, options: TrtexecOptions, calibration: str | None) -> None:
    """Refuse for DLA what it does not do (TensorRT's developer guide, working with DLA)."""
    if options.dla_core is None:
        return
    if not version.has_dla:
        raise UsageError(
            f"TensorRT {version} builds for no DLA (up to 10.7, and from 11.4.1 on Jetson AGX Orin)",
            fix="build for the GPU, or use a version that has DLA",
        )
    if plan.precision == "fp32":
        raise UsageError("DLA computes in FP16 or INT8, and this build is FP32", fix="build --fp16 or --int8")
    if plan.precision == "int8" and version.weakly_typed and calibration is None:
        raise UsageError(
            f"DLA of TensorRT {version} takes INT8 from a calibration cache, not from Q/DQ nodes",
            fix="add --builder-option calibration_cache=FILE, which `csa-deploy quantize` writes",
        )


def _asked(command: _Command, options: TrtexecOptions) -> None:
    levels = command.version.hardware_levels
    if options.hardware_compatibility and options.hardware_compatibility not in levels:
        raise UsageError(
            f"TensorRT {command.version} has no hardware compatibility {options.hardware_compatibility!r}",
            fix=f"use {', '.join(levels)}",
        )
    stated = STATED if command.listed is None else command.listed
    if options.consistency and (why := why_no_consistency(command.version, stated)):
        raise UsageError(why, fix="leave out consistency=true")
    for flag, value in options.flags():
        if flag == "--consistency":  # its versions are those of the safety tools
            command.words.append(flag)
        else:
            command.add(flag, value)


def run_command(
    engine: str,
    version: Version,
    inputs: Mapping[str, str],
    timing: TimingRequest | None,
    *,
    options: TrtexecOptions | None = None,
    outputs: bool = False,
    layers: bool = False,
    listed: frozenset[str] | None = None,
) -> list[str]:
    """The arguments of running an engine, without the program.

    Args:
        engine: path of the engine as trtexec sees it.
        inputs: raw files by input name; an input without one is filled with random values by trtexec.
        timing: the conditions of a measurement; None runs once and measures nothing.
        options: the build's; where and how the engine is loaded (DLA, safety, version compatible) is repeated.
        outputs: write the outputs as raw files; trtexec's JSON holds six digits only.
        layers: also time each layer, in a second run, where the engine can be asked.
        listed: options of its own help page, where known.

    Raises:
        UsageError: a name or path that trtexec cannot be given.
        EnvironmentLacksError: an unknown version, or an engine that trtexec runs in none.
    """
    command = _Command(version, listed)
    options = options or TrtexecOptions()
    require_runnable(options, engine)
    command.add("--loadEngine", engine)
    # Without the last, TensorRT refuses the lean runtime that the engine brings.
    for flag, value in options.flags("dla_core", "safe", "version_compatible"):
        command.add(flag, value)
    if inputs:
        command.add("--loadInputs", named_files(inputs))
    conditions = timing or TimingRequest()
    command.add("--iterations", conditions.iterations)
    command.add("--duration", 0)  # else trtexec runs for three seconds more
    command.add("--warmUp", conditions.warmup_ms)
    for option in _conditions(version, conditions):
        command.add(option)
    if timing is not None:
        command.add("--exportTimes", TIMES)
    if outputs:
        command.add("--dumpRawBindingsToFile")
    if layers and options.inspectable:  # the safe runtime times no layers
        command.add("--exportProfile", PROFILE)
        if command.has("--separateProfileRun"):
            command.add("--separateProfileRun")  # so that per-layer events do not slow the timed run
    return command.words


def require_runnable(options: TrtexecOptions, engine: str) -> None:
    """Refuse a DLA loadable, which trtexec of no version can run.

    Raises:
        EnvironmentLacksError: with what runs it.
    """
    if options.loadable:
        raise EnvironmentLacksError(
            f"{engine} is a DLA loadable, which trtexec cannot run",
            fix="run it with cuDLA, or on DRIVE OS with dla_safety_runtime, and compare its outputs there",
        )


def _conditions(version: Version, timing: TimingRequest) -> Sequence[str]:
    """The options that turn this version's defaults into the conditions asked for."""
    if version.major >= 11:
        table = (
            (timing.transfers, "--includeDataTransfers"),
            (not timing.cuda_graph, "--noCudaGraph"),
            (not timing.spin_wait, "--noSpinWait"),
        )
    else:
        table = (
            (not timing.transfers, "--noDataTransfers"),
            (timing.cuda_graph, "--useCudaGraph"),
            (timing.spin_wait, "--useSpinWait"),
        )
    return [option for wanted, option in table if wanted]


def named_files(inputs: Mapping[str, str]) -> str:
    """Raw files by input name, as trtexec and trtexec_safe take them; raises UsageError for a name that they cannot."""
    return ",".join(_named_file(name, path) for name, path in sorted(inputs.items()))


def _named_file(name: str, path: str) -> str:
    """``'name':file``: quoted, so that a colon in the name is no separator."""
    if "," in name + path or "'" in name + path or ":" in path:
        raise UsageError(f"trtexec cannot be given input {name!r}", fix="export it under a name without , and '")
    return f"'{name}':{path}"
