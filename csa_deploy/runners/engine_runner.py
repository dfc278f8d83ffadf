"""Runs a TensorRT or TensorRT-RTX engine on this machine's CUDA device, through polygraphy's runner."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.passport import check_engine, check_here
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.runners.base import Arrays, TensorSpec, check_feeds

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL = {"tensorrt": "pip install 'csa-deploy[tensorrt]'", "tensorrt-rtx": "pip install 'csa-deploy[rtx]'"}


class EngineRunner:
    """An engine file on the first CUDA device. The engine is loaded by ``__enter__``.

    Args:
        engine: path of the engine.
        backend: what built it, ``"tensorrt"`` or ``"tensorrt-rtx"``.
        name: name in reports.

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
            check_here(passport, backend, version, cuda_state())
        self.name = name
        self._engine_path = engine
        self._backend = backend
        self._runner: Any = None

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
            "version": importlib.import_module(_MODULES[self._backend]).__version__,
            "provider": f"{device.name} (compute capability {device.compute_capability})",
            "threads": None,
            "executes": f"the engine {self._engine_path.name}",
        }

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        check_feeds(self.input_specs, feeds)
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        # Polygraphy reuses its host buffers from call to call, so the outputs are copied out.
        return {name: np.array(array) for name, array in self._entered().infer(contiguous).items()}

    def device_times(
        self, feeds: Mapping[str, np.ndarray], *, iterations: int, warmup: int, graph: bool = True
    ) -> tuple[list[float], Arrays]:
        """Time the computation on the device alone; see :func:`csa_deploy.runners.device.timing.device_times`.

        Returns:
            Milliseconds of each inference, and the outputs of the last.
        """
        from csa_deploy.runners.device.base import open_device
        from csa_deploy.runners.device.timing import device_times

        check_feeds(self.input_specs, feeds)
        outputs = {spec.name: np.empty([e or 1 for e in spec.shape], spec.dtype) for spec in self.output_specs}
        device = open_device()
        try:
            context = self._entered().context
            with_graph = graph and device.has_graphs
            times = device_times(
                device, context, feeds, outputs, iterations=iterations, warmup=warmup, graph=with_graph
            )
        finally:
            device.close()
        return times, outputs

    def __enter__(self) -> EngineRunner:
        """Load the engine onto the device."""
        _select_polygraphy(self._backend)
        from polygraphy.backend.trt import EngineFromPath, TrtRunner
        from polygraphy.exception import PolygraphyException

        runner = TrtRunner(EngineFromPath(str(self._engine_path)))
        try:
            runner.activate()
        except PolygraphyException as error:
            raise EnvironmentLacksError(
                f"{self._engine_path.name} does not load on {cuda_state().devices[0].name}: {error}",
                fix="build the engine with this machine's TensorRT version and compute capability",
            ) from error
        self._runner = runner
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the device memory."""
        if self._runner is not None:
            self._runner.deactivate()
            self._runner = None

    def _entered(self) -> Any:
        if self._runner is None:
            raise UsageError(f"{self.name} is closed", fix="use it inside its with block")
        return self._runner

    def _specs(self, mode: str) -> tuple[TensorSpec, ...]:
        trt = importlib.import_module(_MODULES[self._backend])
        engine = self._entered().engine
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
