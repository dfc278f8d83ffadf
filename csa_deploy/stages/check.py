"""The check stage: the exported graph, its constants folded, or the repaired one against the safety scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.records.check import CheckRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.restricted.fallback import require_dla
from csa_deploy.restricted.inspection import inspect, rejection
from csa_deploy.restricted.schema import load_pack, pack_files
from csa_deploy.restricted.scopes import gates_of, judged_scopes
from csa_deploy.restricted.validator import validator_status
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.restricted.inspection import GateResult
    from csa_deploy.restricted.scopes import Gates


def preflight(context: Context) -> None:
    """Refuse scopes that nobody knows, or that say nothing about the target, before anything runs."""
    for scope in context.config.scope:
        load_pack(scope)
    gates = gates_of(context.config)
    judged = judged_scopes(context.config)
    require_dla(gates.scopes if context.config.restricted else judged, context.config.max_fallback)


def key_parts(context: Context) -> dict[str, Any]:
    """The rule packs, and whether the validator can be asked."""
    packs = {name: sha256_of(path) for name, path in pack_files().items()}
    gates, asked = gates_of(context.config), judged_scopes(context.config)
    judged = {} if asked == list(context.config.scope) else {"judged": asked}
    return {
        **judged,
        "packs": packs,
        "validator": validator_status().installed,
        "gates": gates.scopes,
        "why": gates.why,
    }


def run(context: Context) -> StageOutput[CheckRecord]:
    """Check every scope that was asked for, or all; gate on the deciding ones when ``restricted`` is set."""
    config = context.config
    source = (context.floating() if config.fix else context.export).graph
    repaired = config.fix and source != context.workspace.read(OptimizeRecord).graph
    graph = context.path(source)
    result = inspect(
        graph, judged_scopes(config), strict=config.strict, folded=not config.fix, progress=context.progress
    )
    result = result.allowing(config.max_fallback)
    gates = gates_of(config)
    record = CheckRecord(
        summary=_summary(result, gates if config.restricted else None),
        gate=tuple(gates.scopes) if config.restricted else (),
        gate_why=gates.why if config.restricted else "",
        judged=result.report.model,
        of=("repaired" if repaired else "optimized") if config.fix else "exported",
        **result.said(),
    )
    failure = None
    if config.restricted:
        failure = rejection(result.only(gates.scopes), config.strict, context.name, fixed=config.fix)
    return StageOutput(record, failure=failure)


def _summary(result: GateResult, gates: Gates | None) -> str:
    """The verdicts, those that decide first, in one line with the reason why they do."""
    said = {s.report.scope: f"{s.report.scope} {s.combined.said} ({s.level})" for s in result.scopes}
    if gates is None:
        return f"{', '.join(said.values())}; none decides without --restricted"
    deciding = [said.pop(name) for name in gates.scopes if name in said]
    rest = f"; for information: {', '.join(said.values())}" if said else ""
    return f"{', '.join(deciding)}; deciding, as {gates.why}{rest}"
