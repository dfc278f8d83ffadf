"""Opens an engine of the build stage with the runner that fits what built it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.records.build import BuiltEngine, TensorInfo
from csa_deploy.runners.base import Runner
from csa_deploy.spec import TensorSpec

if TYPE_CHECKING:
    from csa_deploy.trtexec.machine import Machine
    from csa_deploy.trtexec.runner import TrtexecRunner
    from csa_deploy.trtexec.safe.runner import Tools

# TensorRT's names of element types -> NumPy's.
_DTYPES = {
    **{"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool"},
    **{"INT32": "int32", "INT64": "int64"},
}


def engine_runner(path: Path, record: BuiltEngine, target: str | None, *, name: str, values: bool = True) -> Runner:
    """A runner for an engine.

    Args:
        target: the target's file, for an engine that was built on one.
        values: whether its outputs are wanted, and not its latency alone: few ways run a safety engine give them.

    Raises:
        EnvironmentLacksError: it cannot run here, gives no values, or was built on a target and none is given.
        UsageError: it is not the engine that its passport describes.
    """
    if record.backend != "trtexec":
        from csa_deploy.runners.engine_runner import EngineRunner

        return EngineRunner(path, backend=record.backend, name=name)
    from csa_deploy.trtexec.config import load_target
    from csa_deploy.trtexec.machine import open_machine

    if target is None and record.machine["platform"] != "this machine":
        raise EnvironmentLacksError(f"{path.name} was built on a target", fix="give --target to run it there")
    config = load_target(Path(target)) if target else None
    return on_machine(path, record, open_machine(config), name=name, tools=config, values=values)


def on_machine(
    path: Path,
    record: BuiltEngine,
    machine: AbstractContextManager[Machine],
    *,
    name: str,
    tools: Tools | None,
    values: bool = True,
) -> TrtexecRunner:
    """A runner for an engine that trtexec built, on the machine that it was built on or for.

    Args:
        machine: reaches it.
        tools: the machine or its file: what it has to run safety engines; None is this machine.
        values: whether outputs are wanted.

    Raises:
        EnvironmentLacksError: outputs are wanted of a safety engine, and nothing there gives them.
        UsageError: it is not the engine that its passport describes.
    """
    from csa_deploy.engine.passport import check_engine
    from csa_deploy.trtexec.runner import TrtexecRunner
    from csa_deploy.trtexec.settings import parse_options

    check_engine(path)
    if record.machine.get("build") == "host" and tools is not None:
        return _safe_runner(path, record, machine, tools, name=name, values=values)
    return TrtexecRunner(
        path,
        machine,
        _specs(record.inputs),
        _specs(record.outputs),
        options=parse_options(record.builder_option),
        version=record.version,
        name=name,
    )


def _safe_runner(
    path: Path,
    record: BuiltEngine,
    machine: AbstractContextManager[Machine],
    tools: Tools,
    *,
    name: str,
    values: bool,
) -> TrtexecRunner:
    from csa_deploy.trtexec.safe.runner import SafeRunner, why_no_values
    from csa_deploy.trtexec.settings import parse_options
    from csa_deploy.trtexec.versions import parse_version

    if values and (error := why_no_values(tools, parse_version(record.version))):
        raise error
    return SafeRunner(
        path,
        machine,
        _specs(record.inputs),
        _specs(record.outputs),
        parts=record.parts,
        lib_path=record.machine["lib_path"],
        options=parse_options(record.builder_option),
        version=record.version,
        name=name,
    )


def _specs(tensors: Sequence[TensorInfo]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t.name, t.shape, _DTYPES[t.dtype]) for t in tensors)
