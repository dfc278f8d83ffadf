"""The headline: what a pass covers, each gate with its own state and evidence. Gates are never mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from csa_deploy import units
from csa_deploy.report.labels import rank, reference_of

GATE_OF = {"verify": "accuracy", "profile": "latency and memory"}
_STATE = {"allowed": "pass", "with GPU fallback": "pass", "denied": "fail"}
STATES = ("fail", "undecided", "not measured", "not run", "not counted", "pass")


def gate_states(records: dict[str, Any], measurements: dict[str, Any]) -> list[dict[str, str]]:
    """Every gate with ``name``, ``state`` (one of :data:`STATES`), ``text`` and ``evidence``.

    Restricted mode counts only where it was asked for, and always with its level of evidence.
    """
    found = _accuracy(records)
    found += _built(records.get("build", {}).get("engines", {}))
    measured_by = {m["label"]: m["evidence"] for m in records.get("profile", {}).get("measured", [])}
    found += [limit_gate(gate, measured_by) for gate in measurements.get("profile", {}).get("gates", [])]
    asked = records.get("check", {}).get("gate_why") or records.get("check", {}).get("gate")
    found += [_placed(part) for part in records.get("split", {}).get("placements", [])] if asked else []
    if "check" in records and not asked:
        text = "restricted mode was checked and does not count: --restricted was not given"
        found.append({"name": "restricted mode", "state": "not counted", "text": text, "evidence": ""})
    return found


def _accuracy(records: dict[str, Any]) -> list[dict[str, str]]:
    verified = records.get("verify")
    if not verified:
        return []
    data = verified["data"]
    by_state: dict[str, list[str]] = {}
    for candidate in verified["candidates"]:
        by_state.setdefault(candidate["verdict"], []).append(candidate["label"])
    worst = next((v for v in ("fail", "undecided") if v in by_state), "pass")
    lacking = [m["what"] for m in verified.get("not_measured", []) if m["what"].startswith("engine")]
    covered = "; ".join((f"{state}: " if len(by_state) > 1 else "") + ", ".join(by_state[state]) for state in by_state)
    text = f"accuracy budgets on {data['samples']} samples: {covered}"
    if lacking:
        text += f"; {', '.join(sorted(lacking, key=rank))} did not run here"
    evidence = f"compared with {reference_of(verified)} on {data['name']}"
    return [{"name": "accuracy", "state": verified.get("verdict", worst), "text": text, "evidence": evidence}]


def _built(engines: dict[str, Any]) -> list[dict[str, str]]:
    """One gate per scope, verdict and level, with all graphs that it holds for."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for precision, engine in engines.items():
        for scope in engine.get("scopes", []):
            words = scope.get("said", scope["verdict"])
            said = (scope["scope"], scope["verdict"], words, scope["level"], scope.get("of", ""))
            alike.setdefault(said, []).append(precision)
    return [
        {
            "name": "restricted mode",
            "state": _STATE.get(verdict, "undecided"),
            "text": f"restricted mode, {', '.join(sorted(precisions, key=rank))} {f'({of})' if of else 'as built'}: "
            f"{scope} {words} (evidence: {level})",
            "evidence": level,
        }
        for (scope, verdict, words, level, of), precisions in alike.items()
    ]


def _placed(part: dict[str, Any]) -> dict[str, str]:
    """The gate of a part that is for a DLA."""
    text = f"restricted mode, {part['part']} on its DLA: {part['scope']} {part['verdict']}, {part['said']}"
    state = _STATE.get(part["verdict"], "undecided")
    return {"name": "restricted mode", "state": state, "text": f"{text} (evidence: static)", "evidence": "static"}


def limit_gate(gate: dict[str, Any], measured_by: dict[str, str]) -> dict[str, str]:
    """A limit or a baseline that something was held against, as a gate."""
    text = f"{gate['label']} {gate['quantity']} "
    if "baseline" in gate["quantity"]:
        text += against_baseline(gate)
        text += "" if word_of(gate) == gate["verdict"] else f": {word_of(gate)}"
    else:
        text += f"at most {gate['bound']:g}"
        text += "" if gate["value"] is None else f": {gate['value']:g} ({units.span(gate['low'], gate['high'])})"
    if gate["reason"]:
        text += f": {gate['reason']}"
    evidence = measured_by.get(gate["label"], "")
    if gate["quantity"].endswith("_mib"):
        evidence = "counted in the file" if gate["value"] is not None else ""
    return {"name": "latency and memory", "state": gate["verdict"], "text": text, "evidence": evidence}


def against_baseline(gate: dict[str, Any]) -> str:
    """``+10.9 % (99 % interval -1.0 to +20.0 %), allowed 2 %``: a baseline's gate in percent, as people say it."""
    allowed = f"allowed {100 * gate['bound']:g} %"
    if gate["value"] is None:
        return allowed
    between = units.span(gate["low"], gate["high"], units.slowdown)
    return f"{units.slowdown(gate['value'])} % (99 % interval {between} %), {allowed}"


def word_of(gate: dict[str, Any]) -> str:
    """A gate's verdict in a word that says no more than was shown.

    A baseline's gate fails only where a slow-down is shown. One whose interval reaches beyond the allowed slow-down
    did not fail, but did not show that it is within it either: ``no difference shown``, or ``undecided`` where a
    slow-down is shown and its size is not.
    """
    if "baseline" not in gate["quantity"] or gate["verdict"] != "pass":
        return str(gate["verdict"])
    if gate["high"] is not None and gate["high"] <= 1 + gate["bound"]:
        return "pass"
    return "no difference shown" if gate["low"] <= 1 else "undecided"


def verdict(
    passed: dict[str, bool], order: Sequence[str], records: dict[str, Any], measurements: dict[str, Any]
) -> dict[str, Any]:
    """``state`` (``pass``, ``fail`` or ``incomplete``), ``reasons`` (stages that failed or did not run),
    ``gates`` in words and ``checks``, the same with their states.

    Args:
        passed: whether each stage that was run passed.
        order: all stages.
        records: results by stage.
        measurements: measurements by stage.
    """
    checks = gate_states(records, measurements)
    failed = [name for name in records if not passed[name]]
    said = {c["name"] for c in checks if c["state"] == "fail"}
    reasons = [f"{name} failed: {records[name]['summary']}" for name in failed if GATE_OF.get(name) not in said]
    missing = [name for name in order if name not in records]
    reasons += [f"{name} was not run" for name in missing]
    undecided = any(c["state"] in ("undecided", "not measured") for c in checks)
    state = "fail" if failed else "incomplete" if missing or undecided else "pass"
    return {"state": state, "reasons": reasons, "gates": [c["text"] for c in checks], "checks": checks}
