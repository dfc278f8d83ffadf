"""Which versions of TensorRT an erratum is about, as far as its sources say.

A version with fewer parts stands for all that begin with it: ``10`` has a problem that one of its releases has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from csa_deploy.errors import UsageError
from csa_deploy.records.errata import State
from csa_deploy.restricted.schema import version_key

Known = tuple[State, str]
"""The state of a version, and why it is not certain."""


def checked_version(version: str) -> str:
    """The version, or none.

    Raises:
        UsageError: it is no version.
    """
    if version and not re.fullmatch(r"\d+(\.\d+)*", version):
        raise UsageError(f"{version!r} is no TensorRT version", fix="write it as 8.6.12 or 10.3")
    return version


def compared(one: str, other: str) -> int:
    """-1, 0 or 1, by the parts that both have."""
    first, second = version_key(one), version_key(other)
    length = min(len(first), len(second))
    return (first[:length] > second[:length]) - (first[:length] < second[:length])


def is_of(version: str, asked: str) -> bool:
    """Whether a version is the one that was asked about, or of its releases: 10.10.10 of 10.10, but 10.1 is not."""
    return f"{version}.".startswith(f"{asked}.")


@dataclass(frozen=True)
class Versions:
    """What sources say of versions.

    Attributes:
        seen: versions in which a source saw it; none where the sources name none.
        since: first version that has it ('' no source says when it began).
        fixed: first version that has it no more ('' no source knows one).
        right: last earlier version that a source saw to be right ('' none).
    """

    seen: Sequence[str]
    since: str = ""
    fixed: str = ""
    right: str = ""

    def state(self, version: str) -> Known | None:
        """Whether a version has it; None where sources say that it has not. No version: some version has it."""
        if not version:
            return "affected", ""
        if self.fixed and compared(version, self.fixed) >= 0 and not _before(version, self.fixed):
            return None
        if self.since and compared(version, self.since) < 0:
            return None
        if self.right and compared(version, self.right) <= 0 and len(version_key(version)) > 1:
            return None
        ordered = sorted(self.seen, key=version_key)
        if not ordered:
            return "affected", "its sources name no version"
        if compared(version, self.since or ordered[0]) < 0:
            return "not ruled out", f"no source speaks of a version before {ordered[0]}"
        if not self.fixed and compared(version, ordered[-1]) > 0:
            return "not ruled out", f"no source speaks of a version after {ordered[-1]}"
        return "affected", ""

    @property
    def words(self) -> str:
        """``seen in 10.11, 11.1; since unknown (10.7 was right); no fix known``."""
        if not self.seen:
            return "its sources name no version"
        since = f"since {self.since}" if self.since else "since unknown"
        right = f" ({self.right} was right)" if self.right else ""
        fixed = f"fixed in {self.fixed}" if self.fixed else "no fix known"
        return f"seen in {', '.join(self.seen)}; {since}{right}; {fixed}"


def _before(version: str, fixed: str) -> bool:
    """Whether an open version has releases before the one that fixed it: ``10`` and 10.8, ``10.8`` and 10.8.1."""
    given, bound = version_key(version), version_key(fixed)
    return len(given) < len(bound) and bound[: len(given)] == given and any(bound[len(given) :])
