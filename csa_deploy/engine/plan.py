"""What an engine build is asked to do. Imports nothing heavy, so that the command line can make plans."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from csa_deploy.errors import UsageError

BackendChoice = Literal["auto", "tensorrt", "tensorrt-rtx", "trtexec"]
Precision = Literal["fp32", "fp16", "int8"]

BACKENDS: tuple[BackendChoice, ...] = ("auto", "tensorrt", "tensorrt-rtx", "trtexec")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
CURRENT = "current"
_CAPABILITY = re.compile(r"\d+\.\d")


@dataclass(frozen=True)
class BuildPlan:
    """One build.

    Precision lives in the graph: ``precision`` is what the graph must hold, not a wish to the builder, and a graph
    that does not hold it is refused. TF32 is always off, so that an FP32 engine computes in FP32.

    Attributes:
        backend: the builder; ``"auto"`` takes TensorRT where it and a CUDA device are present, else TensorRT-RTX.
        precision: what the graph must hold: ``"fp32"`` no 16-bit float, ``"fp16"`` FP16, ``"int8"`` Q/DQ tensors.
        restricted: set the safety-scope flag (``trtexec --restricted``); the result says whether it acts.
        compute_capabilities: GPUs to build for (``"8.6"``), or ``("current",)`` for this machine's. Empty means every
            one that the TensorRT-RTX version knows, and this machine's for TensorRT, which builds for no other.
        workspace_mib: limit of the scratch memory of the engine, MiB; None leaves it to the builder.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to the builder.
        timing_cache: file of tactic timings to read and update; TensorRT only, as TensorRT-RTX times nothing here.
        time_limit_s: seconds after which the build is ended; None waits.

    Raises:
        UsageError: a value outside these, named.
    """

    backend: BackendChoice = "auto"
    precision: Precision = "fp32"
    restricted: bool = False
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        _one_of("backend", self.backend, BACKENDS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("optimization level", self.optimization_level, (None, 0, 1, 2, 3, 4, 5))
        for name, value in (("workspace_mib", self.workspace_mib), ("time_limit_s", self.time_limit_s)):
            if value is not None and value <= 0:
                raise UsageError(f"{name} is {value}", fix="give a positive number")
        for capability in self.compute_capabilities:
            if capability != CURRENT and not _CAPABILITY.fullmatch(capability):
                raise UsageError(f"{capability!r} is no compute capability", fix='write it as "8.6", or "current"')
        if CURRENT in self.compute_capabilities and len(self.compute_capabilities) > 1:
            raise UsageError("compute capability 'current' is combined with others", fix="use 'current' alone")

    def to_json(self) -> dict[str, Any]:
        """What was asked, as JSON."""
        return {**asdict(self), "timing_cache": self.timing_cache.name if self.timing_cache else None}


def _one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        listed = ", ".join(str(item) for item in allowed if item is not None)
        raise UsageError(f"unknown {what} {value!r}", fix=f"use one of {listed}")
