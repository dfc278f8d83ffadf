"""``csa-deploy check`` and ``csa-deploy rules``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.stages import Network


@flags("check")
def check(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    form: str = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report there instead of standard output.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair exactly what can be, check the result and save it.")
    ] = False,
    fixed: Annotated[
        Path | None, typer.Option("--fixed", help="Where --fix saves the graph; default NAME.fixed.onnx.")
    ] = None,
    explain: Annotated[str | None, typer.Option("--explain", metavar="RULE", help="Explain a rule instead.")] = None,
) -> None:
    """Check operations against safety scopes.

    Each verdict comes with its evidence: rule packs, and NVIDIA's own validator where it is installed. Exit 4 when a
    scope denies the network. Without --scope, all scopes.
    """
    from csa_deploy.restricted.explain import explain as explain_rule
    from csa_deploy.restricted.gate import inspect, rejection

    if explain is not None:
        said = explain_rule(explain)
        console.answer.add({"rule": explain, "text": said})
        console.plain(said)
        return
    graph, scopes, strict, exported = _graph(network, settings, console)
    result = inspect(graph, scopes, strict=strict, folded=exported)
    if fix:
        graph = _repair(graph, fixed or Path(f"{graph.stem}.fixed.onnx"), result, console)
        result = inspect(graph, scopes, strict=strict)
    data = result.to_json()
    if fix:
        for finding in (finding for scope in data["scopes"] for finding in scope["findings"]):
            finding["repair"] = ""  # tried, and not exact here
    _show(data, form, output, console)
    failure = rejection(result, strict, graph.name, fixed=fix)
    if failure is not None:
        raise failure


def _graph(network: str | None, settings: dict[str, Any], console: Console) -> tuple[Path, tuple[str, ...], bool, bool]:
    """The graph to check: an ONNX file as it is, or the export of a network or of a file with other settings.

    With it scopes, strictness, and whether it was exported.
    """
    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.pipeline import run_stages

    config, root = resolve(network, settings, inherit=True)
    changed = config.input_shape or config.size or config.batch or config.opset
    if Path(config.network).suffix == ".onnx" and not changed:
        return Path(config.network), config.scope, config.strict, False
    with opened(config, root) as context, console.watching() as watcher:
        run_stages(["export"], context, watcher)
        return context.path(context.workspace.record("export")["graph"]), config.scope, config.strict, True


def _repair(graph: Path, target: Path, result: Any, console: Console) -> Path:
    """Apply the repairs that the findings name, until they name no further one; save the graph, show the difference."""
    from csa_deploy.graph.load import load_model, save_model
    from csa_deploy.graph.repair import repair
    from csa_deploy.restricted.check import check as static_check

    model = before = load_model(graph, full_check=False)
    report, names, steps = result.report, set[str](), list[Any]()
    while wanted := {name for scope in report.scopes for name in scope.repairs} - names:
        names |= wanted
        repaired = repair(model, wanted)
        steps += repaired.steps
        model = repaired.model
        report = static_check(model, [s.scope for s in report.scopes])
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, target)
    if any(step.kept for step in steps):
        console.notice(_steps(steps, graph.name))
        for line in _difference(before, model, result.report, report):
            console.notice(line)
    else:
        tried = f"; tried {', '.join(sorted(names))}" if names else ""
        console.notice(f"nothing to repair in {graph.name}{tried}: {target} is the same network")
    console.notice(f"saved {target}")
    return target


def _steps(steps: list[Any], name: str) -> Any:
    """What was rewritten, and how exactly."""
    from rich.table import Table

    table = Table(title=f"repairs of {name}", title_justify="left")
    for heading in ("repair", "times", "change / range", ""):
        table.add_column(heading)
    for step in steps:
        error = "-" if step.error is None else f"{step.error:.1e}"
        table.add_row(step.rule, str(step.rewrites), error, "kept" if step.kept else f"undone: {step.reason}")
    return table


def _difference(before: Any, after: Any, first: Any, last: Any) -> Iterator[str]:
    """Operators and static verdicts, before and after, where they changed."""
    from collections import Counter

    was, now = (Counter(node.op_type for node in model.graph.node) for model in (before, after))
    changed = [f"{op} {was[op]} -> {now[op]}" for op in sorted(was | now) if was[op] != now[op]]
    yield f"nodes: {', '.join(changed) or 'the same operators'}"
    for old, new in zip(first.scopes, last.scopes, strict=True):
        counts = ", ".join(f"{key} {old.counts[key]} -> {new.counts[key]}" for key in ("denied", "unknown"))
        yield f"{old.scope}: {old.verdict} -> {new.verdict} ({counts}; by the rules)"


def _show(data: dict[str, Any], form: str, output: Path | None, console: Console) -> None:
    from csa_deploy.restricted.reporters import as_text
    from csa_deploy.restricted.reporters.formats import render
    from csa_deploy.workspace import write_atomic

    console.answer.add(data)
    if output is not None:
        console.answer.elsewhere()
        write_atomic(output, render(data, form))
    elif form not in ("text", "json"):
        console.write(render(data, form))
    else:
        as_text.show(data, console.out)


@flags("rules", workspace=False)
def rules(
    console: Console,
    scope: Annotated[str | None, typer.Argument(help="Show the rules of this scope.", show_default=False)] = None,
) -> None:
    """List rule packs, or the rules of a scope."""
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.restricted.explain import list_packs, list_rules

    if scope:
        console.answer.add({"scope": scope, "rules": [rule.model_dump(mode="json") for rule in list_rules(scope)]})
    else:
        console.answer.add({"packs": [pack.to_json() for pack in list_packs()]})
    table = Table(title=f"rules of {scope}" if scope else "rule packs", title_justify="left")
    if scope:
        for heading in ("rule", "layer", "verdict", "evidence", "source"):
            table.add_column(heading, overflow="fold")
        for rule in list_rules(scope):
            table.add_row(*map(escape, (rule.id, ", ".join(rule.layer), rule.verdict, rule.evidence, rule.source)))
    else:
        for heading in ("scope", "TensorRT", "kind", "default", "rules", "title"):
            table.add_column(heading, overflow="fold")
        for pack in list_packs():
            table.add_row(
                *map(escape, (pack.scope, pack.tensorrt, pack.kind, pack.default, str(pack.rules), pack.title))
            )
    console.show(table)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("check")(check)
    app.command("rules")(rules)
