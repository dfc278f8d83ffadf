"""Translates what trtexec says when it fails into cause and cure; anything else is shown in its own words."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from csa_deploy.engine import log as build_log
from csa_deploy.errors import (
    BuildFailedError,
    CsaDeployError,
    EnvironmentLacksError,
    OperationRejectedError,
    UsageError,
)
from csa_deploy.trtexec.safe.secrets import masked

_STAMP = re.compile(r"^\[\d{2}/\d{2}/\d{4}-\d{2}:\d{2}:\d{2}\] ", re.MULTILINE)
_PRODUCT = re.compile(r"^(\[[EWIV]\] )(?:\[TRT\] )?(?:Error\[(\d+)\]: )?", re.MULTILINE)


@dataclass(frozen=True)
class _Known:
    pattern: re.Pattern[str]
    kind: type[CsaDeployError]
    cause: str
    cure: str
    anywhere: bool


def _known(pattern: str, kind: type[CsaDeployError], cause: str, cure: str, *, anywhere: bool = False) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE | re.MULTILINE), kind, cause, cure, anywhere)


# Lines that are no errors, with their further lines: a build that passes has warnings too.
_NO_ERROR = re.compile(r"^\[[WIV]\] .*(?:\n {4}.*)*\n?", re.MULTILINE)
_REBUILD = "build the engine on this target, with its own TensorRT"
# In order: the telling messages before those that only follow from them. {} is what the pattern's groups found. Those
# that trtexec says as a warning or for information, and ends, are looked for anywhere; the others among errors alone.
_MESSAGES = (
    _known(
        # The loader's words of what trtexec is linked to, and trtexec's of what it opens itself.
        r"error while loading shared libraries: (\S+?):|Could not load library (\S+?):|Unable to open library: (\S+)",
        EnvironmentLacksError,
        "trtexec does not start: {} is not found",
        "set LD_LIBRARY_PATH under environment: in the target's file, or install TensorRT's libraries",
    ),
    _known(
        r"Unknown option: (\S+)",
        EnvironmentLacksError,
        "trtexec does not know {}, so it is not of the version that it was taken for",
        "state tensorrt: in the target's file as `trtexec --help` shows it in its first line",
    ),
    _known(
        r"Safety is not supported because safety runtime library is unavailable"
        r"|--safe flag is enabled but application is not compatible with safety",
        EnvironmentLacksError,
        "this TensorRT has no safety runtime",
        "build with safe=true on DRIVE OS with the safety packages, or use --restricted",
        anywhere=True,
    ),
    _known(
        r"Cannot perform consistency check because the checker is not loaded|Failed to create consistency checker",
        EnvironmentLacksError,
        "trtexec has no consistency checker here",
        "install libnvinfer_checker_shared.so with the host's TensorRT, or set LD_LIBRARY_PATH",
    ),
    _known(
        r"(NVIDIA's reference checker refuses the engine: .+)|(Consistency validation failed)",
        BuildFailedError,
        "a checker of NVIDIA's refuses the engine ({})",
        "keep this engine off the target, and report it to NVIDIA with its log",
    ),
    _known(
        r"Failed to set remote auto tuning config",
        UsageError,
        "TensorRT does not take the text of remote tuning",
        "check remote_exec_path:, remote_lib_path:, user: and host: in the target's file",
    ),
    _known(
        r"Invalid safety plugin argument: (.+?)\.?$|Invalid Safety plugin library option: (.+?)\.?$",
        UsageError,
        "trtexec does not take the plugin {}",
        "write safety_plugins: with LIBRARY[NS::NAME]",
    ),
    _known(
        r"SAFE API Error: (.+?)$",
        EnvironmentLacksError,
        "the safety runtime ends with {}",
        "see that engine, companion library and plugins are of one build, and the TensorRT there of the same version",
    ),
    _known(
        r"File size mismatch for (\S+?)\. Expected: (\d+) bytes, got: \d+ bytes",
        UsageError,
        "input file {} is the size that the engine takes, the given one is not",
        "give inputs in the engine's physical layout; state its formats with input_formats=",
    ),
    _known(
        r"Safe runtime does not support (.+?)\.?$",
        UsageError,
        "the safe runtime does not support {}",
        "leave it out, or build without safe=true",
    ),
    _known(
        r"Invalid (?:IOFormat|TensorFormat) (\S+)",
        UsageError,
        "this trtexec does not take {} as a format",
        "write fp16:chw16 for a TensorRT up to 10.16, chw16 from 11.0",
    ),
    _known(
        r"(\w+ tensor \S+: Requested \w+ type .+?) for a strongly typed network",
        UsageError,
        "{}, which counts in this build",
        "state the graph's own type in input_formats and output_formats",
    ),
    _known(
        r"Cannot create DLA engine, (-?\d+) not available",
        EnvironmentLacksError,
        "DLA core {} is not on this target",
        "use a core that is there (Orin has 0 and 1), or build for the GPU",
    ),
    _known(
        r"I/O formats for safe DLA capability are restricted to (.+)",
        UsageError,
        "a DLA loadable takes its inputs and outputs as {}",
        "set input_formats and output_formats to one of these",
    ),
    _known(
        r"Target GPU SM (\d+) is not supported|Unsupported SM: (\S+?)[).]",
        EnvironmentLacksError,
        "this TensorRT does not serve the target's GPU (SM {})",
        "use a TensorRT release that serves it",
    ),
    _known(
        # By number, or trtexec's own "Cuda failure: TEXT" of 8.6 and "Cuda failure at FILE:LINE: TEXT" since.
        r"CUDA initialization failure with error: (35|222|803)\b|Cuda failure: (35|222|803)\b"
        r"|Cuda failure(?: at \S+)?: (CUDA driver version is insufficient|unsupported display driver)",
        EnvironmentLacksError,
        "the target's driver is too old for its CUDA (it says: {})",
        "update the driver, or use the TensorRT that came with it",
        anywhere=True,
    ),
    _known(
        r"CUDA initialization failure with error: \d+|no CUDA-capable device|Cuda failure: (?:100|999|no )"
        r"|Cuda failure(?: at \S+)?: (?:unknown error|initialization error|OS call failed)"
        r"|Cannot find any available devices \(GPUs\)",
        EnvironmentLacksError,
        "CUDA does not start on the target",
        "check that its driver is loaded, and that the user may open the GPU (groups video, render)",
        anywhere=True,
    ),
    _known(
        r"No space left on device",
        EnvironmentLacksError,
        "the target's disk is full",
        "free space under its workdir, or set another workdir",
    ),
    _known(
        r"Saving engine to file failed",
        EnvironmentLacksError,
        "trtexec cannot write the engine: the disk is full, or its workdir is not writable",
        "free space under the target's workdir, or set another workdir",
    ),
    _known(
        # Before the kernels that are missing for that reason; "insuficient" is TensorRT 8's own spelling.
        r"out of memory|OutOfMemory|std::bad_alloc|Cannot allocate memory|insuff?icient memory|memory is insufficient",
        BuildFailedError,
        "the target ran out of memory",
        "close other users of its memory, or lower the workspace limit or the optimization level",
    ),
    _known(
        r"VersionRead == \w*serialization_?version|Version tag does not match|not compatible with this version of Ten",
        EnvironmentLacksError,
        "the engine was built by another TensorRT version",
        _REBUILD,
    ),
    _known(
        r"generated on an incompatible device|Platform specific tag mismatch|different models? of device",
        EnvironmentLacksError,
        "the engine was built for another GPU",
        _REBUILD,
    ),
    _known(
        r"magicTagRead == \w*magicTag|Serialization assertion|Engine deserialization failed|verify a plan tag",
        UsageError,
        "the engine is damaged or cut short, or no engine at all",
        "copy or build it again; its passport holds its hash",
    ),
    _known(
        r"Unexpected file size for input file: (\S+?)\.? ",
        UsageError,
        "input {} has another size than the engine's input",
        "give inputs of the shape and type that the engine was built for",
    ),
    _known(
        r"Layer '?(.+?)'? is not supported on DLA but GPU fallback is not enabled",
        BuildFailedError,
        "DLA cannot run the whole network: {}",
        "add gpu_fallback=true, or replace that layer; `csa-deploy check --scope dla-orin` (11: dla-orin-11) names all",
    ),
    _known(
        r"Calibration failure occurred with no scaling factors detected",
        UsageError,
        "INT8 has no ranges: the calibration cache is not of this graph",
        "give the cache that `csa-deploy quantize` made of it",
    ),
    _known(
        r"could not find plugin:? (\S+)",
        BuildFailedError,
        "TensorRT has neither an operator nor a plugin for {}",
        "run `csa-deploy check` for what to write instead",
    ),
    _known(
        r"While parsing node number \d+ \[(.+?) ->[\s\S]*?\[\d+\] Assertion failed: (.+)",
        BuildFailedError,
        "its parser refuses the graph at {}",
        "run `csa-deploy check` for what to write instead",
    ),
    _known(
        r"Network must have at least one output",
        UsageError,
        "the graph was not read, or has no output",
        "look at it with `csa-deploy inspect`, or export it again",
    ),
    _known(
        r"Could(?: not|n't) find any implementation for node (.+?)(?:\.\)?)?$",
        BuildFailedError,
        "TensorRT has no kernel for {} on this target",
        "look at that layer's precision and size, or raise the workspace limit",
    ),
    _known(
        r"Error opening engine file: (\S+)|Could not open file (\S+)|Cannot open file (\S+?)!?$",
        UsageError,
        "trtexec cannot open {}",
        "check that the file is there and may be read",
    ),
    _known(r"Permission denied", EnvironmentLacksError, "the target denies access to a file", "check its workdir"),
)


def plain(log: str) -> str:
    """trtexec's log in the form that :mod:`csa_deploy.engine.log` reads: no time stamps, no product tags."""
    return _PRODUCT.sub(lambda m: m[1] + (f"Error Code {m[2]}: " if m[2] else ""), _STAMP.sub("", log))


