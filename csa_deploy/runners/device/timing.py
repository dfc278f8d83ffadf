"""Times an engine by the device's own clock: CUDA events around the copies and the computation of each inference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from csa_deploy.errors import BuildFailedError, CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.runners.device.base import Device
from csa_deploy.spec import Arrays


class ExecutionContext(Protocol):
    """What is used of TensorRT's execution context; the same in 10, 11 and TensorRT-RTX."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where a tensor is."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Put the computation into a stream."""


@dataclass(frozen=True)
class Spans:
    """One inference, in milliseconds of the device's clock.

    Attributes:
        copy_in: inputs from page-locked host memory to the device.
        compute: from the first kernel's turn to the last one's end, with the gaps that launching leaves in between.
        copy_out: outputs to page-locked host memory.
    """

    copy_in: float
    compute: float
    copy_out: float

    @property
    def total(self) -> float:
        """With both copies."""
        return self.copy_in + self.compute + self.copy_out


class DeviceTimer:
    """An engine's context with buffers of its own, in one stream; use it as a context manager.

    Inferences follow one another in the stream without the host waiting in between, so that the device is not idle
    while the host prepares the next one.

    Args:
        device: device code; it stays open.
        context: the engine's; nothing else may use it meanwhile.
        outputs: arrays of the outputs' shapes and types.
        capture: also record the computation as a CUDA graph.
    """

    def __init__(
        self,
        device: Device,
        context: ExecutionContext,
        feeds: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        *,
        capture: bool = True,
    ) -> None:
        self._device, self._context = device, context
        self._feeds, self._results = feeds, outputs
        self._wants_graph = capture
        self._no_graph = "no CUDA graph was asked for"
        self._buffers: dict[str, Any] = {}
        self._inputs: Arrays = {}
        self._outputs: Arrays = {}
        self._stream: Any = None
        self._replay: Callable[[], None] | None = None
        self._events: list[tuple[Any, ...]] = []
        self._held = contextlib.ExitStack()

    @property
    def no_graph(self) -> str:
        """Why there is no CUDA graph; empty when there is one."""
        return "" if self._replay else self._no_graph

    @property
    def outputs(self) -> Arrays:
        """Of the last inference."""
        return {name: np.array(array) for name, array in self._outputs.items()}

    def __enter__(self) -> DeviceTimer:
        """Take memory, run once and capture the graph.

        Raises:
            EnvironmentLacksError: the device fails.
            BuildFailedError: TensorRT refuses a tensor or the computation.
        """
        with contextlib.ExitStack() as held:
            for name, array in {**self._feeds, **self._results}.items():
                self._buffers[name] = self._device.allocate(array.nbytes)
                held.callback(self._device.free, self._buffers[name])
                if not self._context.set_tensor_address(name, self._device.address(self._buffers[name])):
                    raise BuildFailedError(f"TensorRT takes no tensor {name!r}", fix="use the engine's own names")
            self._inputs = {name: self._device.pinned(array) for name, array in self._feeds.items()}
            self._outputs = {name: self._device.pinned(array) for name, array in self._results.items()}
            self._stream = self._device.stream()
            self.infer()  # TensorRT prepares lazily in the first run, which a graph must not record
            if self._wants_graph:
                self._capture()
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the device memory back; the rest goes when the device is closed."""
        self._held.close()

    def infer(self) -> None:
        """Run once, untimed, and wait."""
        self._copy_in()
        self._launch()
        self._copy_out()
        self._device.synchronize(self._stream)

    def time(self, iterations: int, *, graph: bool = False) -> list[Spans]:
        """Time inferences, through the CUDA graph or through TensorRT's own launches.

        Raises:
            UsageError: there is no graph.
        """
        if graph and self._replay is None:
            raise UsageError(f"there is no CUDA graph: {self._no_graph}", fix="time the launches")
        step = self._replay if graph and self._replay else self._launch
        marks, stream, record = self._marks(iterations), self._stream, self._device.record
        for before, copied, computed, after in marks:
            record(before, stream)
            self._copy_in()
            record(copied, stream)
            step()
            record(computed, stream)
            self._copy_out()
            record(after, stream)
        self._device.synchronize(stream)
        elapsed = self._device.elapsed_ms
        return [Spans(elapsed(a, b), elapsed(b, c), elapsed(c, d)) for a, b, c, d in marks]

    def _marks(self, iterations: int) -> list[tuple[Any, ...]]:
        """Four events per inference, made once and used again."""
        while len(self._events) < iterations:
            self._events.append(tuple(self._device.event() for _ in range(4)))
        return self._events[:iterations]

    def _copy_in(self) -> None:
        for name, array in self._inputs.items():
            self._device.to_device(self._buffers[name], array, self._stream)

    def _copy_out(self) -> None:
        for name, array in self._outputs.items():
            self._device.to_host(array, self._buffers[name], self._stream)

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self._device.handle(self._stream)):
            raise BuildFailedError("TensorRT does not run the engine", fix="see its log with -vv")

    def _capture(self) -> None:
        """Record the graph, or keep the reason why there is none: the launches can be timed all the same."""
        asks = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX has it
        if asks is not None and not asks(self._device.handle(self._stream)):
            self._no_graph = "TensorRT says that this engine cannot be captured"
            return
        try:
            self._replay = self._device.capture(self._stream, self._launch)
        except EnvironmentLacksError as error:
            self._no_graph = error.message
        except CsaDeployError as error:
            self._no_graph = f"the capture failed: {error.message}"
