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
    ("[E] [TRT] CUDA initialization failure with error: 35", EnvironmentLacksError, "CUDA does not start"),
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


def test_a_killed_trtexec() -> None:
    assert "killed" in explain("", 137, "building", "n.log").message
