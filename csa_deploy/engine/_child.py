"""The build process: ``python -m csa_deploy.engine._child FD`` with the request as JSON on standard input.

A native builder can abort, and cannot be interrupted; a process of its own turns both into an exit status. Standard
output and error are the log. Events go to file descriptor FD, one JSON object per line; see :mod:`.protocol`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.engine.backend import Backend
from csa_deploy.engine.backends import choose_backend
from csa_deploy.engine.device import cuda_state
from csa_deploy.engine.monitor import progress_monitor
from csa_deploy.engine.network import check_network, network_inputs, network_outputs, read_layers
from csa_deploy.engine.protocol import BuildRequest, Event, FailedBuild, FinishedBuild, line_of
from csa_deploy.errors import BuildFailedError, CsaDeployError, EnvironmentLacksError
from csa_deploy.memory import peak_memory
from csa_deploy.processes import end_with_parent

if TYPE_CHECKING:
    import tensorrt


def main() -> None:
    """Build, and report the outcome as the last event."""
    end_with_parent()  # a killed csa-deploy must not leave a builder behind
    request = BuildRequest.from_json(json.load(sys.stdin))
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as events:

        def send(event: Event) -> None:
            events.write(line_of(event))

        try:
            send(Event(result=_build(request, lambda done, total: send(Event(progress=(done, total))))))
        except CsaDeployError as error:
            send(Event(error=FailedBuild(type(error).__name__, error.message, error.fix)))
        except Exception as error:  # polygraphy raises its own type, bindings raise any; the log holds the cause
            send(Event(error=FailedBuild(None, str(error), None)))
            raise


def _build(request: BuildRequest, report: Any) -> FinishedBuild:
    plan = request.plan
    backend = choose_backend(plan.backend)
    trt = importlib.import_module(backend.module)
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = {"": G_LOGGER.VERBOSE}  # TensorRT's own information level
    capabilities = tuple(item for item in backend.capabilities(trt, plan) if item not in request.left_out)
    if not capabilities:
        raise BuildFailedError(f"{backend.title} builds this network for no GPU", fix="read the warnings for why")
    started = time.perf_counter()
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    builder, network, parser = NetworkFromOnnxPath(os.fspath(request.model), strongly_typed=typed)()
    check_network(network, request.model.name, plan.precision)
    parsed = time.perf_counter()
    loader = backend.config_loader(trt, plan, capabilities, progress_monitor(trt, report))
    config: tensorrt.IBuilderConfig = loader(builder, network)
    cache = os.fspath(plan.timing_cache) if plan.timing_cache and backend.name == "tensorrt" else None
    engine = EngineBytesFromNetwork((builder, network, parser), config=config, save_timing_cache=cache)()
    built = time.perf_counter()
    _write(request.engine, engine)
    inspection, not_inspected = _inspect(trt, backend, engine)
    return FinishedBuild(
        version=trt.__version__,
        engine_bytes=memoryview(engine).nbytes,
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        compute_capabilities=capabilities,
        flags=tuple(name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)),
        inputs=network_inputs(network),
        outputs=network_outputs(network),
        layers=read_layers(network),
        parse_seconds=parsed - started,
        build_seconds=built - parsed,
        peak_memory_bytes=peak_memory(),
        inspection=inspection,
        not_inspected=not_inspected,
    )


def _write(path: Path, engine: Any) -> None:
    try:
        with path.open("wb") as file:
            file.write(engine)
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write the engine into {path.parent}: {error.strerror}", fix="free or unlock the disk"
        ) from error


def _inspect(trt: Any, backend: Backend, engine: Any) -> tuple[str | None, str]:
    """The engine's layers after fusion, as the inspector's JSON text; or the reason why not."""
    if not cuda_state().devices:
        return None, cuda_state().reason
    from polygraphy.backend.trt import util as trt_util

    loaded: tensorrt.ICudaEngine | None = trt.Runtime(trt_util.get_trt_logger()).deserialize_cuda_engine(engine)
    if loaded is None:
        return None, f"{backend.title} cannot load this engine on {cuda_state().devices[0].name}"
    return loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON), ""


if __name__ == "__main__":
    main()
