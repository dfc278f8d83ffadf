"""What is known of TensorRT's own faults about one graph, in one version, on one platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from csa_deploy.results import Stored

Symptom = Literal["wrong-result", "build-failure", "slow", "non-deterministic"]
Severity = Literal["high", "medium", "low"]
State = Literal["affected", "not ruled out"]

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
"""Worst first: silently wrong numbers; no engine, or wrong ones where it shows; time or a small difference."""


@dataclass(frozen=True)
class KnownProblem:
    """One erratum of a pack that this graph may meet.

    Attributes:
        id: as ``csa-deploy errata --explain`` takes it.
        state: ``affected`` where the version is one that the sources name, and the graph has the pattern; ``not ruled
            out`` where the sources do not speak of the version, or a fact that decides is not known.
        why: what is not known, of the second.
        nodes: nodes that have the pattern; none where it is about the whole network.
        modules: PyTorch modules that they came from.
        versions: affected versions in words.
        sources: where that is said.
        read: day on which the sources were read; they may have moved since.
        repair: exact repair that ``--fix`` applies ('' none).
        detect: what ``verify`` shows.
    """

    id: str
    title: str
    state: State
    why: str
    symptom: Symptom
    severity: Severity
    nodes: tuple[str, ...]
    modules: tuple[str, ...]
    versions: str
    sources: tuple[str, ...]
    read: str
    workaround: str
    repair: str
    detect: str


@dataclass(frozen=True)
class ErrataReport(Stored):
    """The known problems of one graph.

    Attributes:
        tensorrt: the version asked about ('' every one).
        platform: platform of the target, and whether DLA runs it ('' every one).
        problems: what applies, the certain first, then the worst.
        unknown: where the packs know nothing; the absence of a problem means nothing there.
        read: newest day on which sources were read.
    """

    tensorrt: str
    platform: str
    precisions: tuple[str, ...]
    problems: tuple[KnownProblem, ...]
    unknown: tuple[str, ...] = ()
    read: str = ""
    derived: ClassVar[tuple[str, ...]] = ("summary",)

    @property
    def affected(self) -> tuple[KnownProblem, ...]:
        """Those that are certain."""
        return tuple(problem for problem in self.problems if problem.state == "affected")

    @property
    def summary(self) -> str:
        """``3 known problems of TensorRT 10.11 (1 high), 2 not ruled out``."""
        sure, rest = self.affected, len(self.problems) - len(self.affected)
        worst = sum(problem.severity == "high" for problem in sure)
        counted = f"{len(sure) or 'no'} known problem{'' if len(sure) == 1 else 's'}"
        where = f" of TensorRT {self.tensorrt}" if self.tensorrt else " of TensorRT in any version"
        return f"{counted}{where}{f' ({worst} high)' if worst else ''}{f', {rest} not ruled out' if rest else ''}"

    def at_least(self, severity: Severity) -> Sequence[KnownProblem]:
        """The certain ones of a severity or worse."""
        return [p for p in self.affected if SEVERITIES.index(p.severity) <= SEVERITIES.index(severity)]
