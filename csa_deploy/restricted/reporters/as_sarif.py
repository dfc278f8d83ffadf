"""The report as SARIF 2.1.0, for code scanning and review tools.

Denied is an error, unknown a warning, a note a note. Rules are named ``scope/rule``, because scopes judge alone. Known
problems of TensorRT are ``errata/id``, with a warning where they are severe.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from csa_deploy import __version__
from csa_deploy.records.check import Finding, Inspected
from csa_deploy.restricted.reporters.grouping import errata_findings

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"denied": "error", "unknown": "warning", "note": "note"}


def render(data: Inspected) -> str:
    """The report as one SARIF run."""
    rules: list[dict[str, Any]] = []
    indices: dict[str, int] = {}
    results = []
    found = [(report.scope, finding) for report in data.scopes for finding in report.findings]
    found += [("errata", finding) for finding in (errata_findings(data.errata) if data.errata else ())]
    for scope, finding in found:
        name = f"{scope}/{finding.rule}"
        index = indices.setdefault(name, len(indices))
        if index == len(rules):
            rules.append(_rule(name, finding))
        results.append(_result(name, index, finding, scope, data.model))
    driver = {"name": "csa-deploy", "version": __version__, "rules": rules}
    verdicts = {report.scope: f"{report.said} (evidence: {report.level})" for report in data.scopes}
    run = {
        "tool": {"driver": driver},
        "artifacts": [{"location": {"uri": quote(data.model)}}],
        "results": results,
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdicts": verdicts,
            "notDone": list(data.not_done),
            "contradictions": list(data.notes),
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False) + "\n"


def _rule(name: str, finding: Finding) -> dict[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": f"{finding.rule} ({finding.layer or 'TensorRT'})"},
        "fullDescription": {"text": f"Source: {finding.source}"},
        "help": {"text": finding.instead or "No replacement is known."},
        "defaultConfiguration": {"level": _LEVELS[finding.verdict]},
        "properties": {"evidence": finding.evidence, "since": finding.since, "repair": finding.repair},
    }


def _result(name: str, index: int, finding: Finding, scope: str, model: str) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": quote(model), "index": 0}}}
    if finding.node:
        qualified = "/".join(part for part in (finding.module, finding.node) if part)
        location["logicalLocations"] = [
            {"name": finding.node, "fullyQualifiedName": qualified, "kind": "member"},
        ]
    return {
        "ruleId": name,
        "ruleIndex": index,
        "level": _LEVELS[finding.verdict],
        "message": {"text": finding.message},
        "locations": [location],
        "properties": {"scope": scope, "layer": finding.layer, "op": finding.op},
    }
