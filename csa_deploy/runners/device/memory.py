"""Memory of a loaded engine: what TensorRT states, and what the device lost while it was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csa_deploy.records.device import EngineMemory

if TYPE_CHECKING:
    import tensorrt


def engine_memory(trt: Any, engine: tensorrt.ICudaEngine, size: int, free: Sequence[int], reason: str) -> EngineMemory:
    """Ask an engine.

    Args:
        size: of its file in bytes.
        free: readings of the device's free memory: before loading, after it, and later ones; empty without bindings.
        reason: why there are none.
    """
    # 10.0 has the older name only, 11 the newer one only.
    context = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
    return EngineMemory(
        engine_bytes=size,
        weights_bytes=_weights(trt, engine),
        context_bytes=int(context),
        streamable_weights_bytes=getattr(engine, "streamable_weights_size", None),
        loaded_bytes=free[0] - free[1] if free else None,
        peak_bytes=free[0] - min(free) if free else None,
        device=reason,
    )


def _weights(trt: Any, engine: tensorrt.ICudaEngine) -> int | None:
    if not (hasattr(trt, "EngineStat") and hasattr(engine, "get_engine_stat")):
        return None
    size = int(engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE))
    return size if size >= 0 else None  # -1: this engine does not know
