"""Engines under localisation: where their fusions end, and edited graphs built and run as engines."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from csa_deploy.builders import opened_builder
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.load import save_model
from csa_deploy.trtexec.engines import engine_runner, on_machine
from csa_deploy.verify.localize.boundaries import values_of, view_of
from csa_deploy.verify.localize.measure import Open

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.records.build import EngineRecord
    from csa_deploy.runners.base import Runner

FEW = 3
"""Modules of an engine that are restored one at a time: each costs a build."""

NO_LAYERS = "its layers after fusion are not known here, so neither is where it could be compared"
STRONGLY_TYPED = 10  # first major version of TensorRT whose engines keep to the graph's types


def surviving(engine: Path) -> frozenset[str] | None:
    """Tensors between the layers of an engine, as the engine's inspector lists them; None where it could not run.

    A tensor that one layer writes and another reads exists whether or not it is an output, so that making it one
    breaks no fusion.
    """
    path = engine.with_name(f"{engine.name}.layers.json")
    if not path.is_file():
        return None
    layers = json.loads(path.read_text(encoding="utf-8")).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, Mapping)]  # without details a layer is a mere name
    tensors = (t for layer in detailed for t in (*layer.get("Inputs", ()), *layer.get("Outputs", ())))
    return frozenset(t["Name"] for t in tensors) or None


def shared(engine: Path, graph: onnx.ModelProto) -> tuple[str, ...] | None:
    """Tensors of a graph that exist between the layers of its engine; None where the layers are not known."""
    found = surviving(engine)
    if found is None:
        return None
    return tuple(str(value.name) for value in values_of(view_of(graph)) if value.name in found)


def as_engine(config: Config, record: EngineRecord, scratch: Path) -> Open:
    """Builds graphs as an engine was built, and runs them where it runs.

    Args:
        record: the engine's entry in the build stage's record.
        scratch: a folder for graphs and engines, which are gone when they were run.
    """
    backend = "auto" if config.target else record.backend
    given = config.model_copy(update={"backend": backend, "builder_option": record.builder_option})

    @contextmanager
    def opened(model: onnx.ModelProto) -> Iterator[Runner]:
        plan = BuildPlan(
            backend=given.backend,
            precision=stated_types(model).precision,
            compute_capabilities=tuple(given.compute_capability),
        )
        with tempfile.TemporaryDirectory(dir=scratch) as folder, opened_builder(given) as builder:
            path, engine = Path(folder) / "edited.onnx", Path(folder) / "edited.engine"
            save_model(model, path)
            result = builder.build(path, engine, plan, lambda done, total: None)
            made = replace(result, builder_option=record.builder_option)
            if builder.machine is None:
                runner = engine_runner(engine, made, None, name="localisation")
            else:
                runner = on_machine(
                    engine, made, nullcontext(builder.machine), name="localisation", tools=builder.machine
                )
            with runner:
                yield runner

    return opened
