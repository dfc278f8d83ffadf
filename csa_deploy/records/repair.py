"""What the repair stage states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from csa_deploy.records.check import ScopeReport
from csa_deploy.records.graphs import GraphStatistics, Note, Step
from csa_deploy.results import StageRecord, Stored

COUNTED = ("denied", "unknown")
"""Verdicts of findings that a repair cures."""


@dataclass(frozen=True)
class Left:
    """What was not repaired, because an asked scope would have been worse off.

    Attributes:
        what: a node, or a repair as a whole.
        reason: the scope, and what it would say.
    """

    what: str
    reason: str


@dataclass(frozen=True)
class Share:
    """What one repair costs: decibels that the network has more without it."""

    rule: str
    lost_db: float


@dataclass(frozen=True)
class HalfCost(Stored):
    """Signal-to-noise ratio of the FP16 graph against FP32, in dB, for the output that loses most.

    Attributes:
        before_db: without repairs.
        inputs: what was computed.
        shares: the repairs that cost something, looked for where all of them together do.
        not_measured: why there are no numbers; empty otherwise.
    """

    derived: ClassVar[tuple[str, ...]] = ("words",)
    output: str = ""
    before_db: float = 0.0
    after_db: float = 0.0
    inputs: str = ""
    shares: tuple[Share, ...] = ()
    not_measured: str = ""

    @property
    def words(self) -> str:
        """One line."""
        if self.not_measured:
            return f"FP16 not compared: {self.not_measured}"
        said = f"FP16 {self.before_db:.1f} -> {self.after_db:.1f} dB on {self.inputs}"
        costly = ", ".join(f"{share.rule} costs {share.lost_db:.1f} dB" for share in self.shares)
        return f"{said}: {costly}" if costly else said


@dataclass(frozen=True)
class ScopeChange:
    """Verdict and numbers of findings of a scope, before and after."""

    scope: str
    before: str
    after: str
    counts: dict[str, tuple[int, int]]

    @classmethod
    def between(cls, before: Sequence[ScopeReport], after: Sequence[ScopeReport]) -> tuple[ScopeChange, ...]:
        """Of each scope; both are of the same scopes."""
        return tuple(
            cls(old.scope, old.verdict, new.verdict, {key: (old.counts[key], new.counts[key]) for key in COUNTED})
            for old, new in zip(before, after, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class RepairRecord(StageRecord):
    """The repaired graph; the optimized one where nothing was repaired.

    Attributes:
        graph: path inside the workspace.
        left: what was left as it is, for the scopes' sake.
        declined: nodes that a repair left be, though a finding named it, with the reason.
        costs: by precision, what the repairs cost.
    """

    stage: ClassVar[str] = "repair"
    graph: str
    after: GraphStatistics
    scopes: tuple[str, ...]
    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    declined: tuple[Note, ...]
    verdicts: tuple[ScopeChange, ...]
    costs: dict[str, HalfCost] = field(default_factory=dict)
