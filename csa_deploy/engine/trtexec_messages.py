"""Translates what trtexec says when it fails into cause and cure; anything else is shown in its own words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from csa_deploy.engine import log as build_log
from csa_deploy.errors import (
    BuildFailedError,
    CsaDeployError,
    EnvironmentLacksError,
    OperationRejectedError,
    UsageError,
)

_STAMP = re.compile(r"^\[\d{2}/\d{2}/\d{4}-\d{2}:\d{2}:\d{2}\] ", re.MULTILINE)
_PRODUCT = re.compile(r"^(\[[EWIV]\] )(?:\[TRT\] )?(?:Error\[(\d+)\]: )?", re.MULTILINE)


@dataclass(frozen=True)
class _Known:
    pattern: re.Pattern[str]
    kind: type[CsaDeployError]
    cause: str
    cure: str


def _known(pattern: str, kind: type[CsaDeployError], cause: str, cure: str) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE | re.MULTILINE), kind, cause, cure)


_REBUILD = "build the engine on this target, with its own TensorRT"
# In order: the telling messages before those that only follow from them. {} is the pattern's first group.
_MESSAGES = (
    _known(
        r"error while loading shared libraries: (\S+?):",
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
        r"Safety is not supported because safety runtime library is unavailable",
        EnvironmentLacksError,
        "this TensorRT has no safety runtime",
        "build with safe=true on DRIVE OS with the safety packages, or use --restricted",
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
        r"CUDA initialization failure with error: (\d+)|no CUDA-capable device|Cuda failure: (?:35|100|999|no )",
        EnvironmentLacksError,
        "CUDA does not start on the target",
        "check that its driver is loaded, and that the user may open the GPU (groups video, render)",
    ),
    _known(
        r"No space left on device",
        EnvironmentLacksError,
        "the target's disk is full",
        "free space under its workdir, or set another workdir",
    ),
    _known(
        r"out of memory|OutOfMemory|std::bad_alloc|Cannot allocate memory",
        BuildFailedError,
        "the target ran out of memory",
        "close other users of its memory, or lower the workspace limit or the optimization level",
    ),
    _known(
        r"stdVersionRead == \w*serializationVersion|Version tag does not match|not compatible with this version of Ten",
        EnvironmentLacksError,
        "the engine was built by another TensorRT version",
        _REBUILD,
    ),
    _known(
        r"generated on an incompatible device|Platform specific tag mismatch|different model of device",
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
        r"Could(?: not|n't) find any implementation for node (.+?)\.?$",
        BuildFailedError,
        "TensorRT has no kernel for {} on this target",
        "look at that layer's precision and size, or raise the workspace limit",
    ),
    _known(
        r"Could not open file (\S+)",
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
        status: its exit status.
        what: what it was doing, such as ``"building net.onnx on orin"``.
        see: where the whole log is.
    """
    text = plain(log)
    refusals = build_log.scope_refusals(text)
    if refusals:
        return OperationRejectedError(
            f"{what}: refused in restricted mode: {'; '.join(refusals)}",
            fix="run `csa-deploy check --explain` for what to write instead",
        )
    if status in (137, 9, -9):
        return BuildFailedError(f"{what}: trtexec was killed, perhaps for lack of memory", fix=f"see {see}")
    for known in _MESSAGES:
        match = known.pattern.search(text)
        if match:
            group = next((g for g in match.groups() if g), "") if match.groups() else ""
            return known.kind(f"{what}: {known.cause.replace('{}', group)}", fix=known.cure)
    cause = build_log.first_error(text) or f"trtexec ended with status {status}"
    return BuildFailedError(f"{what}: {cause}", fix=f"see {see} for the whole log")
