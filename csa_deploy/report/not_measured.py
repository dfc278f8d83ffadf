"""What was not measured, and why: collected from the records, and grouped by reason for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from csa_deploy.records.build import EngineRecord
from csa_deploy.records.report import Lacking, Records
from csa_deploy.report.not_measured_fixes import ANY_NETWORK, fix_for
from csa_deploy.results import NotMeasured


@dataclass
class Reason:
    """Why something was not measured, the command that would, every ``what`` that it holds for, and the stages."""

    reason: str
    fix: str = ""
    what: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The reason, and the command that would measure it."""
        return f"{self.reason}; {self.fix}" if self.fix else self.reason

    @property
    def brief(self) -> str:
        """What it holds for, with quantities of one engine in brackets behind it."""
        return _brief(self.what)


def not_measured(records: Records, network: str = ANY_NETWORK, workspace: str = "") -> tuple[Lacking, ...]:
    """Everything that a stage could not do, each pair of what and reason once; see :func:`fix_for`."""
    found: dict[tuple[str, str], Lacking] = {}
    for stage, record in records.done.items():
        engines = _of_engines(records.build.engines) if record is records.build and records.build else []
        for item in (*record.not_measured, *engines):
            reason = _cause(item.reason)
            fix = fix_for(item.what, reason, stage, network, workspace)
            found.setdefault((item.what, reason), Lacking(item.what, reason, stage, fix))
    return tuple(found.values())


def by_reason(items: Iterable[NotMeasured]) -> list[Reason]:
    """One entry per reason and command."""
    found: dict[tuple[str, str], Reason] = {}
    for item in items:
        stage, fix = (item.stage, item.fix) if isinstance(item, Lacking) else ("", "")
        entry = found.setdefault((item.reason, fix), Reason(item.reason, fix))
        entry.what += [item.what] if item.what not in entry.what else []
        entry.stages += [stage] if stage and stage not in entry.stages else []
    return list(found.values())


def _brief(names: list[str]) -> str:
    """``engine a, engine b (latency, layers)`` for these two and ``engine a layers`` and ``engine b layers``."""
    first = [name for name in names if not any(name.startswith(f"{other} ") for other in names)]
    heads: dict[str, list[str]] = {name: [] for name in first}
    for name in names:
        head = next((h for h in heads if name.startswith(f"{h} ")), None)
        if head:
            heads[head].append(name.removeprefix(f"{head} "))
    alike: dict[tuple[str, ...], list[str]] = {}
    for head, parts in heads.items():
        alike.setdefault(tuple(parts), []).append(head)
    return ", ".join(
        ", ".join(same) + (f" ({', '.join(('latency', *parts))})" if parts else "") for parts, same in alike.items()
    )


def _of_engines(engines: Mapping[str, EngineRecord]) -> list[NotMeasured]:
    """What the builders left out, in sentences of "what: why"; what several engines lack is named once, with all."""
    found: dict[str, list[str]] = {}
    for precision, engine in engines.items():
        for said in engine.not_done:
            found.setdefault(said, []).append(f"engine {precision}")
    parts = ((said.partition(": "), ", ".join(names)) for said, names in found.items())
    return [NotMeasured(f"{what} ({names})", why) for (what, _, why), names in parts]


def _cause(reason: str) -> str:
    """Without the file that cannot run, and without words that the reader has read."""
    return (reason.partition(" cannot run: ")[2] or reason).removeprefix("not measured: ")
