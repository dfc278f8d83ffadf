"""What a file holds: a graph, or an engine with what lies beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from csa_deploy.engine.passport import check_engine, plan_version
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import load_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.inspection.parts import is_engine, read_parts
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.records.passport import Passport
from csa_deploy.results import Stored
from csa_deploy.workspace import sha256_of


@dataclass(frozen=True)
class StatedTensor:
    """An input or output; its type in ONNX's words, an extent that is not known as its name, or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class _File(Stored):
    """A file; ``bytes`` is its size."""

    derived: ClassVar[tuple[str, ...]] = ("kind",)
    kind: ClassVar[str]
    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphFacts(_File):
    """A graph.

    Attributes:
        inputs: without the weights.
        types: nodes by the type that they compute in, most frequent first.
        modules: number of modules that its nodes say they come from.
    """

    kind: ClassVar[str] = "graph"
    inputs: tuple[StatedTensor, ...]
    outputs: tuple[StatedTensor, ...]
    opsets: dict[str, int]
    statistics: GraphStatistics
    types: dict[str, int]
    modules: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class EngineFacts(_File):
    """An engine.

    Attributes:
        built_by: the version in its header; None without one.
        passport: it is this engine's; None without one.
        layers: layers by type, most frequent first; None where nothing tells them.
        types: the same by the type of their outputs.
        notes: what limits what is told.
    """

    kind: ClassVar[str] = "engine"
    built_by: str | None
    passport: Passport | None
    layers: dict[str, int] | None
    types: dict[str, int] | None
    notes: tuple[str, ...]


def describe(path: Path) -> GraphFacts | EngineFacts:
    """Look at an ONNX file or an engine.

    Raises:
        UsageError: missing, not readable, an engine that is not its passport's, or one that nothing tells to be one.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}", fix="give an .onnx or .engine file")
    return _engine(path) if is_engine(path) else _graph(path)


def _graph(path: Path) -> GraphFacts:
    model = load_model(path, full_check=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    parts = read_parts(path)
    return GraphFacts(
        *_file(path),
        inputs=_tensors(value for value in model.graph.input if value.name not in weights),
        outputs=_tensors(value for value in model.graph.output if value.name not in weights),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        statistics=graph_statistics(model),
        types=_counted(part.type for part in parts),
        modules=len({part.module for part in parts if part.module}),
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _engine(path: Path) -> EngineFacts:
    passport = check_engine(path)
    notes = [] if passport else ["no passport beside it: nothing says what it was built of"]
    version = plan_version(path)
    if version is None:
        notes.append("no TensorRT header: no engine, a safety engine, or a DLA loadable")
    try:
        parts = read_parts(path)
    except UsageError as error:
        parts = []
        notes.append(error.message)
    if version is None and not passport and not parts:
        raise UsageError(
            f"{path}: nothing tells that it is an engine: no TensorRT header, and no passport or layers beside it",
            fix="check the file; a safety engine or DLA loadable needs its .passport.json beside it",
        )
    layers, types = _counted(part.op for part in parts) or None, _counted(part.type for part in parts) or None
    return EngineFacts(*_file(path), version, passport, layers, types, tuple(notes))


def _file(path: Path) -> tuple[str, str, int]:
    return path.name, sha256_of(path), path.stat().st_size


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[StatedTensor, ...]:
    named = onnx.TensorProto.DataType.Name
    types = ((value.name, value.type.tensor_type) for value in values)
    return tuple(
        StatedTensor(name, named(t.elem_type), tuple(d.dim_value or d.dim_param or None for d in t.shape.dim))
        for name, t in types
    )
