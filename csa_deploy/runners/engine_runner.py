"""Runs a TensorRT or TensorRT-RTX engine on this machine's CUDA device, through polygraphy's runner."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.passport import check_engine, check_here
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.installing import install_command
from csa_deploy.network import Sample
from csa_deploy.records.device import EngineMemory
from csa_deploy.runners.base import check_feeds
from csa_deploy.runners.device.base import INSTALL, Device, open_device
from csa_deploy.runners.device.layers import layer_times
from csa_deploy.runners.device.memory import engine_memory
from csa_deploy.runners.device.timing import DeviceTimer
from csa_deploy.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    import tensorrt

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
LOADED = 2  # readings of free memory once the engine is loaded: before and after
_INSTALL = {"tensorrt": install_command("tensorrt"), "tensorrt-rtx": install_command("rtx")}


class EngineRunner:
    """An engine file on the first CUDA device. The engine is loaded by ``__enter__``.

    Args:
        backend: what built it, ``"tensorrt"`` or ``"tensorrt-rtx"``.

    Raises:
        UsageError: no such file or backend, not the engine that its passport describes, or this process already uses
            the other TensorRT.
        EnvironmentLacksError: no CUDA device, the backend is not installed, or the passport says that the engine was
            built by another version or for another GPU.
    """

    def __init__(self, engine: Path, *, backend: str, name: str = "engine") -> None:
        if backend not in _MODULES:
            raise UsageError(f"unknown engine backend {backend!r}", fix=f"use one of {', '.join(_MODULES)}")
        if not engine.is_file():
            raise UsageError(f"no such engine: {engine}", fix="run `csa-deploy build` first")
        if not cuda_state().devices:
            raise EnvironmentLacksError(
                f"{engine.name} cannot run: {cuda_state().reason}",
                fix="verify the engine on a machine with an NVIDIA GPU",
            )
        if importlib.util.find_spec(_MODULES[backend]) is None:
            raise EnvironmentLacksError(f"{engine.name} cannot run: no {backend} here", fix=_INSTALL[backend])
        passport = check_engine(engine)
        if passport is not None:
            version = importlib.import_module(_MODULES[backend]).__version__
            check_here(passport.engine, backend, version, cuda_state())
        self.name = name
        self.sample: Sample | None = None
        self._engine_path = engine
        self._backend = backend
        self._runner: Any = None
        self._device: Device | None = None
        self._no_device = ""
        self._free: list[int] = []

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the engine; only inside ``with``."""
        return self._specs("INPUT")

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the engine; only inside ``with``."""
        return self._specs("OUTPUT")

    def describe(self) -> dict[str, Any]:
        """What executes."""
        device = cuda_state().devices[0]
        return {
            "backend": self._backend,
            "version": self._trt.__version__,
            "provider": f"{device.name} (compute capability {device.compute_capability})",
            "threads": None,
            "executes": f"the engine {self._engine_path.name}",
        }

    @property
    def host_threads(self) -> int:
        """None: it runs on the GPU."""
        return 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        check_feeds(self.input_specs, feeds)
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        # Polygraphy reuses its host buffers from call to call, so the outputs are copied out.
        outputs = {name: np.array(array) for name, array in self._entered().infer(contiguous).items()}
        if len(self._free) == LOADED:
            self._read_free()  # after the first inference, once: it made the buffers
        return outputs

    @contextlib.contextmanager
    def timer(self, feeds: Mapping[str, np.ndarray]) -> Iterator[DeviceTimer]:
        """What times the engine by the device's clock, with an execution context of its own.

        Raises:
            EnvironmentLacksError: no CUDA bindings, or the device fails.
            BuildFailedError: TensorRT does not run the engine.
        """
        with DeviceTimer(self._opened(), self._context(), feeds, self._results(feeds)) as timer:
            yield timer

    def layer_times(self, feeds: Mapping[str, np.ndarray], *, iterations: int) -> dict[str, list[float]]:
        """Milliseconds of each layer; see :func:`csa_deploy.runners.device.layers.layer_times`."""
        context = self._context()
        with DeviceTimer(self._opened(), context, feeds, self._results(feeds), capture=False) as timer:
            return layer_times(self._trt, context, timer, iterations=iterations)

    def memory(self) -> EngineMemory:
        """Memory of the engine with the one context that :meth:`run` uses."""
        engine: tensorrt.ICudaEngine = self._entered().engine
        return engine_memory(self._trt, engine, self._engine_path.stat().st_size, self._free, self._no_device)

    def inspection(self) -> str:
        """The engine's layers, as the JSON text of TensorRT's inspector."""
        engine: tensorrt.ICudaEngine = self._entered().engine
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def __enter__(self) -> EngineRunner:
        """Load the engine onto the device."""
        _select_polygraphy(self._backend)
        from polygraphy.backend.trt import EngineFromPath, TrtRunner
        from polygraphy.exception import PolygraphyException

        runner = TrtRunner(EngineFromPath(str(self._engine_path)))
        self._open_device()
        try:
            runner.activate()
        except PolygraphyException as error:
            self._close_device()
            raise EnvironmentLacksError(
                f"{self._engine_path.name} does not load on {cuda_state().devices[0].name}: {error}",
                fix="build the engine with this machine's TensorRT version and compute capability",
            ) from error
        self._runner = runner
        self._read_free()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the device memory."""
        if self._runner is not None:
            self._runner.deactivate()
            self._runner = None
        self._close_device()

    @property
    def _trt(self) -> Any:
        return importlib.import_module(_MODULES[self._backend])

    def _open_device(self) -> None:
        """Device code, where bindings are: without them the engine runs, and the host's clock alone times it."""
        self._free = []
        try:
            self._device, self._no_device = open_device(), ""
        except EnvironmentLacksError as error:
            self._no_device = error.message
        self._read_free()

    def _close_device(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None

    def _read_free(self) -> None:
        if self._device is not None:
            self._free.append(self._device.free_bytes())

    def _opened(self) -> Device:
        self._entered()
        if self._device is None:
            raise EnvironmentLacksError(self._no_device, fix=INSTALL)
        return self._device

    def _context(self) -> Any:
        engine: tensorrt.ICudaEngine = self._entered().engine
        context = engine.create_execution_context()
        if context is None:
            raise EnvironmentLacksError(
                f"{self._engine_path.name}: no memory for another execution context", fix="free device memory"
            )
        return context

    def _results(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        check_feeds(self.input_specs, feeds)
        return {spec.name: np.zeros(spec.static_shape, spec.dtype) for spec in self.output_specs}

    def _entered(self) -> Any:
        if self._runner is None:
            raise UsageError(f"{self.name} is closed", fix="use it inside its with block")
        return self._runner

    def _specs(self, mode: str) -> tuple[TensorSpec, ...]:
        trt = self._trt
        engine: tensorrt.ICudaEngine = self._entered().engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        wanted = getattr(trt.TensorIOMode, mode)
        return tuple(
            TensorSpec(
                name,
                tuple(None if extent < 0 else extent for extent in engine.get_tensor_shape(name)),
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
            )
            for name in names
            if engine.get_tensor_mode(name) == wanted
        )


def _select_polygraphy(backend: str) -> None:
    """Point polygraphy at TensorRT or TensorRT-RTX; it binds to one of them when its backend is first imported."""
    from polygraphy import config

    rtx = backend == "tensorrt-rtx"
    if "polygraphy.backend.trt" not in sys.modules:
        config.USE_TENSORRT_RTX = rtx
    elif rtx != config.USE_TENSORRT_RTX:
        raise UsageError(
            f"this process already uses the other TensorRT, so it cannot run a {backend} engine",
            fix="verify the engines of TensorRT and TensorRT-RTX in separate commands",
        )
