"""The check stage: the exported graph, its constants folded, or the repaired one against the safety scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.records.check import CheckRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.restricted.errata.asking import errata_asked, errata_failure
from csa_deploy.restricted.errata.schema import ERRATA_FOLDER
from csa_deploy.restricted.fallback import require_dla
from csa_deploy.restricted.inspection import inspect, rejection
from csa_deploy.restricted.schema import load_pack, pack_files
from csa_deploy.restricted.scopes import gates_of, gates_of_whole, judged_scopes
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
    """The rule packs, the errata and what they are asked, and whether the validator can be asked."""
    packs, question = {name: sha256_of(path) for name, path in pack_files().items()}, errata_asked(context.config)
    errata = {path.name: sha256_of(path) for path in sorted(ERRATA_FOLDER.glob("*.toml"))} if question else {}
    gates, asked = gates_of_whole(context.config), judged_scopes(context.config)
    judged = {} if asked == list(context.config.scope) else {"judged": asked}
    known = {"packs": packs, "errata": errata, "asked": repr(question), "validator": validator_status().installed}
    return {**judged, **known, "gates": gates.scopes, "why": gates.why}


def run(context: Context) -> StageOutput[CheckRecord]:
    """Check every scope that was asked for, or all; gate on the deciding ones when ``restricted`` is set."""
    config = context.config
    source = (context.floating() if config.fix else context.export).graph
    repaired = config.fix and source != context.workspace.read(OptimizeRecord).graph
    graph = context.path(source)
    result = inspect(
        graph,
        judged_scopes(config),
        strict=config.strict,
        folded=not config.fix,
        errata=errata_asked(config),
        progress=context.progress,
    )
    result = result.allowing(config.max_fallback)
    gates = gates_of_whole(config)
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
    failure = failure or errata_failure(result.errata, config.fail_on, context.name)
    return StageOutput(record, failure=failure)


def _summary(result: GateResult, gates: Gates | None) -> str:
    """The verdicts, those that decide first, in one line with the reason why they do."""
    said = {s.report.scope: f"{s.report.scope} {s.combined.said} ({s.level})" for s in result.scopes}
    known = f"; {result.errata.summary}" if result.errata is not None else ""
    if gates is None or not gates.scopes:
        why = " without --restricted" if gates is None else f": {gates.why}"
        return f"{', '.join(said.values())}; none decides{why}{known}"
    deciding = [said.pop(name) for name in gates.scopes if name in said]
    rest = f"; for information: {', '.join(said.values())}" if said else ""
    return f"{', '.join(deciding)}; deciding, as {gates.why}{rest}{known}"
