"""What a project accepts by id: each until a day, for a reason, and only where something rests on it."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator

from csa_deploy.errors import UsageError
from csa_deploy.policy.schema import Accepted, Policy
from csa_deploy.policy.verdict import Requirement
from csa_deploy.restricted.explain import explain


class Acceptances:
    """The accepted ids of a policy, for one network on one day; remembers which were needed.

    Args:
        policy: that accepts.
        today: the day; on the day of expiry an entry still counts.
    """

    def __init__(self, policy: Policy, network: str, today: datetime.date) -> None:
        self._about = [item for item in policy.accepted if not item.networks or network in item.networks]
        self._today = today
        self._needed: set[str] = set()

    def rest_on(self, ids: Collection[str]) -> tuple[str, ...]:
        """Those of the ids that are accepted today; all that are named in the policy count as needed."""
        self._needed |= set(ids)
        return tuple(name for name in ids if name in self._in_force)

    @property
    def _in_force(self) -> set[str]:
        return {item.id for item in self._about if item.expires >= self._today}

    def requirements(self) -> Iterator[Requirement]:
        """Every entry: in force and needed, or a finding."""
        for item in self._about:
            yield self._requirement(item)

    def _requirement(self, item: Accepted) -> Requirement:
        name = f"{item.id} until {item.expires}"
        if item.expires < self._today:
            days = (self._today - item.expires).days
            return Requirement("acceptance", name, "fail", f"expired {days} days ago: {item.reason}")
        if item.id in self._needed:
            return Requirement("acceptance", name, "pass", item.reason, accepted=(item.id,))
        return Requirement("acceptance", name, "fail", f"unused: {_why_unused(item.id)}")


def _why_unused(name: str) -> str:
    try:
        explain(name)
    except UsageError as error:
        return str(error)
    return "nothing that was judged meets it; strike it, or name its networks"
