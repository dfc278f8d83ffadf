"""Put the probes to the validator, one after the other, in child processes that may crash."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from csa_deploy.restricted.validator import ValidatorSession, interpret
from tools.probe import plan_attributes, plan_onnx, plan_ranks, plan_types, plan_windows
from tools.probe.evidence import Evidence, Finding
from tools.probe.probe import Probe, distinct

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT = 30.0

log = logging.getLogger(__name__)


def plan() -> list[Probe]:
    """Return every probe, always in the same order."""
    parts = (plan_types, plan_ranks, plan_windows, plan_attributes, plan_onnx)
    return list(distinct(item for part in parts for item in part.probes()))


def ask(
    probes: Iterable[Probe],
    session: ValidatorSession,
    *,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Ask the validator about each probe.

    Args:
        probes: the probes.
        session: a session whose child is :data:`WORKER`.
        kept: file of the replies so far; a killed run that is started again goes on after the last of them.
        progress: called with the number of answered probes and of all probes.
    """
    todo = list(probes)
    known = dict(_replies(kept)) if kept else {}
    findings = []
    for done, item in enumerate(todo, start=1):
        request = _request(item)
        key = hashlib.sha256(json.dumps([item.id, request], sort_keys=True).encode()).hexdigest()[:16]
        reply = known.get(key)
        if reply is None:
            reply = session.exchange(request)
            _keep(kept, key, reply)
        if "end" in reply:
            log.warning("probe %s: the validator %s (%s)", item.id, reply["end"], reply["reason"])
        findings.append(finding(item.id, reply))
        if progress:
            progress(done, len(todo))
    return Evidence(session.version, session.compute_capability, tuple(findings))


def finding(name: str, reply: dict[str, Any]) -> Finding:
    """Turn the worker's reply into a finding: refused layers are found again by name."""
    verdict = interpret(reply)
    layers = tuple(reply.get("facts", ())) if verdict["answer"] in ("accepted", "refused", "skipped") else ()
    places = {layer: place for place, layer in enumerate(reply.get("names", ()), start=1)}
    refused = {}
    for item in verdict.get("refused", ()):
        limits = tuple(sorted({reason[1:].split("]")[0] for reason in item.reasons}))
        refused[0 if item.layer == "Network" else places[item.name]] = limits
    return Finding(name, verdict["answer"], layers, refused)


def _request(item: Probe) -> dict[str, Any]:
    if item.onnx:
        return {"onnx": base64.b64encode(plan_onnx.build(item.onnx)).decode()}
    return {"statements": list(item.statements)}


def _replies(kept: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            try:
                key, reply = json.loads(line)
            except ValueError:  # the line that the killed run was writing
                return
            yield key, reply


def _keep(kept: Path | None, key: str, reply: dict[str, Any]) -> None:
    if kept:
        with kept.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([key, reply]) + "\n")
