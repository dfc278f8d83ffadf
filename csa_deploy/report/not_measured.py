"""What was not measured, and why: collected from the records, and grouped by reason for people."""

from __future__ import annotations

from typing import Any


def not_measured(records: dict[str, Any]) -> list[dict[str, str]]:
    """Everything that a stage could not do: ``stage``, ``what`` and ``reason``, each pair of the two once."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for stage, record in records.items():
        items = [(item["what"], item["reason"]) for item in record.get("not_measured", [])]
        for what, said in [*items, *_of_engines(record.get("engines", {}))]:
            reason = _cause(said)
            found.setdefault((what, reason), {"stage": stage, "what": what, "reason": reason})
    return list(found.values())


def by_reason(items: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One entry per ``reason``: every ``what`` that it holds for, the same in ``brief``, and the ``stages``."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        entry = found.setdefault(item["reason"], {"reason": item["reason"], "what": [], "stages": []})
        entry["what"] += [item["what"]] if item["what"] not in entry["what"] else []
        stage = item.get("stage", "")
        entry["stages"] += [stage] if stage and stage not in entry["stages"] else []
    return [{**entry, "brief": _brief(entry["what"])} for entry in found.values()]


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


def _of_engines(engines: dict[str, Any]) -> list[tuple[str, str]]:
    """What the builders left out, in sentences of "what: why"; what several engines lack is named once, with all."""
    found: dict[str, list[str]] = {}
    for precision, engine in engines.items():
        for said in engine["not_done"]:
            found.setdefault(said, []).append(f"engine {precision}")
    parts = ((said.partition(": "), ", ".join(names)) for said, names in found.items())
    return [(f"{what} ({names})", why) for (what, _, why), names in parts]


def _cause(reason: str) -> str:
    """Without the file that cannot run, and without words that the reader has read."""
    return (reason.partition(" cannot run: ")[2] or reason).removeprefix("not measured: ")
