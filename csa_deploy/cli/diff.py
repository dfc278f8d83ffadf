"""``csa-deploy diff``: how two graphs or builds differ, module by module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled


@flags("diff", workspace=False)
def diff(
    console: Console,
    first: Annotated[Path, typer.Argument(metavar="A", help="An .onnx file or an .engine of a workspace.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Compare two graphs or engines, module by module.

    Operations, types and multiply-accumulates per PyTorch module, for the modules where they differ.
    """

    from csa_deploy.graph.guard import guarded_reading
    from csa_deploy.inspection.difference import compare

    found = guarded_reading(lambda: compare(first, second), first, second)
    console.answer.add(found.to_json())
    if found.modules:
        table = titled(f"{first.name} -> {second.name}", ("module", "operations", "types", "MACs"))
        for module in found.modules:
            macs = "" if module.macs[0] == module.macs[1] else " -> ".join(map(_count, module.macs))
            table.add_row(module.module or "(none)", _changes(module.ops), _changes(module.types), macs)
        console.out.print(table, markup=False)
    same = (
        "the same file"
        if found.same_bytes
        else f"{len(found.modules)} modules differ, {found.unchanged_modules} do not"
    )
    console.out.print(f"{same}; {found.parts[0]} and {found.parts[1]} parts", markup=False)
    for note in found.notes:
        console.out.print(f"note: {note}", markup=False)


def _count(macs: int | None) -> str:
    return "unknown" if macs is None else f"{macs:,}"


def _changes(pairs: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {left} -> {right}" for name, (left, right) in pairs.items())
