"""What the functions of the API return: frozen, with JSON form, one line of text and a table; see the base class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import onnx
from google.protobuf.message import EncodeError

from csa_deploy.errors import UsageError
from csa_deploy.network import Preprocessing
from csa_deploy.records.build import EngineRecord
from csa_deploy.records.check import Inspected
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.graphs import GraphStatistics, Note, Step
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.passport import Passport
from csa_deploy.records.precision import KeptNode, PrecisionRecord
from csa_deploy.records.repair import Left
from csa_deploy.records.split import CutTensor, SplitFinding, SplitPart, SplitRecord
from csa_deploy.results import NOT_JSON, Result
from csa_deploy.source import Source
from csa_deploy.units import counted
from csa_deploy.workspace import write_atomic

Record = dict[str, Any]
"""A stage's record, as it stands in a workspace; its keys are not part of the stable API."""


@dataclass(frozen=True, repr=False)
class GraphResult(Result):
    """A result that holds a graph.

    Attributes:
        name: of the network.
        sha256: of the graph, as :meth:`save` writes it; empty for one of more than 2 GB.
    """

    name: str
    sha256: str = field(default="", kw_only=True)
    model: onnx.ModelProto | None = field(default=None, compare=False, kw_only=True, metadata=NOT_JSON)
    source: Source | None = field(default=None, compare=False, kw_only=True, metadata=NOT_JSON)

    def __post_init__(self) -> None:
        if self.model is not None:
            object.__setattr__(self, "sha256", _hash_of(self.model))

    @property
    def graph(self) -> onnx.ModelProto:
        """The graph.

        Raises:
            UsageError: the result was read from JSON, which holds no graph.
        """
        if self.model is None:
            raise UsageError(f"{self.name}: read from JSON, without its graph", fix="make the result again")
        return self.model

    def save(self, path: str | Path) -> Path:
        """Write the graph as an ONNX file; equal graphs give equal bytes."""
        from csa_deploy.graph.load import save_model

        save_model(self.graph, Path(path))
        return Path(path)


def _hash_of(model: onnx.ModelProto) -> str:
    try:
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    except (ValueError, EncodeError):  # beyond what one message can hold
        return ""


@dataclass(frozen=True, repr=False)
class Exported(GraphResult):
    """A network as an ONNX graph.

    Attributes:
        preprocessing: how an image becomes its input; None where it takes no image.
        report: what the export states: exporter, opset, inputs and outputs, statistics, differences from PyTorch,
            notes; None for a graph that was given as one.
        settings: with which it was made, by the names of flags, where they are not at their defaults.
    """

    columns: ClassVar[tuple[str, ...]] = ("output", "inputs", "samples", "max_abs_error", "range", "relative")
    preprocessing: Preprocessing | None = None
    report: ExportRecord | None = None
    settings: Record = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Size and agreement with PyTorch."""
        return f"{self.name}: {self.report.summary if self.report else ''}"

    def rows(self) -> list[dict[str, Any]]:
        """One row per comparison with PyTorch."""
        return [difference.to_json() for difference in self.report.differences] if self.report else []


@dataclass(frozen=True, repr=False, kw_only=True)
class CheckReport(Result, Inspected):
    """Verdicts of safety scopes on a graph, with their findings and evidence."""

    derived: ClassVar[tuple[str, ...]] = ("verdict", "rejected")
    columns: ClassVar[tuple[str, ...]] = (
        *("scope", "verdict", "rule", "node", "op", "module", "message", "instead", "repair"),
    )

    @property
    def summary(self) -> str:
        """Verdict of each scope."""
        return f"{self.model}: " + ", ".join(f"{scope.scope} {scope.verdict} ({scope.level})" for scope in self.scopes)

    def rows(self) -> list[dict[str, Any]]:
        """One row per finding."""
        return [
            {"scope": scope.scope, **{name: getattr(finding, name) for name in self.columns[1:]}}
            for scope in self.scopes
            for finding in scope.findings
        ]


_STEP = ("rule", "rewrites", "kept", "error", "what", "reason")


@dataclass(frozen=True, repr=False)
class Optimized(GraphResult):
    """A graph that does the same with less.

    Attributes:
        report: every rewrite that was tried, what they were proved by, and the graph's statistics before and after.
    """

    columns: ClassVar[tuple[str, ...]] = _STEP
    report: OptimizeRecord

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every rewrite that was tried and found something."""
        return self.report.steps

    @property
    def proof(self) -> OptimizeRecord:
        """What they were proved by: on how many inputs, against what, by which tolerance, with which error."""
        return self.report

    @property
    def before(self) -> GraphStatistics:
        """Statistics of the graph as it came."""
        return self.report.before

    @property
    def after(self) -> GraphStatistics:
        """Statistics of the result."""
        return self.report.after

    @property
    def summary(self) -> str:
        """What became smaller, and what it cost in accuracy."""
        return f"{self.name}: {self.report.summary}"

    def rows(self) -> list[dict[str, Any]]:
        """One row per step."""
        return [_step(step) for step in self.report.steps]


