"""The report for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from csa_deploy.restricted.reporters.grouping import Group, grouped, places

_COLOURS = {"allowed": "green", "denied": "red", "unknown": "yellow", "note": "blue"}
_PLACES = 3
_FALLBACKS = 5


def render(data: Mapping[str, Any]) -> str:
    """The report as plain text."""
    file = StringIO()
    console = Console(file=file, width=120, color_system=None, highlight=False)
    show(data, console)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def show(data: Mapping[str, Any], console: Console) -> None:
    """Write the report to a console, in its colours and width."""
    for scope in data["scopes"]:
        _scope(scope, console)
    for line in data["not_done"]:
        console.print(f"[dim]not done: {_safe(line)}[/dim]")


def _safe(text: str) -> str:
    """Text of the model without what a terminal or rich would act on."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def _scope(scope: Mapping[str, Any], console: Console) -> None:
    verdict, colour = scope["verdict"], _COLOURS[scope["verdict"]]
    heading = f"[bold]{_safe(scope['scope'])}[/bold]: [bold {colour}]{verdict}[/bold {colour}]"
    console.print(f"{heading} (evidence: {scope['level']}) - {_safe(scope['title'])}")
    counts = scope["counts"]
    console.print(
        f"  {scope['nodes']} nodes, {scope['layers']} TensorRT layers; "
        f"{counts['denied']} denied, {counts['unknown']} unknown, {counts['note']} notes"
    )
    for key in ("differs", "why_not_next"):
        if scope.get(key):
            console.print(f"  {key.replace('_', ' ')}: {_safe(scope[key])}")
    for group in grouped(scope["findings"]):
        _group(group, console)
    if scope["placement"]:
        _placement(scope["placement"], console)
    if scope["limits"]:
        console.print(Padding(f"[dim]limits: {_safe(scope['limits'])}[/dim]", (0, 0, 0, 2)))
    console.print()


def _group(group: Group, console: Console) -> None:
    first, colour = group.first, _COLOURS[group.first["verdict"]]
    times = f" x{group.count}" if group.count > 1 else ""
    console.print(
        f"  [{colour}]{first['verdict']}[/{colour}] {_safe(first['rule'])} [dim]{first['layer']}{times}[/dim]"
    )
    lines = [first["message"], f"at: {places(group, _PLACES)}"]
    if first["instead"]:
        lines.append(f"instead: {first['instead']}")
    if first["repair"]:
        lines.append(f"repair: {first['repair']} (--fix)")
    since = f", since {first['since']}" if first["since"] else ""
    lines.append(f"source: {first['source']} [{first['evidence']}]{since}")
    for line in lines:
        console.print(Padding(_safe(line), (0, 0, 0, 6)))


def _placement(placement: Mapping[str, Any], console: Console) -> None:
    fallbacks = placement["fallbacks"]
    console.print(
        f"  placement: {len(placement['dla'])} nodes on DLA in {placement['subgraphs']} subgraphs "
        f"(at most {placement['limit']}), {len(fallbacks)} fall back to the GPU; "
        f"{placement['tensors_crossing']} tensors cross, {placement['bytes_crossing']:,} bytes as FP16"
    )
    for fallback in fallbacks[:_FALLBACKS]:
        console.print(Padding(_safe(f"GPU: {fallback['node']} ({fallback['op']}): {fallback['rule']}"), (0, 0, 0, 6)))
    if len(fallbacks) > _FALLBACKS:
        console.print(f"      and {len(fallbacks) - _FALLBACKS} more")
