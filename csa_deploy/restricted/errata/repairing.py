"""Exact repairs of known problems, before those for scopes: none of them makes one of the scopes worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.repair import repair
from csa_deploy.records.repair import Left
from csa_deploy.restricted.errata.finding import Question, known_problems
from csa_deploy.restricted.inspection import GateResult, inspect
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.repairing import Progress, ScopeRepair, repair_for_scopes, worse


def repair_known(
    path: Path,
    scopes: Sequence[str],
    question: Question | None,
    *,
    before: GateResult | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ScopeRepair:
    """Repair what TensorRT is known to get wrong, then what the scopes deny.

    Args:
        path: ONNX file of static shape; not changed.
        scopes: scopes to repair for; see :func:`.repairing.repair_for_scopes`.
        question: what errata are asked; None: nothing, and the scopes alone decide.
        before: what :func:`.inspection.inspect` said of the file, these scopes and this question among others.
        strict: see there.
        progress: called with (repairs tried, repairs) again and again.
    """
    before = before or inspect(path, scopes, strict=strict, errata=question)
    problems = before.errata.affected if before.errata is not None else ()
    names = {problem.repair for problem in problems if problem.repair}
    if not names or question is None:
        return repair_for_scopes(path, scopes, before=before, strict=strict, progress=progress)
    result = repair(load_model(path, full_check=False), names, progress=progress)
    kept = [step.rule for step in result.steps if step.kept and step.rule in names]
    with TemporaryDirectory(prefix="csa-deploy-") as scratch:
        changed = Path(scratch) / path.name
        save_model(result.model, changed)
        every = [scope.report.scope for scope in before.scopes]
        after = inspect(changed, every, strict=strict, errata=question)
        against = worse(before.only(scopes), after.only(scopes))
        if not kept or against:
            found = repair_for_scopes(path, scopes, before=before, strict=strict, progress=progress)
            left = tuple(Left(name, f"{against} would have more against it") for name in kept)
            return replace(found, left=(*left, *found.left), declined=(*result.declined, *found.declined))
        found = repair_for_scopes(changed, scopes, before=after, strict=strict, progress=progress)
    model = result.model if found.model is None else found.model
    return replace(
        found,
        model=model,
        steps=(*result.steps, *found.steps),
        before=before,
        after=replace(found.after, errata=known_problems(load_graph(model), question)),
    )