def _step(step: Step) -> dict[str, Any]:
    values = (step.rule, step.rewrites, step.kept, step.error, step.summary, step.reason)
    return dict(zip(_STEP, values, strict=True))


@dataclass(frozen=True, repr=False)
class Repaired(GraphResult):
    """A graph repaired for safety scopes; the graph as it came where nothing was repaired.

    Attributes:
        steps: every application of a repair.
        left: what was left as it is, because an asked scope would have been worse off.
        before: the scopes of the graph as it came.
        report: the scopes of the result.
        changed: whether anything was repaired.
        scopes: that were repaired for.
        declined: nodes that a repair left be, though a finding named it, with the reason.
    """

    columns: ClassVar[tuple[str, ...]] = _STEP
    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    before: CheckReport
    report: CheckReport
    changed: bool
    scopes: tuple[str, ...] = ()
    declined: tuple[Note, ...] = ()

    @property
    def summary(self) -> str:
        """Verdicts before and after."""
        pairs = zip(self.before.scopes, self.report.scopes, strict=True)
        said = ", ".join(f"{old.scope} {old.verdict} -> {new.verdict}" for old, new in pairs)
        return f"{self.name}: {'repaired' if self.changed else 'nothing repaired'}: {said}"

    def rows(self) -> list[dict[str, Any]]:
        """One row per step, and one per node or repair that was left."""
        return [_step(step) for step in self.steps] + [
            dict(zip(_STEP, (item.what, 0, False, None, "", item.reason), strict=True)) for item in self.left
        ]


