"""What the report stage states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.results import StageRecord


@dataclass(frozen=True, kw_only=True)
class ReportRecord(StageRecord):
    """The verdict, and where the page is."""

    stage: ClassVar[str] = "report"
