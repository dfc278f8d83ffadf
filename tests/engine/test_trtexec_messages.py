"""What trtexec and TensorRT say when something fails, as users have reported it, and what it is turned into."""

from __future__ import annotations

import pytest

from csa_deploy.engine.trtexec_messages import explain
from csa_deploy.errors import (
    BuildFailedError,
    CsaDeployError,
    EnvironmentLacksError,
    OperationRejectedError,
    UsageError,
)

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
        "ran out of memory",
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
