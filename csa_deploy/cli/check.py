"""``csa-deploy check`` and ``csa-deploy rules``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.stages import Network
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from csa_deploy.config import Config
    from csa_deploy.records.check import Inspected, ScopeRecord
    from csa_deploy.restricted.errata.finding import Question
    from csa_deploy.restricted.schema import Pack


@flags("check")
def check(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    output_format: str = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report there instead of standard output.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair exactly what can be, check the result and save it.")
    ] = False,
    fixed: Annotated[
        Path | None, typer.Option("--fixed", help="Where --fix saves the graph; default NAME.fixed.onnx.")
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option("--annotate", help="Save the graph there with the verdicts as metadata of its nodes.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain a rule, or a known problem, instead.")
    ] = None,
) -> None:
    """Check operations against safety scopes.

    Each verdict comes with its evidence: rule packs, and NVIDIA's own validator where it is installed. Exit 4 when a
    scope denies the network. Without --scope, all scopes. With --errata also what this TensorRT is known to get wrong.
    """
    from csa_deploy.restricted.fallback import require_dla
    from csa_deploy.restricted.inspection import gate_scopes, inspect, rejection
    from csa_deploy.restricted.scopes import judged_scopes, version_asked

    if explain is not None:
        from csa_deploy.restricted.explain import explain as explain_rule

        said = explain_rule(explain)
        console.answer.add({"rule": explain, "text": said})
        console.plain(said)
        return
    graph, config, exported = _graph(network, settings, console)
    if annotate is not None and annotate.exists() and annotate.samefile(graph):
        from csa_deploy.errors import UsageError

        raise UsageError(f"{annotate}: that is the network itself", fix="name another file for --annotate")
    scopes, strict, bounds = judged_scopes(config), config.strict, config.max_fallback
    gates = gate_scopes(config.scope, None if config.target else version_asked(config))
    require_dla(gates if fix else scopes, bounds)
    question = _question(config)
    result = inspect(graph, scopes, strict=strict, folded=exported, errata=question)
    if fix:
        result, graph = _repair(graph, fixed, result, gates, question, console)
    result = result.allowing(bounds)
    shown = result.inspected
    if fix:  # what a repair could cure was tried, and is not exact here or worse for another scope
        shown = replace(shown, scopes=tuple(map(_without_repairs, shown.scopes)))
    _show(shown, output_format, output, console)
    if annotate is not None:
        _annotate(shown, graph, annotate, console)
    failure = rejection(result, strict, graph.name, fixed=fix)
    if failure is None and result.errata is not None:
        from csa_deploy.restricted.errata.asking import errata_failure

        failure = errata_failure(result.errata, config.fail_on, graph.name)
    if failure is not None:
        raise failure


def _question(config: Config) -> Question | None:
    """What is asked about known problems; nothing unless that was asked for."""
    if not (config.errata or config.fail_on):
        return None
    from csa_deploy.restricted.errata.asking import question_of

    return question_of(config)


def _graph(network: str | None, settings: dict[str, Any], console: Console) -> tuple[Path, Config, bool]:
    """The graph to check: an ONNX file as it is, or the export of a network or of a file with other settings.

    With it the settings, and whether it was exported.
    """
    from csa_deploy.cli.session import opened, resolve

    config, root = resolve(network, settings, inherit=True)
    changed = config.input_shape or config.size or config.batch or config.opset
    if Path(config.network).suffix == ".onnx" and not changed:
        return Path(config.network), config, False
    from csa_deploy.pipeline import run_stages  # and with it the records of all stages

    with opened(config, root) as context, console.watching() as watcher:
        run_stages(["export"], context, watcher)
        return context.path(context.export.graph), config, True


def _repair(
    graph: Path, target: Path | None, before: Any, scopes: Sequence[str], question: Any, console: Console
) -> tuple[Any, Path]:
    """Repair for the scopes that count, and known problems asked for; show the difference and save the graph.

    Returns what holds then, and of which file.
    Where nothing is repaired, nothing is saved unless a place was named.
    """
    from csa_deploy.graph.load import load_model, save_model
    from csa_deploy.restricted.errata.repairing import repair_known

    repaired = repair_known(graph, scopes, question, before=before, strict=before.report.strict)
    if repaired.steps or repaired.left or repaired.declined:
        console.notice(_steps(repaired, graph.name))
    if repaired.model is None:
        console.notice(f"nothing to repair in {graph.name} for {', '.join(scopes)}")
        if target is not None:
            save_model(load_model(graph, full_check=False), target)
            console.notice(f"saved {target}, the same network")
        return before, graph
    for line in _difference(load_model(graph, full_check=False), repaired):
        console.notice(line)
    target = target or Path(f"{graph.stem}.fixed.onnx")
    save_model(repaired.model, target)
    console.notice(f"saved {target}")
    return repaired.after, target


def _annotate(data: Inspected, graph: Path, target: Path, console: Console) -> None:
    """Save the graph that was checked with what was said about it."""
    from csa_deploy.graph.load import load_model, save_model
    from csa_deploy.restricted.reporters.annotated import annotate

    model = load_model(graph, full_check=False)
    marked = annotate(data, model)
    save_model(model, target)
    console.notice(f"saved {target}: {marked} nodes have something to say")


def _steps(repaired: Any, name: str) -> Any:
    """What was rewritten, and how exactly; what was not, and why."""
    from rich.markup import escape

    table = titled(f"repairs of {name}", ("repair", "times", "change / range", ""))
    for step in repaired.steps:
        error = "-" if step.error is None else f"{step.error:.1e}"
        said = "kept" if step.kept else "undone"
        table.add_row(step.rule, str(step.rewrites), error, escape(f"{said}: {step.reason}" if step.reason else said))
    for item in repaired.left:
        table.add_row(escape(item.what), "-", "-", escape(f"left as it is: {item.reason}"))
    for rule, nodes, reason in _declined(repaired.declined):
        table.add_row(rule, "-", "-", escape(f"left as it is: {nodes}: {reason}"))
    return table


def _declined(notes: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Rule, nodes and reason of what repairs left be, a reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        found.setdefault((note.rule, note.reason), []).append(note.node)
    return [
        (rule, f"{nodes[0]} and {len(nodes) - 1} more" if nodes[1:] else nodes[0], reason)
        for (rule, reason), nodes in found.items()
    ]


def _difference(before: Any, repaired: Any) -> Iterator[str]:
    """Operators and verdicts, before and after, where they changed."""
    from collections import Counter

    was, now = (Counter(node.op_type for node in model.graph.node) for model in (before, repaired.model))
    changed = [f"{op} {was[op]} -> {now[op]}" for op in sorted(was | now) if was[op] != now[op]]
    yield f"nodes: {', '.join(changed) or 'the same operators'}"
    for scope in repaired.verdicts:
        counts = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in scope.counts.items())
        yield f"{scope.scope}: {scope.before} -> {scope.after} ({counts})"


def _without_repairs(scope: ScopeRecord) -> ScopeRecord:
    return replace(scope, findings=tuple(replace(finding, repair="") for finding in scope.findings))


def _show(data: Inspected, output_format: str, output: Path | None, console: Console) -> None:
    from csa_deploy.restricted.reporters import as_text
    from csa_deploy.restricted.reporters.formats import render
    from csa_deploy.workspace import write_atomic

    console.answer.add(data.to_json())
    if output is not None:
        console.answer.elsewhere()
        write_atomic(output, render(data, output_format))
    elif output_format not in ("text", "json"):
        console.write(render(data, output_format))
    else:
        as_text.show(data, console.out)


def _levels(pack: Pack) -> Iterator[str]:
    """What each level of evidence takes in a scope, and which are none there; where the pack says it."""
    from rich.markup import escape

    from csa_deploy.levels import LEVELS

    for level in LEVELS:
        if why := pack.reached_by.get(level):
            yield escape(f"{level}: {why}")
        if why := pack.out_of_reach.get(level):
            yield escape(f"not {level}: {why}")


@flags("rules", workspace=False)
def rules(
    console: Console,
    scope: Annotated[str | None, typer.Argument(help="Show the rules of this scope.", show_default=False)] = None,
) -> None:
    """List rule packs, or the rules of a scope."""
    from rich.markup import escape

    from csa_deploy.restricted.explain import list_packs
    from csa_deploy.restricted.schema import load_pack

    if scope:
        pack = load_pack(scope)
        rules_of = [rule.model_dump(mode="json") for rule in pack.rules]
        levels = {"reached_by": pack.reached_by, "out_of_reach": pack.out_of_reach}
        console.answer.add({"scope": scope, **levels, "rules": rules_of})
    else:
        console.answer.add({"packs": [pack.to_json() for pack in list_packs()]})
    if scope:
        table = titled(f"rules of {scope}", ("rule", "layer", "verdict", "evidence", "source"))
        for rule in pack.rules:
            table.add_row(*map(escape, (rule.id, ", ".join(rule.layer), rule.verdict, rule.evidence, rule.source)))
    else:
        table = titled("rule packs", ("scope", "TensorRT", "kind", "default", "rules", "title"))
        for one in list_packs():
            table.add_row(*map(escape, (one.scope, one.tensorrt, one.kind, one.default, str(one.rules), one.title)))
    console.show(table)
    for line in _levels(pack) if scope else ():
        console.show(line)
