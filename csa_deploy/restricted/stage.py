"""The check stage: the exported graph, or the repaired one, against the safety scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.restricted.gate import gate_scopes, inspect, rejection
from csa_deploy.restricted.schema import load_pack, pack_files
from csa_deploy.restricted.validator import validator_status
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context


def preflight(context: Context) -> None:
    """Refuse a scope that nobody knows."""
    for scope in context.config.scope:
        load_pack(scope)


def key_parts(context: Context) -> dict[str, Any]:
    """The rule packs, and whether the validator can be asked."""
    packs = {name: sha256_of(path) for name, path in pack_files().items()}
    return {"packs": packs, "validator": validator_status().installed}


def run(context: Context) -> StageOutput:
    """Check every scope that was asked for, or all; gate on the asked ones when ``restricted`` is set."""
    config = context.config
    graph = context.path((context.floating() if config.fix else context.workspace.record("export"))["graph"])
    result = inspect(graph, config.scope, strict=config.strict, progress=context.progress)
    gates = gate_scopes(config.scope)
    record = {
        "summary": ", ".join(f"{s.report.scope} {s.verdict} ({s.level})" for s in result.scopes),
        "gate": gates if config.restricted else [],
        "judged": "repaired graph" if config.fix else "exported graph",
        **result.to_json(),
    }
    failure = (
        rejection(result.only(gates), config.strict, context.name, fixed=config.fix) if config.restricted else None
    )
    return StageOutput(record, failure=failure)
