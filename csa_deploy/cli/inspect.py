"""``csa-deploy inspect``: what is inside a graph or an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.units import counted


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
    from csa_deploy.inspection.describe import describe

    found = guarded_reading(lambda: describe(file), file)
    console.answer.add(found)
    table = Table(show_header=False, title=f"{found['kind']} {found['file']}", title_justify="left")
    for key, value in _rows(found):
        table.add_row(key, value)
    console.out.print(table, markup=False)


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("SHA-256", found["sha256"]), ("size", f"{found['bytes'] / 2**20:.2f} MiB")]
    rows += _graph_rows(found) if found["kind"] == "graph" else _engine_rows(found)
    return rows


def _macs(statistics: dict[str, Any]) -> str:
    unknown = statistics["macs_unknown"]
    if not unknown:
        return f"{statistics['macs']:,}"
    return f"unknown for {counted(len(unknown), 'node')}: {', '.join(unknown[:3])}{', ...' if unknown[3:] else ''}"


def _graph_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    statistics = found["statistics"]
    rows = [
        (kind, ", ".join(f"{t['name']} {t['type']} {t['shape']}" for t in found[f"{kind}s"]))
        for kind in ("input", "output")
    ]
    rows.append(("opsets", ", ".join(f"{domain} {version}" for domain, version in found["opsets"].items())))
    rows.append(("multiply-accumulates", _macs(statistics)))
    rows.append(("parameters", f"{statistics['parameters']:,}"))
    rows.append(("operations", _counts(statistics["ops"])))
    rows.append(("types", _counts(found["types"])))
    rows += [(key, value) for key, value in sorted(found["metadata"].items())]
    return rows


def _engine_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("built by", found["built_by"] or "not known")]
    passport = found["passport"]
    if passport:
        rows += [
            ("passport", "it is this engine's"),
            ("for", ", ".join(passport["engine"]["compute_capabilities"]) or "the GPU of its target"),
            ("graph", f"{passport['graph']['file']} ({passport['graph']['sha256'][:16]})"),
            ("weights", passport["graph"]["weights_sha256"][:16]),
            ("precision", f"{passport['precision']['asked']}; {passport['precision']['obtained_from']}"),
            ("restricted", passport["restricted"]["statement"]),
            *_beside(passport),
            ("rebuild", " ".join(passport["rebuild"])),
        ]
        rows += [("not done", reason) for reason in passport["not_done"]]
    rows += [(key, _counts(found[key])) for key in ("layers", "types") if found[key]]
    return rows + [("note", note) for note in found["notes"]]


def _beside(passport: dict[str, Any]) -> list[tuple[str, str]]:
    """Why the evidence is of no higher level, and the other files of an engine of several."""
    why = passport["restricted"].get("why_not_next")
    rows = [("not the next level", why)] if why else []
    parts = passport["engine"].get("parts", ())
    return rows + [(part["role"], f"{part['file']} ({part['sha256'][:16]})") for part in parts]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
