"""Times an engine on the device alone: CUDA events around the computation, without transfers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from csa_deploy.errors import BuildFailedError
from csa_deploy.runners.device.base import Device


class ExecutionContext(Protocol):
    """What is used of TensorRT's execution context; the same in 10, 11 and TensorRT-RTX."""

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Say where a tensor is."""

    def execute_async_v3(self, stream: int) -> bool:
        """Put the computation into a stream."""


def device_times(
    device: Device,
    context: ExecutionContext,
    feeds: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    *,
    iterations: int,
    warmup: int,
    graph: bool,
) -> list[float]:
    """Run an engine and time each inference on the device.

    Args:
        device: device code.
        context: the engine's.
        feeds: inputs, copied in once before.
        outputs: contiguous arrays that the last inference's outputs are copied to.
        iterations: timed inferences.
        warmup: untimed inferences before.
        graph: launch through a CUDA graph.

    Returns:
        Milliseconds of each inference, in order.

    Raises:
        EnvironmentLacksError: the device fails, or the binding has no graphs.
        BuildFailedError: TensorRT refuses a tensor or the computation.
    """
    tensors = {**feeds, **outputs}
    buffers: dict[str, Any] = {}
    try:
        for name, array in tensors.items():
            buffers[name] = device.allocate(array.nbytes)
            if not context.set_tensor_address(name, device.address(buffers[name])):
                raise BuildFailedError(f"TensorRT takes no tensor {name!r}", fix="use the engine's own names")
        stream = device.stream()
        for name, array in feeds.items():
            device.to_device(buffers[name], np.ascontiguousarray(array), stream)

        def launch() -> None:
            if not context.execute_async_v3(device.handle(stream)):
                raise BuildFailedError("TensorRT does not run the engine", fix="see its log with -vv")

        launch()  # TensorRT prepares lazily in the first run, which a graph must not record
        step = device.capture(stream, launch) if graph else launch
        for _ in range(warmup):
            step()
        times = []
        for _ in range(iterations):
            start, end = device.event(), device.event()
            device.record(start, stream)
            step()
            device.record(end, stream)
            times.append((start, end))
        for name, array in outputs.items():
            device.to_host(array, buffers[name], stream)
        device.synchronize(stream)
        return [device.elapsed_ms(start, end) for start, end in times]
    finally:
        for buffer in buffers.values():
            device.free(buffer)