@dataclass(frozen=True, repr=False)
class Half(GraphResult):
    """A graph in FP16.

    Attributes:
        nodes: nodes that compute in FP16.
        casts: Cast nodes in between.
        kept: nodes that stay in FP32, with the reason.
        report: all that typing counted.
    """

    columns: ClassVar[tuple[str, ...]] = ("node", "op", "reason")
    nodes: int
    casts: int
    kept: tuple[KeptNode, ...]
    report: Record = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Nodes by precision."""
        return f"{self.name}: {self.nodes} nodes in FP16, {len(self.kept)} in FP32, {self.casts} casts"

    def rows(self) -> list[dict[str, Any]]:
        """One row per node that stays in FP32."""
        return [{"node": node.name, "op": node.op, "reason": node.reason} for node in self.kept]


@dataclass(frozen=True, repr=False)
class Quantized(GraphResult):
    """A graph in INT8.

    Attributes:
        int8: layers that compute in INT8.
        kept: why, by node that could be INT8 and is not.
        notes: what a user must know of the calibration.
        report: the precision stage's record, with calibration, search and techniques.
    """

    columns: ClassVar[tuple[str, ...]] = ("layer", "precision", "reason")
    int8: tuple[str, ...]
    kept: dict[str, str]
    notes: tuple[str, ...]
    report: PrecisionRecord

    @property
    def summary(self) -> str:
        """Layers by precision."""
        said = f"{self.name}: {len(self.int8)} layers in INT8, {len(self.kept)} kept in floating point"
        return f"{said}; {counted(len(self.notes), 'note')}" if self.notes else said

    def rows(self) -> list[dict[str, Any]]:
        """One row per layer."""
        rows = [{"layer": name, "precision": "int8", "reason": ""} for name in self.int8]
        return rows + [{"layer": n, "precision": "floating point", "reason": why} for n, why in self.kept.items()]


@dataclass(frozen=True, repr=False)
class SplitNetwork(Result):
    """A network in parts: the encoder and its heads.

    Attributes:
        name: of the network.
        report: what the parts are, what crosses between them, how each is built, and what does not fit.
        graphs: the typed graph of each part, by its name.
        files: of the parts, by path: typed graphs, FP32 graphs and calibration caches.
    """

    name: str
    report: SplitRecord
    graphs: dict[str, onnx.ModelProto] = field(default_factory=dict, compare=False, kw_only=True, metadata=NOT_JSON)
    files: dict[str, bytes] = field(default_factory=dict, compare=False, kw_only=True, metadata=NOT_JSON)

    @property
    def parts(self) -> tuple[SplitPart, ...]:
        """The encoder first."""
        return self.report.parts

    @property
    def boundaries(self) -> tuple[CutTensor, ...]:
        """What crosses the cut, with both sides."""
        return self.report.crossing

    @property
    def findings(self) -> tuple[SplitFinding, ...]:
        """What does not fit."""
        return self.report.findings

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """trtexec's words by part; none where this TensorRT cannot build it."""
        return {build.part: build.command for build in self.report.builds}

    @property
    def summary(self) -> str:
        """The parts, and whether they fit together."""
        return f"{self.name}: {self.report.summary}"

    def rows(self) -> list[dict[str, Any]]:
        """One row per part."""
        return self.report.rows()

    def save(self, folder: str | Path) -> Path:
        """Write the files of the parts; the commands are for that folder.

        Raises:
            UsageError: the result was read from JSON, which holds no files.
        """
        if not self.files:
            raise UsageError(f"{self.name}: read from JSON, without its graphs", fix="make the result again")
        for path, content in self.files.items():
            write_atomic(Path(folder) / path, content)
        return Path(folder)


@dataclass(frozen=True, repr=False)
class Built(GraphResult):
    """An engine.

    Attributes:
        precision: fp32, fp16 or int8.
        backend: tensorrt, tensorrt-rtx or trtexec.
        passport: what it is made of, how and by what, with a seal.
        report: what the build states of it.
        engine: its bytes.
        parts: bytes of the files that belong to it, by name; none for an engine of one file.
    """

    precision: str
    backend: str
    passport: Passport
    report: EngineRecord
    engine: bytes | None = field(default=None, compare=False, kw_only=True, metadata=NOT_JSON)
    parts: dict[str, bytes] = field(default_factory=dict, compare=False, kw_only=True, metadata=NOT_JSON)

    @property
    def summary(self) -> str:
        """What was built, by what."""
        stated = self.passport.engine
        return f"{self.name}: {self.precision} engine of {stated.bytes:,} bytes, {self.backend} {stated.tensorrt}"

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        stated = {key: getattr(self.passport.engine, key) for key in ("tensorrt", "bytes", "sha256")}
        return [{"name": self.name, "precision": self.precision, "backend": self.backend, **stated}]

    def save(self, path: str | Path) -> Path:
        """Write the engine, and its passport and its parts beside it.

        Raises:
            UsageError: the result was read from JSON, which holds no engine.
        """
        from csa_deploy.engine.parts import parts_folder
        from csa_deploy.engine.passport import passport_of
        from csa_deploy.workspace import dump_json

        if self.engine is None:
            raise UsageError(f"{self.name}: read from JSON, without its engine", fix="make the result again")
        write_atomic(Path(path), self.engine)
        for name, content in self.parts.items():
            write_atomic(parts_folder(Path(path)) / name, content)
        write_atomic(passport_of(Path(path)), dump_json(self.passport.to_json()))
        return Path(path)
