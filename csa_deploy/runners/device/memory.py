"""Memory of a loaded engine: what TensorRT states, and what the device lost while it was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt

SEEN = (
    "the device's free memory, before the engine was loaded and after loading it and running it once; "
    "what other processes take or give back meanwhile counts as well"
)
ONE_BLOCK = "TensorRT holds activations and workspace in one block per context"


@dataclass(frozen=True)
class EngineMemory:
    """Bytes of one engine with one execution context.

    Attributes:
        engine_bytes: of the file.
        weights_bytes: weights on the device; None when this TensorRT does not say.
        context_bytes: activations and workspace, one block.
        streamable_weights_bytes: weights that may stay on the host; None when this TensorRT does not say.
        loaded_bytes: by how much the device's free memory fell when engine and context were made; None when no
            bindings could ask.
        peak_bytes: the most that it fell, the first inference included; None likewise.
        device: why the last two are None; empty when they are not.
    """

    engine_bytes: int
    weights_bytes: int | None
    context_bytes: int
    streamable_weights_bytes: int | None
    loaded_bytes: int | None
    peak_bytes: int | None
    device: str

    def to_json(self) -> dict[str, Any]:
        """Plain data, with what the figures are."""
        return {**asdict(self), "activations_and_workspace": ONE_BLOCK, "seen": SEEN}


def engine_memory(trt: Any, engine: tensorrt.ICudaEngine, size: int, free: Sequence[int], reason: str) -> EngineMemory:
    """Ask an engine.

    Args:
        trt: the TensorRT module.
        engine: the engine.
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
