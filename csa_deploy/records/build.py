"""What the build stage states: engines, with what was asked, what the builder read, and what it proves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from csa_deploy.levels import is_at_least, why_not
from csa_deploy.records.check import Verdict
from csa_deploy.records.obtained import ObtainedPrecision
from csa_deploy.results import IF_KNOWN, StageRecord, Stored

_NEXT = {
    "validator": "the flag does not act in the builder itself, which stood in for the target's",
    "restricted-build": "the engine is a standard one; add --safe on DRIVE OS with the safety packages",
}
Role = Literal["companion", "checker-blob", "plugin-build", "plugin-run", "other"]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the parsed network; ``dtype`` is TensorRT's name (``"FLOAT"``, ``"HALF"``), -1 a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Part(Stored):
    """One file that belongs to an engine.

    Attributes:
        file: its name, as the builder gave it: the runtime may look for that.
        names: of a plugin library, the creators in it (``NS::NAME,...``).
    """

    role: Role
    file: str
    sha256: str
    bytes: int
    names: str = ""


@dataclass(frozen=True)
class RestrictedFlag(Stored):
    """The safety-scope flag in one build, and what it proves.

    Attributes:
        builder: builder and version, in words.
        requested: whether the plan asked for it.
        accepted: whether this version has the flag and took it.
        acts: whether this version checks anything when the flag is set.
        evidence: level of evidence that an acting flag, or a safety build, gives (:data:`csa_deploy.levels.LEVELS`).
        skipped: the builder's own log line that says that it skipped the check; empty when it did not.
        why_not_next: why the evidence is not of the next level, which is named; empty at the strongest, and where
            there is none, which the statement says.
    """

    derived: ClassVar[tuple[str, ...]] = ("level", "statement")
    builder: str
    requested: bool
    accepted: bool
    acts: bool
    evidence: str
    skipped: str = ""
    why_not_next: str = ""

    @classmethod
    def told(cls, *, evidence: str, beyond: str = "", **stated: Any) -> RestrictedFlag:
        """The flag with why its evidence is not of the next level; of a safety build ``beyond`` says that."""
        found = cls(evidence=evidence, **stated)
        reason = why_not(found.level, beyond or _NEXT.get(found.level, "")) if found.level else ""
        return cls(evidence=evidence, why_not_next=reason, **stated)

    @property
    def level(self) -> str | None:
        """Level of evidence this build adds; None when it adds none."""
        return self.evidence if self.requested and self.accepted and self.acts and not self.skipped else None

    @property
    def statement(self) -> str:
        """One sentence for the report: the level reached, or why the build adds nothing."""
        if not self.requested:
            return "restricted: not requested, so this build says nothing about restricted mode"
        if self.level is not None:
            what = "built it as a safety engine" if self.is_safe else "checked the network and accepted it"
            return f"restricted: {self.builder} {what} (level {self.level})"
        return f"restricted: no evidence from this build, {self._why_not()}; the level stays what the checker reached"

    @property
    def is_safe(self) -> bool:
        """Whether the evidence is a safety build's, and not of the flag alone."""
        return is_at_least(self.evidence, "safety-build")

    def _why_not(self) -> str:
        if not self.accepted:
            return f"{self.builder} has no safety-scope flag"
        if not self.acts:
            return f"{self.builder} accepts the safety-scope flag and ignores it"
        return f"{self.builder} skipped the check ({self.skipped})"


@dataclass(frozen=True)
class JudgedScope(Stored):
    """What a scope that decides says of an engine.

    Attributes:
        graph: which file was judged.
        of: why that is not the one that was built; empty where it is.
        verdict: of the rules, the validator and what may fall back.
        unknown_by: ids of the rules that leave it unknown.
    """

    scope: str
    graph: str
    of: str
    verdict: Verdict
    said: str
    level: str
    why_not_next: str
    unknown_by: tuple[str, ...] = field(default=(), metadata=IF_KNOWN)


@dataclass(frozen=True, kw_only=True)
class BuiltEngine(Stored):
    """What is the same for the same graph, plan and builder; see :class:`csa_deploy.engine.result.BuildResult`.

    Attributes:
        backend: ``"tensorrt"``, ``"tensorrt-rtx"`` or ``"trtexec"``.
        model: file name of the ONNX graph.
        flags: builder flags that were set, read back from the builder.
        warnings: the builder's warnings, each once.
        restricted: the safety-scope flag and what it proves.
        not_done: what was not done or measured, each with its reason.
        command: trtexec's command line; empty for the other builders.
        machine: the target, in its own words; empty for this machine.
        size_note: why the engine is much larger than its weights; empty where it is not.
        parts: files that belong to the engine, beside it.
        builder_option: options that the user gave for the builder.
    """

    backend: str
    version: str
    model: str
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    warnings: tuple[str, ...]
    restricted: RestrictedFlag
    not_done: tuple[str, ...]
    command: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    size_note: str = ""
    parts: tuple[Part, ...] = field(default=(), metadata=IF_KNOWN)
    builder_option: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineRecord(BuiltEngine):
    """An engine of a workspace; paths are inside of it.

    Attributes:
        plan: what was asked; see :class:`csa_deploy.engine.plan.BuildPlan`.
        engine_bytes: exact size of the engine, and
        engine_sha256: its hash, where builds of the same inputs give the same bytes; else these are measurements.
        log: path of the builder's log.
        inspection: file name of the engine inspector's JSON, beside the engine; None where there is none.
        network: path of the parsed layers.
        layer_counts: layers per TensorRT type, most frequent first.
        dtype_counts: layer outputs per TensorRT type, most frequent first.
        scopes: what scopes that decide say of it; none without ``--restricted``.
        obtained: the precision that it obtained; None in records of versions that did not state it.
    """

    plan: dict[str, Any]
    path: str
    engine: str
    engine_mib: float
    engine_bytes: int | None = field(default=None, metadata=IF_KNOWN)
    engine_sha256: str | None = field(default=None, metadata=IF_KNOWN)
    log: str
    inspection: str | None
    network: str
    passport: str
    layer_counts: dict[str, int]
    dtype_counts: dict[str, int]
    scopes: tuple[JudgedScope, ...] = ()
    obtained: ObtainedPrecision | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True, kw_only=True)
class BuildRecord(StageRecord):
    """The engines, by precision."""

    stage: ClassVar[str] = "build"
    engines: dict[str, EngineRecord]
