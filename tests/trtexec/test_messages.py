"""What trtexec and TensorRT say when something fails, as users have reported it, and what it is turned into."""

from __future__ import annotations

import pytest

from csa_deploy.errors import (
    BuildFailedError,
    CsaDeployError,
    EnvironmentLacksError,
    OperationRejectedError,
    UsageError,
)
from csa_deploy.trtexec.messages import explain

STAMP = "[11/23/2026-04:00:00] "
SAID: list[tuple[str, type[CsaDeployError], str]] = [
    ("[E] Unknown option: --stronglyTyped ", EnvironmentLacksError, "does not know --stronglyTyped"),
    (
        "trtexec: error while loading shared libraries: libnvinfer.so.8: cannot open",
        EnvironmentLacksError,
        "libnvinfer",
    ),
    ("[E] Cannot create DLA engine, 1 not available", EnvironmentLacksError, "DLA core 1 is not on"),
    ("[E] Safety is not supported because safety runtime library is unavailable.", EnvironmentLacksError, "safety run"),
    ("[E] GPU fallback (--allowGPUFallback) not allowed for DLA standalone mode", BuildFailedError, "not allowed"),
    ("[E] I/O formats for safe DLA capability are restricted to fp16:chw16", UsageError, "as fp16:chw16"),
    ("[W] [TRT] CUDA initialization failure with error: 999. Please", EnvironmentLacksError, "CUDA does not start"),
    ("[W] [TRT] CUDA initialization failure with error: 35. Please", EnvironmentLacksError, "driver is too old"),
    (
        "[E] Error[9]: IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Target GPU SM 61 is not "
        "supported by this TensorRT release.)",
        EnvironmentLacksError,
        "does not serve the target's GPU (SM 61)",
    ),
    ("[E] [TRT] 1: [caskUtils.cpp] Internal Error (Unsupported SM: 0x809)", EnvironmentLacksError, "(SM 0x809)"),
    (
        "[E] Error[2]: Error Code 2: Internal Error (Assertion allowGPUFallback failed. Layer '644' is not supported "
        "on DLA but GPU fallback is not enabled.)",
        BuildFailedError,
        "DLA cannot run the whole network: 644",
    ),
    (
        "[E] Error[4]: [standardEngineBuilder.cpp] Error Code 4: Internal Error (Calibration failure occurred with no "
        "scaling factors detected. This could be due to no int8 calibrator)",
        UsageError,
        "the calibration cache is not of this graph",
    ),
    (
        "[E] [TRT] 3: getPluginCreator could not find plugin: Round version: 1\n" + STAMP + "[E] [TRT] "
        'ModelImporter.cpp:720: While parsing node number 12 [If -> "cond:0"]:\n[8] Assertion failed: creator',
        BuildFailedError,
        "neither an operator nor a plugin for Round",
    ),
    (
        '[E] [TRT] ModelImporter.cpp:720: While parsing node number 7 [ReduceMean -> "m"]:\n'
        + STAMP
        + "[E] [TRT] ModelImporter.cpp:721: --- Begin node ---\n"
        + STAMP
        + "[E] [TRT] ModelImporter.cpp:726: ERROR: onnx2trt_utils.cpp:1 In function reduceTensor:\n"
        "[8] Assertion failed: inputAxes.is_weights()",
        BuildFailedError,
        "refuses the graph at ReduceMean: inputAxes.is_weights()",
    ),
    (
        "[E] Error[4]: [network.cpp] Error Code 4: Internal Error (Network must have at least one output)",
        UsageError,
        "the graph was not read, or has no output",
    ),
    (
        "[W] [TRT] Skipping tactic 3 due to insuficient memory on requested size of 449 detected for tactic 4.\n"
        + STAMP
        + "[E] Error[10]: Error Code 10: Internal Error (Could not find any implementation for node /net/conv.)",
        BuildFailedError,
        "no kernel for /net/conv on this target",  # such warnings stand in builds that pass
    ),
    (
        "[W] [TRT] UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 12845056\n"
        + STAMP
        + "[E] Saving engine to file failed.",
        EnvironmentLacksError,
        "cannot write the engine",
    ),
    (
        "[W] [TRT] UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 12845056\n"
        + STAMP
        + "[E] [TRT] 10: Error Code 10: insufficient memory to build",
        BuildFailedError,
        "ran out of memory",
    ),
    *(
        (f"Cuda failure{where}: {text}", EnvironmentLacksError, cause)
        for where in ("", " at /samples/common/common.h:312")
        for text, cause in (
            ("CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
            ("unsupported display driver / cuda driver combination", "driver is too old"),
            ("unknown error", "CUDA does not start"),
            ("no CUDA-capable device is detected", "CUDA does not start"),
        )
    ),
    ("Cuda failure at /samples/common/common.h:312: out of memory", BuildFailedError, "ran out of memory"),
    (
        "Could not load library libnvinfer.so.10: Unable to open library: libnvinfer.so.10 due to libnvinfer.so.10: "
        "cannot open shared object file: No such file or directory",
        EnvironmentLacksError,
        "trtexec does not start: libnvinfer.so.10 is not found",
    ),
    (
        "Uncaught exception detected: Unable to open library: libnvinfer_plugin.so.10 due to libnvinfer_plugin.so.10: "
        "cannot open shared object file",
        EnvironmentLacksError,
        "trtexec does not start: libnvinfer_plugin.so.10 is not found",
    ),
    ("[I] Cannot find any available devices (GPUs)!", EnvironmentLacksError, "CUDA does not start"),
    (
        "[I] --safe flag is enabled but application is not compatible with safety.",
        EnvironmentLacksError,
        "no safety runtime",
    ),
    ("[E] Saving engine to file failed.", EnvironmentLacksError, "disk is full, or its workdir is not writable"),
    ("[E] Error opening engine file: engine.plan", UsageError, "cannot open engine.plan"),
    ("[E] Cannot open file in.0!", UsageError, "cannot open in.0"),
    (
        "[E] Safe runtime does not support --dumpProfile or --exportProfile=<file>.",
        UsageError,
        "does not support --dumpProfile or --exportProfile=<file>",
    ),
    ("[E] Invalid IOFormat chw16", UsageError, "does not take chw16 as a format"),
    ("[E] Invalid TensorFormat fp16:chw16", UsageError, "does not take fp16:chw16 as a format"),
    (
        '[E] Input tensor "x": Requested input type fp16 via --inputIOFormats does not match the inferred type fp32 '
        "for a strongly typed network. Failing build.",
        UsageError,
        "does not match the inferred type fp32, which counts",
    ),
    (
        "[E] Error[1]: [stdArchiveReader.cpp] (Serialization assertion safeVersionRead == safeSerializationVersion "
        "failed.)",
        EnvironmentLacksError,
        "another TensorRT version",
    ),
    ("[E] Could not open file model.onnx", UsageError, "cannot open model.onnx"),
    (
        '[E] Error[9]: Layer {LRN} "/net/lrn" failed safety scope validation',
        OperationRejectedError,
        'Layer {LRN} "/net/lrn" failed',
    ),
    (
        "[E] Error[10]: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any "
        "implementation for node /net/conv.)",
        BuildFailedError,
        "no kernel for /net/conv",
    ),
    ("[E] [TRT] 2: [virtualMemoryBuffer.cpp] OutOfMemory (no further information)", BuildFailedError, "out of memory"),
    (
        "[E] [TRT] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
        "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239)\n"
        + STAMP
        + "[E] Engine deserialization failed",
        EnvironmentLacksError,
        "another TensorRT version",
    ),
    (
        "[E] Error[6]: The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute "
        "8.6, please rebuild.\n[E] Engine deserialization failed",
        EnvironmentLacksError,
        "another GPU",
    ),
    (
        "[E] Error[1]: [stdArchiveReader.cpp] (Serialization assertion magicTagRead == kMAGIC_TAG failed.)",
        UsageError,
        "damaged or cut short",
    ),
    (
        "[E] Unexpected file size for input file: in.0. Note: Input binding size is: 16 bytes but",
        UsageError,
        "input in.0 has another size",
    ),
    ("[E] Saving engine to file failed: No space left on device", EnvironmentLacksError, "disk is full"),
    ("[E] Something nobody has seen", BuildFailedError, "Something nobody has seen"),
    ("", BuildFailedError, "ended with status 1"),
]


@pytest.mark.parametrize(("said", "kind", "cause"), SAID)
def test_a_message_becomes_cause_and_cure(said: str, kind: type[CsaDeployError], cause: str) -> None:
    error = explain(STAMP + said if said.startswith("[") else said, 1, "building n.onnx on orin", "n.log")
    assert type(error) is kind
    assert error.message.startswith("building n.onnx on orin: ")
    assert cause in error.message
    assert error.fix
    assert "\n" not in error.message


def test_a_crashed_trtexec() -> None:
    assert "trtexec crashed (SIGSEGV)" in explain("", 139, "building", "n.log").message


def test_a_killed_trtexec() -> None:
    assert "killed" in explain("", 137, "building", "n.log").message


def test_a_node_is_named_without_the_bracket_around_the_message() -> None:
    said = "[E] Error[10]: Error Code 10: Internal Error (Could not find any implementation for node /conv{}.)"
    for node in ("", "(a)"):
        message = explain(STAMP + said.format(node), 1, "building", "n.log").message
        assert message == f"building: TensorRT has no kernel for /conv{node} on this target"


@pytest.mark.parametrize("letter", ["W", "I", "V"])
def test_what_is_no_error_is_no_cause(letter: str) -> None:
    """Whatever an error is translated from, the same words in a warning are not what failed."""
    for words, quiet in (
        ("OutOfMemory", "ran out of memory"),
        ("Could not find any implementation for node a.", "no kernel"),
        ("No space left on device", "disk is full"),
        ("Permission denied", "denies access"),
    ):
        log = f"{STAMP}[{letter}] {words}\n    {words}\n{STAMP}[E] Something else"
        assert quiet not in explain(log, 1, "building", "n.log").message
        assert quiet in explain(f"{STAMP}[E] {words}", 1, "building", "n.log").message
