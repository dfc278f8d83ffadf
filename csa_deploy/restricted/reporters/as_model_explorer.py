"""Node data for Model Explorer: the worst verdict of each node that a scope has something to say about.

The schema is ``GraphNodeData`` of the package ai-edge-model-explorer (``node_data_builder.py`` of 0.1.34): results by
node id or by the name of an output. A finding names its node by its name, or by its first output where it has none.
"""

from __future__ import annotations

import json

from csa_deploy.records.check import Inspected, Verdict, worst

_COLORS = {"denied": "#b42318", "unknown": "#8a5a00", "with GPU fallback": "#0b6e99"}


def render(data: Inspected) -> str:
    """JSON text; open it beside the graph with *upload node data*."""
    found: dict[str, set[Verdict]] = {}
    for scope in data.scopes:
        for finding in scope.findings:
            if finding.node and finding.verdict != "note":
                found.setdefault(finding.node, set()).add("with GPU fallback" if scope.accepted else finding.verdict)
    results = {}
    for node, verdicts in sorted(found.items()):
        verdict = worst(verdicts)
        results[node] = {"value": verdict, "bgColor": _COLORS[verdict], "textColor": "#ffffff"}
    said = (f"{scope.scope} {scope.verdict} ({scope.level})" for scope in data.scopes)
    shown = {"name": f"csa-deploy check: {', '.join(said)}", "results": results, "showExpandedSummaryOnGroupNode": True}
    return json.dumps(shown, indent=2) + "\n"
