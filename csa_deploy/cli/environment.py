"""The verbs about this installation: which networks there are, and what this machine can do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from csa_deploy.doctor import Probe


@flags("models", workspace=False)
def models(console: Console) -> None:
    """List the networks.

    Parameters, multiply-accumulates, input size, and where the weights come from.
    """
    from rich.markup import escape

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
    headings = ("name", "parameters", "MACs", "input", "weights", "data", "what it is")
    table = titled("networks", headings, right=("parameters", "MACs"))
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
    fix: Annotated[bool, typer.Option("--fix", help="Install what is missing, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: install without asking.")] = False,
) -> None:
    """Say what this machine can do.

    With the command that adds what is missing. --fix shows these commands, asks, and runs them with the pip of this
    environment; nothing that is installed changes its version, and PyTorch comes without CUDA.
    """
    from csa_deploy.doctor import diagnose

    if install_validator:
        from csa_deploy.restricted.validator_install import install_validator as install

        sys.stderr.write(f"validator: {install()}\n")
        if console.quiet:
            return
    probes = diagnose()
    if fix and _fixed(probes, console, yes=yes):
        probes = diagnose()
    console.answer.add({"probes": [probe.to_json() for probe in probes]})
    _shown(probes, console)


def _fixed(probes: list[Probe], console: Console, *, yes: bool) -> bool:
    """Install what can be installed; whether anything was.

    Raises:
        UsageError: nobody can be asked, and nobody said yes.
    """
    from rich.markup import escape

    from csa_deploy.doctor.installation import apply, fixes
    from csa_deploy.errors import UsageError

    found, left = fixes(probes)
    console.answer.add({"fixes": [item.to_json() for item in found], "by_hand": left})
    for name, why in left.items():
        console.show(f"[yellow]by hand[/yellow] {escape(name)}: {escape(why)}")
    for item in found:
        console.show(f"{escape(', '.join(item.what))}: {escape(item.command)}")
    if not found:
        console.show("nothing that can be installed from here is missing")
        return False
    if not yes:
        if not _terminal():
            raise UsageError("nothing was installed: there is no terminal to ask on", fix="add --yes")
        if not typer.confirm(f"run {'this command' if len(found) == 1 else f'these {len(found)} commands'}?", err=True):
            console.show("nothing was installed")
            return False
    for item in found:
        apply(item, quiet=console.quiet)
    return True


def _shown(probes: list[Probe], console: Console) -> None:
    from rich.markup import escape

    table = titled("this machine", ("", "what", "found", "what it is for", "how to add it"))
    marks = {"ok": "[green]✓[/green]", "limited": "[yellow]~[/yellow]", "missing": "[red]-[/red]"}
    for probe in probes:
        found = " ".join(filter(None, (probe.version, probe.detail)))
        table.add_row(marks[probe.state], *(escape(text) for text in (probe.name, found, probe.enables, probe.fix)))
    console.show(table)


def _terminal() -> bool:
    return sys.stdin.isatty()
