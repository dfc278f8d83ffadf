"""Time of each layer of an engine, through TensorRT's profiler: a pass of its own, as profiling slows the inference."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import BuildFailedError
from csa_deploy.runners.device.timing import DeviceTimer

if TYPE_CHECKING:
    import tensorrt

_WARMUP = 2


def layer_times(
    trt: Any, context: tensorrt.IExecutionContext, timer: DeviceTimer, *, iterations: int
) -> dict[str, list[float]]:
    """Milliseconds of each layer in every inference, in the engine's order.

    Args:
        context: the one that ``timer`` runs; it keeps the profiler, so it is of no more use for timing.
        timer: an entered one.
        iterations: inferences that count, after two that do not.

    Raises:
        BuildFailedError: TensorRT gives no times.
        EnvironmentLacksError: the device fails.
    """
    recorder = _recorder(trt)
    context.profiler = recorder
    context.enqueue_emits_profile = False  # else every launch waits for its own end
    series: dict[str, list[float]] = defaultdict(list)
    for done in range(_WARMUP + iterations):
        timer.infer()
        recorder.milliseconds.clear()
        if not context.report_to_profiler():
            raise BuildFailedError("TensorRT gives no times of layers", fix="see its log with -vv")
        if done >= _WARMUP:
            for name, milliseconds in recorder.milliseconds.items():
                series[name].append(milliseconds)
    return dict(series)


def _recorder(trt: Any) -> Any:
    class Recorder(trt.IProfiler):
        """Adds up what a layer takes in one inference; the same name may be reported more than once."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = defaultdict(float)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] += ms

    return Recorder()