def explain(log: str, status: int, what: str, see: str) -> CsaDeployError:
    """The error that a failed trtexec means.

    Args:
        log: everything it printed.
        what: what it was doing, such as ``"building net.onnx on orin"``.
        see: where the whole log is.
    """
    text = plain(masked(log))
    refusals = build_log.scope_refusals(text)
    if refusals:
        return OperationRejectedError(
            f"{what}: refused in restricted mode: {'; '.join(refusals)}",
            fix="run `csa-deploy check` on it: its findings say what to write instead",
        )
    if status in (137, 9, -9):
        return BuildFailedError(f"{what}: trtexec was killed, perhaps for lack of memory", fix=f"see {see}")
    errors = _NO_ERROR.sub("", text)
    for known in _MESSAGES:
        match = known.pattern.search(text if known.anywhere else errors)
        if match:
            group = ": ".join(found for found in match.groups() if found)
            return known.kind(f"{what}: {known.cause.replace('{}', group)}", fix=known.cure)
    # A shell tells a signal as 128 more.
    ended = f"crashed ({signal.Signals(status - 128).name})" if 128 < status < 160 else f"ended with status {status}"
    cause = build_log.first_error(text) or f"trtexec {ended}"
    return BuildFailedError(f"{what}: {cause}", fix=f"see {see} for the whole log")
