"""The report for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from csa_deploy.records.check import Inspected, Placement, ScopeRecord
from csa_deploy.records.errata import ErrataReport, KnownProblem
from csa_deploy.restricted.reporters.grouping import (
    Group,
    crossing_line,
    grouped,
    parsed_line,
    since,
    some,
    validator_line,
)

_COLOURS = {"allowed": "green", "with GPU fallback": "cyan", "denied": "red", "unknown": "yellow", "note": "blue"}
_PLACES = 3
_MESSAGES = 6
_FALLBACKS = 5


def render(data: Inspected) -> str:
    """The report as plain text."""
    file = StringIO()
    console = Console(file=file, width=120, color_system=None, highlight=False)
    show(data, console)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def show(data: Inspected, console: Console) -> None:
    """Write the report to a console, in its colours and width: all verdicts first, then the reasons."""
    if data.scopes:
        console.print(_overview(data.scopes))
        console.print()
    for scope in data.scopes:
        _scope(scope, console)
    if data.errata:
        _errata(data.errata, console)
    for line in data.not_done:
        _line(f"not done: {line}", console, style="dim")
    for note in data.notes:
        _line(f"contradiction: {note}", console, style="bold red")
    if parsed := parsed_line(data):
        _line(f"layer mapping against NVIDIA's parser: {parsed}", console)


def _overview(scopes: Sequence[ScopeRecord]) -> Table:
    """One line per scope; repairable are the findings that name an exact repair."""
    table = Table(box=None, pad_edge=False)
    for heading in ("scope", "verdict", "evidence", "denied", "unknown", "repairable"):
        table.add_column(heading, justify="left" if heading in ("scope", "verdict", "evidence") else "right")
    for scope in scopes:
        colour, counts = _COLOURS[scope.verdict], scope.counts
        repairable = sum(bool(finding.repair) for finding in scope.findings if finding.verdict != "note")
        numbers = [str(number) for number in (counts["denied"], counts["unknown"], repairable)]
        verdict = f"[bold {colour}]{scope.verdict}[/bold {colour}]"
        table.add_row(_safe(scope.scope), verdict, scope.level, *numbers)
    return table


def _line(text: str, console: Console, indent: int = 0, style: str = "") -> None:
    console.print(Padding(_safe(text), (0, 0, 0, indent), style=style, expand=False))


def _safe(text: str) -> str:
    """Text of the model without what a terminal or rich would act on."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def _scope(scope: ScopeRecord, console: Console) -> None:
    colour = _COLOURS[scope.verdict]
    heading = f"[bold]{_safe(scope.scope)}[/bold]: [bold {colour}]{_safe(scope.said)}[/bold {colour}]"
    console.print(f"{heading} (evidence: {scope.level}) - {_safe(scope.title)}")
    counts = scope.counts
    console.print(
        f"  {scope.nodes} nodes, {scope.layers} TensorRT layers; "
        f"{counts['denied']} denied, {counts['unknown']} unknown, {counts['note']} notes"
    )
    if validator := validator_line(scope):
        _line(f"NVIDIA's validator ({scope.static} by the rules): {validator}", console, 2)
    if scope.differs:
        _line(f"THEY DIFFER: {scope.differs}", console, 2, "bold red")
    if scope.why_not_next:
        _line(f"why no higher evidence: {scope.why_not_next}", console, 2)
    for group in grouped(scope.findings):
        _group(group, scope.tensorrt, console)
    if scope.fallback and not scope.accepted:
        _line(scope.fallback, console, 2, "yellow")
    if scope.placement:
        _placement(scope.placement, console)
    if scope.limits:
        _line(f"limits: {scope.limits}", console, 2, "dim")
    console.print()


def _errata(errata: ErrataReport, console: Console) -> None:
    """Known problems of TensorRT: the certain ones at length, of the others the ids and why they are not ruled out."""
    where = f" on {errata.platform}" if errata.platform else ""
    _line(f"{errata.summary}{where} (sources read up to {errata.read})", console, style="bold")
    for line in errata.unknown:
        _line(line, console, 2, "yellow")
    for problem in errata.affected:
        _problem(problem, console)
    rest: dict[str, list[str]] = {}
    for problem in errata.problems:
        if problem.state != "affected":
            rest.setdefault(problem.why, []).append(problem.id)
    for why, ids in rest.items():
        _line(f"not ruled out, as {why}: {', '.join(ids)}", console, 2, "dim")
    console.print()


def _problem(problem: KnownProblem, console: Console) -> None:
    colour = {"high": "red", "medium": "yellow"}.get(problem.severity, "blue")
    heading = f"[{colour}]{problem.severity}[/{colour}] {_safe(problem.id)}"
    console.print(f"  {heading} [dim]{problem.symptom}[/dim]")
    _line(problem.title, console, 6)
    if problem.nodes:
        _line(f"at: {some(problem.modules or problem.nodes, _PLACES)}", console, 8)
    _line(f"versions: {problem.versions}", console, 6)
    _line(f"instead: {problem.workaround}", console, 6)
    if problem.repair:
        _line(f"repair: {problem.repair} (--fix)", console, 6)
    _line(f"verify: {problem.detect}", console, 6)
    _line(f"source: {'; '.join(problem.sources)}, read {problem.read}", console, 6)


def _group(group: Group, tensorrt: str, console: Console) -> None:
    first, colour = group.first, _COLOURS[group.first.verdict]
    times = f" x{group.count}" if group.count > 1 else ""
    rule = f"[{colour}]{first.verdict}[/{colour}] {_safe(first.rule)}"
    console.print(f"  {rule}[dim]{' ' * bool(group.layer)}{group.layer}{times}[/dim]")
    for message, places in list(group.messages.items())[:_MESSAGES]:
        _line(message, console, 6)
        _line(f"at: {some(places, _PLACES if len(group.messages) == 1 else 1)}", console, 8)
    if (rest := len(group.messages) - _MESSAGES) > 0:
        _line(f"and {rest} more of the kind (--format json lists all)", console, 6)
    if first.instead:
        _line(f"instead: {first.instead}", console, 6)
    if first.repair:
        _line(f"repair: {first.repair} (--fix)", console, 6)
    _line(f"source: {first.source} [{first.evidence}], {since(first, tensorrt)}", console, 6)


def _placement(placement: Placement, console: Console) -> None:
    fallbacks = placement.fallbacks
    console.print(
        f"  placement: {len(placement.dla)} nodes on DLA in {placement.subgraphs} subgraphs "
        f"(at most {placement.limit}), {len(fallbacks)} fall back to the GPU; "
        f"{crossing_line(placement)}"
    )
    for fallback in fallbacks[:_FALLBACKS]:
        _line(f"GPU: {fallback.node} ({fallback.op}): {fallback.rule}", console, 6)
    if len(fallbacks) > _FALLBACKS:
        _line(f"and {len(fallbacks) - _FALLBACKS} more (--format json lists all)", console, 6)
