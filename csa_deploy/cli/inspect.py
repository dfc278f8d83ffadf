"""``csa-deploy inspect``: what is inside a graph or an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.units import counted

if TYPE_CHECKING:
    from csa_deploy.inspection.describe import EngineFacts, GraphFacts
    from csa_deploy.records.graphs import GraphStatistics
    from csa_deploy.records.passport import Passport


@flags("inspect", workspace=False)
def inspect(
    console: Console,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx file or an .engine.")],
) -> None:
    """Show what is inside a graph or an engine.

    Inputs, outputs, operations and types; of an engine also what its passport says, after holding it against it.
    """
    from rich.table import Table

    from csa_deploy.graph.guard import guarded_reading
    from csa_deploy.inspection.describe import GraphFacts, describe

    found = guarded_reading(lambda: describe(file), file)
    console.answer.add(found.to_json())
    table = Table(show_header=False, title=f"{found.kind} {found.file}", title_justify="left")
    of_kind = _graph_rows(found) if isinstance(found, GraphFacts) else _engine_rows(found)
    for key, value in [("SHA-256", found.sha256), ("size", f"{found.bytes / 2**20:.2f} MiB"), *of_kind]:
        table.add_row(key, value)
    console.out.print(table, markup=False)


def _graph_rows(found: GraphFacts) -> Iterator[tuple[str, str]]:
    for kind, tensors in (("input", found.inputs), ("output", found.outputs)):
        yield kind, ", ".join(f"{t.name} {t.type} {list(t.shape)}" for t in tensors)
    yield "opsets", ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    yield "multiply-accumulates", _macs(found.statistics)
    yield "parameters", f"{found.statistics.parameters:,}"
    yield "operations", _counts(found.statistics.ops)
    yield "types", _counts(found.types)
    yield from sorted(found.metadata.items())


def _macs(statistics: GraphStatistics) -> str:
    unknown = statistics.macs_unknown
    if not unknown:
        return f"{statistics.macs:,}"
    return f"unknown for {counted(len(unknown), 'node')}: {', '.join(unknown[:3])}{', ...' if unknown[3:] else ''}"


def _engine_rows(found: EngineFacts) -> Iterator[tuple[str, str]]:
    yield "built by", found.built_by or "not known"
    if found.passport:
        yield from _passport_rows(found.passport)
    for key, counts in (("layers", found.layers), ("types", found.types)):
        if counts:
            yield key, _counts(counts)
    for note in found.notes:
        yield "note", note


def _passport_rows(passport: Passport) -> Iterator[tuple[str, str]]:
    engine, graph, flag = passport.engine, passport.graph, passport.restricted
    yield "passport", "it is this engine's"
    yield "for", ", ".join(engine.compute_capabilities) or "the GPU of its target"
    yield "graph", f"{graph.file} ({graph.sha256[:16]})"
    yield "weights", graph.weights_sha256[:16]
    yield "precision", f"{passport.precision.asked}; {passport.precision.obtained_from}"
    yield "restricted", flag.statement
    if flag.why_not_next:
        yield "not the next level", flag.why_not_next
    for part in engine.parts:
        yield part.role, f"{part.file} ({part.sha256[:16]})"
    yield "rebuild", " ".join(passport.rebuild)
    for reason in passport.not_done:
        yield "not done", reason


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
