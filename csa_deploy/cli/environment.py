"""The verbs about this installation: which networks there are, and what this machine can do."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags


@flags("models", workspace=False)
def models(console: Console) -> None:
    """List the networks.

    Parameters, multiply-accumulates, input size, and where the weights come from.
    """
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.complexity import count
    from csa_deploy.data.named import NAMED
    from csa_deploy.installing import require_torch
    from csa_deploy.instance import example_inputs, make_module
    from csa_deploy.registry import discover
    from csa_deploy.units import giga

    found: list[dict[str, Any]] = []
    registry = discover()
    for name, entry in registry.entries.items():
        require_torch(name)
        module = make_module(entry.factory, name, entry.preprocessing.size)
        size = count(module, [*example_inputs(module, entry.preprocessing, name).values()])
        height, width = entry.preprocessing.size
        found.append(
            {
                "name": name,
                "summary": entry.summary,
                "parameters": size.parameters,
                "macs": size.macs,
                "input": [entry.preprocessing.channels, height, width],
                "weights": entry.weights,
                "data": entry.dataset,
            }
        )
    sets = sorted(NAMED)
    console.answer.add({"networks": found, "broken": registry.broken, "data_sets": sets})
    table = Table(title="networks")
    for heading in ("name", "parameters", "MACs", "input", "weights", "data", "what it is"):
        table.add_column(heading, justify="right" if heading in ("parameters", "MACs") else "left", overflow="fold")
    for row in found:
        shape = "x".join(str(v) for v in row["input"])
        table.add_row(
            row["name"], f"{row['parameters']:,}", giga(row["macs"]), shape, row["weights"], row["data"], row["summary"]
        )
    console.show(table, f"data sets with a name: {', '.join(sets)}")
    for name, reason in registry.broken.items():
        console.show(f"[red]unusable[/red] {escape(name)}: {escape(reason)}")


@flags("doctor", workspace=False)
def doctor(
    console: Console,
    install_validator: Annotated[
        bool, typer.Option("--install-validator", help="Fetch NVIDIA's safety-scope validator into its own directory.")
    ] = False,
) -> None:
    """Say what this machine can do.

    With the command that adds what is missing.
    """
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.doctor import diagnose

    if install_validator:
        from csa_deploy.restricted.validator_install import install_validator as install

        sys.stderr.write(f"validator: {install()}\n")
        if console.quiet:
            return
    probes = diagnose()
    console.answer.add({"probes": [probe.to_json() for probe in probes]})
    table = Table(title="this machine")
    for heading in ("", "what", "found", "what it is for", "how to add it"):
        table.add_column(heading, overflow="fold")
    marks = {"ok": "[green]✓[/green]", "limited": "[yellow]~[/yellow]", "missing": "[red]-[/red]"}
    for probe in probes:
        found = " ".join(filter(None, (probe.version, probe.detail)))
        table.add_row(marks[probe.state], *(escape(text) for text in (probe.name, found, probe.enables, probe.fix)))
    console.show(table)
