"""The verdict of a policy: every requirement with its state and what shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from csa_deploy.errors import PolicyGateError
from csa_deploy.results import Stored

Kind = Literal["bundle", "own gates", "scope", "errata", "accuracy", "limit", "signature", "acceptance"]
State = Literal["pass", "fail", "undecided", "not measured", "not applicable"]


@dataclass(frozen=True)
class Requirement:
    """One thing that a policy asks.

    Attributes:
        name: what is asked, in words.
        state: ``not applicable`` counts neither way: it is about another precision than the bundle's.
        evidence: what shows it.
        accepted: ids of what the policy accepts and this rests on.
    """

    kind: Kind
    name: str
    state: State
    found: str
    evidence: str = ""
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyVerdict(Stored):
    """What a policy says of a deployment.

    Attributes:
        policy_sha256: of its file.
        judged_on: the day, for what expires.
        requirements: all of them, in the order of the policy's keys.
    """

    derived: ClassVar[tuple[str, ...]] = ("schema_version", "verdict", "summary")
    schema_version: ClassVar[int] = 1
    policy: str
    policy_sha256: str
    deployment: str
    network: str
    judged_on: str
    requirements: tuple[Requirement, ...]

    @property
    def unmet(self) -> tuple[Requirement, ...]:
        """What is not met, what fails first."""
        order = ("fail", "undecided", "not measured")
        return tuple(sorted((r for r in self.requirements if r.state in order), key=lambda r: order.index(r.state)))

    @property
    def verdict(self) -> Literal["accepted", "rejected", "incomplete"]:
        """``rejected`` where a requirement fails; ``incomplete`` where one is open, or all are about something else."""
        if not self.unmet:
            return "accepted" if any(r.state == "pass" for r in self.requirements) else "incomplete"
        return "rejected" if self.unmet[0].state == "fail" else "incomplete"

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        met = sum(r.state == "pass" for r in self.requirements)
        counted = met + len(self.unmet)
        return f"{self.verdict} by policy '{self.policy}': {met} of {counted} requirements met"

    def failure(self) -> PolicyGateError | None:
        """The error of a deployment that is not accepted; it names the first requirement that is not met."""
        if self.verdict == "accepted":
            return None
        first = next(iter(self.unmet), None)
        why = f": {first.kind}: {first.name}: {first.state}, {first.found}" if first else ": nothing it asks applies"
        return PolicyGateError(
            f"{self.deployment}: {self.summary}{why}",
            fix="meet it, or accept what may be accepted in the policy, with a reason and a day; docs/gate.md says how",
        )
